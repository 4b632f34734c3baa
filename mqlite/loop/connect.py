"""Opening connections: sockets that listen, the listener that accepts, and the dialler.

Addresses are numeric here; names are the business of `dns/`.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import socket
from typing import Any, Callable

from mqlite.errors import MqliteError
from mqlite.loop.reactor import READ, WRITE, Reactor
from mqlite.loop.stream import Stream
from mqlite.loop.task import Waiter, timeout

ANY_ADDRESS = ('0.0.0.0', '::')
NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # what listening on :: gives on a host without IPv6
BACKLOG = 1024  # connections the kernel keeps for us while we are busy
_ACCEPTS_PER_TURN = 64  # so that a flood of new clients does not stop the old ones
_YIELD = 0.002  # seconds for a loop that has less to do to take a client; if it is held up, we do
_PAUSE = 1.0  # seconds without accepting when that fails: descriptors or memory have run out


class CannotBind(MqliteError):
    """The local address that was asked for is not one of ours."""


class ListenSocket:
    """An address and port that we listen on. Clients wait in the kernel's backlog until a Listener accepts them."""

    def __init__(self, address: str, port: int) -> None:
        """Bind and listen, OSError when that cannot be. Port 0: any free one, see `port`."""
        self.sock = _tcp_socket(address)
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _send_at_once(self.sock)  # accepted sockets inherit it
            self.sock.bind((address, port))
            self.sock.listen(BACKLOG)
        except OSError:
            self.sock.close()
            raise
        self.address, self.port = self.sock.getsockname()[:2]

    def copy(self) -> ListenSocket:
        """The same, to be closed apart: clients come to whoever accepts them first."""
        copied = copy.copy(self)
        copied.sock = self.sock.dup()
        return copied

    def close(self) -> None:
        self.sock.close()


class Listener:
    """Accepts the clients of a listening socket, which it then owns; `on_accept(stream)` is called for each."""

    def __init__(self, reactor: Reactor, place: ListenSocket, on_accept: Callable[[Stream], object],
                 on_trouble: Callable[[str], object], is_busiest: Callable[[], bool] | None = None) -> None:
        """`is_busiest`: where other loops accept from the same socket, whether one of them has less to do."""
        self.address, self.port = place.address, place.port
        self._reactor = reactor
        self._sock = place.sock
        self._on_accept = on_accept
        self._on_trouble = on_trouble
        self._is_busiest = is_busiest
        self._local = None if self.address in ANY_ADDRESS else (self.address, self.port)

    def start(self) -> None:
        """Begin to accept. Until then clients wait in the kernel's backlog."""
        if self._sock.fileno() >= 0:
            self._reactor.watch(self._sock.fileno(), READ, self._ready)

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._reactor.unwatch(self._sock.fileno())
            self._sock.close()

    def _ready(self, _events: int) -> None:
        if self._is_busiest is not None and self._is_busiest():
            self._reactor.unwatch(self._sock.fileno())
            self._reactor.call_later(_YIELD, self._resume)
        else:
            self._accept()

    def _resume(self) -> None:
        self.start()
        self._accept()

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            if self._sock.fileno() < 0:
                return  # on_accept has closed us
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            sock.setblocking(False)
            stream = Stream(self._reactor, sock, (peer[0], peer[1]), self._local)
            try:
                self._on_accept(stream)
            except BaseException:
                stream.close()  # nobody has taken it
                raise
            if self._is_busiest is not None and self._is_busiest():
                return  # the next one is for others

    def _pause(self, error: OSError) -> None:
        """Accepting would fail again at once and keep the loop busy: leave the clients in the backlog for a while."""
        self._on_trouble(f'cannot accept connections: {error.strerror}; trying again in {_PAUSE:g} s')
        self._reactor.unwatch(self._sock.fileno())
        self._reactor.call_later(_PAUSE, self.start)


async def connect(reactor: Reactor, address: str, port: int, source: str | None = None, seconds: float = 30.0,
                  on_bound: Callable[[int], object] | None = None) -> Stream:
    """Connect to a numeric address, from a local one if given.

    `on_bound`: called with the descriptor just before; what it raises ends the attempt. OSError when refused or
    unreachable, Timeout, CannotBind.
    """
    sock = _tcp_socket(address)
    try:
        if source is not None:
            _bind(sock, source)
        _send_at_once(sock)
        if on_bound is not None:
            on_bound(sock.fileno())
        await _connected(reactor, sock, (address, port), seconds)
        return Stream(reactor, sock, (address, port))
    except BaseException:
        sock.close()
        raise


def _bind(sock: socket.socket, source: str) -> None:
    try:
        sock.bind((source, 0))
    except OSError as error:
        raise CannotBind(f'cannot send from {source}: {error.strerror}') from error


async def _connected(reactor: Reactor, sock: socket.socket, target: tuple[str, int], seconds: float) -> None:
    try:
        sock.connect(target)
        return
    except BlockingIOError:
        pass
    waiter: Waiter[Any] = Waiter(reactor)

    def on_ready(_events: int) -> None:
        if not waiter.done:
            waiter.set()

    reactor.watch(sock.fileno(), WRITE, on_ready)
    try:
        with timeout(reactor, seconds, f'no answer from {target[0]} port {target[1]} in {seconds:g} s'):
            await waiter
    finally:
        reactor.unwatch(sock.fileno())
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def _send_at_once(sock: socket.socket) -> None:
    """Streams flush when a message is complete: waiting for more (Nagle's algorithm) would only delay it."""
    with contextlib.suppress(OSError):  # some Unixes refuse when the peer is gone already: reading will tell
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _tcp_socket(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock
