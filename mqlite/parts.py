"""The parts that the daemon and the subcommands share, made from the settings."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from typing import Callable

from mqlite.database.file import DatabaseFile
from mqlite.database.locals import LocalAddresses
from mqlite.database.open import open_file
from mqlite.dns.resolver import Resolver, ResolverConfig
from mqlite.errors import ConfigError
from mqlite.host import become_user
from mqlite.loop.reactor import Reactor
from mqlite.mail_log import MailLog
from mqlite.message.identifier import Identifiers
from mqlite.queues.contract import Store
from mqlite.queues.open import open_store
from mqlite.receive import Receiver, ReceiverConfig
from mqlite.settings import Settings


def make_resolver(reactor: Reactor, settings: Settings) -> Resolver:
    """A 0 in a dns-* setting means what /etc/resolv.conf says."""
    return Resolver(reactor, ResolverConfig(
        timeout=settings.seconds('dns-timeout') or None, interval=settings.seconds('dns-interval') or None,
        attempts=settings.integer('dns-attempts') or None, rotate=settings.flag('dns-rotate') or None,
        min_ttl=settings.seconds('dns-min-ttl'), capacity=settings.integer('dns-capacity')), random.Random())


def make_store(reactor: Reactor, settings: Settings, on_note: Callable[[str], object]) -> Store:
    """The store of the settings, with a resolver of its own for the names of brokers; not opened yet."""
    return open_store(reactor, settings, make_resolver(reactor, settings), on_note)


def make_receiver(reactor: Reactor, settings: Settings, store: Store, hostname: str, number: int,
                  log: MailLog | None = None) -> Receiver:
    """`number` keeps the identifiers of those that start in the same second apart."""
    identifiers = Identifiers(settings.text('server-id'), reactor.clock.time(), number)
    return Receiver(reactor.clock, store, identifiers, ReceiverConfig(
        hostname, settings.text('rabbitmq-inbox'), settings.flag('smtp-extract'),
        settings.text('rabbitmq-local'), settings.text('rabbitmq-reports')), log)


def load_locals(settings: Settings) -> LocalAddresses:
    """The local addresses as they are now, for a command that ends soon; none where no queue is for their mail."""
    wanted = settings.text('rabbitmq-local') or settings.text('rabbitmq-reports')
    file = open_file(settings) if wanted else None
    if file is None:
        return LocalAddresses(())
    with contextlib.closing(file):
        return LocalAddresses(file.read().rows['locals'])


@contextlib.contextmanager
def database_file(settings: Settings) -> Iterator[DatabaseFile]:
    """The database, for a command: as the user that the daemon runs as. ConfigError when there is none."""
    if settings.text('user') and os.geteuid() == 0:
        become_user(settings.text('user'))
    file = open_file(settings)
    if file is None:
        raise ConfigError('there is no database; set database-address, for instance to sqlite:///var/lib/mqlite/config.db')
    with contextlib.closing(file):
        yield file
