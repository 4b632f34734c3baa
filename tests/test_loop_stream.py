"""Streams over TCP: lines and bounds, back-pressure both ways, deadlines.

How a connection ends is in test_loop_stream_end.py, TLS in test_loop_tls.py.
"""

from __future__ import annotations

import threading
import tracemalloc
from functools import partial

import pytest

from mqlite.loop.stream import HIGH_WATER, RECEIVE_SIZE, LineTooLong
from mqlite.loop.task import Timeout, sleep
from tests.support import loop
from tests.support.loop import LoopBench, lines_of

bench = loop.bench  # fixture


# reading


@pytest.mark.parametrize('size', [1, 2, 3, 7, 1000])
def test_lines_in_pieces_of_every_size(bench: LoopBench, size: int) -> None:
    stream, peer = bench.stream_and_socket()
    data = b'one\r\ntwo\n\nthree \xff\x00\r\nrest'

    async def main() -> list[bytes]:
        task = bench.reactor.spawn(lines_of(stream))
        for at in range(0, len(data), size):
            peer.send(data[at:at + size])
            await bench.settle()
        peer.close()
        return await task

    assert bench.run(main()) == [b'one\r\n', b'two\n', b'\n', b'three \xff\x00\r\n']
    assert stream.take() == b'rest'
    assert (stream.received, stream.buffered) == (len(data), 0)


@pytest.mark.parametrize(('data', 'limit', 'expected'), [
    (b'',          5, None),
    (b'abcd',      5, None),
    (b'abcd\n',    5, b'abcd\n'),
    (b'abcde',     5, LineTooLong),
    (b'abcde\n',   5, LineTooLong),
    (b'ab\ncdefg', 5, b'ab\n'),
    (b'\n',        1, b'\n'),
    (b'a',         1, LineTooLong),
])
def test_the_limit_of_a_line_counts_its_end(bench: LoopBench, data: bytes, limit: int, expected: object) -> None:
    stream, _ = bench.stream_and_socket()
    stream.put_back(data)
    if expected is LineTooLong:
        with pytest.raises(LineTooLong, match=f'within {limit} bytes'):
            stream.next_line(limit)
        assert stream.take() == data
    else:
        assert stream.next_line(limit) == expected


def test_take_and_put_back(bench: LoopBench) -> None:
    stream, peer = bench.stream_and_socket()

    async def main() -> None:
        peer.send(b'DATA\r\nbody\r\n.\r\nQUIT\r\n')
        await stream.wait_bytes()
        assert stream.next_line(100) == b'DATA\r\n'
        data = stream.take()
        assert (data, stream.take()) == (b'body\r\n.\r\nQUIT\r\n', b'')
        stream.put_back(b'')
        stream.put_back(b'QUIT\r\n')
        stream.put_back(b'NOOP\r\n')
        assert stream.buffered == 12
        peer.send(b'more\n')
        await stream.wait_bytes()
        assert [stream.next_line(100) for _ in range(4)] == [b'NOOP\r\n', b'QUIT\r\n', b'more\n', None]

    bench.run(main())


def test_input_that_nobody_takes_stays_in_the_kernel(bench: LoopBench) -> None:
    stream, peer = bench.stream_and_socket()
    data = bytes(range(256)) * 16384     # 4 MiB
    sender = threading.Thread(target=peer.sendall, args=(data,))

    async def main() -> None:
        peer.settimeout(30)
        sender.start()
        for _ in range(50):
            await bench.settle()
        assert HIGH_WATER <= stream.buffered < HIGH_WATER + RECEIVE_SIZE
        got = bytearray()
        while len(got) < len(data):
            got += stream.take()
            if len(got) < len(data):
                await stream.wait_bytes()
            assert stream.buffered < HIGH_WATER + RECEIVE_SIZE
        assert got == data
        sender.join()

    bench.run(main())


def test_waiting_for_more_than_the_high_water_mark_goes_on(bench: LoopBench) -> None:
    """Who has use for all of it, and waits, is not left waiting because the buffer is full."""
    stream, peer = bench.stream_and_socket()
    line = b'x' * (3 * HIGH_WATER) + b'\n'
    sender = threading.Thread(target=peer.sendall, args=(line,))

    async def main() -> bytes | None:
        sender.start()
        got = stream.next_line(len(line))
        while got is None:
            await stream.wait_bytes()
            got = stream.next_line(len(line))
        sender.join()
        return got

    assert bench.run(main()) == line


# writing


def test_replies_leave_together_when_the_input_runs_dry(bench: LoopBench) -> None:
    stream, peer = bench.stream_and_socket()

    async def main() -> None:
        for reply in (b'250 a\r\n', b'', b'250 b\r\n'):
            stream.write(reply)
        peer.settimeout(0)
        with pytest.raises(BlockingIOError):
            peer.recv(100)
        task = bench.reactor.spawn(lines_of(stream))
        await bench.settle()
        assert peer.recv(100) == b'250 a\r\n250 b\r\n'
        assert stream.sent == 14
        peer.close()
        await task

    bench.run(main())


