"""LDAP: names that stay names, the bind and its answers octet by octet, the driver with a server of the test's own."""

from __future__ import annotations

import contextlib
import random
import socket
import threading

import pytest

from mqlite.auth.ldap import MESSAGE_LIMIT, UNBIND, BadAnswer, bind_request, read_bind, user_dn
from mqlite.auth.network import LdapLogins
from mqlite.auth.setting import Ldap
from mqlite.dns.resolver import Resolver, ResolverConfig
from mqlite.loop.stream import ConnectionLost
from mqlite.smtp.sasl import Password
from tests.support.loop import LoopBench
from tests.support.process import HOST


@pytest.mark.parametrize(('login', 'name'), [
    ('tim', 'uid=tim,o=x'),
    ('a b.c@d-e', 'uid=a b.c@d-e,o=x'),
    ('josé', 'uid=josé,o=x'),
    ('tim,o=y', r'uid=tim\2co\3dy,o=x'),
    ('a+cn=b', r'uid=a\2bcn\3db,o=x'),
    ('#04', r'uid=\2304,o=x'),
    ('a#', 'uid=a#,o=x'),
    (' a ', r'uid=\20a\20,o=x'),
    (' ', r'uid=\20,o=x'),
    ('"\\<>;', r'uid=\22\5c\3c\3e\3b,o=x'),
    ('\0', r'uid=\00,o=x'),
    ('*)(uid=*', r'uid=*)(uid\3d*,o=x'),        # these mean something in a filter, and nothing in a name
])
def test_names(login: str, name: str) -> None:
    """RFC 4514 section 2.4."""
    assert user_dn(login, 'o=x') == name


def test_request() -> None:
    expected = '3017 020101 6012 020103 0409 7569643d742c6f3d78 8002 7077'
    assert bind_request('uid=t,o=x', b'pw') == bytes.fromhex(expected)
    long = bind_request('uid=t,o=x', b'p' * 300)
    assert long[:4] == b'\x30\x82\x01\x45' and long.endswith(b'\x80\x82\x01\x2c' + b'p' * 300)
    assert len(bind_request('x' * 117, b'p')) == 2 + 3 + 3 + 3 + 119 + 3      # a length of 129: one octet more
    with pytest.raises(AssertionError):
        bind_request('uid=t,o=x', b'')


def bind_answer(code: int, diagnostic: bytes = b'', head: bytes = b'\x02\x01\x01\x61') -> bytes:
    result = b'\x0a\x01' + bytes((code,)) + b'\x04\x00' + b'\x04' + bytes((len(diagnostic),)) + diagnostic
    message = head + bytes((len(result),)) + result
    return b'\x30' + bytes((len(message),)) + message


@pytest.mark.parametrize(('data', 'right'), [
    (bind_answer(0), True),
    (bind_answer(0, b'welcome'), True),
    (bytes.fromhex('3084000000100201016184000000070a010004000400'), True),     # as Active Directory writes lengths
    (bind_answer(49), False),
    (bind_answer(32), False),
    (bind_answer(53, b'account disabled'), False),
    (bind_answer(0) + b'more', True),
])
def test_answers_in_every_delivery(data: bytes, right: bool) -> None:
    assert read_bind(data) is right
    size = next(size for size in range(len(data) + 1) if read_bind(data[:size]) is not None)
    assert size == len(data) - 4 * data.endswith(b'more')


