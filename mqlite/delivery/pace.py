"""How fast: a clock that paces, and a meter of what really goes. Pure: the time is an argument, in seconds.

A rate of 600 per minute is one every 100 ms, not 600 at the beginning of every minute: servers that count look at
shorter times than a minute.

    begin ─► every `interval` one may go; who comes late (the loop was busy, a server slow) does not shift the others,
             so that the average is exact, but what was missed by more than LATE_SECONDS is lost: no burst follows.
             Over any stretch of time that began with `begin` there are at most rate x time + 1.
"""

from __future__ import annotations

import math

LATE_SECONDS = 1.0  # or one interval, if that is longer; a busy host stops a process for so long
PATIENCE = 2.0  # seconds without an answer after which a server counts as slow, whatever it was before
SMOOTHING = 0.2  # weight of the latest gap in the mean of a Flow


class Pace:
    """At most so many per minute, evenly."""

    __slots__ = ('_interval', '_next')

    def __init__(self) -> None:
        self._interval = 0.0  # seconds from one to the next; 0: no limit
        self._next = 0.0

    @property
    def rate(self) -> float:
        """Per second; 0 for no limit."""
        return 1.0 / self._interval if self._interval else 0.0

    def limit(self, per_minute: float, now: float) -> None:
        """From now on; 0 for no limit. A lower limit than before does not wait for the slow past, nor a higher one."""
        interval = 60.0 / per_minute if per_minute > 0 else 0.0
        if interval != self._interval:
            self._interval = interval
            self._next = min(self._next, now + interval)

    def begin(self, now: float) -> None:
        """Nobody waited until now: what could have gone before is no credit."""
        if self._next < now:
            self._next = now

    def wait(self, now: float) -> float:
        """Seconds until the next one may go; 0 for now."""
        return max(0.0, self._next - now) if self._interval else 0.0

    def take(self, now: float) -> None:
        """One goes."""
        interval = self._interval
        if interval:
            self._next = max(self._next, now - max(LATE_SECONDS, interval)) + interval

    def give_back(self) -> None:
        """The last one did not go after all."""
        self._next -= self._interval


class Flow:
    """How fast a destination takes messages: the mean of the gaps between two of them, while some wait for it.

    A server that has stopped answering is noticed without an answer: after PATIENCE its silence is the gap.
    """

    __slots__ = ('_since', 'gap')

    def __init__(self, now: float) -> None:
        self.gap = 0.0  # mean seconds between two; 0 while not known
        self._since = now  # the last one, or since when the server might have answered one

    def begin(self, now: float) -> None:
        """It had nothing to answer until now: the silence before says nothing."""
        self._since = now

    def passed(self, now: float) -> None:
        """The server has dealt with one."""
        gap = now - self._since
        self.gap += (gap - self.gap) * SMOOTHING if self.gap else gap
        self._since = now

    def is_silent(self, now: float) -> bool:
        return now - self._since >= PATIENCE

    def rate(self, now: float) -> float:
        """Per second; without limit while nothing speaks against it."""
        silence = now - self._since if self.is_silent(now) else 0.0
        gap = max(self.gap, silence)
        return 1.0 / gap if gap else math.inf
