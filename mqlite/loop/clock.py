"""The two clocks, and the one that jumps.

`monotonic()` measures (deadlines, timers), `time()` names a moment for people and for other programs (seconds since
1970, UTC). A reactor asks its clock to wait; that is how `VirtualClock` can skip the waiting: when no descriptor is
ready and no worker thread is busy, it moves both clocks to the next timer at once. A test of an eight-hour retry then
takes milliseconds, and runs the same code as the daemon. A clock may also leave the waiting to a loop that is not ours
(plugin/libev.py).
"""

from __future__ import annotations

import selectors
import time

Selector = selectors.BaseSelector
Ready = list[tuple[selectors.SelectorKey, int]]

_LONGEST_WAIT = 86400.0  # seconds; epoll's own limit is 2^31 ms, and a message may be due next year


class Clock:
    """The machine's own clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()

    def wait(self, selector: Selector, seconds: float | None, busy: bool) -> Ready:
        """Wait for descriptors at most `seconds` (None: for ever). `busy`: a worker thread will wake us."""
        return selector.select(None if seconds is None else min(seconds, _LONGEST_WAIT))


class VirtualClock(Clock):
    """Stands still while there is work, jumps to the next timer when there is none.

    `GRACE` is real time given to the kernel to move bytes between two sockets of this process; `PATIENCE` is how long
    a test may wait for another process or a thread before it counts as hung.
    """

    GRACE = 0.002
    PATIENCE = 30.0

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._start = start
        self.elapsed = 0.0

    def monotonic(self) -> float:
        return self.elapsed

    def time(self) -> float:
        return self._start + self.elapsed

    def wait(self, selector: Selector, seconds: float | None, busy: bool) -> Ready:
        if seconds is not None and seconds <= 0:
            return selector.select(0)
        ready = selector.select(self.PATIENCE if busy or seconds is None else self.GRACE)
        if not ready:
            if busy or seconds is None:
                what = 'a worker thread is busy' if busy else 'no timer is set'
                raise RuntimeError(f'nothing happened for {self.PATIENCE:g} seconds and {what}')
            self.elapsed += seconds
        return ready