def test_drain_waits_for_a_slow_reader_and_all_arrives_in_order(bench: LoopBench) -> None:
    stream, peer = bench.stream_and_socket()
    blocks = [bytes([number]) * 65536 for number in range(160)]     # 10 MiB
    read: list[bytes] = []

    def read_slowly() -> None:
        while data := peer.recv(50_000):
            read.append(data)

    async def main() -> None:
        most = 0
        reader = threading.Thread(target=read_slowly)
        for number, block in enumerate(blocks):
            stream.write(block)
            stream.flush()
            if number == 80:
                assert stream.unsent > 0
                reader.start()
            if stream.unsent > 4 * HIGH_WATER and number >= 80:
                await stream.drain()
                assert stream.unsent == 0
            most = max(most, stream.unsent if number > 81 else 0)
        await stream.drain()
        assert most <= 5 * HIGH_WATER
        stream.close()
        reader.join()

    bench.run(main())
    assert b''.join(read) == b''.join(blocks)


def test_what_waits_is_not_copied_when_more_is_written(bench: LoopBench) -> None:
    stream, peer = bench.stream_and_socket()
    big, small = b'x' * 20_000_000, [b'%d' % number for number in range(100)]
    read: list[bytes] = []

    async def main() -> None:
        stream.write(big)
        stream.flush()
        tracemalloc.start()
        for data in small:
            stream.write(data)
            stream.flush()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 1_000_000
        reader = threading.Thread(target=lambda: read.extend(iter(partial(peer.recv, 65536), b'')))
        reader.start()
        await stream.drain()
        assert stream.unsent == 0
        stream.close()
        reader.join()

    bench.run(main())
    assert b''.join(read) == big + b''.join(small)


def test_a_peer_that_never_reads_is_given_up(bench: LoopBench) -> None:
    stream, _peer = bench.stream_and_socket()

    async def main() -> None:
        stream.expire_in(300)
        stream.write(b'x' * 20_000_000)
        with pytest.raises(Timeout):
            await stream.drain()
        assert bench.reactor.now() == 300
        with pytest.raises(Timeout):
            await stream.drain()

    bench.run(main())


def test_output_flows_on_while_the_reader_waits(bench: LoopBench) -> None:
    """A big message and then a wait for the reply: the peer reads all of it before it answers."""
    stream, peer = bench.stream_and_socket()
    size = 8_000_000

    def answer() -> None:
        left = size
        while left:
            left -= len(peer.recv(min(left, 65536)))
        peer.sendall(b'250 ok\r\n')

    async def main() -> bytes | None:
        helper = threading.Thread(target=answer)
        helper.start()
        stream.write(b'x' * size)
        await stream.wait_bytes()
        helper.join()
        return stream.next_line(100)

    assert bench.run(main()) == b'250 ok\r\n'
    assert stream.unsent == 0


# deadlines


def test_whoever_waits_gets_the_time_out_and_so_does_the_next_wait(bench: LoopBench) -> None:
    stream, peer = bench.stream_and_socket()

    async def main() -> None:
        stream.expire_in(300)
        for _ in range(2):
            with pytest.raises(Timeout):
                await stream.wait_bytes()
            assert bench.reactor.now() == 300
        stream.expire_in(60)
        with pytest.raises(Timeout):
            await stream.wait_bytes()
        assert bench.reactor.now() == 360
        stream.expire_in(5)
        peer.send(b'x')
        await stream.wait_bytes()

    bench.run(main())


def test_a_deadline_that_passed_while_nobody_waited_is_not_forgotten(bench: LoopBench) -> None:
    stream, _peer = bench.stream_and_socket()

    async def main() -> None:
        stream.expire_in(300)
        await sleep(bench.reactor, 1000)     # something slow, that is not a wait on the stream
        with pytest.raises(Timeout):
            await stream.wait_bytes()

    bench.run(main())


@pytest.mark.parametrize(('steps', 'expected'), [
    (((0, 10),), 10),
    (((0, 10), (8, 10)), 18),
    (((0, 100), (5, 10)), 15),
    (((0, 10), (3, None), (50, 10)), 60),
    (((0, None), (1000, 1)), 1001),
    (((0, 10), (3, 100), (4, 1)), 5),
])
def test_a_deadline_is_moved(bench: LoopBench, steps: tuple[tuple[float, float | None], ...], expected: float) -> None:
    stream, _peer = bench.stream_and_socket()
    ended: list[float] = []

    async def wait() -> None:
        with pytest.raises(Timeout):
            await stream.wait_bytes()
        ended.append(bench.reactor.now())

    async def main() -> None:
        task = bench.reactor.spawn(wait())
        for when, seconds in steps:
            bench.reactor.call_at(when, stream.expire_in, seconds)
        await task

    bench.run(main())
    assert ended == [expected]


def test_a_deadline_costs_one_timer(bench: LoopBench) -> None:
    stream, _peer = bench.stream_and_socket()
    for seconds in range(100, 10_000):
        stream.expire_in(seconds)
    assert len(bench.reactor._timers) == 1
    stream.close()
    assert len(bench.reactor._timers) == 0
