"""Helpers that end-to-end tests share: processes, the daemon, real SMTP peers, a sink that keeps exact bytes."""
