"""What the makers of stores have in common: a bench that opens a store, has something done with it, and closes it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Callable, TypeVar

from tests.support.loop import LoopBench

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
