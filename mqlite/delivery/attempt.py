"""Opening a session for a route.

The servers of a route are tried in their order, each at each of its addresses, until one says hello; at most
ADDRESSES_TRIED of them, since each may cost minutes. A server whose TLS is broken is tried once more in clear, since
TLS is opportunistic here (RFC 7435): a message in clear is what would have been sent to a server without TLS.

Local addresses, where some are asked for, take turns; one that cannot be used leaves its turn to the next.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Callable

from mqlite.delivery import verdict
from mqlite.delivery.route import Route, find_hosts
from mqlite.dns.resolver import DnsPermanent, DnsTemporary, Resolver
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


class NoSession(MqliteError):
    """No server of the route could be talked to; `result` says why."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.description)
        self.result = result


class Dialler:
    """Opens sessions."""

    def __init__(self, reactor: Reactor, resolver: Resolver, hostname: str, tls: TlsContext,
                 companion: Callable[[Stream], Companion] | None = None, hooks: OutgoingHooks | None = None) -> None:
        """`companion`: makes the companion of a new connection, `hooks`: are told of it; where there are plugins."""
        self.hooks = hooks
        self._reactor = reactor
        self._resolver = resolver
        self._hostname = hostname
        self._tls = tls
        self._companion = companion
        self._turn = 0  # which of several local addresses is next

    async def open(self, route: Route) -> ClientSession:
        """A session with the first server that answers. NoSession with the most hopeful result of all servers."""
        best: Result | None = None
        unknown: MqliteError | None = None
        left = ADDRESSES_TRIED
        try:
            for host in await find_hosts(route, self._resolver):
                try:
                    addresses = await self._resolver.addresses(host)
                except (DnsPermanent, DnsTemporary) as error:
                    best = _more_hopeful(best, _unresolved(error))
                    continue
                for address in addresses[:left]:
                    left -= 1
                    try:
                        return await self._open_at(route, host, address)
                    except NoSession as refusal:
                        best = _more_hopeful(best, refusal.result)
                if not left:
                    break
        except (DnsPermanent, DnsTemporary) as error:
            best, unknown = _unresolved(error), error
        hooks = self._used_hooks()
        if hooks is not None and left == ADDRESSES_TRIED:
            hooks.unreached(route.host, unknown)
        assert best is not None
        raise NoSession(best)

    async def _open_at(self, route: Route, host: str, address: str) -> ClientSession:
        try:
            return await self._say_hello(route, host, address, self._tls)
        except NoSession as refusal:
            if refusal.result.state not in ('starttls', 'handshake'):
                raise
        return await self._say_hello(route, host, address, None)

    async def _say_hello(self, route: Route, host: str, address: str, tls: TlsContext | None) -> ClientSession:
        session = ClientSession(await self._connect(route, host, address), self._hostname)
        try:
            await session.start(tls, host)
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

    async def _connect(self, route: Route, host: str, address: str) -> Stream:
        """From the first of the local addresses that can be used."""
        unusable: Result | None = None
        for source in self._sources(route, address):
            try:
                return await self._dial(route, address, source)
            except CannotBind as error:
                foreign = getattr(error.__cause__, 'errno', None) == errno.EADDRNOTAVAIL
                unusable = _more_hopeful(unusable, verdict.cannot_bind(str(error), foreign))
            except (OSError, Timeout) as error:
                reason = (error.strerror if isinstance(error, OSError) else '') or str(error)
                raise NoSession(verdict.not_connected(f'{host} ({address}) port {route.port}',
                                                      isinstance(error, Timeout), reason)) from error
        if unusable is None:
            hooks = self._used_hooks()
            if hooks is not None:
                hooks.no_source(route.host)
            unusable = verdict.no_local_address(address) if route.sources else verdict.cannot_bind(
                'none of the addresses in "ips" is one of this host', True)
        raise NoSession(unusable)

    async def _dial(self, route: Route, address: str, source: str | None) -> Stream:
        hooks = self._used_hooks()
        if hooks is not None:
            return await hooks.connect(route.host, address, route.port, source, CONNECT_SECONDS)
        return await connect(self._reactor, address, route.port, source, CONNECT_SECONDS)

    def _used_hooks(self) -> OutgoingHooks | None:
        return self.hooks if self.hooks is not None and self.hooks.used else None

    def _sources(self, route: Route, address: str) -> Sequence[str | None]:
        """The local addresses of the peer's family, in the order in which to try them. None: let the kernel choose."""
        if route.sources is None:
            return [None]
        fitting = [source for source in route.sources if (':' in source) == (':' in address)]
        self._turn += 1
        first = self._turn % max(1, len(fitting))
        return fitting[first:] + fitting[:first]


def connected(session: ClientSession) -> Connected:
    """What the results say about the connection."""
    stream = session.stream
    return Connected(session.mta, stream.local[0], stream.peer[0], session.messages, stream.sent, session.sent_data,
                     stream.cipher)


def _unresolved(error: MqliteError) -> Result:
    return verdict.unresolved(isinstance(error, DnsPermanent), str(error))


def _more_hopeful(one: Result | None, other: Result) -> Result:
    """A server that may answer later counts more than one that has refused; otherwise the last one tried."""
    return one if one is not None and other.permanent and not one.permanent else other
