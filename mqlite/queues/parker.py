"""Holding the heads of the waiting queues, and moving each message on when its time has come (see parking.py).

Of what is held the earliest goes first, whatever its place in its queue. A message is moved as it is: its body stays
compressed if it was, and nobody here reads it. It stays on its queue until the next place has confirmed it; a message
that cannot be moved is put back, and comes again.

    outbox.wait.N ─► held ─► its time ─► publish ─► confirmed ─► ack
                                                └─► refused   ─► nack after RETRY_SECONDS

The time of holding is measured, not read off the clock: setting the clock neither stops nor hurries anything here.
"""

from __future__ import annotations

import heapq
import itertools
from functools import partial

from mqlite.amqp.channel import Channel, ChannelGone
from mqlite.amqp.client import Link
from mqlite.amqp.events import Delivered
from mqlite.errors import MqliteError
from mqlite.loop.reactor import Reactor
from mqlite.loop.timers import Timer
from mqlite.queues.parking import DELAYS, HELD, times, times_lost, waiting_queue
from mqlite.queues.publisher import Forwarded, Group, Publisher

RETRY_SECONDS = 1.0  # before a message that could not be moved is put back


class Parker:
    """One per store."""

    def __init__(self, reactor: Reactor, outbox: str, publisher: Publisher) -> None:
        self.channel: Channel | None = None
        self._reactor = reactor
        self._outbox = outbox
        self._publisher = publisher
        self._delays = {waiting_queue(outbox, delay): delay for delay in DELAYS}
        self._held: list[tuple[float, int, float, Delivered]] = []  # heap: end of hold (monotonic), order, due, message
        self._order = itertools.count()
        self._timer: Timer | None = None
        self._link: Link | None = None

    async def start(self, link: Link) -> None:
        """Begin on a new link, once; what was held on the last one is back on its queue. BrokerError."""
        if self._link is link:
            return
        self.stop()
        self._link = link
        self.channel = channel = await link.channel()
        link.request(channel, 'basic.qos', prefetch_count=HELD)
        for queue in self._delays:
            await link.request(channel, 'basic.consume', queue=queue, consumer_tag=queue)

    def stop(self) -> None:
        """The link is gone: nothing is held."""
        self._link = self.channel = None
        self.pause()

    def pause(self) -> None:
        """Begin no more moves, and finish those that are under way."""
        self._held = []
        self._arm()

    def delivered(self, event: Delivered) -> None:
        if self._link is None or event.consumer_tag not in self._delays:
            return
        due, seconds = times(event.properties.headers, self._delays[event.consumer_tag], self._reactor.clock.time())
        heapq.heappush(self._held, (self._reactor.now() + seconds, next(self._order), due, event))
        if self._held[0][3] is event:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._held:
            self._timer = self._reactor.call_at(self._held[0][0], self._move)

    def _move(self) -> None:
        """Publish what has waited long enough to where it goes next; acknowledge it when that is confirmed."""
        self._timer = None
        now, link = self._reactor.now(), self._link
        while self._held and self._held[0][0] <= now:
            _, _, due, event = heapq.heappop(self._held)
            properties = event.properties
            message = Forwarded(self._outbox, event.body, properties.priority or 0, due,
                                times_lost(properties.headers), properties.content_encoding)
            self._publisher.publish(Group([message], True, partial(self._moved, link, event)))
        self._arm()

    def _moved(self, link: Link | None, event: Delivered, error: MqliteError | None) -> None:
        """The next place has it, or not: then it stays where it is, and comes again."""
        if error is None:
            self._answer(link, event, True)
        elif link is self._link:
            self._reactor.call_later(RETRY_SECONDS, self._answer, link, event, False)

    def _answer(self, link: Link | None, event: Delivered, moved: bool) -> None:
        if link is None or link is not self._link or self.channel is None:
            return
        try:
            if moved:
                self.channel.ack(event.delivery_tag)
            else:
                self.channel.request('basic.nack', delivery_tag=event.delivery_tag, requeue=True)
        except ChannelGone:
            return  # it is on its queue again
        link.touch()
