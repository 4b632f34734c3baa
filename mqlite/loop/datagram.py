"""A UDP conversation with one peer: a fresh socket on a random port, connected, so that the kernel drops what others
send and reports a port that is closed."""

from __future__ import annotations

import errno
import socket
from collections import deque

from mqlite.loop.reactor import READ, Reactor
from mqlite.loop.task import Waiter

_LARGEST = 65535  # bytes of a UDP payload
_HELD = 16  # datagrams kept until they are read; more are dropped, as the kernel would


class Datagram:
    """One connected UDP socket."""

    def __init__(self, reactor: Reactor, sock: socket.socket) -> None:
        self._reactor = reactor
        self._sock = sock
        self._received: deque[bytes] = deque()
        self._error: OSError | None = None
        self._waiter: Waiter[None] | None = None
        reactor.watch(sock.fileno(), READ, self._on_ready)

    @classmethod
    def connect(cls, reactor: Reactor, address: tuple[str, int]) -> Datagram:
        """A socket for one (numeric address, port). The kernel chooses a random source port (RFC 5452)."""
        family = socket.AF_INET6 if ':' in address[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.connect(address)
        except OSError:
            sock.close()
            raise
        return cls(reactor, sock)

    def send(self, data: bytes) -> None:
        """Send one datagram; OSError when the kernel refuses. A full send buffer loses it, as the network may."""
        try:
            self._sock.send(data)
        except BlockingIOError:
            pass

    async def receive(self) -> bytes:
        """The next datagram; OSError when the kernel learnt that the peer is not there."""
        while not self._received:
            if self._error is not None:
                error = self._error
                self._error = error if self._sock.fileno() < 0 else None
                raise error
            self._waiter = Waiter(self._reactor)
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._received.popleft()

    def close(self) -> None:
        """Whoever waits for a datagram gets OSError. Idempotent."""
        if self._sock.fileno() >= 0:
            self._reactor.unwatch(self._sock.fileno())
            self._sock.close()
            self._error = OSError(errno.EBADF, 'the socket was closed on our side')
            self._wake()

    def _on_ready(self, _events: int) -> None:
        try:
            data = self._sock.recv(_LARGEST)
            if len(self._received) < _HELD:
                self._received.append(data)
        except BlockingIOError:
            return
        except OSError as error:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done:
            self._waiter.set()
