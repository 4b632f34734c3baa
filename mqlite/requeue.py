"""Messages that wait for their time go now: chosen ones of the outbox, as a command or after a pause.

    waiting ─► taken ─► wanted?  ─► published without its time ─► off the queue
                            └─no──► given back, as it was, when all were looked at

What a daemon has in its hands is not seen. On a broker those are the heads of the waiting queues, which come by
themselves soon. An interruption leaves everything as it was, but for what was published already.
"""

from __future__ import annotations

from typing import Callable

from mqlite.message.document import Document, DocumentError
from mqlite.queues.contract import Delivery, Message, Store

_BATCH = 200  # messages per transaction


async def hurry(store: Store, outbox: str, wanted: Callable[[Document], bool]) -> int:
    """How many go now. A message that is no document is wanted by nobody."""
    kept: list[Delivery] = []
    count = 0
    while True:
        deliveries = await store.fetch(outbox, _BATCH, waiting=True)
        if not deliveries:
            break
        settled = []
        for delivery in deliveries:
            body = _without_time(delivery.body, wanted)
            if body:
                settled.append(store.settle(delivery, [Message(outbox, body, delivery.priority, lost=delivery.lost)]))
            else:
                delivery.body = b''  # there may be very many
                kept.append(delivery)
        for waiter in settled:
            await waiter
        count += len(settled)
    for delivery in kept:
        store.release(delivery)
    return count


def _without_time(body: bytes, wanted: Callable[[Document], bool]) -> bytes:
    """The document without the time before which it is not tried; b'' when it is not wanted."""
    try:
        document = Document.decode(body)
        if not wanted(document):
            return b''
    except DocumentError:
        return b''
    if 'nextattempt' not in document.fields:
        return body
    del document.fields['nextattempt']
    return document.encode()
