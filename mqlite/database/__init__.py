"""The database of run-time settings: limits, keys, patterns, addresses. A copy in memory is what everybody looks at."""
