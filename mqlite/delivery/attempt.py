"""Opening a session with a destination.

The exchangers are tried in the order of their preference, equal ones in random order (RFC 5321 section 5.1), each at
each of its addresses, until one says hello; at most ADDRESSES_TRIED of them, with the exchangers that have none, since
each may cost minutes, and half as many of one family while there are others: this host may have no way to that one.
Addresses that could not be reached lately come last: while a server is down, connections to its neighbours do not wait
for it.

A server that is ourselves is not tried, nor are those of equal or worse preference (RFC 5321 section 5.1): mail would
go round in a circle. When nobody is left, the message is given up.

A server whose TLS is broken is tried once more in clear where TLS is opportunistic (see `protection.py`), but not where
we log in: such a server has TLS, or never had it.
"""

from __future__ import annotations

import errno
import random
from collections import deque
from collections.abc import Sequence
from typing import Callable, NamedTuple

from mqlite.delivery import verdict
from mqlite.delivery.controls import Controls, decisive
from mqlite.delivery.forced import ForcedError
from mqlite.delivery.pauses import Pause
from mqlite.delivery.protection import Protection, certified_name, is_strict
from mqlite.delivery.route import OPPORTUNISTIC, Exchangers, Place, Route, ranked
from mqlite.delivery.secured import tls_fields
from mqlite.delivery.servers import Visit
from mqlite.delivery.signer import MailSigner
from mqlite.delivery.standing import Lately
from mqlite.dns.resolver import DnsPermanent, DnsTemporary, NullMX, Resolver
from mqlite.errors import MqliteError
from mqlite.loop.connect import CannotBind, connect
from mqlite.loop.reactor import Reactor
from mqlite.loop.stream import Stream
from mqlite.loop.task import Timeout
from mqlite.loop.tls import TlsContext
from mqlite.message.result import Connected, Result
from mqlite.plugin.outgoing import OutgoingHooks
from mqlite.smtp.client import ClientSession, Companion
from mqlite.smtp.reply import ClientFailure

CONNECT_SECONDS = 30.0  # as Postfix; the kernel's own limit is over two minutes
ADDRESSES_TRIED = 10  # per attempt; Postfix has 5 (smtp_mx_address_limit), and then looks no further either
NULL_MX = '5.1.10'  # recipient address has null MX (RFC 7505)
DOWN_SECONDS = 60.0  # for which an address that could not be reached comes last


class NoSession(MqliteError):
    """No server of the place could be talked to; `result` says why. `local`: it is our own address that is no use.
    `pause`: the operator does not want it now. `forced`: or not at all. `held`: the limits of the servers' addresses
    allow it after so many seconds, or when a connection ends; `tried`: another server was tried before."""

    def __init__(self, result: Result, local: bool = False, pause: Pause | None = None, forced: bool = False,
                 held: float = 0.0, tried: bool = False) -> None:
        super().__init__(result.description)
        self.result = result
        self.local = local
        self.pause = pause
        self.forced = forced
        self.held = held
        self.tried = tried


class OwnServer(NoSession):
    """The server is this daemon."""


class Target(NamedTuple):
    """One more to try. `rank`: the place of its preference among those of the exchangers, 0 for the best."""

    rank: int
    host: str
    address: str = ''  # not known yet


