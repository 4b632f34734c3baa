"""RADIUS: the packets of the standard, ours, what is not believed, and the driver with a server of the test's own."""

from __future__ import annotations

import contextlib
import hmac
import random
import socket
from hashlib import md5
from struct import pack
from typing import Callable

import pytest

from mqlite.auth.contract import AuthUnavailable
from mqlite.auth.network import RADIUS_SECONDS, RADIUS_TRIES, RadiusLogins
from mqlite.auth.radius import NotGenuine, Request, access_request, hide_password, read_answer
from mqlite.auth.setting import Radius
from mqlite.dns.resolver import Resolver, ResolverConfig
from mqlite.smtp.sasl import Password
from tests.support.loop import LoopBench
from tests.support.process import HOST

SECRET = b'xyzzy5461'       # RFC 2865 section 7.1
REQUEST = Request(0, bytes.fromhex('0f403f9473978057bd83d5cb98f4227a'))
PUBLISHED_ANSWER = bytes.fromhex('02000026 86fe220e7624ba2a1005f6bf9b55e0b2 060600000001 0f0600000000 0e06c0a80103')


def answer(code: int, request: Request, attributes: bytes = b'', secret: bytes = SECRET, sign: bool = True) -> bytes:
    """What a server sends: with a Message-Authenticator behind the other attributes, if it is to be signed."""
    size = 20 + len(attributes) + 18 * sign
    head = pack('>BBH', code, request.identifier, size)
    if sign:
        unsigned = head + request.authenticator + attributes + b'\x50\x12' + bytes(16)
        attributes += b'\x50\x12' + hmac.new(secret, unsigned, md5).digest()
    return head + md5(head + request.authenticator + attributes + secret).digest() + attributes


def test_published_password() -> None:
    """RFC 2865 section 7.1: user nemo, password arctangent."""
    assert hide_password(b'arctangent', SECRET, REQUEST.authenticator).hex() == '0dbe708d93d413ce3196e43f782a0aee'


def test_published_answer_is_of_before_blast_radius() -> None:
    """Its authenticator is right; without Message-Authenticator that is no longer enough (CVE-2024-3596)."""
    with pytest.raises(NotGenuine, match='no Message-Authenticator'):
        read_answer(PUBLISHED_ANSWER, REQUEST, SECRET)


def test_request() -> None:
    packet = access_request(REQUEST, SECRET, 'nemo', b'arctangent', 'nas', '192.0.2.1')
    assert packet is not None
    assert packet[:4] == b'\x01\x00' + pack('>H', len(packet)) and packet[4:20] == REQUEST.authenticator
    assert packet[20:22] == b'\x50\x12'         # first, as the answer to Blast-RADIUS wants it
    assert packet[38:] == (b'\x01\x06nemo' + b'\x02\x12' + bytes.fromhex('0dbe708d93d413ce3196e43f782a0aee')
                           + b'\x20\x05nas' + b'\x1f\x0b192.0.2.1')
    assert packet[22:38] == hmac.new(SECRET, packet[:22] + bytes(16) + packet[38:], md5).digest()


@pytest.mark.parametrize('size', [1, 15, 16, 17, 31, 32, 33, 127, 128])
def test_hidden_passwords_of_all_sizes(size: int) -> None:
    password = bytes(range(1, size + 1))
    hidden = hide_password(password, SECRET, REQUEST.authenticator)
    shown, before = b'', REQUEST.authenticator
    for at in range(0, len(hidden), 16):
        block = hidden[at:at + 16]
        shown += bytes(a ^ b for a, b in zip(block, md5(SECRET + before).digest()))
        before = block
    assert shown == password + bytes(-size % 16)


def test_what_radius_has_no_room_for() -> None:
    assert access_request(REQUEST, SECRET, 'x' * 254, b'pw', 'nas', HOST) is None
    assert access_request(REQUEST, SECRET, 'é' * 127, b'pw', 'nas', HOST) is None
    assert access_request(REQUEST, SECRET, 'nemo', b'p' * 129, 'nas', HOST) is None
    assert access_request(REQUEST, SECRET, 'x' * 253, b'p' * 128, 'nas', HOST) is not None


@pytest.mark.parametrize(('code', 'right'), [(2, True), (3, False), (11, False)])
def test_answers(code: int, right: bool) -> None:
    assert read_answer(answer(code, REQUEST), REQUEST, SECRET) is right
    assert read_answer(answer(code, REQUEST, b'\x12\x05abc') + b'padding', REQUEST, SECRET) is right


def resigned(packet: bytes) -> bytes:
    """With a Response Authenticator that is right, as who broke MD5 can make it."""
    return packet[:4] + md5(packet[:4] + REQUEST.authenticator + packet[20:] + SECRET).digest() + packet[20:]


ACCEPT, REJECT = answer(2, REQUEST), answer(3, REQUEST)


