"""The RabbitMQ store in a test: on a real broker, with a clock that jumps when nothing is expected from the broker."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from mqlite.amqp.uri import parse_addresses
from mqlite.dns.resolver import Resolver, ResolverConfig
from mqlite.loop.clock import Clock
from mqlite.queues.rabbit import RabbitStore
from mqlite.queues.topology import RabbitConfig
from tests.support.broker import Broker, BrokerClock
from tests.support.stores import StoresBench

CONFIG = RabbitConfig(
    addresses=(), verify=True, exchange='', declare=True, durable=True, persistent=True, lazy=False,
    queue_type='classic', max_priority=10, gzip=False, qos=1000, throttle=100, outbox='q',
    queues=('q', 'a', 'b', 'other', 'results'), fallback='results')


class RabbitStores(StoresBench):
    """Opens stores on one broker, whose queues are deleted before. Heartbeats are off: they would follow our clock."""

    def __init__(self, broker: Broker, clock: Clock | None = None, **config: Any) -> None:
        super().__init__(clock or BrokerClock())
        self.notes: list[str] = []
        self.stores: list[RabbitStore] = []
        self.config = replace(CONFIG, addresses=tuple(parse_addresses(broker.url + '?heartbeat=0')), **config)
        if isinstance(self.reactor.clock, BrokerClock):
            self.reactor.clock.expects = lambda: any(expects(store) for store in self.stores)
        broker.delete_queues()

    def make(self, **config: Any) -> RabbitStore:
        """A store that is not opened yet."""
        resolver = Resolver(self.reactor, ResolverConfig(), random.Random(1))
        store = RabbitStore(self.reactor, replace(self.config, **config), resolver, self.notes.append)
        self.stores.append(store)
        return store

    async def open(self, poll: float = 0, **config: Any) -> RabbitStore:
        """`poll` is for other stores."""
        store = self.make(**config)
        await store.open()
        return store

    async def abandon(self, store: RabbitStore) -> None:
        """The death of its process."""
        assert store._link and store._keeper
        store._keeper.cancel()
        store._link.drop('abandoned')
        store._link, store._closed = None, True


def expects(store: RabbitStore) -> bool:
    """Whether the broker owes it something: the end of a handshake, an answer, a confirm."""
    link = store._link
    if store._closed and link is None:
        return False
    if link is None:
        return store._keeper is not None and not store._first.done
    return store._publisher.busy or any(link._answers.values()) or bool(
        link._goodbye is not None and not link._goodbye.done)
