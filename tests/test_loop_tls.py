"""TLS on a stream: the handshake from both sides and how it fails, what passes, how it ends."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from mqlite.loop.stream import HIGH_WATER, RECEIVE_SIZE, ConnectionLost, Stream
from mqlite.loop.task import Timeout
from mqlite.loop.tls import TlsError, client_context
from tests.support import loop
from tests.support.loop import LoopBench
from tests.support.peers import Certificate

bench = loop.bench  # fixture


@pytest.fixture
def server_context(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


class Peer:
    """Python's own blocking TLS socket on the other end, driven by a thread of its own."""

    def __init__(self, sock: socket.socket, server_context: ssl.SSLContext) -> None:
        self.sock: socket.socket = sock
        self.error: BaseException | None = None
        self._context = server_context
        self._thread = threading.Thread(target=self._run)
        self._steps: list[bytes | int] = []

    def start(self, *steps: bytes | int) -> None:
        """After the handshake: send these bytes, or receive so many."""
        self._steps = list(steps)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.sock = self._context.wrap_socket(self.sock, server_side=True, suppress_ragged_eofs=False)
            for step in self._steps:
                if isinstance(step, bytes):
                    self.sock.sendall(step)
                else:
                    while step:
                        step -= len(self.sock.recv(min(step, 16384)))
            # the peer's close_notify is not waited for: a plain close follows
        except (OSError, ValueError) as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def ends(bench: LoopBench, server_context: ssl.SSLContext) -> Iterator[tuple[Stream, Peer]]:
    stream, sock = bench.stream_and_socket()
    peer = Peer(socket.socket(fileno=sock.detach()), server_context)
    peer.sock.settimeout(20)
    yield stream, peer
    peer.close()


async def both(bench: LoopBench, client: Stream, server: Stream, server_context: ssl.SSLContext,
               context: ssl.SSLContext | None = None, hostname: str | None = 'localhost') -> None:
    task = bench.reactor.spawn(server.start_tls(server_context, True))
    await client.start_tls(context or client_context(), False, hostname)
    await task


async def read_all(stream: Stream, size: int) -> bytes:
    data = stream.take()
    while len(data) < size:
        await stream.wait_bytes()
        data += stream.take()
    return data


def test_both_sides_ours(bench: LoopBench, server_context: ssl.SSLContext, certificate: Certificate) -> None:
    client, server = bench.stream_pair()
    trusting = ssl.create_default_context(cafile=str(certificate.certificate))

    async def main() -> None:
        ciphers = [client.cipher]
        await both(bench, client, server, server_context, trusting)
        ciphers += [client.cipher, server.cipher]
        assert ciphers[0] is None
        assert ciphers[1] == ciphers[2] and ciphers[1] is not None and ciphers[1][1] == 'TLSv1.3'
        assert (client.received, client.sent) == (0, 0)
        client.write(b'EHLO client\r\n')
        client.write(b'')
        client.flush()
        await server.wait_bytes()
        assert server.next_line(100) == b'EHLO client\r\n'
        assert (client.sent, server.received) == (13, 13)
        server.close()
        with pytest.raises(ConnectionLost, match='closed the TLS connection'):
            await client.wait_bytes()

    bench.run(main())


