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
import threading
from collections import deque
from collections.abc import Coroutine
from typing import Any, Callable, TypeVar

from mqlite.loop.clock import Clock
from mqlite.loop.task import Task
from mqlite.loop.timers import Timer, TimerQueue

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
HANG_UP = signal.SIGHUP

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
        self.busy = False  # this turn began with descriptors that were ready: more may be soon
        self.threads_busy = 0  # jobs given to worker threads and not yet answered (see loop/thread.py)
        self.thread = threading.get_ident()  # the one that it runs in
        self._selector = selectors.DefaultSelector()
        self._watched: dict[int, Callable[[int], object]] = {}
        self._handlers: dict[int, Any] = {}  # of signals, as they were before ours
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

    def is_inside(self) -> bool:
        """Whether this is the loop's thread."""
        return threading.get_ident() == self.thread

    def run_inside(self, fn: Callable[..., object], *args: Any) -> None:
        """Run it in the loop's thread: at once when this is it."""
        if self.is_inside():
            fn(*args)
        else:
            self.call_from_thread(fn, *args)

    def on_signal(self, number: int, fn: Callable[[], object]) -> None:
        """Run fn in the loop when the signal comes. Only in the main thread.

        Python runs a handler between two of its own steps: a signal that arrives just before we wait in the kernel, or
        in another thread, would be seen only after the wait. The wake-up descriptor ends the wait.
        """
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        before = signal.signal(number, lambda _number, _frame: self.call_from_thread(fn))
        self._handlers.setdefault(number, before)

    # descriptors

    def watch(self, fd: int, events: int, fn: Callable[[int], object]) -> None:
        """Call fn(events) whenever the descriptor is ready for one of `events`; replaces an earlier watch."""
        if fd in self._watched:
            self._selector.modify(fd, events, fn)
        else:
            self._selector.register(fd, events, fn)
        self._watched[fd] = fn

    def unwatch(self, fd: int) -> None:
        """Stop watching: fn is not called any more. Call it before the descriptor is closed."""
        if self._watched.pop(fd, None) is not None:
            self._selector.unregister(fd)

    def fileno(self) -> int:
        """A descriptor that is readable when one that we watch is ready: for another loop that waits in our place."""
        return self._selector.fileno()

    # running

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str = '') -> Task[T]:
        """Run a coroutine beside the others. Its failure is reported unless somebody awaits it."""
        task = Task(self, coroutine, name)
        task.start()
        return task

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run the loop until the coroutine is done; its result, or its exception."""
        self.thread = threading.get_ident()
        main = Task(self, coroutine, 'main')
        main.observed = True
        main.start()
        while not main.done:
            self._turn()
        return main.result()

    def close(self) -> None:
        """Let go of the kernel's resources; signals are handled as before."""
        if self._handlers:
            signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
        self._handlers.clear()
        self._watched.clear()
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()

    def report(self, error: BaseException, where: str) -> None:
        """An error that nobody handled."""
        if self.on_error is None:
            raise error
        self.on_error(error, where)

    def _turn(self) -> None:
        ready = self.clock.wait(self._selector, self._patience(), self.threads_busy > 0)
        now = self.turn_time = self.clock.monotonic()
        self.busy = bool(ready)
        for key, events in ready:
            fn = self._watched.get(key.fd)
            if fn is None or fn is not key.data:
                continue  # a callback before this one has ended or replaced the watch
            try:
                fn(events)
            except Exception as error:
                self._report_call(error, fn)
        timer = self._timers.pop_due(now)
        while timer is not None:
            self._ready.append((timer.run, ()))
            timer = self._timers.pop_due(now)
        self._run(self._ready)
        self._run(self._turn_end)

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
