"""A dialler with the plugins of a folder, a name server, and an exchanger that answers: for what hooks are told."""

from __future__ import annotations

import random
from pathlib import Path

from mqlite.delivery.attempt import Dialler, NoSession
from mqlite.delivery.protection import Protection
from mqlite.delivery.route import Place, Route
from mqlite.dns.resolver import Resolver, ResolverConfig
from mqlite.errors import ConfigError
from mqlite.loop.clock import VirtualClock
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import sleep
from mqlite.loop.tls import client_context
from mqlite.message.result import Result
from mqlite.plugin import hooks
from mqlite.plugin.hooks import Hooks
from mqlite.plugin.outgoing import OutgoingHooks
from tests.support import dns
from tests.support.dns import Nameserver, Query
from tests.support.exchanger import Exchanger
from tests.support.plugins import LOG, make_host
from tests.support.process import HOST

NAMES = [row.name for row in hooks.HOOKS]
INCLUDES = ''.join(f'#include "hooks/core/{name}.h"\n' for name in NAMES)
SAY = '#include <stdio.h>\n#define SAY(...) do { char t[512]; snprintf(t, sizeof t, __VA_ARGS__); ' \
      'MQ_log(MQ_INFO, t); } while (0)\n'

ZONE = {
    ('one.example', 'MX'):  [dns.mx('one.example', 20, 'mx2.example'), dns.mx('one.example', 10, 'mx1.example')],
    ('bare.example', 'A'):  [dns.address('bare.example', HOST)],
    ('null.example', 'MX'): [dns.mx('null.example', 0, '')],
    ('gone.example', 'MX'): [dns.mx('gone.example', 10, 'nowhere.example')],
    ('mx1.example', 'A'):   [dns.address('mx1.example', '127.0.0.3')],     # nobody listens there
    ('mx2.example', 'A'):   [dns.address('mx2.example', HOST)],
}


def answer(query: Query) -> list[bytes]:
    records = ZONE.get((query.name, query.type), [])
    known = any(name == query.name for name, _ in ZONE)
    if query.name.startswith('broken'):
        return [dns.reply(query.id, query.name, query.type, rcode=dns.SERVFAIL)]
    return [dns.reply(query.id, query.name, query.type, *records, rcode=0 if known else dns.NXDOMAIN,
                      authority=[] if records else [dns.soa('example', 600, 600)])]


class HookBench:
    """All of it; mx1 of the zone has nobody who listens."""

    def __init__(self, folder: Path, sources: tuple[str, ...] = ()) -> None:
        LOG.lines.clear()
        self.turn = 0  # which of several local addresses is next
        self.reactor = Reactor(VirtualClock())
        self.exchanger = Exchanger(self.reactor)
        self.nameserver = Nameserver(self.reactor, answer)
        self.resolver = Resolver(self.reactor, ResolverConfig(
            (self.nameserver.address,), 5.0, 1.0, 2, False, hosts_file=str(folder / 'hosts'),
            resolv_file=str(folder / 'resolv.conf')), random.Random(1))
        try:
            self._load(folder, sources)
        except ConfigError:
            self.close()
            raise

    def _load(self, folder: Path, sources: tuple[str, ...]) -> None:
        self.registered = Hooks(LOG)
        self.host = make_host(folder, self.reactor, self.registered)
        self.hooks = OutgoingHooks(self.host, self.resolver, sources)
        protection = Protection(self.reactor.clock, client_context(), client_context())
        self.dialler = Dialler(self.reactor, self.resolver, 'me.example', protection, hooks=self.hooks)
        self.reactor.run(self.host.start())

    def open(self, host: str, fixed: bool = False, sources: tuple[str, ...] | None = None) -> Result | None:
        """The result that there is without a session, or None."""
        self.turn += 1
        source = sources[self.turn % len(sources)] if sources else None
        route = Route(host, self.exchanger.port, fixed)

        async def one() -> Result | None:
            try:
                place = Place(await self.dialler.exchangers(route), route.port, source)
                session = await self.dialler.open(place, host)
            except NoSession as refusal:
                return refusal.result
            await session.quit()
            return None
        return self.reactor.run(one())

    def close(self) -> None:
        self.exchanger.close()
        self.nameserver.close()
        self.reactor.run(sleep(self.reactor, 1))
        self.reactor.close()
