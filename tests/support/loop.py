"""Tools for tests of the loop: streams whose other end is a plain socket that the test moves by hand."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from mqlite.loop.clock import Clock, VirtualClock
from mqlite.loop.reactor import Reactor
from mqlite.loop.stream import ConnectionLost, Stream
from mqlite.loop.task import sleep
from tests.support.process import HOST

T = TypeVar('T')


class LoopBench:
    """A reactor with a clock that jumps. Errors that nobody handled are collected, and must be looked at."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.errors: list[str] = []
        self.reactor = Reactor(clock or VirtualClock(), lambda error, where: self.errors.append(f'{error!r} {where}'))
        self._closing = contextlib.ExitStack()
        self._closing.callback(self.reactor.close)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.reactor.run(work)

    async def settle(self) -> None:
        """Time for everything that can happen without a timer to happen."""
        await sleep(self.reactor, 0.001)

    async def wait(self, seconds: float) -> None:
        await sleep(self.reactor, seconds)

    def stream_and_socket(self) -> tuple[Stream, socket.socket]:
        """Two ends of a TCP connection over the loopback: ours, and a blocking socket with a time-out."""
        with socket.create_server((HOST, 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
        for end in (ours, theirs):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else small writes wait longer than the clock
        ours.setblocking(False)
        theirs.settimeout(10)
        self._closing.callback(theirs.close)
        return self._stream(ours), theirs

    def stream_pair(self) -> tuple[Stream, Stream]:
        ours, theirs = self.stream_and_socket()
        theirs.setblocking(False)
        return ours, self._stream(socket.socket(fileno=theirs.detach()))

    def _stream(self, sock: socket.socket) -> Stream:
        stream = Stream(self.reactor, sock, (HOST, sock.getpeername()[1]))
        self._closing.callback(stream.close)
        return stream

    def close(self) -> None:
        self._closing.close()
        assert self.errors == []


@pytest.fixture
def bench(closing: contextlib.ExitStack) -> LoopBench:
    """A test file takes this fixture by assigning it."""
    made = LoopBench()
    closing.callback(made.close)
    return made


async def lines_of(stream: Stream, limit: int = 100) -> list[bytes]:
    """All lines until the connection ends."""
    lines = []
    while True:
        line = stream.next_line(limit)
        if line is not None:
            lines.append(line)
            continue
        try:
            await stream.wait_bytes()
        except ConnectionLost:
            return lines


def reset(sock: socket.socket) -> None:
    """Close so that the peer gets RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    sock.close()


def open_descriptors() -> int:
    return len(os.listdir('/dev/fd'))
