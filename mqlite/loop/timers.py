"""A queue of timers: what runs when. Pure: the time is an argument.

A heap with lazy removal: a cancelled timer stays until it comes up, or until the cancelled ones are the majority, when
the heap is made anew. Both `add` and `cancel` are cheap, and memory is bounded by twice the live timers.
"""

from __future__ import annotations

import heapq
import itertools
from typing import Any, Callable

_COMPACT_ABOVE = 64


class Timer:
    """One call to come. `cancel()` is idempotent, also after it ran."""

    __slots__ = ('when', 'fn', 'args', '_queue')

    def __init__(self, queue: TimerQueue, when: float, fn: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.when = when
        self.fn: Callable[..., object] | None = fn
        self.args = args
        self._queue: TimerQueue | None = queue  # None once it was taken off

    def cancel(self) -> None:
        if self.fn is not None:
            self.fn, self.args = None, ()
            if self._queue is not None:
                self._queue.cancelled_one()

    def run(self) -> None:
        fn, args = self.fn, self.args
        self.fn, self.args = None, ()
        if fn is not None:
            fn(*args)


class TimerQueue:
    """Timers by time; equal times in the order in which they were added."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def add(self, when: float, fn: Callable[..., object], args: tuple[Any, ...] = ()) -> Timer:
        timer = Timer(self, when, fn, args)
        heapq.heappush(self._heap, (when, next(self._order), timer))
        return timer

    def cancelled_one(self) -> None:
        """A timer of this queue was cancelled: make the heap anew when most of it is dead."""
        self._cancelled += 1
        if self._cancelled > _COMPACT_ABOVE and self._cancelled * 2 > len(self._heap):
            self._heap = [row for row in self._heap if row[2].fn is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next_time(self) -> float | None:
        """When the next live timer is due, or None."""
        while self._heap and self._heap[0][2].fn is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> Timer | None:
        """The earliest timer that is due, taken off the queue, or None."""
        when = self.next_time()
        if when is None or when > now:
            return None
        timer = heapq.heappop(self._heap)[2]
        timer._queue = None
        return timer
