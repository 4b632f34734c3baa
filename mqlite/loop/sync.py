"""What tasks use to wait for each other. Everything happens in one thread, so nothing here needs a lock."""

from __future__ import annotations

from mqlite.loop.reactor import Reactor
from mqlite.loop.task import Waiter


class Signal:
    """A condition that many tasks wait for: `notify` wakes all that wait now. Look again after the await."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._waiters: list[Waiter[None]] = []

    def notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.set()

    async def wait(self) -> None:
        waiter: Waiter[None] = Waiter(self._reactor)
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if not waiter.done:
                self._waiters.remove(waiter)
