"""UDP with one peer: what arrives, what is dropped, what the kernel reports."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from mqlite.loop.datagram import Datagram
from mqlite.loop.task import Timeout, timeout
from tests.support import loop
from tests.support.loop import LoopBench, open_descriptors
from tests.support.process import HOST

bench = loop.bench  # fixture


@pytest.fixture(params=[HOST, '::1'])
def peer(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ':' in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((request.param, 0))
        sock.settimeout(10)
        yield sock


def test_there_and_back(bench: LoopBench, peer: socket.socket) -> None:
    async def main() -> list[bytes]:
        with contextlib.closing(Datagram.connect(bench.reactor, peer.getsockname()[:2])) as datagram:
            datagram.send(b'question')
            data, sender = peer.recvfrom(100)
            assert data == b'question'
            for answer in (b'one', b'', b'x' * 60_000):
                peer.sendto(answer, sender)
            return [await datagram.receive() for _ in range(3)]

    assert bench.run(main()) == [b'one', b'', b'x' * 60_000]


def test_what_a_stranger_sends_is_dropped_by_the_kernel(bench: LoopBench, peer: socket.socket) -> None:
    async def main() -> bytes:
        with contextlib.closing(Datagram.connect(bench.reactor, peer.getsockname()[:2])) as datagram, \
                socket.socket(peer.family, socket.SOCK_DGRAM) as stranger:
            datagram.send(b'question')
            _, sender = peer.recvfrom(100)
            stranger.sendto(b'forged', sender)
            peer.sendto(b'true', sender)
            return await datagram.receive()

    assert bench.run(main()) == b'true'


def test_every_socket_has_a_port_of_its_own(bench: LoopBench, peer: socket.socket) -> None:
    ports = set()
    for _ in range(20):
        with contextlib.closing(Datagram.connect(bench.reactor, peer.getsockname()[:2])) as datagram:
            datagram.send(b'')
            ports.add(peer.recvfrom(10)[1][1])
    assert len(ports) > 15


def test_a_closed_port_is_reported_once_for_each_attempt(bench: LoopBench, peer: socket.socket) -> None:
    target = peer.getsockname()[:2]
    peer.close()

    async def main() -> None:
        with contextlib.closing(Datagram.connect(bench.reactor, target)) as datagram:
            for _ in range(2):
                datagram.send(b'anybody?')
                with pytest.raises(ConnectionRefusedError):
                    await datagram.receive()
            with pytest.raises(Timeout), timeout(bench.reactor, 5):
                await datagram.receive()

    bench.run(main())


def test_what_nobody_reads_is_bounded(bench: LoopBench, peer: socket.socket) -> None:
    async def main() -> None:
        with contextlib.closing(Datagram.connect(bench.reactor, peer.getsockname()[:2])) as datagram:
            datagram.send(b'')
            _, sender = peer.recvfrom(10)
            for number in range(40):
                peer.sendto(bytes([number]), sender)
                await bench.settle()
            assert [await datagram.receive() for _ in range(16)] == [bytes([number]) for number in range(16)]
            with pytest.raises(Timeout), timeout(bench.reactor, 1):
                await datagram.receive()

    bench.run(main())


def test_closing_wakes_who_waits_and_leaves_nothing_open(bench: LoopBench, peer: socket.socket) -> None:
    async def main() -> None:
        before = open_descriptors()
        datagram = Datagram.connect(bench.reactor, peer.getsockname()[:2])
        task = bench.reactor.spawn(datagram.receive())
        await bench.settle()
        datagram.close()
        datagram.close()
        with pytest.raises(OSError, match='closed on our side'):
            await task
        for _ in range(2):
            with pytest.raises(OSError, match='closed on our side'):
                await datagram.receive()
        with pytest.raises(OSError):
            datagram.send(b'late')
        assert open_descriptors() == before

    bench.run(main())


def test_an_address_of_no_use_leaves_nothing_open(bench: LoopBench) -> None:
    before = open_descriptors()
    with pytest.raises(OSError):
        Datagram.connect(bench.reactor, ('255.255.255.255', 53))     # a broadcast, which nobody has permitted
    assert open_descriptors() == before
