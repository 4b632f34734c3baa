"""Makers of stores, and what the tests of every store do with them.

A maker opens stores on the same queues, has something done with one, and closes it; `abandon` is the death of a
process as the others see it.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Callable, TypeVar

from mqlite.loop.clock import Clock
from mqlite.queues.contract import Delivery, Message, Store
from mqlite.queues.embedded import EmbeddedStore
from tests.support.loop import LoopBench

MANY = 10_000_000
T = TypeVar('T')


class StoresBench(LoopBench):
    """A maker of stores; its `open` gives one that is open."""

    open: Callable[..., Coroutine[Any, Any, Any]]

    def run_with_store(self, work: Callable[[Any], Coroutine[Any, Any, T]], **options: Any) -> T:
        async def main() -> T:
            store = await self.open(**options)
            try:
                return await work(store)
            finally:
                await store.close()
        return self.run(main())


class EmbeddedStores(StoresBench):
    """Opens stores on one file. `poll` seconds are virtual: each costs a millisecond of ours."""

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.path = folder / 'queue.db'
        self.notes: list[str] = []

    async def open(self, poll: float = 3600.0) -> EmbeddedStore:
        store = EmbeddedStore(self.reactor, str(self.path), self.notes.append, poll, 1)
        await store.open()
        return store

    async def abandon(self, store: EmbeddedStore) -> None:
        store._database._owner = 0      # so that it gives nothing back
        await store.close()


def messages(*bodies: bytes, queue: str = 'q', **options: Any) -> list[Message]:
    return [Message(queue, body, **options) for body in bodies]


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [delivery.body for delivery in deliveries]


async def all_of(store: Store, queue: str = 'q') -> list[bytes]:
    """What can be fetched now, in order; put back afterwards."""
    await store.publish([])         # what was released before this is on its queue after it
    found = await store.fetch(queue, 1000)
    for delivery in found:
        store.release(delivery)
    return bodies(found)


async def waits(waiter: Any) -> Any:
    return await waiter
