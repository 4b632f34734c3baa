"""Who gets a place when there are fewer connections than destinations want. Pure.

When the limit on connections leaves a destination with fewer carriers than it wants, it waits for the next place that
becomes free, and those make room that have more carriers: who has a connection and no job leaves at once, who has jobs
after FAIR_SECONDS. While somebody has no carrier at all, everybody makes room, after FAIR_SHARE jobs at the latest.
"""

from __future__ import annotations

from operator import attrgetter

from mqlite.delivery.destination import Destination
from mqlite.smtp.shares import Share

FAIR_SHARE = 20  # messages per connection while a destination has none
FAIR_SECONDS = 5.0  # or so long: of a slow server, twenty messages can be an hour


class Fairness:
    """Of one scheduler. It counts the carriers of each destination."""

    __slots__ = ('_fewest', '_share', '_wanting')

    def __init__(self, share: Share) -> None:
        """`share`: the connections that may be open at once, to all destinations together."""
        self._share = share
        self._wanting: dict[Destination, None] = {}  # want a carrier and there is no place, the longest one first
        self._fewest: int | None = None  # carriers of those; None: to be counted

    @property
    def full(self) -> bool:
        return self._share.full

    @property
    def contended(self) -> bool:
        """Somebody waits for a place."""
        return bool(self._wanting)

    def waits(self, destination: Destination) -> bool:
        return destination in self._wanting and self._share.full

    def want(self, destination: Destination) -> bool:
        """There is no place for one more; False when it waits already."""
        if destination in self._wanting:
            return False
        self._wanting[destination], self._fewest = None, None
        return True

    def took(self, destination: Destination) -> None:
        """It has one more carrier. The caller has looked whether there is room."""
        destination.carriers, self._fewest = destination.carriers + 1, None
        self._share.take()

    def gave(self, destination: Destination) -> None:
        """One of its carriers has ended. If it wants another one, then behind those that wait longer."""
        destination.carriers, self._fewest = destination.carriers - 1, None
        self._wanting.pop(destination, None)
        self._share.give_back()

    def next(self) -> Destination | None:
        """Whose is the place that is free, if there is one: who has the fewest, and of those who has waited longest."""
        if not self._wanting or self._share.full:
            return None
        first = min(self._wanting, key=attrgetter('carriers'))
        del self._wanting[first]
        self._fewest = None
        return first

    def gives_way(self, destination: Destination) -> bool:
        """Whether it is to leave a place to one that wants more, and has fewer, or none."""
        if not self._wanting:
            return False
        if self._fewest is None:
            self._fewest = min(one.carriers for one in self._wanting)
        return destination.carriers > self._fewest or not self._fewest

    def had_enough(self, destination: Destination, done: int, seconds: float) -> bool:
        """Whether a carrier of it that has done so many jobs in so long is to leave."""
        return self.gives_way(destination) and (
            not destination.line or seconds >= FAIR_SECONDS or (done >= FAIR_SHARE and not self._fewest))
