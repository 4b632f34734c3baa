"""The SMTP server over TLS: STARTTLS, ports that begin with TLS, and what must not get through the handshake.

RFC 3207, CVE-2011-0411. A client may have talked to somebody in between for as long as it talked in clear.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mqlite.loop.connect import connect
from mqlite.loop.stream import ConnectionLost, Stream
from mqlite.loop.tls import TlsError
from mqlite.smtp.server import LAST_WORDS_SECONDS
from tests.support.peers import Certificate
from tests.support.process import HOST
from tests.support.smtp import GREETING, Bench

GO_AHEAD = b'220 2.0.0 Go ahead with TLS\r\n'
PIPELINED = b'554 5.5.0 What follows STARTTLS must be encrypted, closing the connection\r\n'
ENVELOPE = (b'MAIL FROM:<a@client.example>', b'RCPT TO:<b@example.org>', b'DATA')
BEHIND = [b'MAIL FROM:<forged@example.com>\r\n', b'EHLO forged.example\r\n', b'\r\n', b'\x00', b'N', b'QUIT\r\n',
          b'\x16\x03\x01']


@pytest.fixture(name='bench')
def tls_bench(certificate: Certificate) -> Iterator[Bench]:
    with Bench(certificate=certificate, timeout=60.0) as made:
        yield made


async def upgrade(bench: Bench, stream: Stream) -> None:
    assert await bench.ask(stream, b'STARTTLS\r\n') == [GO_AHEAD]
    await bench.start_tls(stream)


async def all_in_clear(bench: Bench, stream: Stream) -> bytes:
    """What the server has sent until it closed, records of TLS included; it must close without being asked to."""
    data = await bench.read(stream, 1 << 20)
    assert stream.lost
    return data


# what it is for

@pytest.mark.parametrize('implicit', [False, True], ids=['STARTTLS', 'a port for TLS'])
def test_a_message_over_tls(bench: Bench, implicit: bool) -> None:
    async def client() -> None:
        bench.over_tls = implicit
        stream = await bench.client()
        if not implicit:
            assert b'250-STARTTLS\r\n' in await bench.ask(stream, b'EHLO client.example\r\n')
            await upgrade(bench, stream)
        assert not any(b'STARTTLS' in line for line in await bench.ask(stream, b'EHLO client.example\r\n'))
        assert await bench.talk(stream, b'STARTTLS') == b'503'
        assert await bench.talk(stream, *ENVELOPE, b'Subject: x\r\n\r\nbody\r\n.', b'QUIT') == b'250 250 354 250 221'

    bench.run(client())
    [document] = bench.documents()
    assert document['connection']['secure'] is True
    assert ' (mqlite) with ESMTPS (TLSv1.3 TLS_AES_256_GCM_SHA384) id id' in document['mime']


def test_a_message_in_clear_is_not_called_secure(bench: Bench) -> None:
    async def client() -> None:
        await bench.talk(await bench.client(), b'EHLO client.example', *ENVELOPE, b'.')

    bench.run(client())
    [document] = bench.documents()
    assert document['connection']['secure'] is False
    assert ' (mqlite) with ESMTP id id' in document['mime']


def test_without_a_certificate_there_is_no_tls() -> None:
    async def client() -> None:
        stream = await bench.client()
        assert not any(b'STARTTLS' in line for line in await bench.ask(stream, b'EHLO client.example\r\n'))
        assert await bench.talk(stream, b'STARTTLS', b'NOOP') == b'502 250'

    with Bench() as bench:
        bench.run(client())


def test_starttls_takes_no_argument(bench: Bench) -> None:
    async def client() -> None:
        stream = await bench.client()
        assert await bench.talk(stream, b'STARTTLS now', b'NOOP') == b'501 250'
        await upgrade(bench, stream)
        assert await bench.talk(stream, b'NOOP') == b'250'

    bench.run(client())


def test_a_pipelined_batch_over_tls(bench: Bench) -> None:
    async def client() -> None:
        bench.over_tls = True
        stream = await bench.client()
        stream.write(b'EHLO c.example\r\n' + b'\r\n'.join(ENVELOPE) + b'\r\nbody\r\n.\r\nQUIT\r\n')
        said = await bench.read(stream, 1 << 20)
        assert [line[:3] for line in said.splitlines()[-7:]] == [b'250', b'250', b'250', b'354', b'250', b'250', b'221']

    bench.run(client())
    assert len(bench.documents()) == 1


# nothing gets through from before

def test_everything_said_before_is_forgotten(bench: Bench) -> None:
    async def client() -> None:
        stream = await bench.client()
        assert await bench.talk(stream, b'EHLO forged.example', *ENVELOPE[:2]) == b'250 250 250'
        await upgrade(bench, stream)
        assert await bench.talk(stream, b'RCPT TO:<c@example.org>', b'DATA', b'MAIL FROM:<a@b.example>') == \
            b'503 503 503'
        assert await bench.talk(stream, b'EHLO client.example', *ENVELOPE, b'.') == b'250 250 250 354 250'

    bench.run(client())
    [document] = bench.documents()
    assert 'forged' not in document['mime'] and document['recipient'] == 'b@example.org'


def test_errors_are_not_forgotten(certificate: Certificate) -> None:
    async def client() -> None:
        stream = await bench.client()
        assert await bench.talk(stream, b'what', b'what') == b'500 500'
        await upgrade(bench, stream)
        assert await bench.talk(stream, b'what') == b'421'

    with Bench(certificate=certificate, errors=2) as bench:
        bench.run(client())


@pytest.mark.parametrize('behind', BEHIND)
def test_bytes_behind_starttls_end_the_session(bench: Bench, behind: bytes) -> None:
    """In one segment with it: they are there before the client can have seen the reply."""
    async def client() -> None:
        stream = await bench.client()
        stream.write(b'STARTTLS\r\n' + behind)
        assert await all_in_clear(bench, stream) == PIPELINED

    bench.run(client())
    assert len(bench.server) == 0


@pytest.mark.parametrize('waits', [False, True], ids=['behind STARTTLS', 'behind its 220'])
def test_bytes_in_clear_instead_of_the_handshake_end_the_session(bench: Bench, waits: bool) -> None:
    """However the segments are cut, nothing of them is ever answered as a command."""
    async def client(cut: int) -> None:
        stream = await bench.client()
        stream.write(b'STARTTLS\r\n')
        stream.flush()
        if waits:
            assert await bench.read_line(stream) == GO_AHEAD
        for part in (forged[:cut], forged[cut:]):
            stream.write(part)
            stream.flush()
            await bench.quiet(0.001)
        said = await all_in_clear(bench, stream)
        assert said in (b'', PIPELINED) or said.removeprefix(GO_AHEAD)[:1] in (b'\x15', b''), said

    forged = b'EHLO forged.example\r\nMAIL FROM:<forged@example.com>\r\n'
    for cut in range(1, len(forged)):
        bench.run(client(cut))
    assert len(bench.server) == 0


def test_bytes_in_clear_behind_the_handshake_end_the_session(bench: Bench) -> None:
    async def client() -> None:
        stream = await bench.client()
        await upgrade(bench, stream)
        assert await bench.talk(stream, b'NOOP') == b'250'
        stream._send(b'MAIL FROM:<forged@example.com>\r\n')
        with pytest.raises((ConnectionLost, TlsError)):
            while True:
                await stream.wait_bytes()
                assert stream.take() == b''

    bench.run(client())


# nothing is said in clear where TLS should be

async def begin(bench: Bench, implicit: bool) -> Stream:
    """A client that has not begun the handshake that the server waits for."""
    if implicit:
        stream = await connect(bench.reactor, HOST, bench.secure_listener.port)
        bench.clients.append(stream)
    else:
        stream = await bench.client()
        assert await bench.ask(stream, b'STARTTLS\r\n') == [GO_AHEAD]
    await bench.quiet()
    return stream


@pytest.mark.parametrize('implicit', [False, True], ids=['STARTTLS', 'a port for TLS'])
@pytest.mark.parametrize('sent', [b'', b'\x16\x03\x01\x02\x00\x01', b'\x16'])
def test_silence_in_the_handshake(bench: Bench, implicit: bool, sent: bytes) -> None:
    async def client() -> None:
        stream = await begin(bench, implicit)
        stream.write(sent)
        start = bench.clock.elapsed
        assert await all_in_clear(bench, stream) == b''
        assert 59 <= bench.clock.elapsed - start <= 61 + LAST_WORDS_SECONDS

    bench.run(client())


@pytest.mark.parametrize('implicit', [False, True], ids=['STARTTLS', 'a port for TLS'])
def test_a_handshake_that_dribbles_in_has_no_more_time(bench: Bench, implicit: bool) -> None:
    async def client() -> None:
        stream = await begin(bench, implicit)
        for octet in (b'\x16', b'\x03', b'\x01', b'\x02', b'\x00', b'\x01', b'\x00'):
            stream.write(octet)
            stream.flush()
            await bench.quiet(9.0)
        assert await all_in_clear(bench, stream) == b''

    bench.run(client())
    assert bench.clock.elapsed < 70


@pytest.mark.parametrize('implicit', [False, True], ids=['STARTTLS', 'a port for TLS'])
def test_a_stop_in_the_handshake(bench: Bench, implicit: bool) -> None:
    async def client() -> None:
        stream = await begin(bench, implicit)
        stop = bench.reactor.spawn(bench.server.stop(60.0))
        assert await all_in_clear(bench, stream) == b''
        await stop

    bench.run(client())


def test_a_client_too_many_at_a_port_for_tls(certificate: Certificate) -> None:
    async def client() -> None:
        await bench.client()
        assert await all_in_clear(bench, await begin(bench, implicit=True)) == b''

    with Bench(certificate=certificate, connections=1) as bench:
        bench.run(client())


@pytest.mark.parametrize('said', [b'EHLO client.example\r\n', b'GET / HTTP/1.1\r\n\r\n', bytes(1000)])
def test_a_client_without_tls_at_a_port_for_tls(bench: Bench, said: bytes) -> None:
    """It gets an alert, no greeting, and is not answered."""
    async def client() -> None:
        stream = await begin(bench, implicit=True)
        stream.write(said)
        data = await all_in_clear(bench, stream)
        assert data[:1] in (b'', b'\x15') and GREETING not in data and len(data) <= 7

    bench.run(client())


def test_the_last_words_of_a_session_over_tls_are_encrypted(bench: Bench) -> None:
    async def client() -> None:
        bench.over_tls = True
        stream = await bench.client()
        assert await bench.read(stream, 100) == b'421 4.4.2 Too slow, closing the connection\r\n'

    bench.run(client())
