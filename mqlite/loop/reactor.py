"""The reactor: callbacks for descriptors, timers, other threads and signals, one turn after the other.

A turn is: wait for descriptors; call their callbacks; run what is ready and the timers that are due (first in, first
out, only what was there when the turn came to it); run the end-of-turn calls. The last are where writes and
commits that many sessions asked for in one turn are made as one.

Everything runs in the thread that called `run()`. Only `call_from_thread` may be called from elsewhere (a thread, a
signal handler, C): it records and wakes. An exception in a callback goes to `on_error`, and the loop goes on; without
`on_error` it ends `run()`, which is what a test wants.
"""

from __future__ import annotations

import selectors
import signal
import socket
from collections import deque
from collections.abc import Coroutine
from typing import Any, Callable, TypeVar

from mqlite.loop.clock import Clock
from mqlite.loop.task import Task
from mqlite.loop.timers import Timer, TimerQueue

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

Call = tuple[Callable[..., object], tuple[Any, ...]]
T = TypeVar('T')


class Reactor:
    """One loop for one thread. Not thread safe except for `call_from_thread`."""

    def __init__(self, clock: Clock | None = None,
                 on_error: Callable[[BaseException, str], None] | None = None) -> None:
        self.clock = clock or Clock()
        self.on_error = on_error
        self.current: Task[Any] | None = None  # the task whose code runs at this moment
        self.turn_time = self.clock.monotonic()  # when this turn began: good enough for deadlines of seconds
        self.threads_busy = 0  # jobs given to worker threads and not yet answered (see loop/thread.py)
        self._selector = selectors.DefaultSelector()
        self._timers = TimerQueue()
        self._ready: deque[Call] = deque()
        self._turn_end: deque[Call] = deque()
        self._foreign: deque[Call] = deque()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self.watch(self._wake_reader.fileno(), READ, self._woken)

    # what is to run, and when

    def now(self) -> float:
        return self.clock.monotonic()

    def call_soon(self, fn: Callable[..., object], *args: Any) -> None:
        """Run it in this turn if the turn has not reached the ready calls yet, else in the next."""
        self._ready.append((fn, args))

    def call_at_turn_end(self, fn: Callable[..., object], *args: Any) -> None:
        """Run it once, after all that this turn runs. The caller asks once a turn, not once a message."""
        self._turn_end.append((fn, args))

    def call_at(self, when: float, fn: Callable[..., object], *args: Any) -> Timer:
        """Run it at a moment of the monotonic clock."""
        return self._timers.add(when, fn, args)

    def call_later(self, seconds: float, fn: Callable[..., object], *args: Any) -> Timer:
        return self._timers.add(self.clock.monotonic() + seconds, fn, args)

    def call_from_thread(self, fn: Callable[..., object], *args: Any) -> None:
        """Record a call and wake the loop: for other threads, signal handlers and C."""
        self._foreign.append((fn, args))
        try:
            self._wake_writer.send(b'\0')
        except BlockingIOError:
            pass  # the pipe is full of wake-ups: the loop will wake
        except OSError:
            pass  # the loop is closed: there is nothing to wake

    def on_signal(self, number: int, fn: Callable[[], object]) -> None:
        """Run fn in the loop when the signal comes. Only in the main thread."""
        signal.signal(number, lambda _number, _frame: self.call_from_thread(fn))

    # descriptors

    def watch(self, fd: int, events: int, fn: Callable[[int], object]) -> None:
        """Call fn(events) whenever the descriptor is ready for one of `events`; replaces an earlier watch."""
        try:
            self._selector.register(fd, events, fn)
        except KeyError:
            self._selector.modify(fd, events, fn)

    def unwatch(self, fd: int) -> None:
        """Stop watching. Call it before the descriptor is closed."""
        try:
            self._selector.unregister(fd)
        except KeyError:
            pass

    # running

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str = '') -> Task[T]:
        """Run a coroutine beside the others. Its failure is reported unless somebody awaits it."""
        task = Task(self, coroutine, name)
        task.start()
        return task

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run the loop until the coroutine is done; its result, or its exception."""
        main = Task(self, coroutine, 'main')
        main.observed = True
        main.start()
        while not main.done:
            self._turn()
        return main.result()

    def close(self) -> None:
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()

    def report(self, error: BaseException, where: str) -> None:
        """An error that nobody handled."""
        if self.on_error is None:
            raise error
        self.on_error(error, where)

    def _turn(self) -> None:
        for key, events in self.clock.wait(self._selector, self._patience(), self.threads_busy > 0):
            try:
                key.data(events)
            except Exception as error:
                self._report_call(error, key.data)
        now = self.turn_time = self.clock.monotonic()
        timer = self._timers.pop_due(now)
        while timer is not None:
            self._ready.append((timer.run, ()))
            timer = self._timers.pop_due(now)
        self._run(self._ready)
        if self._turn_end:
            calls, self._turn_end = self._turn_end, deque()
            self._run(calls)

    def _run(self, calls: deque[Call]) -> None:
        """Run what is there now, in order; what these calls add comes in the next turn."""
        for _ in range(len(calls)):
            fn, args = calls.popleft()
            try:
                fn(*args)
            except Exception as error:
                self._report_call(error, fn)

    def _patience(self) -> float | None:
        if self._ready or self._turn_end:
            return 0.0
        when = self._timers.next_time()
        return None if when is None else max(0.0, when - self.clock.monotonic())

    def _report_call(self, error: Exception, fn: Callable[..., object]) -> None:
        self.report(error, f'in {getattr(fn, "__qualname__", fn)}')

    def _woken(self, _events: int) -> None:
        try:
            while len(self._wake_reader.recv(4096)) == 4096:
                pass
        except BlockingIOError:
            pass
        for _ in range(len(self._foreign)):
            self._ready.append(self._foreign.popleft())
