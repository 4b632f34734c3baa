"""An engine with the real store, resolver and client, and what it delivers to, for the tests of test_delivery_engine*.

The clock jumps, and name servers and mail exchangers run on the engine's reactor, so that a day of retries takes
milliseconds and every time is exact. A test file takes the fixtures `bench` and `make` by assigning them.
"""

from __future__ import annotations

import json
import random
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable

import pytest

from mqlite.database.live import Database
from mqlite.delivery import destinations, route
from mqlite.delivery.attempt import Dialler
from mqlite.delivery.controls import Controls
from mqlite.delivery.engine import Engine, EngineConfig
from mqlite.delivery.notify import NotifyConfig
from mqlite.delivery.protection import Protection
from mqlite.delivery.response_rules import ResponseRules
from mqlite.delivery.retry import RetryPolicy
from mqlite.delivery.route import RouteConfig
from mqlite.dns.resolver import Resolver, ResolverConfig
from mqlite.loop.clock import VirtualClock
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import sleep
from mqlite.loop.tls import TlsContext, client_context
from mqlite.message.document import due_time
from mqlite.message.identifier import format_moment
from mqlite.queues.contract import Message
from mqlite.queues.embedded import EmbeddedStore
from mqlite.smtp.dsn import NOTHING
from mqlite.smtp.shares import Shares
from tests.support import dns
from tests.support.database import Notes, make_database
from tests.support.dns import Nameserver, Query
from tests.support.exchanger import Exchanger
from tests.support.process import HOST

SECOND = '127.0.0.2'
QUEUES = {'results': 'results', 'success': 'success', 'failure': 'failure', 'retry': 'retry'}
INTERVALS = (600, 600, 1800, 1800, 3600, 3600, 7200)
ZONE: dict[tuple[str, str], list[bytes]] = {
    ('one.example', 'MX'): [dns.mx('one.example', 10, 'mx1.example')],
    ('two.example', 'MX'): [dns.mx('two.example', 20, 'mx2.example'), dns.mx('two.example', 10, 'mx1.example')],
    ('bare.example', 'A'): [dns.address('bare.example', HOST)],
    ('null.example', 'MX'): [dns.mx('null.example', 0, '')],
    ('nohost.example', 'MX'): [dns.mx('nohost.example', 10, 'gone.example')],
    ('half.example', 'MX'): [dns.mx('half.example', 10, 'gone.example'), dns.mx('half.example', 20, 'mx1.example')],
    ('lost.example', 'MX'): [dns.mx('lost.example', 10, 'broken.example'), dns.mx('lost.example', 20, 'gone.example')],
    ('six.example', 'A'): [dns.address('six.example', HOST)],
    ('six.example', 'AAAA'): [dns.address('six.example', '::1')],
    ('equal.example', 'MX'): [dns.mx('equal.example', 10, 'mx2.example'), dns.mx('equal.example', 10, 'mx1.example'),
                              dns.mx('equal.example', 30, 'mx1.example')],
    ('quiet.example', 'MX'): [dns.mx('quiet.example', 10, f'{n}.silent.example') for n in range(20)],
    ('hidden.example', 'AAAA'): [dns.address('hidden.example', '::1')],
    ('wide.example', 'A'): [dns.address('wide.example', HOST)],
    ('wide.example', 'AAAA'): [dns.address('wide.example', f'2001:db8::{n}') for n in range(1, 16)],
    ('many.example', 'A'): [dns.address('many.example', f'127.9.9.{n}') for n in range(1, 41)],
    ('mx1.example', 'A'): [dns.address('mx1.example', HOST)],
    ('mx2.example', 'A'): [dns.address('mx2.example', SECOND)],
}
NAMES = {name for name, _ in ZONE}


def answer(query: Query) -> list[bytes]:
    if query.name.endswith('silent.example'):
        return []
    if query.name == 'broken.example' or (query.name, query.type) == ('hidden.example', 'A'):
        return [dns.reply(query.id, query.name, query.type, rcode=dns.SERVFAIL)]
    records = ZONE.get((query.name, query.type), [])
    return [dns.reply(query.id, query.name, query.type, *records, rcode=0 if query.name in NAMES else dns.NXDOMAIN,
                      authority=[] if records else [dns.soa('example', 600, 600)])]


def read_orders(reactor: Reactor, path: str) -> ResponseRules:
    """The response rules of a database."""
    notes = Notes()
    return ResponseRules(Database(reactor, make_database(path), 600, notes))


