"""Which store the settings name."""

from __future__ import annotations

from typing import Callable

from mqlite.amqp.uri import parse_addresses
from mqlite.dns.resolver import Resolver
from mqlite.errors import ConfigError
from mqlite.loop.reactor import Reactor
from mqlite.queues.contract import Store
from mqlite.queues.embedded import EmbeddedStore
from mqlite.queues.rabbit import RabbitStore
from mqlite.queues.topology import RabbitConfig
from mqlite.settings import Settings

SQLITE = 'sqlite://'
QUEUE_SETTINGS = ('rabbitmq-outbox', 'rabbitmq-inbox', 'rabbitmq-local', 'rabbitmq-reports',
                  'rabbitmq-refused', 'rabbitmq-results', 'rabbitmq-success', 'rabbitmq-failure', 'rabbitmq-retry',
                  'rabbitmq-dsn')


def open_store(reactor: Reactor, settings: Settings, resolver: Resolver, on_note: Callable[[str], object]) -> Store:
    """The store for `queue-address`, not opened yet. ConfigError when there is none for it."""
    addresses = settings.items('queue-address')
    if len(addresses) == 1 and addresses[0].startswith(SQLITE) and len(addresses[0]) > len(SQLITE):
        return EmbeddedStore(reactor, addresses[0][len(SQLITE):], on_note)
    if any(address.startswith(SQLITE) for address in addresses):
        raise ConfigError('queue-address: one sqlite:// and the path of a file, or amqp:// addresses of one cluster')
    return RabbitStore(reactor, rabbit_config(settings), resolver, on_note)


def rabbit_config(settings: Settings) -> RabbitConfig:
    """The settings rabbitmq-*. ConfigError for an address that cannot be read."""
    names = [settings.text(name) for name in QUEUE_SETTINGS]
    return RabbitConfig(
        addresses=tuple(parse_addresses(','.join(settings.items('queue-address')))),
        verify=settings.flag('rabbitmq-verify'),
        exchange=settings.text('rabbitmq-exchange'),
        declare=settings.flag('rabbitmq-declare'),
        durable=settings.flag('rabbitmq-durable'),
        persistent=settings.flag('rabbitmq-persistent'),
        lazy=settings.flag('rabbitmq-lazy'),
        queue_type=settings.text('rabbitmq-queue-type'),
        max_priority=settings.integer('rabbitmq-maxpriority'),
        gzip=settings.text('rabbitmq-encoding') == 'gzip',
        qos=settings.integer('rabbitmq-qos'),
        throttle=settings.integer('rabbitmq-throttle'),
        outbox=settings.text('rabbitmq-outbox'),
        queues=tuple(dict.fromkeys(name for name in names if name)),
        fallback=settings.text('rabbitmq-results'))
