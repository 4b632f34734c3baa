"""The RabbitMQ store: the contract of `contract.py` on a broker, or on several that stand in for each other.

One link at a time. When it ends, another is made, to the next broker if there are several, with a growing pause and a
random part in it, so that a hundred daemons do not come back at the same moment; queues are declared again, consumers
come back. Meanwhile `trouble` says why nothing can be kept, and clients are told so at once.

    keeper ─► connect ─► declare ─► publish ─► consume ─► serving ─► link ended ─┐
      ▲                                                                          │
      └────────────────── pause ◄── nothing of this link counts any more ◄───────┘

What happens to a delivery whose link has ended is in redelivery.py, what deliveries led to in settlement.py.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Sequence
from functools import partial
from typing import Any, Callable

from mqlite.amqp.channel import Channel, ChannelGone
from mqlite.amqp.client import BrokerError, BrokerRefused, Link
from mqlite.amqp.events import (
    Blocked,
    Cancelled,
    ChannelClosed,
    Confirmed,
    Delivered,
    Event,
    Returned,
    TooLarge,
    Unblocked,
)
from mqlite.amqp.uri import Address
from mqlite.dns.resolver import Resolver
from mqlite.errors import MqliteError, PermanentError
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import Cancelled as TaskCancelled
from mqlite.loop.task import Task, Timeout, Waiter, sleep, timeout
from mqlite.loop.timers import Timer
from mqlite.queues.consumer import RabbitConsumer, RabbitDelivery, inflate
from mqlite.queues.contract import Delivery, Message, Publishable, QueueError, QueueStatus
from mqlite.queues.declare import declare
from mqlite.queues.inspector import Inspector
from mqlite.queues.notes import Notes
from mqlite.queues.parker import Parker
from mqlite.queues.publisher import Group, Publisher, Unroutable, unmade
from mqlite.queues.redelivery import Memory
from mqlite.queues.settlement import Settlements
from mqlite.queues.topology import RabbitConfig, explain, refusal

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between attempts to connect
STEADY_SECONDS = 10.0  # a link that lived so long was a good one: the pause begins anew
SETUP_SECONDS = 30.0  # for the broker's answers to all declarations; quorum queues take their time
BLOCKED_SECONDS = 1.0  # after connection.blocked, for confirms of what the broker had taken before
CLOSE_SECONDS = 10.0  # for what is not confirmed yet when we stop
COPIES_SECONDS = 300.0  # after a link is up: copies of what was in hand on the last one have come by then
_POLL_SECONDS = 0.02  # how often we look, when we close, whether all is confirmed


class RabbitStore:
    """See `contract.Store`."""

    def __init__(self, reactor: Reactor, config: RabbitConfig, resolver: Resolver,
                 on_note: Callable[[str], object]) -> None:
        self.trouble: str | None = 'the broker is not connected yet'
        self._reactor = reactor
        self._config = config
        self._resolver = resolver
        self._notes = Notes(reactor, on_note)
        self._link: Link | None = None
        self._inspector: Inspector | None = None
        self._reason = self.trouble  # why there is no link
        self._publisher = Publisher(reactor, config, self._stall_changed)
        self._settlements = Settlements(reactor, config, self._publisher, self._kept, self._given_up, self._notes.say)
        self._parker = Parker(reactor, config.outbox, self._publisher)
        self._memory = Memory()
        self._expiry: Timer | None = None  # of the memory
        self._consumers: list[RabbitConsumer] = []
        self._by_channel: dict[int, RabbitConsumer] = {}
        self._publishing = 0  # number of the channel
        self._held: set[RabbitDelivery] = set()  # consumed on this link and not acknowledged
        self._keeper: Task[None] | None = None
        self._first: Waiter[MqliteError | None] = Waiter(reactor)
        self._closed = False
        self._was_in_trouble = False

    async def open(self) -> None:
        """QueueError also for what only another setting can mend: the broker, too, can be made to fit the settings."""
        self._keeper = self._reactor.spawn(self._keep_connected(), 'broker')
        error = await self._first
        if error is not None:
            raise QueueError(str(error)) from error

    async def close(self) -> None:
        if self._closed:
            return
        self._closed, self._reason = True, 'the queue is closed'
        self._look_at_trouble()
        self._parker.pause()
        with contextlib.suppress(Timeout), timeout(self._reactor, CLOSE_SECONDS):
            while self._link is not None and (self._settlements or self._publisher.busy):
                await sleep(self._reactor, _POLL_SECONDS)
        if self._settlements:
            self._notes.say(f'{len(self._settlements)} results are not confirmed: their messages may be sent again')
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(TaskCancelled):
                await self._keeper
        if self._link is not None:
            await self._link.close()
        self._lose_link(QueueError(self._reason))
        self._settlements.give_up(QueueError(self._reason))

    def publish(self, messages: Sequence[Publishable]) -> Waiter[None]:
        waiter: Waiter[None] = Waiter(self._reactor)
        impossible = refusal(messages, self._largest)
        if impossible:
            waiter.fail(PermanentError(impossible))
        elif self.trouble is not None:
            waiter.fail(QueueError(self.trouble))
        else:
            self._publisher.publish(Group(list(map(unmade, messages)), False, partial(self._published, waiter)))
        return waiter

    def settle(self, delivery: Delivery, messages: Sequence[Message]) -> Waiter[None]:
        assert isinstance(delivery, RabbitDelivery)
        goes_back = any(message.queue == self._config.outbox for message in messages)  # fits as it came, see settlement
        impossible = refusal(messages, 0 if goes_back else self._largest)
        if not self._closed and not impossible:
            _answer_once(delivery)
            return self._settlements.add(delivery, messages)
        waiter: Waiter[None] = Waiter(self._reactor)
        waiter.fail(QueueError(self._reason) if self._closed else PermanentError(impossible))
        return waiter

    def release(self, delivery: Delivery) -> None:
        assert isinstance(delivery, RabbitDelivery)
        if self._closed:
            return  # closing has given back everything
        _answer_once(delivery)
        if delivery.link is not self._link:
            self._memory.forget(delivery)
            return
        try:
            delivery.channel.request('basic.nack', delivery_tag=delivery.tag, requeue=True)
        except ChannelGone:
            self._held.discard(delivery)  # it is on its queue again
        else:
            delivery.link.touch()
            self._gone(delivery)

    def consume(self, queue: str, prefetch: int, prefetch_bytes: int,
                on_delivery: Callable[[Delivery], object]) -> RabbitConsumer:
        consumer = RabbitConsumer(self._reactor, queue, min(prefetch, self._config.qos), prefetch_bytes, on_delivery,
                                  self._hand_out, self._consumers.remove)
        self._consumers.append(consumer)
        if self._link is not None:
            self._reactor.spawn(self._start_late(self._link, consumer), f'consumer of {queue}')
        return consumer

    async def fetch(self, queue: str, count: int, waiting: bool = False) -> list[Delivery]:
        return await self._connected().fetch(queue, count, waiting)

    async def purge(self, queue: str) -> int:
        return await self._connected().purge(queue)

    async def list_queues(self) -> list[QueueStatus]:
        return await self._connected().list_queues()

    def _connected(self) -> Inspector:
        if self._inspector is None or self._closed:
            raise QueueError(self._reason)
        return self._inspector

    @property
    def _largest(self) -> int:
        """Bytes that a message may have at most; 0 when that is not known, or depends on how well it compresses."""
        return 0 if self._config.gzip else self._publisher.limit

    # what was published, and what was delivered

    def _published(self, waiter: Waiter[None], error: MqliteError | None) -> None:
        if error is None:
            waiter.set()
            return
        if self.trouble is None:
            self._notes.say(str(error))
        if isinstance(error, Unroutable) and self._config.declare and error.queue in self._config.queues:
            self._settlements.want_queue(error.queue)  # for the next one
        waiter.fail(error)

    def _hand_out(self, consumer: RabbitConsumer, event: Delivered, fault: str) -> None:
        link, channel = consumer.link, consumer.channel
        assert link is not None and channel is not None
        body, unreadable = inflate(event)
        copied = self._memory.recognise(consumer.queue, body, event.redelivered)
        delivery = copied or RabbitDelivery(consumer.queue, event, body, fault or unreadable, link, channel, consumer)
        if copied:
            copied.link, copied.channel, copied.tag = link, channel, event.delivery_tag
            copied.body, copied.consumer = body, consumer
        self._held.add(delivery)
        consumer.took(body)
        if delivery.kept:
            self._acknowledge(delivery)
        elif not copied:
            try:
                consumer.on_delivery(delivery)
            except Exception as error:  # the others are not to suffer
                self._reactor.report(error, f'in the consumer of {consumer.queue}')

    def _kept(self, delivery: RabbitDelivery) -> None:
        """The outcome of a delivery is confirmed: acknowledge it now, or when its copy comes."""
        delivery.kept = True
        if delivery.link is self._link:
            self._acknowledge(delivery)
        else:
            delivery.body = b''  # it may be a while

    def _given_up(self, delivery: RabbitDelivery) -> None:
        """Nothing that it led to can be kept: with the next link it comes as new work."""
        self._held.discard(delivery)

    def _acknowledge(self, delivery: RabbitDelivery) -> None:
        try:
            delivery.channel.ack(delivery.tag)
        except ChannelGone:
            return  # the link is about to be lost; its copy will be acknowledged
        delivery.link.touch()
        self._gone(delivery)
        if delivery.consumer is not None:
            self._memory.acknowledged(delivery)

    def _gone(self, delivery: RabbitDelivery) -> None:
        self._held.discard(delivery)
        if delivery.consumer is not None:
            delivery.consumer.gave(delivery.body)

    # the link

    async def _keep_connected(self) -> None:
        pause, failures = FIRST_PAUSE, 0
        for address in itertools.cycle(self._config.addresses):
            began = self._reactor.now()
            try:
                link = await self._connect(address)
                failures = 0
                reason = await link.ended
                self._lose_link(reason)
                self._change(f'the broker is gone: {reason}')
            except Exception as error:
                failures += 1
                self._failed(error, failures >= len(self._config.addresses))
                if not isinstance(error, (MqliteError, OSError)):
                    self._reactor.report(error, 'in the connection to the broker')  # a mistake of ours
            if self._reactor.now() - began > STEADY_SECONDS and not failures:
                pause = FIRST_PAUSE
            if failures % len(self._config.addresses) == 0:
                await sleep(self._reactor, pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _connect(self, address: Address) -> Link:
        """A link that serves. Each address of the host is tried."""
        error: MqliteError = BrokerError(f'{address}: the host has no address')
        for target in await self._resolver.addresses(address.host):
            link = Link(self._reactor, address, self._on_event)
            try:
                await link.open(target, self._config.verify)
            except BrokerError as failure:
                error = failure
                continue
            try:
                with timeout(self._reactor, SETUP_SECONDS, f'{address}: no answer within {SETUP_SECONDS:g} s'):
                    await self._set_up(link)
            except BaseException as failure:
                reason = failure if isinstance(failure, MqliteError) else BrokerError(f'{address}: given up')
                link.drop(str(reason))
                self._lose_link(reason)
                raise
            return link
        raise error

    async def _set_up(self, link: Link) -> None:
        """Declare, then publish, then consume: results need their queues before the first delivery comes."""
        await declare(link, self._config)
        channel = await link.channel()
        await link.request(channel, 'confirm.select')
        self._link, self._publishing, self._inspector = link, channel.number, Inspector(link, self._config)
        self._publisher.attach(link, channel)
        self._settlements.attach(link)
        for consumer in list(self._consumers):
            await self._start(link, consumer)
        self._look_at_trouble()
        self._expiry = self._reactor.call_later(COPIES_SECONDS, self._memory.expire)
        if self._was_in_trouble:
            self._change(f'connected to {link.address} (RabbitMQ {link.version})')
        if not self._first.done:
            self._first.set(None)

    async def _start(self, link: Link, consumer: RabbitConsumer) -> None:
        try:
            await consumer.start(link, self._began)
            if consumer.queue == self._config.outbox:
                await self._parker.start(link)
        except BrokerError as error:
            if link.ended.done:
                raise
            raise BrokerRefused(explain(error.code, str(error), 'consuming', f'queue {consumer.queue}'),
                                error.code) from error

    async def _start_late(self, link: Link, consumer: RabbitConsumer) -> None:
        try:
            await self._start(link, consumer)
        except MqliteError as error:
            link.drop(str(error))

    def _began(self, consumer: RabbitConsumer, channel: Channel) -> None:
        self._by_channel[channel.number] = consumer

    def _failed(self, error: Exception, everywhere: bool) -> None:
        self._reason, self._was_in_trouble = str(error), True
        self._look_at_trouble()
        if self._first.done:
            self._notes.say(str(error))
        elif everywhere:
            self._notes.spoken(str(error))  # by whoever has called `open`
            self._first.set(error if isinstance(error, MqliteError) else QueueError(str(error)))

    def _lose_link(self, reason: MqliteError) -> None:
        """Nothing of this link counts any more; what was in hand is stale."""
        self._link = self._inspector = None
        self._reason = str(reason)
        self._look_at_trouble()
        self._publishing = 0
        self._by_channel.clear()
        for consumer in self._consumers:
            consumer.lose_link()
        held, self._held = self._held, set()
        self._memory.lose_link(held)
        if self._expiry is not None:
            self._expiry.cancel()
        self._parker.stop()
        self._settlements.detach()
        self._publisher.detach(QueueError(self._reason))

    # what is said about it

    def _look_at_trouble(self) -> None:
        link = self._link
        if self._closed or link is None:
            self.trouble = self._reason
        elif link.blocked:
            self.trouble = 'the broker takes no messages now'
        else:
            self.trouble = 'the broker does not answer' if self._publisher.stalled else None

    def _change(self, text: str) -> None:
        if not self._closed:
            self._was_in_trouble = self.trouble is not None
            self._notes.change(text)

    def _stall_changed(self) -> None:
        self._look_at_trouble()
        if self._publisher.stalled:
            self._change('the broker does not confirm messages; mail is refused for now')
            self._publisher.fail_impatient(QueueError('the broker does not answer'))
        else:
            self._change('the broker confirms messages again')

    # what the broker says

    def _on_event(self, event: Event) -> None:
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)

    def _delivered(self, event: Delivered, fault: str = '') -> None:
        consumer = self._by_channel.get(event.channel)
        if consumer is not None:
            consumer.arrived(event, fault)
        elif not fault:
            self._parker.delivered(event)

    def _too_large(self, event: TooLarge) -> None:
        if isinstance(event.message, Delivered):
            self._delivered(event.message, f'the message has {event.size} bytes, more than can be taken')
        elif isinstance(event.message, Returned):
            self._publisher.returned(event.message)

    def _blocked(self, event: Blocked) -> None:
        self._look_at_trouble()
        self._change(f'the broker takes no messages now ({event.reason}); mail is refused until it does')
        self._publisher.fail_waiting(QueueError('the broker takes no messages now'))
        self._reactor.call_later(BLOCKED_SECONDS, self._still_blocked)

    def _still_blocked(self) -> None:
        if self._link is not None and self._link.blocked:
            self._publisher.fail_impatient(QueueError('the broker takes no messages now'))

    def _unblocked(self, _event: Unblocked) -> None:
        self._look_at_trouble()
        self._change('the broker takes messages again')
        self._publisher.resume()

    def _cancelled(self, event: Cancelled) -> None:
        consumer = self._by_channel.get(event.channel)
        queue = event.consumer_tag if consumer is None else consumer.queue
        if self._link is not None and not (consumer is not None and consumer.stopped):
            self._link.drop(f'it ended the consumer of queue {queue}: the queue was deleted, or its node went away')

    def _channel_closed(self, event: ChannelClosed) -> None:
        link, consumer, parker = self._link, self._by_channel.get(event.channel), self._parker.channel
        if link is None or event.code == 200:
            return
        if event.channel == self._publishing:
            action, subject = 'publishing', f'exchange {self._config.exchange or "(the default one)"}'
            if event.code == 406 and 'message size' in event.text:
                self._publisher.too_large(event.text)
        elif consumer is not None:
            action, subject = 'consuming', f'queue {consumer.queue}'
        elif parker is not None and parker.number == event.channel:
            action, subject = 'consuming', f'the waiting queues of {self._config.outbox}'
        else:
            return
        link.drop(explain(event.code, event.text, action, subject) if event.code in (403, 404)
                  else f'it closed the channel for {action}: {event.text} (code {event.code})')


_HANDLERS: dict[type, Callable[[RabbitStore, Any], None]] = {
    Confirmed:     lambda store, event: store._publisher.confirmed(event),
    Delivered:     RabbitStore._delivered,
    Returned:      lambda store, event: store._publisher.returned(event),
    TooLarge:      RabbitStore._too_large,
    Blocked:       RabbitStore._blocked,
    Unblocked:     RabbitStore._unblocked,
    Cancelled:     RabbitStore._cancelled,
    ChannelClosed: RabbitStore._channel_closed,
}


def _answer_once(delivery: RabbitDelivery) -> None:
    if delivery.answered:
        raise KeyError(delivery.tag)
    delivery.answered = True
