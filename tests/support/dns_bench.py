"""A resolver on its bench: a reactor whose clock jumps, scripted nameservers, files of the host that a test writes."""

from __future__ import annotations

import random
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Callable

from mqlite.dns.message import Question, Type
from mqlite.dns.resolver import Resolver, ResolverConfig
from mqlite.loop.clock import Clock, VirtualClock
from mqlite.loop.reactor import Reactor
from tests.support import dns
from tests.support.dns import Nameserver, Query

ZONE: dict[tuple[str, str], list[bytes]] = {
    ('a.example', 'A'): [dns.address('a.example', '192.0.2.1')],
    ('b.example', 'AAAA'): [dns.address('b.example', '2001:db8::1')],
    ('both.example', 'A'): [dns.address('both.example', f'192.0.2.{n}') for n in (1, 2, 3)],
    ('both.example', 'AAAA'): [dns.address('both.example', f'2001:db8::{n}') for n in (1, 2, 3)],
    ('mail.example', 'MX'): [dns.mx('mail.example', preference, host) for preference, host in
                             ((20, 'c'), (10, 'b1'), (10, 'b2'), (10, 'b3'), (0, 'a'))],
    ('null.example', 'MX'): [dns.mx('null.example', 0, '')],
    ('odd.example', 'MX'): [dns.mx('odd.example', 0, ''), dns.mx('odd.example', 10, 'mx.example')],
    ('xn--bcher-kva.example', 'MX'): [dns.mx('xn--bcher-kva.example', 10, 'mx.example')],
}
NAMES = {name for name, _kind in ZONE} | {'nothing.example'}


def answer(query: Query) -> list[bytes]:
    """As a well-behaved server does for the zone."""
    records = ZONE.get((query.name, query.type), [])
    authority = [] if records else [dns.soa('example', 600, 600)]
    rcode = 0 if query.name in NAMES else dns.NXDOMAIN
    return [dns.reply(query.id, query.name, query.type, *records, authority=authority, rcode=rcode)]


def silent(_query: Query) -> list[bytes]:
    return []


class Bench:
    """A reactor with a clock that jumps, scripted nameservers, and a resolver that asks them in this order."""

    def __init__(self, folder: Path, *scripts: Callable[[Query], list[bytes]], clock: Clock | None = None,
                 **settings: Any) -> None:
        self.reactor = Reactor(clock or VirtualClock())
        self.servers = [Nameserver(self.reactor, script) for script in scripts]
        self.hosts, self.resolv_conf = folder / 'hosts', folder / 'resolv.conf'
        config: dict[str, Any] = {'nameservers': tuple(server.address for server in self.servers), 'timeout': 20.0,
                                  'interval': 2.0, 'attempts': 3, 'hosts_file': str(self.hosts),
                                  'resolv_file': str(self.resolv_conf), **settings}
        self.resolver = Resolver(self.reactor, ResolverConfig(**config), random.Random(1))

    @property
    def queries(self) -> list[Query]:
        return [query for server in self.servers for query in server.queries]

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.reactor.run(work)

    def addresses(self, host: str) -> Any:
        return self.run(self.resolver.addresses(host))

    def exchangers(self, domain: str) -> Any:
        return self.run(self.resolver.mail_exchangers(domain))

    def ask(self, name: str, kind: Type) -> Any:
        return self.run(self.resolver.ask(Question(name, kind)))[0]

    def close(self) -> None:
        for server in self.servers:
            server.close()
        self.reactor.close()


Make = Callable[..., Bench]
