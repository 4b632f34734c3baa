"""Consuming from a broker: how much is in our hands, and the parking of messages that may not go yet.

A consumer starts with a small prefetch window and opens it while messages are small and come fast; when the bytes in
hand pass their bound it stops taking messages until half of them are settled. The broker's own prefetch knows only
counts: a thousand messages of 10 MB would be 10 GB.
"""

from __future__ import annotations

import zlib
from collections import deque
from functools import partial
from typing import Callable

from mqlite.amqp.channel import Channel
from mqlite.amqp.client import Link
from mqlite.amqp.events import Delivered, Got
from mqlite.errors import MqliteError
from mqlite.loop.reactor import Reactor
from mqlite.loop.timers import Timer
from mqlite.queues.contract import Delivery, Message
from mqlite.queues.parking import DELAYS, HELD, times, waiting_queue
from mqlite.queues.publisher import Group, Publisher

FIRST_WINDOW = 16  # messages
WIDEN = 4  # times, once twice the window has come and the bytes allow it
BODY_LIMIT = 256 * 1024 * 1024  # bytes of a message, inflated
_RETRY_SECONDS = 1.0


class RabbitDelivery(Delivery):
    """A delivery with the link that it came over; `kept`: its outcome is confirmed, only the ack is missing."""

    __slots__ = ('channel', 'consumer', 'kept', 'link')

    link: Link
    channel: Channel

    def __init__(self, queue: str, event: Delivered | Got, body: bytes, fault: str,
                 consumer: RabbitConsumer | None) -> None:
        count = (event.properties.headers or {}).get('x-delivery-count')
        lost = count if isinstance(count, int) else int(event.redelivered)
        super().__init__(queue, event.delivery_tag, body, event.properties.priority or 0, lost, fault)
        self.consumer = consumer
        self.kept = False


