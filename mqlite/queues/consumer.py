"""Consuming from a broker: how much is in our hands, in messages and in bytes.

    broker ─► arrived ─► line ─► room? ─► handed out ─► settled: room
                           └─► too many bytes wait here already: back to the broker, and no more are taken

A consumer starts with a small prefetch window and opens it while messages are small and come fast; when the bytes that
it holds pass their bound it stops taking messages until half of them are settled. The broker's own prefetch knows only
counts: a thousand messages of 10 MB would be 10 GB. A compressed body stays compressed until it is handed out, so that
of a thousand small bodies that inflate to something huge only one at a time does.

Bounds: in hand, the bytes asked for and one message beyond; in line, as much again, as it came.
"""

from __future__ import annotations

import zlib
from collections import deque
from typing import Callable

from mqlite.amqp.channel import Channel, ChannelGone
from mqlite.amqp.client import Link
from mqlite.amqp.events import Delivered, Got
from mqlite.loop.reactor import Reactor
from mqlite.queues.contract import Delivery
from mqlite.queues.parking import times_lost

FIRST_WINDOW = 16  # messages
WIDEN = 4  # times, once twice the window has come and the bytes allow it
BODY_LIMIT = 256 * 1024 * 1024  # bytes of a message, inflated
_PLAIN = ('', 'identity', 'utf-8', 'utf8', 'us-ascii', 'binary')  # content-encodings that change nothing


class RabbitDelivery(Delivery):
    """A delivery with the channel that it came over.

    `answered`: settled or released. `kept`: its outcome is confirmed, and the broker need not keep it.
    """

    __slots__ = ('answered', 'channel', 'consumer', 'kept', 'link')

    def __init__(self, queue: str, event: Delivered | Got, body: bytes, fault: str, link: Link, channel: Channel,
                 consumer: RabbitConsumer | None) -> None:
        count = (event.properties.headers or {}).get('x-delivery-count')  # of a quorum queue
        lost = count if isinstance(count, int) else int(event.redelivered)
        lost += times_lost(event.properties.headers)
        super().__init__(queue, event.delivery_tag, body, event.properties.priority or 0, lost, fault)
        self.link = link
        self.channel = channel
        self.consumer = consumer
        self.answered = self.kept = False


