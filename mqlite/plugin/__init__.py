"""Plugins: shared objects, and Python files, that take part in every step."""
