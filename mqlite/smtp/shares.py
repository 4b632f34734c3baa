"""How many connections may be open at once, and how those that come in and those that go out share them. Pure.

    0 ........ total - most outgoing ........ most incoming ........ total
       incoming only                 both                 outgoing only

Each direction has a maximum of its own, and what the other one may not take is reserved for it: clients that stall, or
a queue of a million messages, never take everything. Unless an operator says otherwise a tenth is reserved for each.
"""

from __future__ import annotations

from typing import Callable

RESERVE = 10  # one connection in so many
UNLIMITED = 1 << 30


class Share:
    """The connections of one direction."""

    def __init__(self, shares: Shares, most: int) -> None:
        self.most = most
        self.used = 0
        self.on_room: Callable[[], object] | None = None  # called when the other direction has made room
        self._shares = shares

    @property
    def full(self) -> bool:
        """Whether another one would be too many."""
        return self.used >= self.most or self._shares.used >= self._shares.total

    def take(self) -> None:
        """One more is open. The caller has looked whether there is room."""
        self.used += 1
        self._shares.used += 1

    def give_back(self) -> None:
        self.used -= 1
        self._shares.gave_back(self)


class Shares:
    """The connections of both directions."""

    def __init__(self, total: int = UNLIMITED, incoming: int = 0, outgoing: int = 0) -> None:
        """`incoming`, `outgoing`: at most so many of `total`; 0: all but the reserve of the other direction."""
        self.total = total
        self.used = 0
        unless_told = total - total // RESERVE
        self.incoming = Share(self, min(incoming or unless_told, total))
        self.outgoing = Share(self, min(outgoing or unless_told, total))

    def gave_back(self, share: Share) -> None:
        self.used -= 1
        other = self.outgoing if share is self.incoming else self.incoming
        if self.used == self.total - 1 and other.on_room is not None:
            other.on_room()
