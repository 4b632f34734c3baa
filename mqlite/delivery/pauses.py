"""What is on pause: the table `paused`. Pure.

A row holds up what it selects, see `intercepts.py`. A row that cannot be kept to is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mqlite.database.tables import Row, Usable
from mqlite.delivery.intercepts import Intercept, Intercepts, read_selection
from mqlite.delivery.room import Outside

SHORTEST_HOLD, LONGEST_HOLD = 10.0, 600.0  # seconds after which a message on pause is looked at again
HOLDS_PER_SECOND = 50  # looked at again, at most: a backlog of 30,000 has the longest hold


@dataclass(frozen=True)
class Pause(Intercept):
    """A row of `paused`."""


Pauses = Intercepts[Pause]


class Holds:
    """When messages on pause are looked at again: soon while there are few, seldom while there are many."""

    def __init__(self) -> None:
        self._outside = Outside()

    def next(self, pause: Pause, now: float) -> float:
        """Seconds, for one more."""
        seconds = min(max(SHORTEST_HOLD, self._outside.count(now) / HOLDS_PER_SECOND), LONGEST_HOLD)
        if pause.expire:
            seconds = min(seconds, max(1.0, pause.expire - now))
        self._outside.add(now + seconds)
        return seconds


def read_pauses(rows: Iterable[Row]) -> Usable[Pauses]:
    """The table `paused`."""
    pauses, faults = [], []
    for row in rows:
        try:
            pauses.append(Pause(**read_selection(row)))
        except ValueError as error:
            faults.append(f'row {row.number("id")} of table paused is left out: {error}')
    return Usable(Pauses(pauses), faults)
