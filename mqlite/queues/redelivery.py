"""Recognising copies. Pure: what is remembered of deliveries whose link has ended, and which of them a message is.

When a link ends, the broker puts everything that it has no acknowledgement of back on its queue, and delivers it again.
If we still hold such a delivery, or have its outcome already, that copy is not new work. It has another delivery tag;
what it has in common is its queue and its body.

    in hand, link ends ─► stale ─► copy comes ─► in hand again, on the new link
                            │                └─► outcome kept already: acknowledged at once
                            └─► outcome kept while no copy has come: waits for it, to acknowledge it
    acknowledged just before the link ended ─► doubtful ─► copy comes, marked as redelivered ─► acknowledged again

The broker has exactly one copy of a stale delivery, so among messages with equal bodies any may stand for it. Of a
doubtful one it may have none; what is not marked as redelivered is then another message, and is delivered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from hashlib import sha256

from mqlite.queues.consumer import RabbitDelivery

MOST = 20000  # deliveries remembered; about what a thousand prefetched on 20 links are
MOST_ACKED = 500  # acknowledgements that may not have arrived, remembered with their bodies
MOST_ACKED_BYTES = 16 * 1024 * 1024


class Memory:
    """Of one store."""

    def __init__(self) -> None:
        self._stale: dict[bytes, deque[RabbitDelivery]] = {}
        self._doubtful: dict[bytes, deque[RabbitDelivery]] = {}
        self._acked: deque[RabbitDelivery] = deque()
        self._acked_size = 0

    def __len__(self) -> int:
        return sum(len(line) for place in (self._stale, self._doubtful) for line in place.values())

    def acknowledged(self, delivery: RabbitDelivery) -> None:
        """We have told the broker; whether it has heard is not known."""
        acked = self._acked
        acked.append(delivery)
        self._acked_size += len(delivery.body)
        while len(acked) > MOST_ACKED or self._acked_size > MOST_ACKED_BYTES:
            self._acked_size -= len(acked.popleft().body)

    def lose_link(self, held: Iterable[RabbitDelivery]) -> None:
        """Everything that was in hand is stale now. What was doubtful after the link before this one no longer is."""
        self._doubtful.clear()
        for delivery in held:
            self._put(self._stale, delivery)
        for delivery in self._acked:
            self._put(self._doubtful, delivery)
            delivery.body = b''
        self._acked.clear()
        self._acked_size = 0

    def recognise(self, queue: str, body: bytes, redelivered: bool) -> RabbitDelivery | None:
        """The delivery whose copy this is, which is then no longer remembered."""
        if not self._stale and not (redelivered and self._doubtful):
            return None
        key = _key(queue, body)
        return _take(self._stale, key) or (_take(self._doubtful, key) if redelivered else None)

    def forget(self, delivery: RabbitDelivery) -> None:
        """Its copy is new work."""
        line = self._stale.get(_key(delivery.queue, delivery.body), ())
        if delivery in line:
            line.remove(delivery)  # type: ignore[union-attr]

    def expire(self) -> None:
        """The copies that have not come by now went to somebody else."""
        self._stale.clear()
        self._doubtful.clear()

    def _put(self, place: dict[bytes, deque[RabbitDelivery]], delivery: RabbitDelivery) -> None:
        while len(place) >= MOST:
            del place[next(iter(place))]
        place.setdefault(_key(delivery.queue, delivery.body), deque()).append(delivery)


def _key(queue: str, body: bytes) -> bytes:
    return sha256(queue.encode('utf-8', 'surrogateescape') + b'\0' + body).digest()


def _take(place: dict[bytes, deque[RabbitDelivery]], key: bytes) -> RabbitDelivery | None:
    line = place.get(key)
    if not line:
        return None
    delivery = line.popleft()
    if not line:
        del place[key]
    return delivery
