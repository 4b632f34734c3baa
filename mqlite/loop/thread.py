"""One worker thread for calls that block: a commit, a look-up in a file system that may be slow.

Jobs run one after the other in the order in which they were given; the answer comes back as a Waiter in the loop's
thread. The thread is a daemon thread: a job that hangs for ever (a dead disk) does not keep the process alive.
"""

from __future__ import annotations

import queue
import threading
from typing import Any, Callable, TypeVar

from mqlite.loop.reactor import Reactor
from mqlite.loop.task import Waiter

Lock = threading.Lock  # for what several loops of a process share; nobody awaits while he has it
T = TypeVar('T')
Job = tuple[Waiter[Any], Callable[..., Any], tuple[Any, ...]]


class WorkerThread:
    """Runs jobs for one reactor. `stop()` lets the jobs given so far finish."""

    def __init__(self, reactor: Reactor, name: str) -> None:
        self._reactor = reactor
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[..., T], *args: Any) -> Waiter[T]:
        """Run fn(*args) in the thread; its result or exception arrives at the Waiter. Not after `stop`."""
        waiter: Waiter[T] = Waiter(self._reactor)
        self._reactor.threads_busy += 1
        self._jobs.put((waiter, fn, args))
        return waiter

    def stop(self) -> None:
        self._jobs.put(None)

    def _work(self) -> None:
        while self._work_on(self._jobs.get()):
            pass

    def _work_on(self, job: Job | None) -> bool:
        """A function of its own, so that nothing of a job is kept in memory while the thread waits for the next."""
        if job is None:
            return False
        waiter, fn, args = job
        try:
            value, error = fn(*args), None
        except BaseException as raised:
            value, error = None, raised
        self._reactor.call_from_thread(self._answer, waiter, value, error)
        return True

    def _answer(self, waiter: Waiter[Any], value: Any, error: BaseException | None) -> None:
        self._reactor.threads_busy -= 1
        if error is None:
            waiter.set(value)
        else:
            waiter.fail(error)
