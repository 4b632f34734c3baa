"""`mqlite.pyz queue ...`: look at queues, put messages on them, take them off. JSON lines in and out."""

from __future__ import annotations

import json
import sys
from collections.abc import Coroutine
from typing import Any, Callable

from mqlite.errors import ConfigError
from mqlite.loop.reactor import Reactor
from mqlite.message.document import Document, DocumentError
from mqlite.parts import make_store
from mqlite.queues.contract import Message, Store
from mqlite.settings import Settings

_BATCH = 200  # messages per transaction


def list_queues(settings: Settings) -> int:
    """A line per queue: messages that may go now, that wait for their time, that somebody has taken; bytes."""
    async def work(store: Store) -> int:
        print(f'{"queue":<24} {"ready":>9} {"waiting":>9} {"taken":>9} {"bytes":>13}')
        for row in await store.list_queues():
            taken, size = ('-' if value is None else value for value in (row.taken, row.size))
            print(f'{row.name:<24} {row.ready:>9} {row.waiting:>9} {taken:>9} {size:>13}')
        return 0
    return with_store(settings, work)


def publish(settings: Settings, queue: str) -> int:
    """Each line of standard input is a document. `nextattempt` and `priority` are obeyed."""
    return with_store(settings, lambda store: _publish(store, queue))


def get(settings: Settings, queue: str, count: int | None, keep: bool) -> int:
    """Print messages that are due and take them off the queue, or only show them.

    When the output cannot be written (BrokenPipeError, OSError), what was not written stays on the queue.
    """
    return with_store(settings, lambda store: _get(store, queue, count, keep))


def purge(settings: Settings, queue: str) -> int:
    """Delete what is on the queue and in nobody's hands."""
    async def work(store: Store) -> int:
        print(f'{await store.purge(queue)} deleted', file=sys.stderr)
        return 0
    return with_store(settings, work)


def with_store(settings: Settings, work: Callable[[Store], Coroutine[Any, Any, int]]) -> int:
    """Do it with the store of the settings open."""
    reactor = Reactor()

    async def opened() -> int:
        store = make_store(reactor, settings, lambda text: print(f'mqlite: {text}', file=sys.stderr))
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    try:
        return reactor.run(opened())
    finally:
        reactor.close()


async def _publish(store: Store, queue: str) -> int:
    batch: list[Message] = []
    published, fault = 0, ''
    for number, line in enumerate(sys.stdin.buffer, 1):
        if not line.strip():
            continue
        try:
            document = Document.decode(line.strip())
            batch.append(Message(queue, line.strip(), document.priority, document.not_before))
        except DocumentError as error:
            fault = f'line {number}: {error}'
            break
        if len(batch) == _BATCH:
            await store.publish(batch)
            published, batch = published + len(batch), []
    if batch:
        await store.publish(batch)
    published += len(batch)
    print(f'{published} published', file=sys.stderr)
    if fault:
        raise ConfigError(f'{fault}; nothing from this line on was published')
    return 0


async def _get(store: Store, queue: str, count: int | None, keep: bool) -> int:
    left = count
    kept = []
    while left is None or left > 0:
        deliveries = await store.fetch(queue, _BATCH if left is None else min(_BATCH, left))
        if not deliveries:
            break
        for delivery in deliveries:
            print(_one_line(delivery.body))
        sys.stdout.flush()
        if keep:
            kept += deliveries
        else:
            for waiter in [store.settle(delivery, ()) for delivery in deliveries]:
                await waiter
        left = None if left is None else left - len(deliveries)
    for delivery in kept:
        store.release(delivery)
    return 0


def _one_line(body: bytes) -> str:
    """The document on one line; what is no document comes as {"invalid": its text}."""
    try:
        return json.dumps(Document.decode(body).fields)
    except DocumentError:
        return json.dumps({'invalid': body.decode('utf-8', 'replace')})
