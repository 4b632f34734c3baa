"""What the server must survive, a test for each way in which servers were hurt, in clear, on a port for TLS and after
STARTTLS. What strangers can do to the handshake itself is in test_smtp_tls.py, guessing passwords in test_smtp_auth.py.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from mqlite.loop.connect import connect
from mqlite.loop.stream import ConnectionLost, Stream
from mqlite.smtp.admission import SILENT_SECONDS
from mqlite.smtp.clients import ClientLimits, ClientRule
from tests.support.peers import Certificate
from tests.support.process import HOST
from tests.support.smtp import GREETING, Bench, without_received
from tests.test_smtp_framing import FALSE_ENDS

CLEAR, TLS, STARTTLS = WAYS = ('in clear', 'TLS', 'STARTTLS')
HELLO, MAIL, RCPT = b'EHLO client.example', b'MAIL FROM:<a@client.example>', b'RCPT TO:<b@example.org>'
FORGED = b'MAIL FROM:<forged@example.net>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nSubject: forged\r\n\r\n'
LINE = re.compile(rb'[2-5][0-9][0-9][ -][ -~]{0,507}\r\n')     # RFC 5321 4.2, 4.5.3.1.5: 512 octets, printable

# Addresses and lines that hold what no address may hold (CVE-2020-28015 of Exim, and header injection everywhere).
CONTROL = [b'\r', b'\n', b'\0', b'\r\r', b'\n\r', b'\x0b', b'\x1b[2J', b'\x7f']
PLACES = [b'MAIL FROM:<a%bb@c.example>', b'MAIL FROM:<"a%bb"@c.example>', b'MAIL FROM:<a@c%b.example>',
          b'RCPT TO:<a%bb@c.example>', b'RCPT TO:<"a\\%bb"@c.example>', b'RCPT TO:<a@[1.2.3.4%b]>',
          b'MAIL FROM:<a@c> SIZE=1%b0', b'RCPT TO:<@x%b.example:a@c>', b'EHLO client%b.example']

# The forms of the open-relay tests (ORDB, abuse.net): sender, recipient; mx.example is we, and so is 127.0.0.1.
RELAY_FORMS = [
    (b'spam@example.net',         b'victim@example.org'),
    (b'spam@localhost',           b'victim@example.org'),
    (b'spam',                     b'victim@example.org'),
    (b'',                         b'victim@example.org'),
    (b'spam@mx.example',          b'victim@example.org'),
    (b'spam@[127.0.0.1]',         b'victim@example.org'),
    (b'spam@mx.example',          b'victim%example.org@mx.example'),
    (b'spam@mx.example',          b'victim%example.org@[127.0.0.1]'),
    (b'spam@mx.example',          b'"victim@example.org"'),
    (b'spam@mx.example',          b'"victim%example.org"'),
    (b'spam@mx.example',          b'victim@example.org@mx.example'),
    (b'spam@mx.example',          b'"victim@example.org"@mx.example'),
    (b'spam@mx.example',          b'victim@example.org@[127.0.0.1]'),
    (b'spam@mx.example',          b'@mx.example:victim@example.org'),
    (b'spam@mx.example',          b'@[127.0.0.1]:victim@example.org'),
    (b'spam@mx.example',          b'@mx.example,@example.net:victim@example.org'),
    (b'spam@mx.example',          b'example.org!victim'),
    (b'spam@mx.example',          b'example.org!victim@mx.example'),
    (b'spam@mx.example',          b'example.org!victim@[127.0.0.1]'),
    (b'postmaster@mx.example',    b'victim@example.org'),
    (b'spam@mx.example',          b'postmaster'),
    (b'spam@mx.example',          b'victim@localhost'),
    (b'spam@mx.example',          b'@local.example'),
    (b'spam@mx.example',          b'victim@example.org,b@local.example'),
    (b'spam@mx.example',          b'victim@example.org>,<b@local.example'),
    (b'spam@mx.example',          b'victim@example.org@local.example'),
]

# Each asks for something that a stranger must not have.
X_MQ = [b'envelope: f@example.net', b'ip: 192.0.2.9', b'pool: p', b'tag: t', b'delayed: 2030-01-01 00:00:00',
        b'maxattempts: 1', b'retries: 1', b'keepmime: 1', b'results-queue: q', b'failure-queue: q', b'success-queue: q',
        b'retry-queue: q', b'smarthost-hostname: evil.example', b'smarthost-port: 1', b'smarthost-username: u',
        b'smarthost-password: p', b'dsn-notify: NEVER', b'custom: c', b'recipient: victim@example.org', b'local: 1',
        b'results-queue:\r\n folded', b'queues: q']


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def serve(way: str, certificate: Certificate, **options: Any) -> Bench:
    return Bench(certificate=certificate, over_tls=way == TLS, **options)


def stranger(way: str, certificate: Certificate, **options: Any) -> Bench:
    """Its clients may not relay; addresses of local.example are local."""
    return serve(way, certificate, relay=False, is_local=lambda address: address.endswith('@local.example'), **options)


async def enter(bench: Bench, way: str) -> Stream:
    """A client that has said EHLO, behind STARTTLS if that is the way."""
    stream = await bench.client()
    if way == STARTTLS:
        assert await bench.talk(stream, HELLO, b'STARTTLS') == b'250 220'
        await bench.start_tls(stream)
    assert await bench.talk(stream, HELLO) == b'250'
    return stream


async def say(bench: Bench, stream: Stream, *pieces: bytes) -> None:
    """Each piece as a segment of its own."""
    for piece in pieces:
        stream.write(piece)
        with contextlib.suppress(ConnectionLost):
            await stream.drain()
        if len(pieces) > 1:
            await bench.quiet(0.0)


# smuggling

@pytest.mark.parametrize('end', FALSE_ENDS)
def test_only_the_true_end_ends_a_message(way: str, certificate: Certificate, end: bytes) -> None:
    """Split at every octet. What looks like commands behind it is part of the message, and is refused with it."""
    harmless = not re.search(b'[\r\n]', end.replace(b'\r\n', b''))

    async def client() -> None:
        stream = await enter(bench, way)
        for cut in range(len(end) + 1):
            assert await bench.talk(stream, MAIL, RCPT, b'DATA') == b'250 250 354'
            await say(bench, stream, b'Subject: x\r\n\r\nhello' + end[:cut], end[cut:] + FORGED)
            assert (await bench.ask(stream, b'\r\n.\r\n'))[-1][:3] == (b'250' if harmless else b'550')
            assert await bench.talk(stream, b'NOOP') == b'250', 'one message, one reply'

    with serve(way, certificate) as bench:
        bench.run(client())
        kept = [without_received(document['mime']) for document in bench.documents()]
        assert len(kept) == (len(end) + 1 if harmless else 0)
        assert all(mime.startswith(b'Subject: x\r\n') for mime in kept)


def test_the_true_end_at_every_cut(way: str, certificate: Certificate) -> None:
    """It may come in any pieces, and what follows belongs to the next command."""
    wire = b'Subject: x\r\n\r\n..hello\r\n.\r\nRSET\r\n'

    async def client() -> None:
        stream = await enter(bench, way)
        for cut in range(len(wire) + 1):
            assert await bench.talk(stream, MAIL, RCPT, b'DATA') == b'250 250 354'
            await say(bench, stream, wire[:cut], wire[cut:])
            assert (await bench.ask(stream, b''))[-1][:3] == b'250' and await bench.ask(stream, b'') == [
                b'250 2.0.0 Flushed\r\n']

    with serve(way, certificate) as bench:
        bench.run(client())
        assert {without_received(document['mime']) for document in bench.documents()} == {
            b'Subject: x\r\n\r\n.hello\r\n'}


@pytest.mark.parametrize(('said', 'codes', 'kept'), [
    # octets that look like commands are octets, of a chunk that is wanted and of one that is not
    (b'BDAT %d LAST\r\n' % len(FORGED) + FORGED,                    b'250',         1),
    (b'BDAT 5\r\nabc\r\nBDAT %d LAST\r\n' % len(FORGED) + FORGED,   b'250 250',     1),
    (b'RSET\r\nBDAT %d LAST\r\n' % len(FORGED) + FORGED,            b'250 503',     0),
    (b'BDAT 5\r\nabc\r\nDATA\r\n',                                  b'250 503',     0),
    (b'BDAT 5\r\nabc\r\nMAIL FROM:<x@y>\r\n',                       b'250 503',     0),
    (b'BDAT 3\r\n\n.\nBDAT 2 LAST\r\n\r\n',                         b'250 550',     0),     # bare line ends
    (b'BDAT 5 LAST\r\n\r\n.\r\n',                                   b'250',         1),     # no end of anything
])
def test_chunks(way: str, certificate: Certificate, said: bytes, codes: bytes, kept: int) -> None:
    async def client() -> None:
        for cut in (*range(0, len(said), 7), len(said)):
            stream = await enter(bench, way)
            assert await bench.talk(stream, MAIL, RCPT) == b'250 250'
            await say(bench, stream, said[:cut], said[cut:])
            replies = [(await bench.ask(stream, b''))[-1][:3] for _ in codes.split()]
            assert b' '.join(replies) == codes and await bench.talk(stream, b'NOOP') == b'250'
            stream.close()
            bench.store.queues.pop('refused', None)
            assert len(bench.store.queues.pop('inbox', [])) == kept

    with serve(way, certificate) as bench:
        bench.run(client())


# those who do not listen

def test_who_speaks_before_the_greeting(certificate: Certificate) -> None:
    """On a port for TLS that is what comes right behind the handshake."""
    async def client(way: str) -> None:
        stream = await bench.client(greeted=False)
        await say(bench, stream, HELLO + b'\r\n' + MAIL + b'\r\n')
        assert await bench.read(stream, 100) == b'554 5.5.0 Wait for the greeting before you speak\r\n'

    for way in (CLEAR, TLS):
        with stranger(way, certificate, admission={'greeting_delay': 2.0}) as bench:
            bench.run(client(way))


@pytest.mark.parametrize('said', [HELLO + b'\r\n' + MAIL, b'DATA\r\nSubject: x', b'NOOP\r\nNOOP', b'VRFY x\r\nRSET'])
def test_who_pipelines_where_a_reply_must_be_read(way: str, certificate: Certificate, said: bytes) -> None:
    async def client() -> None:
        stream = await enter(bench, way)
        assert await bench.talk(stream, MAIL, b'RCPT TO:<b@local.example>') == b'250 250'
        await say(bench, stream, said + b'\r\n')
        assert await bench.read(stream, 1000) == b'554 5.5.0 Wait for the reply before you go on\r\n'

    with stranger(way, certificate) as bench:
        bench.run(client())
        assert bench.store.queues == {}


# those who send without end

@contextlib.contextmanager
def memory_flat(most: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def test_an_endless_line(way: str, certificate: Certificate) -> None:
    async def client() -> None:
        stream = await enter(bench, way)
        with memory_flat(2 << 20):
            for _ in range(16 << 4):
                await say(bench, stream, bytes(65536))
        assert await bench.talk(stream, b'', b'NOOP') == b'500 250'

    with serve(way, certificate) as bench:
        bench.run(client())


@pytest.mark.parametrize('piece', [b'X' * 65536, b'X: y\r\n' * 10922, b'\r\n folded' * 7281, b'\r\n ' * 21845],
                         ids=['line', 'lines', 'folds', 'empty folds'])
def test_an_endless_header(way: str, certificate: Certificate, piece: bytes) -> None:
    """Its size is bounded, and so is what it costs to find out: a million folds are three megabytes."""
    async def client() -> None:
        stream = await enter(bench, way)
        await bench.talk(stream, MAIL, RCPT, b'DATA')
        await say(bench, stream, b'Subject: x')
        with memory_flat(12 << 20):
            for _ in range(48):
                await say(bench, stream, piece)
        assert await bench.ask(stream, b'\r\n.\r\n') == [
            b'552 5.3.4 The header of the message is larger than 1048576 bytes\r\n']

    with serve(way, certificate) as bench:
        bench.run(client())


def test_an_endless_message(way: str, certificate: Certificate) -> None:
    async def client() -> None:
        stream = await enter(bench, way)
        await bench.talk(stream, MAIL, RCPT, b'DATA')
        with memory_flat(4 << 20):
            for _ in range(16 << 4):
                await say(bench, stream, b'x' * 65534 + b'\r\n')
        assert await bench.talk(stream, b'.', b'NOOP') == b'552 250'

    with serve(way, certificate, size=1 << 20) as bench:
        bench.run(client())


# those who are slow

def test_five_hundred_that_stall(way: str, certificate: Certificate) -> None:
    """They keep nobody out for longer than SILENT_SECONDS; a new client then is greeted at once."""
    count = 500 if way == CLEAR else 60

    async def client() -> None:
        for _ in range(count * 9 // 10):
            stream = await enter(bench, way)
            await bench.talk(stream, MAIL, RCPT, b'DATA')
        await bench.quiet(SILENT_SECONDS)
        begin = bench.clock.elapsed
        for _ in range(5):
            stream = await enter(bench, way)
            assert await bench.talk(stream, MAIL, RCPT, b'DATA', b'.', b'QUIT') == b'250 250 354 250 221'
        assert bench.clock.elapsed - begin < 1

    with serve(way, certificate, connections=count) as bench:
        bench.run(client())


def test_one_address_has_its_share(way: str, certificate: Certificate) -> None:
    async def client() -> None:
        streams = [await enter(bench, way) for _ in range(3)]
        with contextlib.suppress(ConnectionLost):
            late = await bench.client(greeted=False)
            said = await bench.read(late, 100)
            assert said == b'' if way == TLS else said.startswith(b'421 4.7.0 Too many connections from 127.0.0.1')
        assert await bench.talk(streams[0], b'NOOP') == b'250'

    with stranger(way, certificate, admission={'client_limits': ClientLimits(connections=3)}) as bench:
        bench.run(client())


@pytest.mark.parametrize('said', [(), (MAIL,), (MAIL, RCPT), (MAIL, RCPT, b'DATA')])
def test_dribbling(way: str, certificate: Certificate, said: tuple[bytes, ...]) -> None:
    """An octet every 50 seconds keeps a command, or a message, alive for the time that it has, and not longer."""
    async def client() -> None:
        stream = await enter(bench, way)
        await bench.talk(stream, *said)
        begin = bench.clock.elapsed
        while not stream.lost:
            await say(bench, stream, b'x')
            await bench.quiet(50.0)
        assert await bench.read(stream, 100) == b'421 4.4.2 Too slow, closing the connection\r\n'
        assert 300 <= bench.clock.elapsed - begin <= 351

    with serve(way, certificate, config={'min_rate': 500.0}) as bench:
        bench.run(client())


# those who want what is not theirs

@pytest.mark.parametrize(('sender', 'recipient'), RELAY_FORMS)
def test_a_stranger_cannot_relay(way: str, certificate: Certificate, sender: bytes, recipient: bytes) -> None:
    async def client() -> None:
        stream = await enter(bench, way)
        began = await bench.talk(stream, b'MAIL FROM:<%b>' % sender) == b'250'
        [said] = await bench.ask(stream, b'RCPT TO:<%b>\r\n' % recipient)
        assert said[:10] in ((b'550 5.7.1 ', b'501 5.1.3 ') if began else (b'503 5.5.1 ',))
        assert await bench.talk(stream, b'DATA') == (b'554' if began else b'503')
        assert await bench.talk(stream, b'BDAT 2 LAST\r\n') in (b'554', b'503')

    with stranger(way, certificate) as bench:
        bench.run(client())
        assert bench.store.queues == {}


@pytest.mark.parametrize('line', X_MQ)
def test_instructions_of_a_stranger(way: str, certificate: Certificate, line: bytes) -> None:
    """They are taken out of the message and not obeyed: it is as if they had not been there."""
    async def client() -> None:
        stream = await enter(bench, way)
        for header in (b'', b'X-MQ-' + line + b'\r\n', b'Subject: x\r\nx-mq-' + line + b'\r\n'):
            assert await bench.talk(stream, MAIL, b'RCPT TO:<b@local.example>', b'DATA') == b'250 250 354'
            assert (await bench.ask(stream, header + b'\r\nbody\r\n.\r\n'))[-1][:3] == b'250'

    with stranger(way, certificate) as bench:
        bench.run(client())
        plain, *others = bench.documents('local')
        assert list(bench.store.queues) == ['local'] and len(others) == 2
        for document in others:
            assert without_received(document['mime']) in (b'\r\nbody\r\n', b'Subject: x\r\n\r\nbody\r\n')
            assert {**document, 'mime': '', 'message-id': ''} == {**plain, 'mime': '', 'message-id': ''}


@pytest.mark.parametrize('octets', CONTROL)
@pytest.mark.parametrize('form', PLACES)
def test_control_characters(way: str, certificate: Certificate, form: bytes, octets: bytes) -> None:
    """Refused wherever they stand; the session says nothing but what it has to say, and goes on."""
    async def client() -> None:
        stream = await enter(bench, way)
        await bench.talk(stream, *([MAIL] if form.startswith(b'RCPT') else []))
        await say(bench, stream, form % octets + b'\r\nRSET\r\n')
        said = [await bench.read_line(stream)]
        while said[-1] != b'250 2.0.0 Flushed\r\n':
            said.append(await bench.read_line(stream))
        assert all(LINE.fullmatch(line) for line in said) and {line[:1] for line in said[:-1]} == {b'5'}
        assert await bench.talk(stream, MAIL, RCPT, b'DATA', b'.') == b'250 250 354 250'

    with serve(way, certificate) as bench:
        bench.run(client())
        [document] = bench.documents()
        assert (document['envelope'], document['recipient']) == ('a@client.example', 'b@example.org')


@pytest.mark.parametrize('name', [b'<script>alert(1)</script>', b'x\x1b]0;title\x07', b'a\xe2\x80\xaeb', b'x' * 1000,
                                  b'client.example\xff', b'-', b'a..b', b'[1.2.3.4', b'%s%n'])
def test_hostile_text_does_not_break_a_reply(way: str, certificate: Certificate, name: bytes) -> None:
    async def client() -> None:
        stream = await enter(bench, way)
        for command in (b'EHLO ' + name, b'HELO ' + name, name, b'MAIL FROM:<a@b> ' + name, b'VRFY ' + name,
                        b'HELP ' + name, b'AUTH ' + name, b'MAIL FROM:<' + name + b'@b>'):
            for line in await bench.ask(stream, command + b'\r\n'):
                assert LINE.fullmatch(line)

    with serve(way, certificate) as bench:
        bench.run(client())


def test_a_message_that_goes_round_in_circles(way: str, certificate: Certificate) -> None:
    async def client() -> None:
        stream = await enter(bench, way)
        for hops, codes in ((50, b'250 250 354 250'), (51, b'250 250 354 554')):
            received = b'Received: from x by y; today\r\n' * hops
            assert await bench.talk(stream, MAIL, RCPT, b'DATA', received + b'\r\nbody\r\n.') == codes

    with serve(way, certificate) as bench:
        bench.run(client())
        assert len(bench.documents()) == 1


# those who speak for others

PROXIES = ClientRule([ipaddress.ip_network('127.0.0.0/8')])
HEADER = b'PROXY TCP4 192.0.2.7 198.51.100.9 56324 25\r\n'


def test_the_header_of_a_proxy_comes_before_tls(certificate: Certificate) -> None:
    async def client() -> None:
        stream = await connect(bench.reactor, HOST, bench.secure_listener.port)
        bench.clients.append(stream)
        await say(bench, stream, HEADER)
        await bench.start_tls(stream)
        assert await bench.read(stream, len(GREETING)) == GREETING
        assert await bench.talk(stream, HELLO, MAIL, RCPT, b'DATA', b'.') == b'250 250 250 354 250'

    with serve(TLS, certificate, is_proxy=PROXIES) as bench:
        bench.run(client())
        assert bench.documents()[0]['connection']['remote-ip'] == '192.0.2.7'


@pytest.mark.parametrize('said', [b'', HEADER[:-2], HEADER[:-2] + b'\n', b'EHLO x\r\n', b'\x16\x03\x01\x00\x05hello'])
def test_without_its_header_a_proxy_gets_no_handshake(certificate: Certificate, said: bytes) -> None:
    async def client() -> None:
        stream = await connect(bench.reactor, HOST, bench.secure_listener.port)
        bench.clients.append(stream)
        await say(bench, stream, said)
        assert await bench.read(stream, 100) == b'' and bench.clock.elapsed < 30

    with serve(TLS, certificate, is_proxy=PROXIES) as bench:
        bench.run(client())
        assert len(bench.notes) == 1


def test_a_header_from_elsewhere(way: str, certificate: Certificate) -> None:
    async def client() -> None:
        stream = await enter(bench, way)
        assert await bench.ask(stream, HEADER) == [
            b'421 4.3.5 No PROXY header is taken from this address, closing the connection\r\n']
        assert await bench.read(stream, 1) == b''

    with serve(way, certificate) as bench:
        bench.run(client())