@pytest.mark.parametrize(('packet', 'complaint'), [
    (b'', 'no answer'),
    (ACCEPT[:19], 'no answer'),
    (b'\x01' + ACCEPT[1:], 'no answer'),
    (b'\x05' + ACCEPT[1:], 'no answer'),
    (answer(2, Request(1, REQUEST.authenticator)), 'another request'),
    (answer(2, Request(0, bytes(16))), 'authenticator is wrong'),
    (answer(2, REQUEST, secret=b'other'), 'authenticator is wrong'),
    (b'\x02' + REJECT[1:], 'authenticator is wrong'),
    (resigned(b'\x02' + REJECT[1:]), 'Message-Authenticator is wrong'),
    (resigned(ACCEPT[:-1] + b'\0'), 'Message-Authenticator is wrong'),
    (answer(2, REQUEST, sign=False), 'no Message-Authenticator'),
    (resigned(b'\x02\x00\x00\x26' + bytes(16) + b'\x50\x12' + bytes(16)), 'Message-Authenticator is wrong'),
    (resigned(b'\x02\x00\x00\x38' + bytes(16) + 2 * (b'\x50\x12' + bytes(16))), 'no Message-Authenticator'),
    (resigned(b'\x02\x00\x00\x18' + bytes(16) + b'\x50\x04ab'), 'no Message-Authenticator'),
    (resigned(b'\x02\x00\x00\x16' + bytes(16) + b'\x50\x01'), 'damaged'),
    (resigned(b'\x02\x00\x00\x16' + bytes(16) + b'\x50\x03'), 'damaged'),
    (resigned(b'\x02\x00\x00\x15' + bytes(16) + b'\x50'), 'damaged'),
    (b'\x02\x00\x00\x13' + ACCEPT[4:], 'length'),
    (b'\x02\x00\x00\xff' + ACCEPT[4:], 'length'),
    (b'\x02\x00\x20\x00' + ACCEPT[4:] + bytes(9000), 'length'),
])
def test_answers_that_are_not_believed(packet: bytes, complaint: str) -> None:
    with pytest.raises(NotGenuine, match=complaint):
        read_answer(packet, REQUEST, SECRET)


def test_no_changed_octet_is_believed() -> None:
    dice = random.Random(2865)
    for at in range(len(ACCEPT)):
        changed = ACCEPT[:at] + bytes((ACCEPT[at] ^ (1 << dice.randrange(8)),)) + ACCEPT[at + 1:]
        with pytest.raises(NotGenuine):
            read_answer(changed, REQUEST, SECRET)


# the driver

@pytest.fixture
def bench(closing: contextlib.ExitStack) -> LoopBench:
    made = LoopBench()
    closing.callback(made.close)
    return made


@pytest.fixture
def server(closing: contextlib.ExitStack) -> socket.socket:
    sock = closing.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind((HOST, 0))
    sock.settimeout(10)
    return sock


def ask(bench: LoopBench, server: socket.socket, replies: Callable[[int, Request], list[bytes]]) -> bool:
    """Check a login, while the server gives these replies to each packet (its number, the request)."""
    resolver = Resolver(bench.reactor, ResolverConfig(('127.0.0.1:9',)))
    logins = RadiusLogins(bench.reactor, resolver, Radius(HOST, server.getsockname()[1], 'nas', SECRET))
    packets: list[bytes] = []

    def on_packet() -> None:
        packet, sender = server.recvfrom(5000)
        packets.append(packet)
        for reply in replies(len(packets), Request(packet[1], packet[4:20])):
            server.sendto(reply, sender)

    bench.reactor.watch(server.fileno(), 1, lambda _events: on_packet())
    try:
        return bench.run(logins.check(Password('PLAIN', 'nemo', b'arctangent'), '192.0.2.1'))
    finally:
        bench.reactor.unwatch(server.fileno())
        assert len(set(packets)) <= 1       # sent again, it is the same


@pytest.mark.parametrize(('code', 'right'), [(2, True), (3, False), (11, False)])
def test_a_server_decides(bench: LoopBench, server: socket.socket, code: int, right: bool) -> None:
    assert ask(bench, server, lambda _number, request: [answer(code, request)]) is right


def test_lost_packets_are_sent_again(bench: LoopBench, server: socket.socket) -> None:
    assert ask(bench, server, lambda number, request: [answer(2, request)] if number == RADIUS_TRIES else [])
    assert bench.reactor.now() == pytest.approx(RADIUS_SECONDS * (RADIUS_TRIES - 1), abs=0.1)


def test_forgeries_in_front_are_ignored(bench: LoopBench, server: socket.socket) -> None:
    assert not ask(bench, server, lambda _number, request: [b'', b'\x02' + answer(3, request)[1:],
                                                            answer(2, request, sign=False), answer(3, request)])


def test_silence_and_forgeries_are_no_verdict(bench: LoopBench, server: socket.socket) -> None:
    with pytest.raises(AuthUnavailable, match='^no answer to 3 requests$'):
        ask(bench, server, lambda _number, _request: [])
    with pytest.raises(AuthUnavailable, match='the secrets differ'):
        ask(bench, server, lambda _number, request: [answer(2, request, secret=b'other')])


def test_a_closed_port(bench: LoopBench, server: socket.socket) -> None:
    resolver = Resolver(bench.reactor, ResolverConfig(('127.0.0.1:9',)))
    logins = RadiusLogins(bench.reactor, resolver, Radius(HOST, server.getsockname()[1], 'nas', SECRET))
    server.close()
    with pytest.raises(OSError):
        bench.run(logins.check(Password('PLAIN', 'nemo', b'arctangent'), '192.0.2.1'))
    assert bench.reactor.now() < RADIUS_SECONDS
