"""mqlite, a mail transfer agent in readable Python: the version, and nothing that runs at import."""

__version__ = '0.1.0'
