"""The resolver: names to addresses and mail exchangers for everybody in this process.

    addresses, mail_exchangers ──► ask ──► cache ──► join ──► queue ──► one task per question ──► Lookup, sockets

Equal questions are joined: one task asks, and every asker has a Waiter of its own on its list. An asker that is
cancelled leaves the list and disturbs nobody; the question runs on into the cache. At most `capacity` questions are
under way, the others wait in the order in which they came. Every query has a socket, and so a source port, of its own
and an id from `secrets`; the sockets are connected, so that the kernel drops what comes from elsewhere (RFC 5452).

`lookup` decides and `message` parses; here are only sockets, timers and the meaning of outcomes for mail. That only
NXDOMAIN and NODATA are permanent holds here as well: a host with one family of addresses unknown is not a host without.

Limits: a question takes at most about attempts x (2 x interval) + timeout seconds, twice that over TCP, and that for
each alias whose target came separately. The number of waiting askers is for the callers to bound.
"""

from __future__ import annotations

import random
import secrets
from collections import deque
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from operator import attrgetter
from typing import Any

from mqlite.dns.cache import Cache
from mqlite.dns.hosts import WatchedFile, parse_hosts, parse_resolv_conf, parse_server
from mqlite.dns.lookup import Answer, Ask, Failed, Lookup, NoData, NoSuchDomain, Outcome, Plan
from mqlite.dns.message import MX, FormatError, Question, Type, frame, normal_name, split_frame
from mqlite.errors import MqliteError, PermanentError, TemporaryError
from mqlite.loop.connect import connect
from mqlite.loop.datagram import Datagram
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import Task, Timeout, Waiter, sleep, timeout

# When neither the configuration nor resolv.conf says anything: seconds as resolv.conf(5) and MailerQ have them.
DEFAULT_TIMEOUT = 5.0
DEFAULT_INTERVAL = 3.0
DEFAULT_ATTEMPTS = 5
_CLOSED = Failed('mqlite is stopping: no more DNS lookups')


class DnsTemporary(TemporaryError):
    """No nameserver could say. Ask again later."""


class DnsPermanent(PermanentError):
    """The DNS says that there is no such domain or no such record, or the name cannot be one."""


class NullMX(DnsPermanent):
    """The domain declares that it takes no mail (RFC 7505); 556 5.1.10 towards a sender."""


@dataclass(frozen=True)
class ResolverConfig:
    """The settings dns-*. None, and no nameservers: what resolv.conf says, then the defaults above."""

    nameservers: tuple[str, ...] = ()  # as hosts.parse_server takes them
    timeout: float | None = None  # seconds for a reply to the last attempt
    interval: float | None = None  # seconds between attempts
    attempts: int | None = None
    rotate: bool | None = None  # start with a random nameserver, not with the first
    min_ttl: float = 60.0  # seconds
    capacity: int = 100  # questions under way; at least 1
    hosts_file: str = '/etc/hosts'
    resolv_file: str = '/etc/resolv.conf'


