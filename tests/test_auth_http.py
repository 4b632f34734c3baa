"""HTTP: the request and the status, octet by octet; and the driver with Python's own server, in clear and over TLS."""

from __future__ import annotations

import contextlib
import ssl
import threading
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Callable

import pytest

from mqlite.auth.http import LINES_LIMIT, NotHttp, StatusReader, basic_request, verdict
from mqlite.auth.network import HttpLogins
from mqlite.auth.setting import Http
from mqlite.dns.resolver import Resolver, ResolverConfig
from mqlite.errors import MqliteError
from mqlite.loop.clock import Clock
from mqlite.loop.tls import TlsError, verified_context
from mqlite.smtp.sasl import Password
from tests.support.loop import LoopBench
from tests.support.peers import Certificate
from tests.support.process import HOST


@pytest.mark.parametrize(('host', 'port', 'place'), [
    ('h.example', None, 'h.example'), ('h.example', 8080, 'h.example:8080'), ('::1', 81, '[::1]:81'),
    ('::1', None, '[::1]')])
def test_request(host: str, port: int | None, place: str) -> None:
    """The credentials of RFC 7617 section 2."""
    assert basic_request(host, port, '/a?b', 'Aladdin', b'open sesame') == (
        f'GET /a?b HTTP/1.1\r\nHost: {place}\r\nAuthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n'
        f'Accept: */*\r\nConnection: close\r\n\r\n'.encode())


def test_credentials_cannot_leave_their_field() -> None:
    request = basic_request('h', None, '/', 'tést', b'p\r\nX: y' * 100)
    assert request is not None and request.count(b'\r\n') == 6
    assert b64decode(request.split(b'Basic ')[1].split(b'\r\n')[0]) == 'tést:'.encode() + b'p\r\nX: y' * 100
    assert basic_request('h', None, '/', 'a:b', b'p') is None


@pytest.mark.parametrize(('status', 'right'), [
    (200, True), (204, True), (299, True), (300, False), (301, False), (304, False), (400, False), (401, False),
    (403, False), (404, False)])
def test_verdicts(status: int, right: bool) -> None:
    assert verdict(status) is right


@pytest.mark.parametrize('status', [408, 429, 500, 502, 503, 599])
def test_no_verdicts(status: int) -> None:
    with pytest.raises(NotHttp, match=str(status)):
        verdict(status)


@pytest.mark.parametrize(('lines', 'status'), [
    ([b'HTTP/1.1 200 OK\r\n'], 200),
    ([b'HTTP/1.0 401\r\n'], 401),
    ([b'HTTP/1.1 200 \r\n'], 200),
    ([b'HTTP/1.1 200 OK\n'], 200),
    ([b'HTTP/1.1 100 Continue\r\n', b'\r\n', b'HTTP/1.1 403 No\r\n'], 403),
    ([b'HTTP/1.1 103 Early Hints\r\n', b'Link: x\r\n', b'HTTP/1.1 200 x\r\n', b'\r\n', b'HTTP/1.1 401 No\r\n'], 401),
])
def test_status(lines: list[bytes], status: int) -> None:
    reader = StatusReader()
    assert [reader.feed(line) for line in lines] == [None] * (len(lines) - 1) + [status]


@pytest.mark.parametrize('line', [
    b'\r\n', b'200 OK\r\n', b'HTTP/2 200\r\n', b'HTTP/1.1  200 OK\r\n', b'HTTP/1.1 2000 OK\r\n', b'HTTP/1.1 20 OK\r\n',
    b'HTTP/1.1 099 OK\r\n', b'HTTP/1.1 200OK\r\n', b' HTTP/1.1 200 OK\r\n',
    b'220 mail ESMTP\r\n', b'HTTP/1.1 200 a\rb\r\n'])
def test_what_is_no_status(line: bytes) -> None:
    with pytest.raises(NotHttp):
        StatusReader().feed(line)


def test_endless_announcements() -> None:
    reader = StatusReader()
    with pytest.raises(NotHttp, match='within'):
        for _ in range(LINES_LIMIT):
            reader.feed(b'HTTP/1.1 100 Continue\r\n')
            reader.feed(b'\r\n')


# the driver

class Handler(BaseHTTPRequestHandler):
    """2xx for Aladdin, what the path says for everybody else."""

    def do_GET(self) -> None:
        right = self.headers['Authorization'] == 'Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=='
        self.send_response(204 if right else int(self.path[1:]))
        self.send_header('Location', '/204')
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def bench(closing: contextlib.ExitStack) -> LoopBench:
    made = LoopBench(Clock())
    closing.callback(made.close)
    return made


@pytest.fixture
def start_server(closing: contextlib.ExitStack) -> Callable[..., int]:
    def start(certificate: Certificate | None = None) -> int:
        server = HTTPServer(('', 0), Handler)        # 127.0.0.2 is here, too
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.certificate, certificate.key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        closing.callback(server.server_close)
        closing.callback(thread.join)
        closing.callback(server.shutdown)
        return server.server_port
    return start


def logins(bench: LoopBench, port: int, target: str = '/401', host: str = HOST, trust: Certificate | None = None,
           tls: bool = False) -> HttpLogins:
    resolver = Resolver(bench.reactor, ResolverConfig(('127.0.0.1:9',)))
    context = verified_context(True, str(trust.certificate), None, None) if trust else None
    return HttpLogins(bench.reactor, resolver, Http(host, port, target, tls), context)


ALADDIN, JAFAR = Password('PLAIN', 'Aladdin', b'open sesame'), Password('PLAIN', 'Jafar', b'open sesame')


@pytest.mark.parametrize('target', ['/401', '/403', '/302', '/404'])
def test_a_server_decides(bench: LoopBench, start_server: Callable[..., int], target: str) -> None:
    store = logins(bench, start_server(), target)
    assert [bench.run(store.check(password, HOST)) for password in (ALADDIN, JAFAR, ALADDIN)] == [True, False, True]


def test_a_server_in_trouble(bench: LoopBench, start_server: Callable[..., int]) -> None:
    with pytest.raises(NotHttp, match='503') as caught:
        bench.run(logins(bench, start_server(), '/503').check(JAFAR, HOST))
    assert 'sesame' not in str(caught.value)


def test_over_tls(bench: LoopBench, start_server: Callable[..., int], certificate: Certificate) -> None:
    store = logins(bench, start_server(certificate), host='localhost', trust=certificate, tls=True)
    assert [bench.run(store.check(password, HOST)) for password in (ALADDIN, JAFAR)] == [True, False]


def test_credentials_are_not_sent_to_who_cannot_show_a_certificate(
        bench: LoopBench, start_server: Callable[..., int], certificate: Certificate) -> None:
    port = start_server(certificate)
    with pytest.raises(TlsError, match='certificate verify failed'):
        bench.run(logins(bench, port, host='localhost', tls=True).check(ALADDIN, HOST))
    with pytest.raises(TlsError, match='certificate verify failed'):
        bench.run(logins(bench, port, host='127.0.0.2', trust=certificate, tls=True).check(ALADDIN, HOST))
    with pytest.raises((MqliteError, OSError)):
        bench.run(logins(bench, start_server(), host='localhost', trust=certificate, tls=True).check(ALADDIN, HOST))