@pytest.mark.parametrize('version', [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_foreign_server_and_what_it_sends_at_once(bench: LoopBench, ends: tuple[Stream, Peer],
                                                    server_context: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    """The first words come in one segment with the end of the handshake: they must not wait for a second segment."""
    stream, peer = ends
    server_context.maximum_version = version
    peer.start(b'220 ready\r\n', 6, b'221 bye\r\n')

    async def main() -> None:
        await stream.start_tls(client_context(), False, 'localhost')
        assert (await read_all(stream, 11)) == b'220 ready\r\n'
        stream.write(b'QUIT\r\n')
        assert (await read_all(stream, 9)) == b'221 bye\r\n'
        assert (stream.received, stream.sent) == (20, 6)

    bench.run(main())
    peer.join()
    assert peer.error is None


def test_megabytes_both_ways_with_slow_readers(bench: LoopBench, server_context: ssl.SSLContext) -> None:
    client, server = bench.stream_pair()
    body = bytes(range(256)) * 12_000       # 3 MB

    async def send(stream: Stream) -> None:
        for at in range(0, len(body), 100_000):
            stream.write(body[at:at + 100_000])
            await stream.drain()

    async def receive(stream: Stream) -> bytes:
        data = b''
        while len(data) < len(body):
            await stream.wait_bytes()
            await bench.settle()
            assert stream.buffered < HIGH_WATER + RECEIVE_SIZE + 16384
            data += stream.take()
        return data

    async def main() -> None:
        await both(bench, client, server, server_context)
        tasks = [bench.reactor.spawn(receive(stream)) for stream in (client, server)]
        for stream in (client, server):
            bench.reactor.spawn(send(stream))
        assert [await task for task in tasks] == [body, body]

    bench.run(main())


def test_a_peer_that_does_not_read_stops_the_writer(bench: LoopBench, server_context: ssl.SSLContext) -> None:
    client, server = bench.stream_pair()

    async def main() -> None:
        await both(bench, client, server, server_context)
        client.write(b'x' * 20_000_000)
        client.expire_in(300)
        with pytest.raises(Timeout):
            await client.drain()
        assert client.unsent > 0
        assert server.buffered < HIGH_WATER + RECEIVE_SIZE + 16384

    bench.run(main())


@pytest.mark.parametrize(('hostname', 'trusted', 'reason'), [
    ('localhost',     False, 'certificate verify failed: self.signed certificate'),
    ('other.example', True,  "certificate verify failed: hostname mismatch.*'other.example'"),
])
def test_a_certificate_that_does_not_do(bench: LoopBench, server_context: ssl.SSLContext, certificate: Certificate,
                                        hostname: str, trusted: bool, reason: str) -> None:
    """The one who refuses knows why, and the other is told."""
    client, server = bench.stream_pair()
    context = client_context(verify=True)
    if trusted:
        context.load_verify_locations(certificate.certificate)

    async def main() -> None:
        task = bench.reactor.spawn(server.start_tls(server_context, True))
        task.observed = True
        with pytest.raises(TlsError, match=f'(?i){reason}'):
            await client.start_tls(context, False, hostname)
        with pytest.raises(TlsError, match='alert (unknown ca|bad certificate)'):
            await task
        client.close()

    bench.run(main())


@pytest.mark.parametrize(('name', 'garbage', 'server_side'), [
    ('plain SMTP to a server', b'NOOP\r\nQUIT\r\n' * 10, True),
    ('plain SMTP to a client', b'454 TLS not available\r\n', False),
    ('zeros',                  bytes(1000), True),
])
def test_garbage_instead_of_a_handshake(bench: LoopBench, server_context: ssl.SSLContext, name: str, garbage: bytes,
                                        server_side: bool) -> None:
    stream, peer = bench.stream_and_socket()

    async def main() -> None:
        peer.sendall(garbage)
        with pytest.raises(TlsError):
            await stream.start_tls(server_context if server_side else client_context(), server_side)
        stream.close()

    bench.run(main())


def test_bytes_that_came_in_clear_before_the_handshake_are_refused(bench: LoopBench,
                                                                   server_context: ssl.SSLContext) -> None:
    stream, peer = bench.stream_and_socket()

    async def main() -> None:
        peer.send(b'STARTTLS\r\nMAIL FROM:<forged@example.com>\r\n')
        await stream.wait_bytes()
        assert stream.next_line(100) == b'STARTTLS\r\n'
        with pytest.raises(TlsError):
            await stream.start_tls(server_context, True)
        assert stream.cipher is None

    bench.run(main())


@pytest.mark.parametrize('hostname', ['', '.example', 'x' * 64 + '.example', 'a..b'])
def test_a_name_that_cannot_be_one(bench: LoopBench, hostname: str) -> None:
    stream, _peer = bench.stream_and_socket()

    async def main() -> None:
        with pytest.raises(TlsError, match='cannot be the name'):
            await stream.start_tls(client_context(), False, hostname)

    bench.run(main())


@pytest.mark.parametrize('part', [0, 100])
def test_silence_and_the_end_in_the_middle_of_the_handshake(bench: LoopBench, part: int) -> None:
    async def handshake(stream: Stream) -> None:
        stream.expire_in(60)
        await stream.start_tls(client_context(), False)

    async def main() -> None:
        stream, peer = bench.stream_and_socket()
        with pytest.raises(Timeout):
            await handshake(stream)
        assert bench.reactor.now() == 60

        stream, peer = bench.stream_and_socket()
        peer.sendall((b'\x16\x03\x03\x10\x00' + bytes(95))[:part])
        peer.shutdown(socket.SHUT_WR)
        with pytest.raises((ConnectionLost, TlsError)):
            await handshake(stream)

    bench.run(main())


def test_the_last_reply_and_the_farewell_in_one_segment(bench: LoopBench, server_context: ssl.SSLContext) -> None:
    """A 250 that comes with the close_notify must be seen: without it the message would be sent again."""
    client, server = bench.stream_pair()

    async def main() -> None:
        await both(bench, client, server, server_context)
        layer = server._tls
        assert layer is not None
        server._send(layer.send(b'250 kept\r\n') + layer.close_notify())
        await client.wait_bytes()
        assert client.next_line(100) == b'250 kept\r\n'
        with pytest.raises(ConnectionLost):
            await client.wait_bytes()

    bench.run(main())


def test_what_came_before_a_broken_record_is_not_lost_with_it(bench: LoopBench,
                                                              server_context: ssl.SSLContext) -> None:
    client, server = bench.stream_pair()

    async def main() -> None:
        await both(bench, client, server, server_context)
        assert server._tls is not None
        server._send(server._tls.send(b'250 kept\r\n') + b'\x17\x03\x03\x00\x20' + bytes(32))
        await client.wait_bytes()
        assert client.next_line(100) == b'250 kept\r\n'
        with pytest.raises(TlsError, match='bad record mac|decryption failed'):
            await client.wait_bytes()

    bench.run(main())


def test_finish_over_tls_says_farewell_and_outlives_a_peer_that_is_still_sending(
        bench: LoopBench, ends: tuple[Stream, Peer]) -> None:
    stream, peer = ends
    last_words = b'421 going down\r\n'
    peer.start(*[b'x' * 65536] * 40, len(last_words))

    async def main() -> None:
        await stream.start_tls(client_context(), False)
        stream.write(last_words)
        task = bench.reactor.spawn(stream.finish(20))
        await bench.settle()
        await bench.reactor.spawn(closed_by(peer))
        await task

    async def closed_by(peer: Peer) -> None:
        while peer._thread.is_alive():
            await bench.settle()
        tail = peer.sock.recv(1)
        assert tail == b''          # close_notify, not a bare end
        peer.close()

    bench.run(main())
    peer.join()
    assert peer.error is None
    assert stream.closed


def test_an_end_without_a_farewell(bench: LoopBench, server_context: ssl.SSLContext) -> None:
    client, server = bench.stream_pair()

    async def main() -> None:
        await both(bench, client, server, server_context)
        assert server._tls is not None
        server._send(server._tls.send(b'250 kept\r\n'))
        server._sock.shutdown(socket.SHUT_WR)
        await client.wait_bytes()
        assert client.next_line(100) == b'250 kept\r\n'
        with pytest.raises(ConnectionLost, match='the peer closed the connection'):
            await client.wait_bytes()

    bench.run(main())
