"""What deliveries led to, published until it is kept.

    add ─► publish ─► kept ─► on_kept: the delivery is acknowledged
              ▲  └─► link lost ──────────► waits for the next link
              ├──────────────────────────── with it
              ├──── refused ───────────────► after AGAIN_SECONDS
              ├──── no such queue ─────────► declared; or what was meant for it goes to the results queue
              └──── too large ─────────────► without what is too large; a retry as it was when it came

Only what is not confirmed yet is published again. A settlement is never given up while the store is open: it stands
for mail that was delivered, or for mail that must not be lost.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from functools import partial
from typing import Callable

from mqlite.amqp.client import Link
from mqlite.errors import MqliteError
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import Waiter
from mqlite.queues.consumer import RabbitDelivery
from mqlite.queues.contract import Message
from mqlite.queues.inspector import Inspector
from mqlite.queues.publisher import Forwarded, Group, Publisher, TooLargeForBroker, Unroutable
from mqlite.queues.topology import RabbitConfig, declare_queue

AGAIN_SECONDS = 1.0  # before an outcome that the broker refused is published again


class Settlement:
    """One delivery and what is left to be published for it."""

    __slots__ = ('declared', 'delivery', 'fallback', 'group', 'left', 'reduced', 'waiter')

    def __init__(self, delivery: RabbitDelivery, messages: Sequence[Message], fallback: str,
                 waiter: Waiter[None]) -> None:
        self.delivery = delivery
        self.left = list(messages)
        self.fallback = [message.body for message in messages if message.queue == fallback]  # told there in any case
        self.waiter = waiter
        self.reduced = False
        self.declared: set[str] = set()  # queues that were declared for it
        self.group: Group | None = None


class Settlements:
    """All of one store that are not kept yet."""

    def __init__(self, reactor: Reactor, config: RabbitConfig, publisher: Publisher,
                 on_kept: Callable[[RabbitDelivery], object], on_given_up: Callable[[RabbitDelivery], object],
                 on_note: Callable[[str], object]) -> None:
        self._reactor = reactor
        self._config = config
        self._publisher = publisher
        self._on_kept = on_kept
        self._on_given_up = on_given_up
        self._on_note = on_note
        self._link: Link | None = None
        self._open: dict[Settlement, None] = {}
        self._waiting: list[Settlement] = []  # for a link
        self._routes: dict[str, list[Settlement]] = {}  # queue that is being declared -> what is meant for it

    def __len__(self) -> int:
        return len(self._open)

    def add(self, delivery: RabbitDelivery, messages: Sequence[Message]) -> Waiter[None]:
        waiter: Waiter[None] = Waiter(self._reactor)
        settlement = Settlement(delivery, messages, self._config.fallback, waiter)
        self._open[settlement] = None
        self._publish(settlement)
        return waiter

    def attach(self, link: Link) -> None:
        """There is a link; the publisher has it already."""
        self._link = link
        waiting, self._waiting = self._waiting, []
        for settlement in waiting:
            self._publish(settlement)

    def detach(self) -> None:
        """The link is gone; the publisher is told after us."""
        self._link = None

    def give_up(self, error: MqliteError) -> None:
        """The store is closed: the broker delivers these again, to whoever comes."""
        settlements, self._open, self._waiting = list(self._open), {}, []
        for settlement in settlements:
            settlement.waiter.fail(error)

    def want_queue(self, queue: str) -> None:
        """Declare a queue that was found missing."""
        if self._link is not None and queue not in self._routes:
            self._routes[queue] = []
            self._reactor.spawn(self._make_route(self._link, queue), f'missing queue {queue}')

    def _publish(self, settlement: Settlement) -> None:
        if settlement not in self._open:
            return  # given up
        if self._link is None and settlement.left:
            self._waiting.append(settlement)
            return
        group = settlement.group = Group(settlement.left, True, partial(self._answered, settlement))
        self._publisher.publish(group)

    def _answered(self, settlement: Settlement, error: MqliteError | None) -> None:
        """What became of the publishes of a settlement."""
        if settlement not in self._open:
            return
        assert settlement.group is not None
        settlement.left = settlement.group.left
        if error is None:
            del self._open[settlement]
            self._on_kept(settlement.delivery)
            settlement.waiter.set()
        elif self._link is None:
            self._waiting.append(settlement)
        elif isinstance(error, Unroutable):
            self._redirect(settlement, error.queue)
        elif isinstance(error, TooLargeForBroker):
            self._reduce(settlement, error)
        else:
            self._on_note(str(error))
            self._reactor.call_later(AGAIN_SECONDS, self._publish, settlement)

    # a queue that is not there

    def _redirect(self, settlement: Settlement, queue: str) -> None:
        if self._config.declare and queue not in settlement.declared and _names(settlement, queue):
            settlement.declared.add(queue)
            self.want_queue(queue)
            self._routes[queue].append(settlement)
        else:
            self._lead_elsewhere(settlement, queue, f'there is no queue {queue} on the broker')

    async def _make_route(self, link: Link, queue: str) -> None:
        """Declare the queue, once for all that is meant for it."""
        failure: MqliteError | None = None
        try:
            for name, fields in declare_queue(self._config, link.version, queue):
                await Inspector(link, self._config).ask(queue, name, **fields)
        except MqliteError as error:
            failure = error
        for settlement in self._routes.pop(queue):
            if failure is None or link.ended.done:
                self._publish(settlement)
            else:
                self._lead_elsewhere(settlement, queue, str(failure))

    def _lead_elsewhere(self, settlement: Settlement, queue: str, reason: str) -> None:
        """A result for a queue of its own goes to the queue of all results. Where no other place is right, wait."""
        config = self._config
        if queue in (config.fallback, config.outbox) or not _names(settlement, queue):
            settlement.declared.clear()
            self._on_note(f'{reason}; what is meant for it waits')
            self._reactor.call_later(AGAIN_SECONDS, self._publish, settlement)
            return
        self._on_note(f'{reason}; what is meant for it goes to {config.fallback or "nowhere"}')
        left = []
        for message in settlement.left:
            if message.queue != queue:
                left.append(message)
            elif config.fallback and message.body not in settlement.fallback:
                settlement.fallback.append(message.body)
                left.append(Message(config.fallback, message.body, message.priority))
        settlement.left = left
        self._publish(settlement)

    # a message that is too large

    def _reduce(self, settlement: Settlement, error: MqliteError) -> None:
        """The broker has taken the message itself, so a retry fits as it came; results that do not fit are dropped."""
        if settlement.reduced:
            del self._open[settlement]
            self._on_given_up(settlement.delivery)
            settlement.waiter.fail(error)
            return
        settlement.reduced = True
        body, left = settlement.delivery.body, []
        for message in settlement.left:
            if self._publisher.fits(message):
                left.append(message)
            elif message.queue == self._config.outbox:
                left.append(Forwarded(message.queue, gzip.compress(body, 6, mtime=0), message.priority, message.due,
                                      message.lost, 'gzip'))
        self._on_note(f'{error}; a result is not kept for that reason')
        settlement.left = left
        self._publish(settlement)


def _names(settlement: Settlement, queue: str) -> bool:
    """Whether a message is meant for this queue; it may also be a waiting queue, which comes with the link."""
    return any(message.queue == queue for message in settlement.left)
