"""Tells Momentum's hooks of the connections that go out, and keeps for them what they are told of domains.

    no address to try ─────────────────────────────────────────────────► post_initiate_connection_smtp(error)
    an address ─► bind ─► connection_post_bind ─► connect ─► log_client_connection_success ─┐
                                   │                    └──► log_client_connection_failure ─┤
                                   └─ forbids it ──────────► log_client_connection_failure ─┴─► post_initiate_…

One per worker. Who dials asks `used` first: without a registered function nothing is called, and nothing is counted.
"""

from __future__ import annotations

import errno
from typing import Any

from mqlite.dns.resolver import NullMX, Resolver
from mqlite.errors import MqliteError
from mqlite.loop.connect import CannotBind, connect
from mqlite.loop.stream import Stream
from mqlite.loop.task import Timeout
from mqlite.message.result import Result
from mqlite.plugin.domains import Domain
from mqlite.plugin.host import PluginHost

# Of include/connection.h; those that we have cause to say. A hook gets one of them with the sign bit.
CONN_ERRORS = {
    'CONN_ERROR_MX_LOOKUP_FAILED': 0x0004,
    'CONN_ERROR_SMTP_NULL_MX':     0x0010,
    'CONN_ERROR_NO_MXS_REACHABLE': 0x0020,
    'CONN_ERROR_PROHIBITED_IP':    0x0040,
    'CONN_ERROR_SOCKET':           0x0100,
    'CONN_ERROR_BIND':             0x0400,
    'CONN_ERROR_CONNECT':          0x0800,
    'CONN_ERROR_CONNECT_NETWORK':  0x1000,
    'CONN_ERROR_CONNECT_TIMEOUT':  0x2000,
}
SIGN = -0x80000000
# What connecting fails with; everything else is CONN_ERROR_CONNECT.
_ERRNOS = {
    'CONN_ERROR_PROHIBITED_IP':   (errno.EACCES, errno.EPERM),
    'CONN_ERROR_SOCKET':          (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAFNOSUPPORT),
    'CONN_ERROR_CONNECT_NETWORK': (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN),
    'CONN_ERROR_CONNECT_TIMEOUT': (errno.ETIMEDOUT,),
}
_BY_ERRNO = {number: name for name, numbers in _ERRNOS.items() for number in numbers}


class OutgoingHooks:
    """Between the dialler and the hooks."""

    def __init__(self, host: PluginHost, resolver: Resolver, sources: tuple[str, ...]) -> None:
        """`sources`: the local addresses of the settings, which have the first indices."""
        self._hooks = host.hooks
        self._context = host.context
        self._resolver = resolver
        for source in sources:
            _ = self._hooks.slots[source]

    @property
    def used(self) -> bool:
        return self._hooks.used

    async def connect(self, name: str, address: str, port: int, source: str | None, seconds: float) -> Stream:
        """As loop.connect, for mail to a domain; OSError as well when a hook forbids it."""
        slot, target = self._hooks.slots[source], (address, port)
        try:
            stream = await connect(self._context.reactor, address, port, source, seconds,
                                   lambda descriptor: self._bound(self._resolved(name), slot, descriptor, target))
        except (OSError, Timeout, CannotBind) as error:
            self._failed(self._resolved(name), slot, target, error)
            raise
        domain = self._resolved(name)
        self._call('log_client_connection_success', target, domain, slot, self._now())
        self._call('post_initiate_connection_smtp', domain, slot, self._now(), stream.fileno())
        return stream

    def unreached(self, name: str, error: MqliteError | None) -> None:
        """No address was tried: the lookup of the exchangers failed with this, or None: they have no address."""
        if error is None:
            self._initiated(self._resolved(name), 0, 'CONN_ERROR_NO_MXS_REACHABLE')
        elif isinstance(error, NullMX):
            self._initiated(self._resolved(name), 0, 'CONN_ERROR_SMTP_NULL_MX')
        else:
            self._initiated(self._hooks.domains.unresolved(name.lower()), 0, 'CONN_ERROR_MX_LOOKUP_FAILED')

    def no_source(self, name: str) -> None:
        """No local address was tried: none suits."""
        self._initiated(self._resolved(name), 0, 'CONN_ERROR_BIND')

    def count(self, name: str, result: Result) -> None:
        """A message for the domain was tried."""
        if self._hooks.used:
            self._hooks.domains.count(name.lower(), result.result == 'accepted', result.permanent, self._now())

    # the calls

    def _bound(self, domain: Domain, slot: int, descriptor: int, target: tuple[str, int]) -> None:
        if self._call('connection_post_bind', domain, slot, descriptor, target, 28 if ':' in target[0] else 16):
            raise OSError(errno.EACCES, 'forbidden by a plugin, in connection_post_bind')

    def _failed(self, domain: Domain, slot: int, target: tuple[str, int], error: Exception) -> None:
        if isinstance(error, OSError):
            code = _BY_ERRNO.get(error.errno or 0, 'CONN_ERROR_CONNECT')
        else:
            code = 'CONN_ERROR_BIND' if isinstance(error, CannotBind) else 'CONN_ERROR_CONNECT_TIMEOUT'
        self._call('log_client_connection_failure', target, SIGN | CONN_ERRORS[code], domain, slot, self._now())
        self._initiated(domain, slot, code)

    def _initiated(self, domain: Domain, slot: int, code: str) -> None:
        self._call('post_initiate_connection_smtp', domain, slot, self._now(), SIGN | CONN_ERRORS[code])

    def _call(self, name: str, *values: Any) -> int:
        return self._hooks.call(self._context, f'core_{name}', *values)

    def _now(self) -> float:
        return self._context.reactor.clock.time()

    # what they are told

    def _resolved(self, name: str) -> Domain:
        """With what the name system said last; a server that was named for all mail has no exchangers."""
        known = self._resolver.known_exchangers(name)
        return self._hooks.domains.resolved(name.lower(), None if known is None else (
            tuple((mx.preference, mx.host) for mx in known[0]), self._now() + known[1]))
