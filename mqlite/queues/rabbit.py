"""The RabbitMQ store: the contract of `contract.py` on a broker, or on several that stand in for each other.

One link at a time. When it ends, another is made, with a growing pause and a random part in it, so that a hundred
daemons do not come back at the same moment; queues are declared again and consumers come back. Meanwhile `trouble` says
why nothing can be kept, and clients are told so at once.

What happens to a delivery whose link has ended: the broker puts it back on its queue and will deliver it again. If we
still hold it, or have its outcome already, that copy is not new work. `_stale` remembers such deliveries by their body,
and a copy that comes back takes the place of the one that is remembered:

    in hand, link ends ─► stale ─► copy comes ─► in hand again, on the new link
                            │                └─► outcome kept already: acknowledged at once
                            └─► outcome kept while no copy has come: waits for it, to acknowledge it
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import Any, Callable

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
from mqlite.errors import ConfigError, MqliteError, PermanentError
from mqlite.loop.reactor import Reactor
from mqlite.loop.sync import Signal
from mqlite.loop.task import Task, Timeout, Waiter, sleep, timeout
from mqlite.queues.consumer import Parker, RabbitConsumer, RabbitDelivery, inflate
from mqlite.queues.contract import Delivery, Message, QueueError, QueueStatus
from mqlite.queues.inspector import Inspector
from mqlite.queues.publisher import Group, Publisher, Unroutable
from mqlite.queues.topology import RabbitConfig, declarations, declare_queue, explain

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between attempts to connect
BLOCKED_SECONDS = 5.0  # clients that wait when the broker blocks get their answer after this
CLOSE_SECONDS = 10.0  # for outcomes that are not confirmed yet when we stop
AGAIN_SECONDS = 1.0  # before an outcome that the broker refused is published again
MOST_STALE = 20000  # deliveries remembered for their copies; about what a thousand prefetched on 20 links are


class RabbitStore:
    """See `contract.Store`."""

    def __init__(self, reactor: Reactor, config: RabbitConfig, resolver: Resolver,
                 on_note: Callable[[str], object]) -> None:
        self.trouble: str | None = 'the broker is not connected yet'
        self._reactor = reactor
        self._config = config
        self._resolver = resolver
        self._on_note = on_note
        self._link: Link | None = None
        self._publisher = Publisher(reactor, config, self._stalled)
        self._parker = Parker(reactor, config.outbox, self._publisher)
        self._consumers: list[RabbitConsumer] = []
        self._by_channel: dict[int, RabbitConsumer] = {}
        self._held: set[RabbitDelivery] = set()
        self._stale: dict[bytes, deque[RabbitDelivery]] = {}
        self._unkept: list[tuple[RabbitDelivery, list[Message], Waiter[None]]] = []  # outcomes to publish again
        self._outcomes = 0  # settlements on their way
        self._settled = Signal(reactor)
        self._keeper: Task[None] | None = None
        self._first: Waiter[MqliteError | None] = Waiter(reactor)
        self._closed = False
        self._lasting: set[int] = set()  # channels without which the link is of no use
        self._last_note = ''

    async def open(self) -> None:
        self._keeper = self._reactor.spawn(self._keep_connected(), 'broker')
        error = await self._first
        if error is not None:
            raise error if isinstance(error, ConfigError) else QueueError(str(error))

    async def close(self) -> None:
        self._closed = True
        try:
            with timeout(self._reactor, CLOSE_SECONDS):
                while self._outcomes and self._link is not None:
                    await self._settled.wait()
        except Timeout:
            self._on_note(f'{self._outcomes} results are not confirmed: their messages may be sent again')
        if self._keeper is not None:
            self._keeper.cancel()
        if self._link is not None:
            await self._link.close()

    def publish(self, messages: Sequence[Message]) -> Waiter[None]:
        waiter: Waiter[None] = Waiter(self._reactor)
        if self.trouble is not None:
            waiter.fail(QueueError(self.trouble))
        else:
            self._publisher.publish(Group(messages, False, partial(_finish, waiter)))
        return waiter

    def settle(self, delivery: Delivery, messages: Sequence[Message]) -> Waiter[None]:
        assert isinstance(delivery, RabbitDelivery)
        waiter: Waiter[None] = Waiter(self._reactor)
        self._outcomes += 1
        self._publish_outcome(delivery, list(messages), waiter)
        return waiter

    def release(self, delivery: Delivery) -> None:
        assert isinstance(delivery, RabbitDelivery)
        if delivery.link is self._link and self._link is not None:
            delivery.channel.request('basic.nack', delivery_tag=delivery.tag, requeue=True)
            self._link.touch()
            self._gone(delivery)
        else:
            self._forget(delivery)

    def consume(self, queue: str, prefetch: int, prefetch_bytes: int,
                on_delivery: Callable[[Delivery], object]) -> RabbitConsumer:
        consumer = RabbitConsumer(queue, min(prefetch, self._config.qos), prefetch_bytes, on_delivery,
                                  self._consumers.remove)
        self._consumers.append(consumer)
        if self._link is not None:
            self._reactor.spawn(self._start_consumers(self._link, [consumer]), f'consumer of {queue}')
        return consumer

    async def fetch(self, queue: str, count: int) -> list[Delivery]:
        return await Inspector(self._connected(), self._config).fetch(queue, count)

    async def purge(self, queue: str) -> int:
        return await Inspector(self._connected(), self._config).purge(queue)

    async def list_queues(self) -> list[QueueStatus]:
        return await Inspector(self._connected(), self._config).list_queues()

    def _connected(self) -> Link:
        if self._link is None:
            raise QueueError(self.trouble or 'the broker is not connected')
        return self._link

    # outcomes

    def _publish_outcome(self, delivery: RabbitDelivery, messages: list[Message], waiter: Waiter[None]) -> None:
        if self._link is None:
            self._unkept.append((delivery, messages, waiter))
            return
        group = Group(messages, True, lambda error: self._outcome(delivery, group, waiter, error))
        self._publisher.publish(group)

    def _outcome(self, delivery: RabbitDelivery, group: Group, waiter: Waiter[None], error: MqliteError | None) -> None:
        """What became of the publishes of a settlement."""
        if error is None:
            self._outcomes -= 1
            delivery.kept = True
            self._acknowledge(delivery)
            waiter.set()
            self._settled.notify()
        elif isinstance(error, Unroutable) and self._link is not None:
            self._reactor.spawn(self._make_route(delivery, group.left, waiter, error), 'missing queue')
        elif self._link is None:
            self._unkept.append((delivery, group.left, waiter))
        else:
            self._note(str(error))
            left = [message for message in group.left if not isinstance(error, PermanentError)]
            self._reactor.call_later(AGAIN_SECONDS, self._publish_outcome, delivery, left, waiter)

    async def _make_route(self, delivery: RabbitDelivery, messages: list[Message], waiter: Waiter[None],
                          error: Unroutable) -> None:
        """A document named a queue that is not there: declare it, or let the fallback take what it would have got."""
        if self._config.declare:
            try:
                link = self._connected()
                for name, fields in declare_queue(self._config, link.version, error.queue):
                    await Inspector(link, self._config).ask(error.queue, name, **fields)
            except (QueueError, BrokerError) as failure:
                self._note(str(failure))
                messages = self._reroute(messages, error)
        else:
            messages = self._reroute(messages, error)
        self._publish_outcome(delivery, messages, waiter)

    def _reroute(self, messages: list[Message], error: Unroutable) -> list[Message]:
        self._note(f'{error}; what was meant for it goes to {self._config.fallback or "nowhere"}')
        if error.queue == self._config.fallback:
            return [message for message in messages if message.queue != error.queue]
        return [message if message.queue != error.queue else
                Message(self._config.fallback, message.body, message.priority, message.due)
                for message in messages if message.queue != error.queue or self._config.fallback]

    def _acknowledge(self, delivery: RabbitDelivery) -> None:
        """Now, or when the copy comes back."""
        if delivery.link is self._link and self._link is not None:
            delivery.channel.ack(delivery.tag)
            self._link.touch()
            self._gone(delivery)

    def _gone(self, delivery: RabbitDelivery) -> None:
        self._held.discard(delivery)
        if delivery.consumer is not None:
            delivery.consumer.gave(delivery.body)

    # deliveries

    def _delivered(self, event: Delivered, fault: str = '') -> None:
        consumer, link = self._by_channel.get(event.channel), self._link
        if consumer is None or consumer.channel is None or link is None:
            self._parker.delivered(event)
            return
        body, unreadable = inflate(event)
        delivery = self._remembered(body)
        copy = delivery is not None
        if delivery is None:
            delivery = RabbitDelivery(consumer.queue, event, body, fault or unreadable, consumer)
        delivery.link, delivery.channel, delivery.tag = link, consumer.channel, event.delivery_tag
        self._held.add(delivery)
        consumer.took(body)
        if delivery.kept:
            self._acknowledge(delivery)
        elif not copy:
            consumer.on_delivery(delivery)

    def _remembered(self, body: bytes) -> RabbitDelivery | None:
        """The delivery whose copy this is, no longer stale."""
        if not self._stale:
            return None
        key = sha256(body).digest()
        line = self._stale.get(key)
        if line is None:
            return None
        delivery = line.popleft()
        if not line:
            del self._stale[key]
        return delivery

    def _remember(self, delivery: RabbitDelivery) -> None:
        while len(self._stale) >= MOST_STALE:
            self._stale.pop(next(iter(self._stale)))
        self._stale.setdefault(sha256(delivery.body).digest(), deque()).append(delivery)

    def _forget(self, delivery: RabbitDelivery) -> None:
        line = self._stale.get(sha256(delivery.body).digest(), deque())
        if delivery in line:
            line.remove(delivery)

    # the link

    async def _keep_connected(self) -> None:
        pause = FIRST_PAUSE
        while True:
            for address in self._config.addresses:
                try:
                    link = await self._connect(address)
                except (MqliteError, OSError) as error:
                    self._failed(error)
                    continue
                pause = FIRST_PAUSE
                self._lost(await link.ended)
                break
            await sleep(self._reactor, pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _connect(self, address: Address) -> Link:
        error: MqliteError = BrokerError(f'{address}: no address')
        for target in await self._resolver.addresses(address.host):
            link = Link(self._reactor, address, self._on_event)
            try:
                await link.open(target, self._config.verify)
            except BrokerError as failure:
                error = failure
                continue
            try:
                await self._set_up(link)
            except MqliteError as failure:
                link.drop(str(failure))
                self._lost(failure)
                raise
            return link
        raise error

    async def _set_up(self, link: Link) -> None:
        """Declare, then publish, then consume: results need their queues before the first delivery comes."""
        await self._declare(link)
        channel = await link.channel()
        await link.request(channel, 'confirm.select')
        self._link, self._lasting = link, {channel.number}
        self._publisher.attach(link, channel)
        unkept, self._unkept = self._unkept, []
        for delivery, messages, waiter in unkept:
            self._publish_outcome(delivery, messages, waiter)
        await self._start_consumers(link, list(self._consumers))
        self.trouble = None if not link.blocked else self.trouble
        if self._last_note:
            self._note(f'connected to {link.address} (RabbitMQ {link.version})')
        if not self._first.done:
            self._first.set(None)

    async def _declare(self, link: Link) -> None:
        channel = await link.channel()
        rows = declarations(self._config, link.version)
        answers = [link.request(channel, name, **fields) for name, fields in rows]
        for (name, fields), answer in zip(rows, answers):
            try:
                await answer
            except BrokerError as error:
                if link.ended.done:
                    raise
                subject = f'queue {fields["queue"]}' if 'queue' in fields else f'exchange {fields["exchange"]}'
                raise BrokerRefused(explain(error.code, str(error), name, subject), error.code) from error
        channel.close()
        link.touch()

    async def _start_consumers(self, link: Link, consumers: Sequence[RabbitConsumer]) -> None:
        for consumer in consumers:
            try:
                await consumer.start(link)
            except BrokerError as error:
                raise BrokerRefused(explain(error.code, str(error), 'consuming', f'queue {consumer.queue}'),
                                    error.code) from error
            finally:
                if consumer.channel is not None:
                    self._by_channel[consumer.channel.number] = consumer
            if consumer.queue == self._config.outbox:
                await self._parker.start(link)

    def _failed(self, error: Exception) -> None:
        self.trouble = str(error)
        self._note(f'the queues cannot be reached: {error}')
        if not self._first.done:
            self._first.set(error if isinstance(error, MqliteError) else QueueError(str(error)))

    def _lost(self, reason: MqliteError) -> None:
        """Nothing of this link counts any more; what was in hand is stale."""
        self._link = None
        self.trouble = str(reason)
        if not self._closed:
            self._note(f'the broker is gone: {reason}')
        self._by_channel = {}
        held, self._held = self._held, set()
        for delivery in held:
            self._remember(delivery)
        self._parker.stop()
        self._publisher.detach(QueueError(str(reason)))

    def _note(self, text: str) -> None:
        """Say it once, not at every attempt."""
        if text != self._last_note:
            self._last_note = text
            self._on_note(text)

    def _stalled(self, stalled: bool) -> None:
        if stalled:
            self.trouble = 'the broker does not answer'
            self._publisher.fail_impatient(QueueError(self.trouble))
        else:
            self.trouble = None
        self._note('the broker does not confirm messages' if stalled else 'the broker confirms messages again')

    # what the broker says

    def _on_event(self, event: Event) -> None:
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)

    def _confirmed(self, event: Confirmed) -> None:
        self._publisher.confirmed(event)

    def _returned(self, event: Returned) -> None:
        self._publisher.returned(event)

    def _too_large(self, event: TooLarge) -> None:
        if isinstance(event.message, Delivered):
            self._delivered(event.message, f'the message has {event.size} bytes, more than can be taken')

    def _blocked(self, event: Blocked) -> None:
        self.trouble = f'the broker takes no messages now: {event.reason}'
        self._note(self.trouble)
        self._reactor.call_later(BLOCKED_SECONDS, self._still_blocked)

    def _still_blocked(self) -> None:
        if self._link is not None and self._link.blocked:
            self._publisher.fail_impatient(QueueError(self.trouble or 'the broker takes no messages'))

    def _unblocked(self, _event: Unblocked) -> None:
        self.trouble = None
        self._note('the broker takes messages again')

    def _cancelled(self, event: Cancelled) -> None:
        if self._link is not None:
            consumer = self._by_channel.get(event.channel)
            queue = consumer.queue if consumer is not None else event.consumer_tag
            self._link.drop(f'the broker ended the consumer of queue {queue}: it was deleted, or its node went away')

    def _channel_closed(self, event: ChannelClosed) -> None:
        link = self._link
        if link is None:
            return
        if event.channel in self._lasting and event.code == 406 and 'size' in event.text:
            self._publisher.too_large(event.text)
        parker = self._parker.channel
        if event.channel in self._lasting or event.channel in self._by_channel or (
                parker is not None and parker.number == event.channel):
            link.drop(f'the broker closed a channel: {event.text} (code {event.code})')


_HANDLERS: dict[type, Callable[[RabbitStore, Any], None]] = {
    Confirmed:     RabbitStore._confirmed,
    Delivered:     RabbitStore._delivered,
    Returned:      RabbitStore._returned,
    TooLarge:      RabbitStore._too_large,
    Blocked:       RabbitStore._blocked,
    Unblocked:     RabbitStore._unblocked,
    Cancelled:     RabbitStore._cancelled,
    ChannelClosed: RabbitStore._channel_closed,
}


def _finish(waiter: Waiter[None], error: MqliteError | None) -> None:
    if error is None:
        waiter.set()
    else:
        waiter.fail(error)