class Dialler:
    """Opens sessions."""

    def __init__(self, reactor: Reactor, resolver: Resolver, hostname: str, protection: Protection,
                 companion: Callable[[Stream], Companion] | None = None, hooks: OutgoingHooks | None = None,
                 signer: MailSigner | None = None, controls: Controls | None = None,
                 is_own: Callable[[str, int], bool] | None = None) -> None:
        """`companion`: makes the companion of a new connection, `hooks`: are told of it; where there are plugins.
        `signer`: signs what goes out. `is_own`: whether this daemon listens at an address and port."""
        self._controls = controls or Controls()
        self._is_own = is_own
        self.hooks = hooks
        self.signer = signer
        self._reactor = reactor
        self._resolver = resolver
        self._hostname = hostname
        self._protection = protection
        self._companion = companion
        self._down = Lately[tuple[str, int]](DOWN_SECONDS)  # addresses and ports

    async def exchangers(self, route: Route, for_mail: bool = True) -> Exchangers:
        """The servers of a route. NoSession when it has none, or nobody knows. `for_mail`: there is mail for it."""
        if route.fixed:
            return ((route.host,),)
        try:
            return ranked(await self._resolver.mail_exchangers(route.host))
        except (DnsPermanent, DnsTemporary) as error:
            hooks = self._used_hooks()
            if hooks is not None and for_mail:
                hooks.unreached(route.host, error)
            raise _unresolved(error) from error

    async def open(self, place: Place, domain: str, visit: Visit | None = None) -> ClientSession:
        """For mail to a domain: a session with the first server that answers. NoSession with the most hopeful result of
        all servers: one that may answer later counts more than one that has refused; otherwise the last one tried.
        `visit`: where the addresses have limits."""
        best: NoSession | None = None
        tried: list[str] = []
        held, unknown, targets = 0.0, 0, _in_order(place)
        while targets and len(tried) + unknown < ADDRESSES_TRIED:
            rank, host, address = _take_next(targets, tried)
            wait = visit.wait(address, self._reactor.now()) if visit is not None and address else 0.0
            if wait:
                held = min(held or wait, wait)
                targets = deque(target for target in targets if target.rank <= rank)
                continue
            try:
                if address:
                    tried.append(address)
                    return await self._visit(place, domain, host, address, visit)
                found = await self._addresses(place, host, domain)
            except NoSession as refusal:
                if best is None or best.result.permanent or not refusal.result.permanent:
                    best = refusal
                unknown += not address
                if isinstance(refusal, OwnServer):  # those that are no nearer than we are would send it back
                    targets = deque(target for target in targets if target.rank < rank)
                continue
            down = [address for address in found if self._down.holds((address, place.port), self._reactor.now())]
            targets.extendleft(Target(rank, host, address) for address in reversed(found) if address not in down)
            targets.extend(Target(rank, host, address) for address in down)
        if held:
            raise NoSession(verdict.held_back(), held=held, tried=bool(tried))
        assert best is not None
        hooks = self._used_hooks()
        if hooks is not None and not tried:
            if best.local:
                hooks.no_source(domain)
            else:
                hooks.unreached(domain, None)
        raise best

    async def _addresses(self, place: Place, host: str, domain: str) -> list[str]:
        """Those of a host that can be reached from the local address. NoSession when there is none, or it is ours."""
        try:
            addresses = await self._resolver.addresses(host)
        except (DnsPermanent, DnsTemporary) as error:
            raise _unresolved(error) from error
        if self._is_own is not None and any(self._is_own(address, place.port) for address in addresses):
            raise OwnServer(verdict.loops_back(domain, host))
        fitting = [address for address in addresses if place.source is None or _same_family(place.source, address)]
        if not fitting:
            hidden = await self._resolver.hidden(host)
            raise NoSession(verdict.no_local_address(addresses[0]) if hidden is None
                            else verdict.unresolved(False, str(hidden)), local=True)
        return self._allowed(fitting, place) if self._controls.intercepts else fitting

    def _allowed(self, addresses: list[str], place: Place) -> list[str]:
        """Those that the operator has nothing against. NoSession when that is none: on pause, if one of them is."""
        now, controls = self._reactor.clock.time(), self._controls
        found = {address: controls.intercept_at(address, place.source, now) for address in addresses}
        allowed = [address for address in addresses if found[address] is None]
        if not allowed:
            raise _intercepted(decisive(found.values()))
        return allowed

    async def _visit(self, place: Place, domain: str, host: str, address: str, visit: Visit | None) -> ClientSession:
        if visit is None:
            return await self._open_at(place, domain, host, address)
        visit.enter(address, self._reactor.now())
        try:
            return await self._open_at(place, domain, host, address)
        except BaseException:
            visit.leave()
            raise

    async def _open_at(self, place: Place, domain: str, host: str, address: str) -> ClientSession:
        tls = self._protection.context(place.security, (address, place.port))
        try:
            return await self._say_hello(await self._connect(place, domain, host, address), place, host, tls)
        except NoSession as refusal:
            broken = tls is not None and refusal.result.state in ('starttls', 'handshake')
            if not broken or place.security != OPPORTUNISTIC or place.login is not None:
                raise
        self._protection.note_broken((address, place.port))
        return await self._say_hello(await self._connect(place, domain, host, address), place, host, None)

    async def _say_hello(self, stream: Stream, place: Place, host: str, tls: TlsContext | None) -> ClientSession:
        names = self._controls.names
        session = ClientSession(stream, names.get(stream.local[0], self._hostname) if names else self._hostname)
        try:
            await session.start(tls, certified_name(place.security, host), place.login, is_strict(place.security))
        except ClientFailure as failure:
            result = verdict.failed(failure, connected(session))
            session.stream.close()
            raise NoSession(result) from failure
        except BaseException:
            session.stream.close()
            raise
        if self._companion is not None:
            session.companion = self._companion(session.stream)
        return session

    async def _connect(self, place: Place, domain: str, host: str, address: str) -> Stream:
        try:
            stream = await self._dial(place, domain, address)
        except CannotBind as error:
            foreign = getattr(error.__cause__, 'errno', None) == errno.EADDRNOTAVAIL
            raise NoSession(verdict.cannot_bind(str(error), foreign), local=True) from error
        except (OSError, Timeout) as error:
            self._down.note((address, place.port), self._reactor.now())
            reason = (error.strerror if isinstance(error, OSError) else '') or str(error)
            raise NoSession(verdict.not_connected(f'{host} ({address}) port {place.port}', isinstance(error, Timeout),
                                                  reason)) from error
        self._down.forget((address, place.port))
        return stream

    async def _dial(self, place: Place, domain: str, address: str) -> Stream:
        hooks = self._used_hooks()
        if hooks is not None:
            return await hooks.connect(domain, address, place.port, place.source, CONNECT_SECONDS)
        return await connect(self._reactor, address, place.port, place.source, CONNECT_SECONDS)

    def _used_hooks(self) -> OutgoingHooks | None:
        return self.hooks if self.hooks is not None and self.hooks.used else None