class Resolver:
    """One per reactor. `choice` is the source of everything random that is no secret."""

    def __init__(self, reactor: Reactor, config: ResolverConfig, choice: random.Random | None = None) -> None:
        """ConfigError when a nameserver is not an address."""
        self.overrides: Mapping[str, tuple[str, ...]] = {}  # addresses of normal names, instead of what DNS says
        self.ignored = 0  # replies that belonged to no question: forged, late or confused
        self._reactor = reactor
        self._config = config
        self._choice = choice or random.Random()
        self._servers = tuple(parse_server(text) for text in config.nameservers)
        self._hosts = WatchedFile(config.hosts_file, parse_hosts)
        self._resolv_conf = WatchedFile(config.resolv_file, parse_resolv_conf)
        self._cache = Cache(config.min_ttl)
        self._askers: dict[Question, list[Waiter[Outcome]]] = {}  # of every question that is under way or queued
        self._queue: deque[Question] = deque()
        self._tasks: dict[Question, Task[None]] = {}  # of every question that is under way
        self._closed = False

    async def addresses(self, host: str) -> list[str]:
        """The addresses of a host: the overrides, else /etc/hosts, else AAAA first and A after them, each in random
        order; an address, also in the brackets of RFC 5321 section 4.1.3, is its own. DnsTemporary or DnsPermanent when
        there are none."""
        literal = _literal(host)
        if literal is not None:
            return [literal]
        name = _checked(host)
        known = self._listed(name)
        if known:
            return list(known)
        outcomes = await self._ask_addresses(name)
        found = [self._shuffled(outcome.records) for outcome in outcomes if isinstance(outcome, Answer)]
        if not found:
            raise _no_address(name, *outcomes)
        return [address for family in found for address in family]

    async def hidden(self, host: str) -> DnsTemporary | None:
        """Why a host that has addresses may have others: those of one family cannot be found out at the moment."""
        if _literal(host) is not None or self._listed(name := _checked(host)):
            return None
        failures = [outcome for outcome in await self._ask_addresses(name) if isinstance(outcome, Failed)]
        return DnsTemporary(failures[0].reason) if failures else None

    def _listed(self, name: str) -> tuple[str, ...] | None:
        return self.overrides.get(name) or self._hosts.current().get(name)

    async def _ask_addresses(self, name: str) -> list[Outcome]:
        return await self.ask(Question(name, Type.AAAA), Question(name, Type.A))

    async def mail_exchangers(self, domain: str) -> list[MX]:
        """Where mail for a domain goes: by preference, random among equals (RFC 5321 section 5.1). A domain without MX,
        or known only to /etc/hosts, or with an override, is its own exchanger. NullMX, DnsTemporary or DnsPermanent
        when it has none."""
        literal = _literal(domain)
        if literal is not None:
            return [MX(0, literal)]
        name = _checked(domain)
        if name in self.overrides:
            return [MX(0, name)]
        [outcome] = await self.ask(Question(name, Type.MX))
        if isinstance(outcome, Answer):
            return self._usable(name, outcome)
        if isinstance(outcome, NoData) or (isinstance(outcome, NoSuchDomain) and name in self._hosts.current()):
            return [MX(0, name)]
        if isinstance(outcome, Failed):
            raise DnsTemporary(outcome.reason)
        raise DnsPermanent(f'{name}: no such domain (NXDOMAIN)')

    def known_exchangers(self, domain: str) -> tuple[list[MX], float] | None:
        """The MX records that a lookup has found lately, by preference, and the seconds for which they still hold. None
        when there was none, or it failed; this asks nobody."""
        try:
            question = Question(_checked(domain), Type.MX)
        except DnsPermanent:
            return None
        if question.name in self.overrides:
            return [MX(0, question.name)], self._config.min_ttl
        now = self._reactor.clock.monotonic()
        outcome = self._cache.get(question, now)
        if not isinstance(outcome, (Answer, NoData)):
            return None
        records: tuple[Any, ...] = outcome.records if isinstance(outcome, Answer) else ()
        exchangers = sorted((mx for mx in records if mx.host), key=attrgetter('preference'))
        return exchangers, self._cache.lifetime(question, now)

    def _usable(self, domain: str, answer: Answer) -> list[MX]:
        exchangers = [mx for mx in self._shuffled(answer.records) if mx.host]
        if not exchangers:
            raise NullMX(f'{domain}: the domain takes no mail (null MX, RFC 7505)')
        return sorted(exchangers, key=attrgetter('preference'))

    def _shuffled(self, records: tuple[Any, ...]) -> list[Any]:
        return self._choice.sample(records, len(records))

    # asking

    async def ask(self, *questions: Question) -> list[Outcome]:
        """The outcome of each question, all asked at once; their names in normal form (message.normal_name)."""
        asked = [(question, self._join(question)) for question in questions]
        try:
            return [await waiter for _question, waiter in asked]
        finally:
            for question, waiter in asked:
                if not waiter.done:
                    self._askers[question].remove(waiter)

    def close(self) -> None:
        """Stop asking, for good: whoever waits, and whoever asks later, gets DnsTemporary."""
        self._closed = True
        self._queue.clear()
        for task in self._tasks.values():
            task.cancel()
        for question in list(self._askers):
            self._settle(question, _CLOSED)

    def _join(self, question: Question) -> Waiter[Outcome]:
        """A Waiter for the outcome, already set when it is known."""
        waiter: Waiter[Outcome] = Waiter(self._reactor)
        known = _CLOSED if self._closed else self._cache.get(question, self._reactor.clock.monotonic())
        if known is not None:
            waiter.set(known)
        elif question in self._askers:
            self._askers[question].append(waiter)
        else:
            self._askers[question] = [waiter]
            self._queue.append(question)
            self._start_queued()
        return waiter

    def _start_queued(self) -> None:
        while self._queue and len(self._tasks) < self._config.capacity:
            question = self._queue.popleft()
            self._tasks[question] = self._reactor.spawn(self._resolve(question), f'DNS {question}')

    def _settle(self, question: Question, outcome: Outcome) -> None:
        for waiter in self._askers.pop(question, ()):
            waiter.set(outcome)

    async def _resolve(self, question: Question) -> None:
        outcome: Outcome = Failed(f'{question}: the lookup broke off, by a fault of this program')
        try:
            outcome = await self._look_up(question)
            self._cache.put(question, outcome, self._reactor.clock.monotonic())
        finally:
            del self._tasks[question]
            self._settle(question, outcome)
            self._start_queued()

    async def _look_up(self, question: Question) -> Outcome:
        plan, first = self._plan()
        lookup = Lookup(question, plan, first, partial(secrets.randbelow, 65536))
        try:
            step = lookup.next()
            while isinstance(step, Ask):
                if step.pause:
                    await sleep(self._reactor, step.pause)
                await self._perform(lookup, step)
                step = lookup.next()
            return step
        finally:
            self.ignored += lookup.ignored

    def _plan(self) -> tuple[Plan, int]:
        """How to ask, as things are now, and which server is the first."""
        config, resolv_conf = self._config, self._resolv_conf.current()
        servers = self._servers or resolv_conf.servers
        plan = Plan(servers=servers,
                    attempts=config.attempts or resolv_conf.attempts or DEFAULT_ATTEMPTS,
                    interval=config.interval or DEFAULT_INTERVAL,
                    timeout=config.timeout or resolv_conf.timeout or DEFAULT_TIMEOUT)
        rotate = resolv_conf.rotate if config.rotate is None else config.rotate
        return plan, self._choice.randrange(len(servers)) if rotate else 0

    # sockets

    async def _perform(self, lookup: Lookup, ask: Ask) -> None:
        try:
            with timeout(self._reactor, ask.wait):
                await (self._over_tcp(lookup, ask) if ask.tcp else self._over_udp(lookup, ask))
        except Timeout:
            lookup.silent()
        except OSError as error:
            lookup.broken(f'cannot be reached: {error.strerror or error}')
        except MqliteError as error:
            lookup.broken(f'cannot be reached over TCP: {error}')

    async def _over_udp(self, lookup: Lookup, ask: Ask) -> None:
        with closing(Datagram.connect(self._reactor, ask.server)) as datagram:
            datagram.send(ask.query)
            while not lookup.heard(await datagram.receive()):
                pass

    async def _over_tcp(self, lookup: Lookup, ask: Ask) -> None:
        with closing(await connect(self._reactor, *ask.server, seconds=ask.wait)) as stream:
            stream.write(frame(ask.query))
            buffered = b''
            while True:
                reply, buffered = split_frame(buffered + stream.take())
                if reply is None:
                    await stream.wait_bytes()
                elif lookup.heard(reply):
                    return


def _literal(text: str) -> str | None:
    """The address that the text is: '192.0.2.1', '[192.0.2.1]', '2001:db8::1', '[IPv6:2001:db8::1]'."""
    inner = text[1:-1] if text.startswith('[') and text.endswith(']') else text
    if inner[:5].lower() == 'ipv6:':
        inner = inner[5:]
    try:
        return str(ip_address(inner))
    except ValueError:
        return None


def _checked(name: str) -> str:
    try:
        return normal_name(name)
    except FormatError as error:
        raise DnsPermanent(str(error)) from error


def _no_address(name: str, *outcomes: Outcome) -> MqliteError:
    """One family may be answered and the other not; and some servers say NXDOMAIN for AAAA of a name that has an A
    (RFC 4074 section 4.2). Absence is certain only when nothing failed."""
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            return DnsTemporary(outcome.reason)
    if all(isinstance(outcome, NoSuchDomain) for outcome in outcomes):
        return DnsPermanent(f'{name}: no such host (NXDOMAIN)')
    return DnsPermanent(f'{name}: the host has no address (neither A nor AAAA)')
