"""The errors that cross layers, split by whose fault they are and what the caller does next.

A module that only it can raise keeps its own subclass beside its code. Nothing here knows mail, sockets or queues.
The text of an error is for the person who must act: it says what is wrong and what to do.
"""

from __future__ import annotations


class MqliteError(Exception):
    """Base of everything that mqlite raises on purpose."""


class ConfigError(MqliteError):
    """The operator's fault: a setting, file or argument. The daemon does not start; exit status 2 or 78."""


class UsageError(ConfigError):
    """The command line makes no sense; exit status 2."""


class TemporaryError(MqliteError):
    """Nobody's fault for ever: try again later (SMTP 4yz, exit status 75)."""


class PermanentError(MqliteError):
    """The message's or the caller's fault: trying again gives the same answer (SMTP 5yz)."""
