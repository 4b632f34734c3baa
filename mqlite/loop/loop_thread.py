"""A reactor in a thread of its own, which runs the coroutines that it is given; outcomes come back to the loop at home.

Nothing is shared but the two queues of calls between the loops: what a coroutine makes in the other thread stays there.
A mistake that ends the loop itself ends the process, since nobody would serve what the loop watches.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Coroutine
from typing import Any, Callable, TypeVar

from mqlite.loop.reactor import Reactor
from mqlite.loop.task import Waiter

T = TypeVar('T')
_FAILED = 70  # EX_SOFTWARE of sysexits.h


class LoopThread:
    """Start it with `LoopThread(...)`, end it with `stop`."""

    def __init__(self, home: Reactor, name: str, on_error: Callable[[BaseException, str], None]) -> None:
        """`on_error`: as of the reactor; called in the thread."""
        self.reactor = Reactor(on_error=on_error)
        self._home = home
        self._on_error = on_error
        self._end: Waiter[None] = Waiter(self.reactor)  # it is to end
        self._ended: Waiter[None] = Waiter(home)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def spawn(self, coroutine: Coroutine[Any, Any, T], name: str = '') -> Waiter[T]:
        """Run the coroutine there; its result or exception arrives at the Waiter, which is of the loop at home."""
        waiter: Waiter[T] = Waiter(self._home)
        self.reactor.call_from_thread(self.reactor.spawn, self._carry(coroutine, waiter), name)
        return waiter

    async def stop(self) -> None:
        """Until the thread has ended; what still runs there is left as it is."""
        self.reactor.call_from_thread(self._end.set)
        await self._ended
        self._thread.join()

    async def _carry(self, coroutine: Coroutine[Any, Any, T], waiter: Waiter[T]) -> None:
        try:
            value = await coroutine
        except BaseException as error:
            self._home.call_from_thread(waiter.fail, error)
        else:
            self._home.call_from_thread(waiter.set, value)

    def _run(self) -> None:
        try:
            self.reactor.run(_wait(self._end))
            self.reactor.close()
        except BaseException as error:
            self._on_error(error, f'in the loop of {threading.current_thread().name}')
            os._exit(_FAILED)
        self._home.call_from_thread(self._ended.set)


async def _wait(end: Waiter[None]) -> None:
    await end