class RabbitConsumer:
    """A standing order for one queue, renewed on every link."""

    def __init__(self, reactor: Reactor, queue: str, prefetch: int, prefetch_bytes: int,
                 on_delivery: Callable[[Delivery], object],
                 hand_out: Callable[[RabbitConsumer, Delivered, str], object],
                 on_stop: Callable[[RabbitConsumer], object]) -> None:
        """`hand_out(consumer, event, fault)` makes a delivery of what has arrived: it calls `took`, and `on_delivery`
        when the delivery is a new one."""
        self.queue = queue
        self.on_delivery = on_delivery
        self.channel: Channel | None = None
        self.link: Link | None = None
        self.stopped = False
        self._reactor = reactor
        self._hand_out = hand_out
        self._on_stop = on_stop
        self._prefetch = prefetch
        self._bound = prefetch_bytes
        self._count = self._size = 0  # in hand: messages, bytes
        self._line: deque[tuple[Delivered, str]] = deque()  # arrived, not handed out yet
        self._line_size = 0  # bytes, as they came
        self._window = min(FIRST_WINDOW, prefetch)
        self._serial = 0
        self._consuming = False
        self._since = self._since_bytes = 0  # messages and bytes since the window was set
        self._scheduled = False

    def stop(self) -> None:
        if self.stopped:
            return
        self.stopped = True
        self._on_stop(self)
        self._cancel()
        while self._line:
            self._give_back(self._line.popleft()[0])
        self._line_size = 0

    def lose_link(self) -> None:
        """What was in hand is none of ours until it comes again."""
        self.link = self.channel = None
        self._consuming = False
        self._count = self._size = self._line_size = 0
        self._line.clear()

    async def start(self, link: Link, on_channel: Callable[[RabbitConsumer, Channel], object]) -> None:
        """Begin on a new link; `on_channel` is told before the first message can come. BrokerError when the queue is
        not there."""
        channel = await link.channel()
        self.link, self.channel = link, channel
        on_channel(self, channel)
        if not self.stopped:
            self._serial += 1
            self._consuming = True
            link.request(channel, 'basic.qos', prefetch_count=self._window)
            await link.request(channel, 'basic.consume', queue=self.queue, consumer_tag=self._tag())

    def arrived(self, event: Delivered, fault: str) -> None:
        """The broker sent a message."""
        if self.stopped or self._line_size > self._bound:
            self._give_back(event)
            return
        self._line.append((event, fault))
        self._line_size += len(event.body)
        self._empty_line()

    def took(self, body: bytes) -> None:
        """A message is in hand."""
        self._count += 1
        self._size += len(body)
        self._since += 1
        self._since_bytes += len(body)
        if self._since >= 2 * self._window < 2 * self._prefetch and self._consuming:
            wider = min(self._window * WIDEN, self._prefetch)
            if self._since_bytes // self._since * wider <= self._bound:
                self._window = wider
                self._renew()
            self._since = self._since_bytes = 0

    def gave(self, body: bytes) -> None:
        """A message is in hand no more."""
        self._count -= 1
        self._size -= len(body)
        if not self._scheduled and not self.stopped:
            self._scheduled = True
            self._reactor.call_at_turn_end(self._look_again)

    def _look_again(self) -> None:
        self._scheduled = False
        self._empty_line()
        if not self._consuming and not self.stopped and self._size + self._line_size <= self._bound // 2:
            self._renew()

    def _empty_line(self) -> None:
        """Hand out what there is room for."""
        while self._line and self._count < self._prefetch and self._size < self._bound and not self.stopped:
            event, fault = self._line.popleft()
            self._line_size -= len(event.body)
            self._hand_out(self, event, fault)
        if self._size + self._line_size > self._bound and self._consuming:
            self._cancel()
            self._window = max(1, self._window // WIDEN)

    def _give_back(self, event: Delivered) -> None:
        if self.channel is not None and self.link is not None:
            try:
                self.channel.request('basic.nack', delivery_tag=event.delivery_tag, requeue=True)
            except ChannelGone:
                return  # it is on its queue again
            self.link.touch()

    def _renew(self) -> None:
        """A consumer's window is fixed when it begins: begin a new one, end the old one."""
        link, channel = self.link, self.channel
        if link is None or channel is None:
            return
        old = self._tag() if self._consuming else ''
        try:
            link.request(channel, 'basic.qos', prefetch_count=self._window)
            self._serial += 1
            self._consuming = True
            self._since = self._since_bytes = 0
            link.request(channel, 'basic.consume', queue=self.queue, consumer_tag=self._tag())
            if old:
                link.request(channel, 'basic.cancel', consumer_tag=old)
        except ChannelGone:
            pass  # `start` comes with the next link

    def _cancel(self) -> None:
        consuming, self._consuming = self._consuming, False
        if consuming and self.link is not None and self.channel is not None:
            try:
                self.link.request(self.channel, 'basic.cancel', consumer_tag=self._tag())
            except ChannelGone:
                pass

    def _tag(self) -> str:
        return f'mqlite-{self._serial}'


def inflate(event: Delivered | Got) -> tuple[bytes, str]:
    """(body, fault): the body as JSON text. A body that cannot be inflated comes as it is, with the reason."""
    encoding = (event.properties.content_encoding or '').lower()
    if encoding in _PLAIN:
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
    if not inflater.eof or inflater.unused_data:
        return event.body, 'the gzip body is cut off' if not inflater.eof else 'something follows the gzip body'
    return body, ''
