"""Every way in which a connection over TCP ends: closed, reset, cancelled, finished; and who hears of it."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from mqlite.errors import MqliteError
from mqlite.loop.stream import ConnectionLost, Stream
from mqlite.loop.task import Cancelled, Task
from tests.support import loop
from tests.support.loop import LoopBench, lines_of, open_descriptors, reset

bench = loop.bench  # fixture


def test_the_peer_closes_and_what_it_said_before_can_be_taken(bench: LoopBench) -> None:
    stream, peer = bench.stream_and_socket()

    async def main() -> None:
        peer.send(b'421 bye\r\nhalf')
        peer.close()
        assert await lines_of(stream) == [b'421 bye\r\n']
        assert (stream.take(), stream.lost, stream.closed) == (b'half', True, False)
        with pytest.raises(ConnectionLost, match='the peer closed'):
            await stream.wait_bytes()

    bench.run(main())


def test_replies_still_reach_a_peer_that_has_only_stopped_sending(bench: LoopBench) -> None:
    stream, peer = bench.stream_and_socket()

    async def main() -> None:
        peer.send(b'NOOP\r\n')
        peer.shutdown(socket.SHUT_WR)
        assert await lines_of(stream) == [b'NOOP\r\n']
        stream.write(b'250 ok\r\n')
        stream.close()
        assert peer.recv(100) == b'250 ok\r\n'
        assert peer.recv(100) == b''

    bench.run(main())


def test_a_reset_ends_reading_and_writing(bench: LoopBench) -> None:
    stream, peer = bench.stream_and_socket()

    async def main() -> None:
        reader = bench.reactor.spawn(lines_of(stream))
        stream.write(b'x' * 20_000_000)
        writer = bench.reactor.spawn(stream.drain())
        writer.observed = True      # looked at below, after the other
        await bench.settle()
        reset(peer)
        assert await reader == []
        with pytest.raises(ConnectionLost):
            await writer
        assert stream.unsent == 0
        for wait in (stream.wait_bytes, stream.drain):
            with pytest.raises(ConnectionLost):
                await wait()

    bench.run(main())
    assert list(bench.reactor._watched) == [bench.reactor._wake_reader.fileno()]


@pytest.mark.parametrize('way', ['wait_bytes', 'drain', 'flush'])
def test_the_last_words_of_a_peer_that_takes_no_more_are_heard(bench: LoopBench, way: str) -> None:
    """It refuses us and hangs up while we are still sending: its reply is in the kernel when our send fails."""
    stream, peer = bench.stream_and_socket()

    async def main() -> bytes | None:
        stream._want(0)         # the reply has not been read when sending fails: here as a matter of timing
        peer.send(b'552 too much\r\n')
        reset_by_unread = b'x' * 1000
        stream.write(reset_by_unread)
        stream.flush()
        peer.close()            # with unread input: RST
        stream.write(b'more')
        if way == 'wait_bytes':
            await stream.wait_bytes()
        elif way == 'drain':
            with pytest.raises(ConnectionLost):
                await stream.drain()
        else:
            stream.flush()
        line = stream.next_line(100)
        with pytest.raises(ConnectionLost):
            await stream.wait_bytes()
        return line

    assert bench.run(main()) == b'552 too much\r\n'


def test_closing_wakes_whoever_waits(bench: LoopBench) -> None:
    stream, _peer = bench.stream_and_socket()

    async def main() -> None:
        tasks: list[Task[None]] = [bench.reactor.spawn(wait(stream)) for wait in (read, drain)]
        tasks[1].observed = True
        await bench.settle()
        stream.close()
        for task in tasks:
            with pytest.raises(ConnectionLost, match='on our side'):
                await task
        stream.close()
        assert (stream.closed, stream.local, stream.unsent) == (True, ('', 0), 0)
        for wait in (stream.wait_bytes, stream.drain):
            with pytest.raises(ConnectionLost, match='on our side'):
                await wait()
        stream.write(b'x' * 100)
        stream.flush()
        assert stream.unsent == 0

    bench.run(main())


async def read(stream: Stream) -> None:
    await stream.wait_bytes()


async def drain(stream: Stream) -> None:
    stream.write(b'x' * 20_000_000)
    await stream.drain()


def test_a_reader_that_was_cancelled_takes_nothing_with_it(bench: LoopBench) -> None:
    stream, peer = bench.stream_and_socket()

    async def main() -> bytes | None:
        task = bench.reactor.spawn(read(stream))
        await bench.settle()
        peer.send(b'line\n')
        task.cancel()
        with pytest.raises(Cancelled):
            await task
        while stream.buffered == 0:
            await stream.wait_bytes()
        return stream.next_line(100)

    assert bench.run(main()) == b'line\n'


def test_close_sends_what_can_be_sent_and_leaves_nothing_open(bench: LoopBench) -> None:
    async def main() -> None:
        before = open_descriptors()
        stream, peer = bench.stream_and_socket()
        stream.expire_in(10)
        stream.write(b'221 bye\r\n')
        stream.close()
        assert peer.recv(100) == b'221 bye\r\n'
        assert peer.recv(100) == b''
        peer.close()
        assert open_descriptors() == before
        assert len(bench.reactor._timers) == 1      # of no stream: the settle below
        assert list(bench.reactor._watched) == [bench.reactor._wake_reader.fileno()]

    async def settled() -> None:
        bench.reactor.call_later(3600, print)
        await main()

    bench.run(settled())


def test_finish_waits_until_a_peer_that_is_still_sending_has_read_our_last_words(bench: LoopBench) -> None:
    stream, peer = bench.stream_and_socket()
    heard: list[bytes] = []

    def send_then_read() -> None:
        for _ in range(40):
            peer.sendall(b'x' * 65536)
        while data := peer.recv(100):
            heard.append(data)
        peer.close()

    async def main() -> None:
        client = threading.Thread(target=send_then_read)
        client.start()
        await stream.wait_bytes()
        stream.write(b'421 going down\r\n')
        await stream.finish(5)
        client.join()

    bench.run(main())
    assert b''.join(heard) == b'421 going down\r\n'
    assert stream.closed


@pytest.mark.parametrize('reads', [True, False])
def test_finish_has_an_end_with_a_peer_that_never_closes(bench: LoopBench, reads: bool) -> None:
    stream, peer = bench.stream_and_socket()

    async def main() -> None:
        stream.write(b'421 going down\r\n' if reads else b'x' * 20_000_000)
        await stream.finish(5)
        assert (bench.reactor.now(), stream.closed) == (5, True)
        assert peer.recv(3) in (b'421', b'xxx')

    bench.run(main())


def test_two_streams_talk(bench: LoopBench) -> None:
    """Both ends ours: a dialogue of many small turns, and one deadline for each."""
    client, server = bench.stream_pair()

    async def serve() -> None:
        with contextlib.suppress(MqliteError):
            while True:
                line = server.next_line(100)
                if line is None:
                    await server.wait_bytes()
                    continue
                server.expire_in(10)
                server.write(line.upper())

    async def main() -> None:
        task = bench.reactor.spawn(serve())
        for number in range(500):
            client.write(b'hello %d\n' % number)
            await client.wait_bytes()
            assert client.next_line(100) == b'HELLO %d\n' % number
        client.close()
        await task

    bench.run(main())