def connected(session: ClientSession) -> Connected:
    """What the results say about the connection."""
    stream = session.stream
    tls = stream.tls
    return Connected(session.mta, stream.local[0], stream.peer[0], session.messages, stream.sent, session.sent_data,
                     session.authentication, tls_fields(tls) if tls is not None else {})


def _in_order(place: Place) -> deque[Target]:
    """The hosts in the order in which to try them."""
    return deque(Target(rank, host) for rank, group in enumerate(place.exchangers)
                 for host in random.sample(group, len(group)))


def _take_next(targets: deque[Target], tried: Sequence[str]) -> Target:
    """The first one; those of a family that has had its half come behind all others."""
    for _ in range(len(targets)):
        target = targets.popleft()
        if not target.address or sum(_same_family(target.address, one) for one in tried) < ADDRESSES_TRIED // 2:
            return target
        targets.append(target)
    return targets.popleft()


def _intercepted(reason: ForcedError | Pause | None) -> NoSession:
    if isinstance(reason, ForcedError):
        return NoSession(verdict.forced(reason), local=bool(reason.source), forced=True)
    return NoSession(verdict.on_pause(str(reason)), pause=reason)


def _unresolved(error: MqliteError) -> NoSession:
    return NoSession(verdict.unresolved(isinstance(error, DnsPermanent), str(error),
                                        NULL_MX if isinstance(error, NullMX) else ''))


def _same_family(source: str, address: str) -> bool:
    """Whether both are of one family."""
    return (':' in source) == (':' in address)
