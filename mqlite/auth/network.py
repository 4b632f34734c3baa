"""The stores behind a socket: LDAP, RADIUS, HTTP. One conversation for each login; what is said is made elsewhere.

    LDAP    connect, bind, unbind                               every address of the host in turn
    HTTP    connect, TLS for https, one request, one status     every address of the host in turn
    RADIUS  send, listen, send the same again                   every address of the host in turn, over UDP

The certificate of an https endpoint is verified against the host's own authorities. LDAP and RADIUS as `smtp-auth`
writes them have no encryption of the connection: their place is a network that is the operator's own.
"""

from __future__ import annotations

import secrets
from contextlib import closing

from mqlite.auth import http, ldap, radius
from mqlite.auth.contract import AuthUnavailable
from mqlite.auth.setting import Http, Ldap, Radius
from mqlite.dns.resolver import Resolver
from mqlite.errors import MqliteError
from mqlite.loop.connect import connect
from mqlite.loop.datagram import Datagram
from mqlite.loop.reactor import Reactor
from mqlite.loop.stream import Stream
from mqlite.loop.task import Timeout, timeout
from mqlite.loop.tls import TlsContext, verified_context
from mqlite.smtp.sasl import Password

CONNECT_SECONDS = 5.0  # for each address
RADIUS_TRIES = 3  # RFC 2865 section 2.4 leaves both to us
RADIUS_SECONDS = 3.0  # for each


class LdapLogins:
    """A bind as `uid=login,base` is the question."""

    def __init__(self, reactor: Reactor, resolver: Resolver, setting: Ldap) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._setting = setting

    async def check(self, password: Password, client: str) -> bool:
        request = ldap.bind_request(ldap.user_dn(password.login, self._setting.base), password.password)
        with closing(await _dial(self._reactor, self._resolver, self._setting.host, self._setting.port)) as stream:
            stream.write(request)
            data = b''
            while True:
                data += stream.take()
                right = ldap.read_bind(data)
                if right is not None:
                    stream.write(ldap.UNBIND)
                    return right
                await stream.wait_bytes()

    def stop(self) -> None:
        """It keeps nothing open."""


class HttpLogins:
    """A GET with the credentials is the question, the status the answer."""

    def __init__(self, reactor: Reactor, resolver: Resolver, setting: Http, context: TlsContext | None = None) -> None:
        """`context`: other authorities than the host's, for https."""
        self._reactor = reactor
        self._resolver = resolver
        self._setting = setting
        self._context = (context or verified_context(True, None, None, None)) if setting.tls else None

    async def check(self, password: Password, client: str) -> bool:
        setting = self._setting
        port = None if setting.port == (443 if setting.tls else 80) else setting.port
        request = http.basic_request(setting.host, port, setting.target, password.login, password.password)
        if request is None:
            return False
        with closing(await _dial(self._reactor, self._resolver, setting.host, setting.port)) as stream:
            if self._context is not None:
                await stream.start_tls(self._context, server_side=False, hostname=setting.host)
            stream.write(request)
            return http.verdict(await _read_status(stream))

    def stop(self) -> None:
        """It keeps nothing open."""


class RadiusLogins:
    """An Access-Request is the question."""

    def __init__(self, reactor: Reactor, resolver: Resolver, setting: Radius) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._setting = setting

    async def check(self, password: Password, client: str) -> bool:
        setting = self._setting
        request = radius.Request(secrets.randbelow(256), secrets.token_bytes(16))
        packet = radius.access_request(request, setting.secret, password.login, password.password,
                                       setting.identifier, client)
        if packet is None:
            return False
        trouble: Exception = AuthUnavailable('the host has no address')
        for address in await self._resolver.addresses(setting.host):
            try:
                with closing(Datagram.connect(self._reactor, (address, setting.port))) as datagram:
                    return await self._converse(datagram, packet, request)
            except (OSError, AuthUnavailable) as error:
                trouble = error
        raise trouble

    async def _converse(self, datagram: Datagram, packet: bytes, request: radius.Request) -> bool:
        """The same packet each time: the server knows it again, and gives the same answer."""
        ignored = ''
        for _ in range(RADIUS_TRIES):
            try:
                with timeout(self._reactor, RADIUS_SECONDS):
                    datagram.send(packet)
                    while True:
                        try:
                            return radius.read_answer(await datagram.receive(), request, self._setting.secret)
                        except radius.NotGenuine as error:
                            ignored = f'; what came was ignored: {error}'
            except Timeout:
                continue
        raise AuthUnavailable(f'no answer to {RADIUS_TRIES} requests{ignored}')

    def stop(self) -> None:
        """It keeps nothing open."""


async def _dial(reactor: Reactor, resolver: Resolver, host: str, port: int) -> Stream:
    """A connection to the first address that takes one; the error of the last when none does."""
    trouble: Exception = AuthUnavailable('the host has no address')
    for address in await resolver.addresses(host):
        try:
            return await connect(reactor, address, port, seconds=CONNECT_SECONDS)
        except (OSError, MqliteError) as error:
            trouble = error
    raise trouble


async def _read_status(stream: Stream) -> int:
    reader = http.StatusReader()
    while True:
        line = stream.next_line(http.LINE_LIMIT)
        if line is None:
            await stream.wait_bytes()
            continue
        status = reader.feed(line)
        if status is not None:
            return status
