"""Programs and tests with real peers and long runs: heavy, so run when asked for by name."""
