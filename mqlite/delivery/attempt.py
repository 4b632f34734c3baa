"""Opening a session for a route, and sending one message over it.

The servers of a route are tried in their order, each at each of its addresses, until one says hello. A server whose
TLS is broken is tried once more in clear, since TLS is opportunistic here (RFC 7435): a message in clear is what would
have been sent to a server without TLS.
"""

from __future__ import annotations

from mqlite.delivery import verdict
from mqlite.delivery.route import Route, find_hosts
from mqlite.dns.resolver import DnsPermanent, DnsTemporary, Resolver
from mqlite.errors import MqliteError
from mqlite.loop.connect import CannotBind, connect
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import Timeout
from mqlite.loop.tls import TlsContext
from mqlite.message.result import Connected, Result
from mqlite.smtp.client import ClientSession
from mqlite.smtp.reply import ClientFailure

CONNECT_SECONDS = 30.0  # as Postfix; the kernel's own limit is over two minutes


class NoSession(MqliteError):
    """No server of the route could be talked to; `result` says why."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.description)
        self.result = result


class Dialler:
    """Opens sessions."""

    def __init__(self, reactor: Reactor, resolver: Resolver, hostname: str, tls: TlsContext) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._hostname = hostname
        self._tls = tls
        self._turn = 0  # which of several local addresses is next

    async def open(self, route: Route) -> ClientSession:
        """A session with the first server that answers. NoSession with the most hopeful result of all servers."""
        best: Result | None = None
        try:
            for host in await find_hosts(route, self._resolver):
                try:
                    addresses = await self._resolver.addresses(host)
                except (DnsPermanent, DnsTemporary) as error:
                    best = _more_hopeful(best, _unresolved(error))
                    continue
                for address in addresses:
                    try:
                        return await self._open_at(route, host, address)
                    except NoSession as refusal:
                        best = _more_hopeful(best, refusal.result)
        except (DnsPermanent, DnsTemporary) as error:
            best = _more_hopeful(best, _unresolved(error))
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
        source = self._source(route, address)
        try:
            stream = await connect(self._reactor, address, route.port, source, CONNECT_SECONDS)
        except CannotBind as error:
            raise NoSession(verdict.cannot_bind(str(error))) from error
        except (OSError, Timeout) as error:
            reason = (error.strerror if isinstance(error, OSError) else '') or str(error)
            raise NoSession(verdict.not_connected(f'{host} ({address}) port {route.port}', isinstance(error, Timeout),
                                                  reason)) from error
        session = ClientSession(stream, self._hostname)
        try:
            await session.start(tls, host)
        except ClientFailure as failure:
            result = verdict.failed(failure, connected(session))
            stream.close()
            raise NoSession(result) from failure
        except BaseException:
            stream.close()
            raise
        return session

    def _source(self, route: Route, address: str) -> str | None:
        """The local address to send from: of the peer's family, each in turn. None: let the kernel choose."""
        if not route.sources:
            return None
        fitting = [source for source in route.sources if (':' in source) == (':' in address)]
        if not fitting:
            raise NoSession(verdict.no_local_address(address))
        self._turn += 1
        return fitting[self._turn % len(fitting)]


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