@pytest.mark.parametrize(('data', 'complaint'), [
    (bind_answer(51), r'busy \(51\)'),
    (bind_answer(8, b'Xecret'), r'strongerAuthRequired \(8\)'),
    (bind_answer(10), 'referral'),
    (bind_answer(123), 'unknown result'),
    (b'\x15\x03\x01', 'not LDAP'),
    (b'HTTP/1.1 400 Bad Request\r\n' * 9, 'not LDAP'),
    (bind_answer(0, head=b'\x02\x01\x02\x61'), 'does not answer'),
    (bind_answer(0, head=b'\x02\x01\x01\x65'), 'does not answer'),
    (bind_answer(52, head=b'\x02\x01\x00\x78'), 'disconnects'),
    (bind_answer(0, head=b'\x02\x01\x01\x78'), 'does not answer'),
    (b'\x30\x80\x02\x01\x01', 'not definite'),
    (b'\x30\x85' + bytes(5), 'not definite'),
    (b'\x30\x84\x00\x01\x00\x01', f'longer than {MESSAGE_LIMIT}'),
    (b'\x30\x00', 'ends behind'),
    (b'\x30\x03\x02\x01\x01', 'ends behind'),
    (b'\x30\x05\x02\x01\x01\x61\x00', 'ends behind'),
    (b'\x30\x05\x02\x01\x01\x61\x01', 'ends behind'),
    (b'\x30\x07\x02\x01\x01\x61\x02\x0a\x00', 'another kind'),
    (b'\x30\x08\x02\x01\x01\x61\x03\x02\x01\x00', 'another kind'),
    (b'\x30\x0c\x02\x01\x01\x61\x07\x0a\x05\x00\x00\x00\x00\x00', 'another kind'),
    (b'\x30\x05\x04\x03abc', 'another kind'),
])
def test_answers_that_say_nothing(data: bytes, complaint: str) -> None:
    with pytest.raises(BadAnswer, match=complaint) as caught:
        read_bind(data)
    assert 'Xecret' not in str(caught.value)


def test_nothing_but_bad_answers_comes_out_of_noise() -> None:
    dice = random.Random(4511)
    good = bind_answer(0, b'welcome')
    for _ in range(20000):
        data = bytearray(good)
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        with contextlib.suppress(BadAnswer):
            read_bind(bytes(data[:dice.randrange(len(data) + 1)]))


# the driver

@pytest.fixture
def bench(closing: contextlib.ExitStack) -> LoopBench:
    made = LoopBench()
    closing.callback(made.close)
    return made


def ask(bench: LoopBench, answers: list[bytes]) -> tuple[bool, bytes]:
    """What comes of a login when the server sends these pieces, one after the other, and what the server was sent."""
    seen: list[bytes] = []
    with socket.create_server((HOST, 0)) as server:
        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(10)
                data = connection.recv(1000)
                for answer in answers:
                    connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while True:
                    seen.append(data)
                    data = connection.recv(1000)
                    if not data:
                        return
        thread = threading.Thread(target=serve)
        thread.start()
        resolver = Resolver(bench.reactor, ResolverConfig(('127.0.0.1:9',)))
        logins = LdapLogins(bench.reactor, resolver, Ldap(HOST, server.getsockname()[1], 'o=x'))
        bench.reactor.threads_busy += 1
        try:
            found = bench.run(logins.check(Password('PLAIN', 'tim,o=y', b'pw'), HOST))
        finally:
            bench.reactor.threads_busy -= 1
            thread.join()
        return found, b''.join(seen)


@pytest.mark.parametrize(('code', 'right'), [(0, True), (49, False)])
def test_a_server_decides(bench: LoopBench, code: int, right: bool) -> None:
    data = bind_answer(code)
    sent = bind_request(r'uid=tim\2co\3dy,o=x', b'pw') + UNBIND
    for answers in ([data], [data[:1], data[1:5], data[5:]]):
        assert ask(bench, answers) == (right, sent)


def test_a_server_that_hangs_up(bench: LoopBench) -> None:
    for answers in ([], [bind_answer(0)[:-1]]):
        with pytest.raises(ConnectionLost):
            ask(bench, answers)
    with pytest.raises(BadAnswer):
        ask(bench, [b'220 mail.example.org ESMTP\r\n'])


def test_nobody_listens(bench: LoopBench) -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
    resolver = Resolver(bench.reactor, ResolverConfig(('127.0.0.1:9',)))
    logins = LdapLogins(bench.reactor, resolver, Ldap(HOST, port, 'o=x'))
    with pytest.raises(ConnectionRefusedError):
        bench.run(logins.check(Password('PLAIN', 'tim', b'pw'), HOST))
