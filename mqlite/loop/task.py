"""The task layer: `async def` on the reactor.

There is one awaitable, the `Waiter`: a result to come. A coroutine awaits a Waiter, the Waiter is set or failed once,
and the task that awaits it runs on. A Task is a Waiter for the end of its coroutine.

Rules that keep this small:
- One task awaits one Waiter. Who needs many listeners keeps a list of Waiters (`sync.Signal`).
- Cancelling is raising: `task.cancel(error)` raises the error at the task's await; a task that has not begun gets as
  far as its first, so that its `finally` clauses run. One cause at a time: a second one before the first was raised is
  dropped, but for Cancelled, which a Timeout must not hide.
- `with timeout(reactor, seconds)` cancels the current task with Timeout. Nothing else is scoped.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mqlite.errors import MqliteError

if TYPE_CHECKING:
    from mqlite.loop.reactor import Reactor

T = TypeVar('T')


class Cancelled(BaseException):
    """The task was told to end. Like KeyboardInterrupt it passes through `except Exception`."""


class Timeout(MqliteError):
    """The time allowed for something ran out."""


class Waiter(Generic[T]):
    """A result to come: set or failed exactly once, awaited by at most one task."""

    __slots__ = ('_reactor', '_task', '_value', '_error', 'done')

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._task: Task[Any] | None = None
        self._value: T | None = None
        self._error: BaseException | None = None
        self.done = False

    def set(self, value: T | None = None) -> None:
        self._finish(value, None)

    def fail(self, error: BaseException) -> None:
        self._finish(None, error)

    def result(self) -> T:
        """The value or the exception of a Waiter that is done."""
        assert self.done
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def _finish(self, value: T | None, error: BaseException | None) -> None:
        if self.done:
            raise RuntimeError('a Waiter has exactly one outcome')
        self._value, self._error, self.done = value, error, True
        task = self._task
        if task is not None:
            self._task = None
            task.wake()

    def __await__(self) -> Generator[Waiter[T], None, T]:
        if not self.done:
            yield self
        return self.result()


class Task(Waiter[T]):
    """A coroutine on its way. Awaiting the task gives the coroutine's result."""

    __slots__ = ('name', 'observed', '_coroutine', '_waits_for', '_cancel', '_scheduled')

    def __init__(self, reactor: Reactor, coroutine: Coroutine[Any, Any, T], name: str = '') -> None:
        super().__init__(reactor)
        self.name = name or getattr(coroutine, '__qualname__', 'task')
        self.observed = False  # somebody will look at the outcome: a failure is theirs to handle
        self._coroutine = coroutine
        self._waits_for: Waiter[Any] | None = None
        self._cancel: BaseException | None = None
        self._scheduled = False

    def start(self) -> None:
        self.wake()

    def wake(self) -> None:
        """What the task waited for has happened: run on."""
        if not self._scheduled:
            self._scheduled = True
            self._reactor.call_soon(self._step)

    def cancel(self, error: BaseException | None = None) -> None:
        """Raise the error (Cancelled unless told otherwise) at the task's await. A task that is done stays as it is."""
        error = error or Cancelled()
        if not self.done and (self._cancel is None or isinstance(error, Cancelled)):
            self._cancel = error
            if self._waits_for is not None:
                self.wake()

    def __await__(self) -> Generator[Waiter[T], None, T]:
        self.observed = True
        return (yield from super().__await__())

    def _step(self) -> None:
        reactor, cancel = self._reactor, None
        if self._waits_for is not None:  # else this is the beginning: a cause to end waits for the first await
            self._waits_for._task = None  # it may still come, and is not to wake us from what we wait for next
            cancel, self._cancel = self._cancel, None
        self._scheduled, self._waits_for = False, None
        reactor.current, before = self, reactor.current
        try:
            waiter = self._coroutine.send(None) if cancel is None else self._coroutine.throw(cancel)
        except StopIteration as stop:
            self.set(stop.value)
        except Cancelled as error:
            self.fail(error)
        except Exception as error:
            observed = self.observed
            self.fail(error)
            if not observed:
                reactor.report(error, f'in task {self.name}')
        else:
            if waiter._task is not None:
                waiter = Waiter(reactor)
                self._cancel = RuntimeError(f'{self.name} awaits what another task awaits already')
            self._waits_for, waiter._task = waiter, self
            if self._cancel is not None:
                self.wake()
        finally:
            reactor.current = before


async def sleep(reactor: Reactor, seconds: float) -> None:
    waiter: Waiter[None] = Waiter(reactor)
    timer = reactor.call_later(seconds, waiter.set)
    try:
        await waiter
    finally:
        timer.cancel()


@contextmanager
def timeout(reactor: Reactor, seconds: float, what: str = 'it took too long') -> Iterator[None]:
    """Raise Timeout(what) at the current task's await when the block takes longer than this."""
    assert reactor.current is not None, 'only a task can time out'
    timer = reactor.call_later(seconds, reactor.current.cancel, Timeout(what))
    try:
        yield
    finally:
        timer.cancel()
