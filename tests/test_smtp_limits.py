"""What a stranger may do: connections, rates, commands, time, and when it must wait; and what a message may be."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from pathlib import Path
from typing import Any

import pytest

from mqlite.loop.stream import ConnectionLost, Stream
from mqlite.message.headers import has_passed, header_end
from mqlite.smtp import clients as clients_module
from mqlite.smtp.clients import ClientLimits, ClientRule, Clients, network_of
from tests.support.plugins import PluginBench
from tests.support.process import HOST
from tests.support.smtp import GREETING, Bench

HELLO, MAIL, RCPT = b'EHLO client.example', b'MAIL FROM:<a@client.example>', b'RCPT TO:<b@example.org>'
ENVELOPE = (HELLO, MAIL, RCPT, b'DATA')
EARLY = b'554 5.5.0 Wait for the greeting before you speak\r\n'
OUT_OF_SYNC = b'554 5.5.0 Wait for the reply before you go on\r\n'
OVER = b'421 4.7.0 This session has lasted long enough, come again\r\n'
TOO_SLOW = b'421 4.4.2 Too slow, closing the connection\r\n'


def strangers(limits: ClientLimits | None = None, **options: Any) -> Bench:
    """A server whose clients are strangers that may send to example.org."""
    admission = {'client_limits': limits or ClientLimits(), **options.pop('admission', {})}
    return Bench(relay=False, is_local=lambda address: address.endswith('@example.org'), admission=admission,
                 **options)


# who is counted as whom

@pytest.mark.parametrize(('client', 'network'), [
    ('192.0.2.7', '192.0.2.7'),
    ('::ffff:192.0.2.7', '192.0.2.7'),
    ('2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'),
    ('2001:db8:1:2::', '2001:db8:1:2::/64'),
    ('fe80::1%eth0', 'fe80::/64'),
])
def test_network_of(client: str, network: str) -> None:
    assert network_of(client) == network


def test_client_rule() -> None:
    rule = ClientRule([ipaddress.ip_network('192.0.2.0/24'), ipaddress.ip_network('2001:db8::/32')])
    for _ in range(2):
        assert rule('192.0.2.7') and rule('2001:db8:5::1') and rule('2001:db8::1%eth0')
        assert not rule('192.0.3.7') and not rule('::1')
    assert not ClientRule([])('192.0.2.7')


@pytest.mark.parametrize(('limits', 'refusals'), [
    (ClientLimits(),                                    ['', '', '', '']),
    (ClientLimits(connections=2),                       ['', '', 'client-connections', 'client-connections']),
    (ClientLimits(connection_rate=3),                   ['', '', '', 'client-rate']),
    (ClientLimits(connections=3, connection_rate=2),    ['', '', 'client-rate', 'client-connections']),
])
def test_connections_of_a_client(limits: ClientLimits, refusals: list[str]) -> None:
    clients = Clients(limits)
    assert [clients.usage('192.0.2.7').connect() for _ in range(4)] == refusals
    assert clients.usage('192.0.2.8').connect() == ''


def test_a_minute_ends_for_rates_and_not_for_connections() -> None:
    clients = Clients(ClientLimits(2, 2, 1, 1))
    usage = clients.usage('192.0.2.7')
    usage.connect()
    usage.messages = usage.recipients = 1
    assert not clients.usage('192.0.2.7').may_begin and not clients.usage('192.0.2.7').may_add
    assert clients.new_minute() and clients.usage('192.0.2.7') is usage
    assert clients.usage('192.0.2.7').may_begin and clients.usage('192.0.2.7').may_add and usage.open == 1
    usage.open -= 1
    assert not clients.new_minute(), 'nobody is left'
    assert clients.usage('192.0.2.7') is not usage


def test_clients_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients_module, 'CLIENTS', 10)
    clients = Clients(ClientLimits(connections=1))
    clients.usage('192.0.2.1').connect()
    for n in range(1000):
        usage = clients.usage(f'198.51.100.{n % 256}')
        assert usage.connect() == ''
        usage.open -= 1
        assert len(clients._usages) <= 10
    assert clients.usage('192.0.2.1').connect() == 'client-connections'


# a stranger

def test_connections_at_once() -> None:
    async def client() -> None:
        first = await bench.client()
        await bench.client()
        third = await bench.client(greeted=False)
        assert await bench.read(third, 100) == b'421 4.7.0 Too many connections from 127.0.0.1 at once\r\n'
        assert await bench.talk(first, b'QUIT') == b'221'
        await bench.quiet()
        await bench.client()
        bench.clients[1].close()
        await bench.quiet()
        await bench.client()

    with strangers(ClientLimits(connections=2)) as bench:
        bench.run(client())


def test_connections_in_a_minute() -> None:
    async def client() -> None:
        for _ in range(2):
            for _ in range(3):
                assert await bench.talk(await bench.client(), b'QUIT') == b'221'
            for _ in range(2):
                refused = await bench.client(greeted=False)
                assert await bench.read(refused, 100) == (
                    b'421 4.7.0 Too many connections from 127.0.0.1 in a minute\r\n')
            await bench.quiet(60.0)

    with strangers(ClientLimits(connection_rate=3)) as bench:
        bench.run(client())


def test_messages_and_recipients_in_a_minute() -> None:
    async def client() -> None:
        first, second = await bench.client(), await bench.client()
        assert await bench.talk(first, HELLO, MAIL, RCPT, b'DATA', b'.', MAIL, RCPT, RCPT) == (
            b'250 250 250 354 250 250 250 250')
        assert await bench.talk(second, HELLO, MAIL, RCPT) == b'250 250 250'
        assert await bench.ask(second, RCPT + b'\r\n') == [
            b'452 4.7.0 Too many recipients from 127.0.0.1 in a minute\r\n']
        assert await bench.talk(second, b'DATA', b'.') == b'354 250', 'what was accepted goes'
        assert await bench.ask(second, MAIL + b'\r\n') == [
            b'452 4.7.0 Too many messages from 127.0.0.1 in a minute\r\n']
        await bench.quiet(60.0)
        assert await bench.talk(second, MAIL, RCPT) == b'250 250'

    with strangers(ClientLimits(message_rate=3, recipient_rate=4)) as bench:
        bench.run(client())


def test_refused_recipients_count_too() -> None:
    async def client() -> None:
        stream = await bench.client()
        assert await bench.talk(stream, HELLO, MAIL, *[b'RCPT TO:<x@example.net>'] * 4) == (
            b'250 250 550 550 550 452')

    with strangers(ClientLimits(recipient_rate=3)) as bench:
        bench.run(client())


def test_who_may_relay_has_no_such_limits() -> None:
    async def client() -> None:
        streams = [await bench.client() for _ in range(5)]
        for stream in streams:
            assert await bench.talk(stream, *ENVELOPE, b'.', MAIL, RCPT, RCPT, *[b'NOOP'] * 200) == (
                b'250 250 250 354 250 250 250 250 ' + b' '.join([b'250'] * 200))

    with Bench(admission={'client_limits': ClientLimits(1, 1, 1, 1), 'session_seconds': 0.0,
                          'greeting_delay': 5.0}) as bench:
        bench.run(client())
        assert bench.clock.elapsed < 1


@pytest.mark.parametrize('command', [b'NOOP', b'RSET', b'VRFY x', b'HELP', HELLO, b'HELO x'])
def test_commands_without_a_message(command: bytes) -> None:
    async def client() -> None:
        stream = await bench.client()
        await bench.talk(stream, HELLO)
        for _ in range(2):
            await bench.talk(stream, *[command] * 8)
            assert await bench.talk(stream, *(ENVELOPE if command[:3] == b'HEL' else ENVELOPE[1:]), b'.') != b''
        assert len(bench.documents('local')) == 2
        assert (await bench.talk(stream, *[command] * 11))[-3:] == b'421'
        assert stream.lost or await bench.read(stream, 1) == b''

    with strangers(commands=10) as bench:
        bench.run(client())


# time

def test_a_session_in_all() -> None:
    """It is told when it has lasted long enough, not later than one command after it."""
    async def client() -> None:
        stream = await bench.client()
        for _ in range(20):
            await bench.quiet(200.0)
            said = await bench.ask(stream, HELLO + b'\r\n')
            if stream.lost or bench.clock.elapsed > 3600:
                break
        assert said[-1][:4] == b'250 ' and await bench.read(stream, 100) == OVER
        assert 3600 < bench.clock.elapsed <= 3900

    with strangers(admission={'session_seconds': 3600.0}) as bench:
        bench.run(client())


@pytest.mark.parametrize(('gap', 'size', 'ends'), [
    (20.0, 10000, False),   # 500 bytes a second
    (20.0, 9000, True),
    (20.0, 20, True),
    (250.0, 125000, False),
    (310.0, 1000000, True),     # the time for a piece
])
def test_a_message_must_come_with_some_speed(gap: float, size: int, ends: bool) -> None:
    """300 seconds are given; after them it must have come with the rate."""
    async def client() -> None:
        stream = await bench.client()
        await bench.talk(stream, *ENVELOPE)
        await say(stream, b'\r\n')
        for _ in range(50):
            await bench.quiet(gap)
            with contextlib.suppress(ConnectionLost):
                await say(stream, b'x' * (size - 2) + b'\r\n')
            if stream.lost:
                break
        if ends:
            assert await bench.read(stream, 100) == TOO_SLOW
        else:
            assert await bench.talk(stream, b'.') == b'250'

    with Bench(config={'min_rate': 500.0}) as bench:
        bench.run(client())
        assert ends == (bench.documents() == [])


def test_a_message_of_a_stranger_ends_with_its_session() -> None:
    async def client() -> None:
        stream = await bench.client()
        await bench.talk(stream, *ENVELOPE)
        while not stream.lost:
            stream.write(b'line\r\n')
            stream.flush()
            await bench.quiet(100.0)
        assert await bench.read(stream, 100) == TOO_SLOW and 3600 <= bench.clock.elapsed <= 3700

    with strangers(admission={'session_seconds': 3600.0}) as bench:
        bench.run(client())


# waiting for the other side

@pytest.mark.parametrize('relay', [False, True])
@pytest.mark.parametrize('said', [b'EHLO client.example\r\n', b'x', b'\r\n', b'HELO x\r\nMAIL FROM:<a@b>\r\n'])
def test_who_speaks_before_the_greeting(said: bytes, relay: bool) -> None:
    """Not who may relay: `printf … | nc` is what scripts do."""
    async def client() -> None:
        stream = await bench.client(greeted=False)
        await bench.quiet(1.0)
        stream.write(said)
        stream.flush()
        assert (await bench.read(stream, len(EARLY)) == EARLY) == (not relay)

    with Bench(relay=relay, admission={'greeting_delay': 3.0}) as bench:
        bench.run(client())


def test_what_is_there_already_is_early() -> None:
    """Without a delay, what has arrived with the connection itself is seen still."""
    with strangers() as bench, socket.create_connection((HOST, bench.listener.port), 10) as connection:
        connection.sendall(HELLO + b'\r\n')
        bench.run(bench.quiet())
        assert connection.recv(100) == EARLY


@pytest.mark.parametrize('early', [False, True])
def test_who_speaks_while_a_plugin_has_the_connection(tmp_path: Path, early: bool) -> None:
    """The plugin looks at the client before it is greeted, and that may take a while."""
    (tmp_path / 'wait.py').write_text('async def mq_smtp_in_connect(context, connection):\n'
                                      '    await context.sleep(3)\n')

    async def client() -> None:
        stream = await bench.client(greeted=False)
        await bench.quiet(1.0)
        if early:
            await say(stream, HELLO + b'\r\n')
        assert await bench.read(stream, 20) == (EARLY if early else GREETING)[:20] and bench.clock.elapsed >= 3

    with PluginBench(tmp_path, relay=False) as bench:
        bench.run(client())


def test_who_waits_is_greeted_after_the_delay() -> None:
    async def client() -> None:
        stream = await bench.client(greeted=False)
        assert await bench.read(stream, len(GREETING)) == GREETING
        assert 3.0 <= bench.clock.elapsed < 4
        assert await bench.talk(stream, *ENVELOPE, b'.') == b'250 250 250 354 250'
        await bench.quiet(299.0)
        assert await bench.talk(stream, b'QUIT') == b'221'

    with strangers(admission={'greeting_delay': 3.0}) as bench:
        bench.run(client())


PIPELINED = [
    # what is said in one write, what is said before it; the codes
    (b'MAIL FROM:<a@b>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<c@example.org>\r\nDATA\r\n', [HELLO], b'250 250 250 354'),
    (b'RSET\r\nMAIL FROM:<a@b>\r\nRSET\r\nMAIL FROM:<a@b>\r\nQUIT\r\nNOOP\r\n', [HELLO], b'250 250 250 250 221'),
    (b'MAIL FROM:<a@b>\r\nNOOP\r\n', [HELLO], b'250 250'),
    (b'x\r\ny\r\nNOOP\r\n', [HELLO], b'500 500 250'),
    (b'EHLO x\r\nMAIL FROM:<a@b>\r\n', [], b'554'),
    (b'EHLO x\r\nM', [], b'554'),
    (b'HELO x\r\nMAIL FROM:<a@b>\r\n', [], b'554'),
    (b'MAIL FROM:<a@b>\r\nEHLO x\r\nMAIL FROM:<a@b>\r\n', [HELLO], b'250 554'),
    (b'DATA\r\nSubject: x\r\n', [HELLO, MAIL, RCPT], b'554'),
    (b'DATA\r\n.\r\n', [HELLO, MAIL, RCPT], b'554'),
    (b'NOOP\r\nNOOP\r\n', [HELLO], b'554'),
    (b'VRFY x\r\nNOOP\r\n', [HELLO], b'554'),
    (b'MAIL FROM:<a@b>\r\nRCPT TO:<b@example.org>\r\n', [b'HELO x'], b'554'),    # HELO offers no PIPELINING
    (b'NOOP\r\nEHLO x\r\n', [], b'554'),
]


@pytest.mark.parametrize('relay', [False, True])
@pytest.mark.parametrize(('said', 'before', 'codes'), PIPELINED)
def test_pipelining(said: bytes, before: list[bytes], codes: bytes, relay: bool) -> None:
    """Who may relay may pipeline as it likes."""
    async def client() -> None:
        stream = await bench.client()
        await bench.talk(stream, *before)
        await say(stream, said)
        replies = [line for line in (await bench.read(stream, 1 << 16)).splitlines(keepends=True) if line[3:4] == b' ']
        if codes[-3:] == b'554' and not relay:
            assert replies[-1] == OUT_OF_SYNC and b' '.join(line[:3] for line in replies) == codes
        else:
            assert OUT_OF_SYNC not in replies and b' '.join(line[:3] for line in replies).startswith(codes) != relay \
                or relay

    with strangers(timeout=5.0) if not relay else Bench(timeout=5.0) as bench:
        bench.run(client())


async def say(stream: Stream, data: bytes) -> None:
    stream.write(data)
    await stream.drain()


# what a message may be

HEADERS = [
    (b'', 0),
    (b'\r\nReceived: x\r\n', 0),
    (b'Received: x\r\n\r\nReceived: x\r\n', 1),
    (b'Received: x\r\nReceived: x', 2),
    (b'RECEIVED: x\r\n\tReceived: x\r\nreceived: x\r\nX-Received: x\r\nReceived-SPF: x\r\n\r\n', 2),
]


@pytest.mark.parametrize(('mime', 'hops'), HEADERS)
def test_hops(mime: bytes, hops: int) -> None:
    for servers in range(4):
        assert has_passed(mime, header_end(mime), servers) == (hops > servers)


@pytest.mark.parametrize(('data', 'reply'), [
    (b'Received: x\r\n' * 5 + b'\r\nReceived: x\r\n' * 9, b'250 '),
    (b'Received: x\r\n' * 6 + b'\r\n', b'554 5.4.6 The message has passed more than 5 servers: it goes round in '),
    (b'X: y\r\n' * 16 + b'X:y\r\n\r\n' + b'X: y\r\n' * 100, b'552 5.3.4 The header of the message is larger than 100'),
    (b'X: y\r\n' * 16 + b'X:\r\n\r\n' + b'X: y\r\n' * 100, b'250 '),
    (b'no header, no end of it', b'250 '),
    (b'x' * 101 + b'\r\n', b'552 5.3.4'),
    (b'\r\n' + b'x' * 1000, b'250 '),
])
def test_header(data: bytes, reply: bytes) -> None:
    async def client() -> None:
        stream = await bench.client()
        await bench.talk(stream, *ENVELOPE)
        assert (await bench.ask(stream, data + b'\r\n.\r\n'))[-1].startswith(reply)

    with Bench(header=100, hops=5) as bench:
        bench.run(client())


@pytest.mark.parametrize('data', [b'a\nb\r\n', b'a\rb\r\n', b'\n.\nMAIL FROM:<x@y>\r\n', b'a\r\r\nb', b'a\n.\r\nb\r\n',
                                  b'a\r\n.\nQUIT\r\n', b'\n', b'\r'])
@pytest.mark.parametrize('normalises', [False, True])
def test_bare_line_ends(data: bytes, normalises: bool) -> None:
    """Normalised or refused, a message ends at its true end, and is one."""
    async def client() -> None:
        stream = await bench.client()
        assert await bench.talk(stream, *ENVELOPE, data + b'\r\n.', b'NOOP') == (
            b'250 250 250 354 250 250' if normalises else b'250 250 250 354 550 250')

    with Bench(config={'normalises': normalises}) as bench:
        bench.run(client())
        kept = [document['mime'].partition('+0000\r\n')[2] for document in bench.documents()]
        mended = data.replace(b'\r\n.', b'\r\n').replace(b'\r\n', b'\n').replace(b'\r', b'\n') + b'\n'
        assert kept == ([mended.replace(b'\n', b'\r\n').decode()] if normalises else [])