class RabbitConsumer:
    """A standing order for one queue, renewed on every link."""

    def __init__(self, queue: str, prefetch: int, prefetch_bytes: int, on_delivery: Callable[[Delivery], object],
                 on_stop: Callable[[RabbitConsumer], object]) -> None:
        self.queue = queue
        self.on_delivery = on_delivery
        self.channel: Channel | None = None
        self.size = 0  # bytes in hand
        self._prefetch = prefetch
        self._bound = prefetch_bytes
        self._on_stop = on_stop
        self._link: Link | None = None
        self._window = min(FIRST_WINDOW, prefetch)
        self._serial = 0
        self._consuming = False
        self._since = self._since_bytes = 0  # messages and bytes since the window was set

    def stop(self) -> None:
        self._on_stop(self)
        if self._consuming and self._link is not None and not self._link.ended.done:
            self._cancel()

    async def start(self, link: Link) -> None:
        """Begin on a new link. BrokerError when the queue is not there."""
        self._link, self.size = link, 0
        self.channel = await link.channel()
        link.request(self.channel, 'basic.qos', prefetch_count=self._window)
        self._serial += 1
        self._consuming = True
        await link.request(self.channel, 'basic.consume', queue=self.queue, consumer_tag=self._tag())

    def took(self, body: bytes) -> None:
        self.size += len(body)
        self._since += 1
        self._since_bytes += len(body)
        if self.size > self._bound:
            if self._consuming:
                self._cancel()
                self._window = max(1, self._window // WIDEN)
        elif self._since >= 2 * self._window < 2 * self._prefetch:
            wider = min(self._window * WIDEN, self._prefetch)
            if self._since_bytes // self._since * wider <= self._bound:
                self._window = wider
                self._renew()
            self._since = self._since_bytes = 0

    def gave(self, body: bytes) -> None:
        self.size -= len(body)
        if not self._consuming and self.size <= self._bound // 2:
            self._renew()

    def _renew(self) -> None:
        """A consumer's window is fixed when it begins: begin a new one, end the old one."""
        link, channel = self._link, self.channel
        if link is None or channel is None or link.ended.done:
            return
        old = self._tag() if self._consuming else ''
        self._serial += 1
        self._consuming = True
        self._since = self._since_bytes = 0
        link.request(channel, 'basic.qos', prefetch_count=self._window)
        link.request(channel, 'basic.consume', queue=self.queue, consumer_tag=self._tag())
        if old:
            link.request(channel, 'basic.cancel', consumer_tag=old)

    def _cancel(self) -> None:
        assert self._link is not None and self.channel is not None
        self._consuming = False
        self._link.request(self.channel, 'basic.cancel', consumer_tag=self._tag())

    def _tag(self) -> str:
        return f'mqlite-{self._serial}'


class Parker:
    """Holds the heads of the waiting queues and moves each on when its time has come (see parking.py)."""

    def __init__(self, reactor: Reactor, outbox: str, publisher: Publisher) -> None:
        self._reactor = reactor
        self._outbox = outbox
        self._publisher = publisher
        self._held: dict[str, deque[tuple[float, float, Delivered]]] = {}  # consumer tag -> until, due, message
        self._timer: Timer | None = None
        self._link: Link | None = None
        self.channel: Channel | None = None

    async def start(self, link: Link) -> None:
        """Begin on a new link; what was held on the last one is back on its queue."""
        self._link, self._held = link, {}
        self.channel = await link.channel()
        link.request(self.channel, 'basic.qos', prefetch_count=HELD)
        for delay in DELAYS:
            queue = waiting_queue(self._outbox, delay)
            self._held[queue] = deque()
            await link.request(self.channel, 'basic.consume', queue=queue, consumer_tag=queue)

    def stop(self) -> None:
        self._held = {}

    def delivered(self, event: Delivered) -> None:
        if event.consumer_tag in self._held:
            due, until = times(event.properties.headers)
            self._held[event.consumer_tag].append((until, due, event))
            self._arm()

    def _arm(self) -> None:
        heads = [line[0][0] for line in self._held.values() if line]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if heads:
            self._timer = self._reactor.call_later(max(0.0, min(heads) - self._reactor.clock.time()), self._move)

    def _move(self) -> None:
        """Publish what is due to where it goes next; acknowledge it when that is confirmed."""
        self._timer = None
        now, link = self._reactor.clock.time(), self._link
        for line in self._held.values():
            while line and line[0][0] <= now:
                _, due, event = line.popleft()
                body, _ = inflate(event)
                message = Message(self._outbox, body, event.properties.priority or 0, due)
                self._publisher.publish(Group([message], True, partial(self._moved, link, event)))
        self._arm()

    def _moved(self, link: Link | None, event: Delivered, error: MqliteError | None) -> None:
        """The next place has it, or not: then it stays where it is, and comes again."""
        if link is None or link.ended.done or link is not self._link or self.channel is None:
            return
        if error is None:
            self.channel.ack(event.delivery_tag)
        else:
            self._reactor.call_later(_RETRY_SECONDS, self._put_back, link, event)
        link.touch()

    def _put_back(self, link: Link, event: Delivered) -> None:
        if link is self._link and not link.ended.done and self.channel is not None:
            self.channel.request('basic.nack', delivery_tag=event.delivery_tag, requeue=True)
            link.touch()


def inflate(event: Delivered | Got) -> tuple[bytes, str]:
    """(body, fault): the body as JSON text. A body that cannot be inflated comes as it is, with the reason."""
    encoding = (event.properties.content_encoding or '').lower()
    if encoding in ('', 'identity', 'utf-8'):
        return event.body, ''
    if encoding != 'gzip':
        return event.body, f'content-encoding {encoding[:40]!r} is not known; use gzip or none'
    inflater = zlib.decompressobj(31)
    try:
        body = inflater.decompress(event.body, BODY_LIMIT)
    except zlib.error as error:
        return event.body, f'content-encoding is gzip, but the body is not: {error}'
    if inflater.unconsumed_tail:
        return event.body, f'the gzip body inflates to more than {BODY_LIMIT} bytes'
    if not inflater.eof:
        return event.body, 'the gzip body is cut off'
    return body, ''
