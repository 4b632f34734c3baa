"""What our experience with a destination allows: how many connections, and from when on. Pure: the time is an argument.

    Window    how many connections at once. It begins small, and every message that the server answers adds one, so that
              a server that takes connections and then sits on the messages never gets many. A server that refuses the
              n-th connection keeps n - 1 for a while; then one more is tried now and then.
    Backoff   a destination that cannot be reached is left alone, each time for longer.
    Lately    for which servers something was so a short while ago.
"""

from __future__ import annotations

from typing import Generic, TypeVar

FIRST_WINDOW = 5  # connections, as Postfix (initial_destination_concurrency)
HOLD_SECONDS, LONGEST_HOLD = 60.0, 1800.0  # after a refused connection; doubled when the next try is refused too
STEP_SECONDS = 15.0  # from one more connection to the next, once one was refused

FIRST_PAUSE, LONGEST_PAUSE = 15.0, 600.0  # seconds; doubled each time. The end is the first of retry-interval
REMEMBERED = 10000  # servers, in each Lately
JITTER = 0.25  # of a pause, so that not all destinations of a network that was away are tried at one moment


class Window:
    """Connections at once."""

    __slots__ = ('size', '_hold', '_until')

    def __init__(self) -> None:
        self.size = FIRST_WINDOW
        self._hold = 0.0  # seconds; 0 while no connection was refused
        self._until = 0.0  # no growth before

    def answered(self, now: float, most: int) -> None:
        """The server has answered a message. `most`: what is allowed anyhow; there growth ends, and memory too."""
        if self.size >= most:
            self._hold = 0.0
        elif now >= self._until:
            self.size += 1
            if self._hold:
                self._until = now + STEP_SECONDS

    def refused(self, now: float, sessions: int) -> None:
        """It has so many connections with us, and did not want one more."""
        if now >= self._until or not self._hold:
            self._hold = min(max(HOLD_SECONDS, 2 * self._hold), LONGEST_HOLD)
        self._until = now + self._hold
        self.size = max(1, min(self.size, sessions))

    def failed(self) -> None:
        """There is no connection at all: the next one is a question whether somebody is there."""
        self.size = 1

    def held_until(self, now: float) -> float:
        """When one more connection may be tried; 0 unless one was refused."""
        return self._until if self._hold and self._until > now else 0.0


class Backoff:
    """When to try again to reach a destination."""

    __slots__ = ('failures', 'until')

    def __init__(self) -> None:
        self.failures = 0  # in a row
        self.until = 0.0

    def failed(self, now: float, chance: float) -> None:
        """`chance`: a random number from 0 to 1."""
        pause = min(FIRST_PAUSE * 2 ** min(self.failures, 30), LONGEST_PAUSE)
        self.failures += 1
        self.until = now + pause * (1.0 - JITTER + 2 * JITTER * chance)

    def succeeded(self) -> None:
        self.failures, self.until = 0, 0.0

    def left(self, now: float) -> float:
        """Seconds for which it is left alone; 0 when it may be tried."""
        return max(0.0, self.until - now)


Key = TypeVar('Key')


class Lately(Generic[Key]):
    """Servers of which something is believed for so many seconds after it was noted. When there are too many, all are
    forgotten: it is only a hint."""

    __slots__ = ('_seconds', '_until')

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[Key, float] = {}

    def note(self, server: Key, now: float) -> None:
        if len(self._until) >= REMEMBERED:
            self._until.clear()
        self._until[server] = now + self._seconds

    def forget(self, server: Key) -> None:
        """It is not so any more."""
        if self._until:
            self._until.pop(server, None)

    def holds(self, server: Key, now: float) -> bool:
        return bool(self._until) and self._until.get(server, 0.0) > now
