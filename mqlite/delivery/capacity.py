"""How much a destination may be given. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Capacity(NamedTuple):
    """Limits of one destination; 0 is no limit."""

    connections: int = 20  # at once, as Postfix (default_destination_concurrency_limit)
    connection_messages: int = 0  # over one connection
    messages: float = 0.0  # per minute
    connects: float = 0.0  # attempts to connect, per minute


DEFAULT = Capacity()