class Bench:
    """Engine, store, name server, and an exchanger at HOST; the port is the same for all exchangers."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, tls: TlsContext | None = None,
                 **settings: Any) -> None:
        self.errors: list[str] = []
        self.reactor = Reactor(VirtualClock(), lambda error, where: self.errors.append(f'{error!r} {where}'))
        self.clock = self.reactor.clock
        self.exchanger = Exchanger(self.reactor, b'PIPELINING', b'8BITMIME', tls=tls)
        monkeypatch.setattr(route, 'SMTP_PORT', self.exchanger.port)
        monkeypatch.setattr(destinations, 'SWEEP_SECONDS', 1800.0)      # a day of minutes is 1440 jumps of 2 ms
        self.nameserver = Nameserver(self.reactor, answer)
        resolver = Resolver(self.reactor, ResolverConfig(
            (self.nameserver.address,), 5.0, 1.0, 2, False, hosts_file=str(folder / 'hosts'),
            resolv_file=str(folder / 'resolv.conf')), random.Random(1))
        self.store = EmbeddedStore(self.reactor, str(folder / 'queue'), print, poll_seconds=1e8)
        self.dialler = Dialler(self.reactor, resolver, 'me.example',
                               Protection(self.clock, client_context(), settings.get('verifying') or client_context()),
                               controls=(controls := settings.get('controls') or Controls()),
                               is_own=settings.get('is_own'))
        self.config = EngineConfig(
            'outbox', settings.get('queues', QUEUES),
            RetryPolicy(INTERVALS, settings.get('max_attempts', 0), settings.get('max_seconds', 86400.0)),
            RouteConfig(None, settings.get('smarthost'), settings.get('sources', ()), settings.get('is_mappable')),
            Shares().outgoing, controls=controls,
            notify=NotifyConfig('me.example', settings.get('dsn', ''), settings.get('notices', NOTHING)),
            orders=read_orders(self.reactor, settings['orders']) if 'orders' in settings else None)
        self.engine = Engine(self.reactor, self.store, self.dialler, self.config, settings.get('log'))
        self.run_until(self.store.open())
        self.engine.start()

    def run_until(self, work: Any) -> Any:
        return self.reactor.run(work)

    def run(self, seconds: float = 1.0) -> None:
        self.run_until(sleep(self.reactor, seconds))

    def publish(self, fields: Any = None, due: float | None = None, **more: Any) -> None:
        """A document, or a body, as `queue publish` and other programs do it: when it is due stands in it."""
        if not isinstance(fields, (bytes, list)):
            fields = {'envelope': 's@a.example', 'recipient': 'r@one.example', 'mime': 'Subject: x\n\nü',
                      **(fields or {}), **more}
        body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()

        async def kept() -> None:
            await self.store.publish([Message('outbox', body, 0, due_time(body) if due is None else due)])
        self.run_until(kept())

    def take(self, queue: str) -> list[dict[str, Any]]:
        """What is on a queue; it is empty after that."""
        async def all_of_it() -> list[dict[str, Any]]:
            deliveries = await self.store.fetch(queue, 1000)
            for delivery in deliveries:
                await self.store.settle(delivery, [])
            return [json.loads(delivery.body) for delivery in deliveries]
        return self.run_until(all_of_it())  # type: ignore[no-any-return]

    def final(self, queue: str = 'results') -> dict[str, Any]:
        """The one document on the queue."""
        [document] = self.take(queue)
        return document

    def last(self, *names: str) -> tuple[Any, ...]:
        """Of the last attempt of the one document in the results."""
        entry = self.final()['results'][-1]
        return tuple(entry.get(name) for name in names)

    def counts(self) -> dict[str, int]:
        """Messages of all queues."""
        rows = self.run_until(self.store.list_queues())
        return {row.name: row.ready + row.waiting + row.taken for row in rows}

    def moments(self, document: dict[str, Any], begin: float) -> list[int]:
        """Seconds from the beginning to each result."""
        return [round(parse(entry['time']) - begin) for entry in document['results']]

    def close(self) -> None:
        self.run_until(self.engine.stop(1.0))
        self.run_until(self.store.close())
        self.exchanger.close()
        self.nameserver.close()
        self.run(0.1)
        self.reactor.close()


def parse(moment: str) -> float:
    return due_time(json.dumps({'nextattempt': {'time': moment}}).encode())


Make = Callable[..., Bench]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closing: ExitStack) -> Make:
    def start(tls: TlsContext | None = None, **settings: Any) -> Bench:
        bench = Bench(tmp_path, monkeypatch, tls, **settings)
        closing.callback(bench.close)
        return bench
    return start


@pytest.fixture
def bench(make: Make) -> Bench:
    return make()


def in_seconds(bench: Bench, seconds: float) -> str:
    return format_moment(bench.clock.time() + seconds)
