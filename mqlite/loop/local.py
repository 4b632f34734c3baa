"""Sockets in the file system, for commands of the same host that talk to a daemon.

The file is made with mode 0600: whoever may open it is the daemon's own user, or root.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Callable

from mqlite.loop.reactor import READ, Reactor
from mqlite.loop.stream import Stream

BACKLOG = 16


class LocalListener:
    """Accepts the clients of a socket file; `on_accept(stream)` is called for each."""

    def __init__(self, reactor: Reactor, path: str, on_accept: Callable[[Stream], object]) -> None:
        """OSError when the file cannot be made. One that is there already is replaced: the caller knows it is stale."""
        self.path = path
        self._reactor = reactor
        self._on_accept = on_accept
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.setblocking(False)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            before = os.umask(0o177)
            try:
                self._sock.bind(path)
            finally:
                os.umask(before)
            self._sock.listen(BACKLOG)
        except OSError:
            self._sock.close()
            raise
        reactor.watch(self._sock.fileno(), READ, self._accept)

    def close(self) -> None:
        """And take the file away. Idempotent."""
        if self._sock.fileno() >= 0:
            self._reactor.unwatch(self._sock.fileno())
            self._sock.close()
            with contextlib.suppress(OSError):
                os.unlink(self.path)

    def _accept(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            sock, _ = self._sock.accept()
            sock.setblocking(False)
            self._on_accept(Stream(self._reactor, sock, ('', 0), ('', 0)))


def connect_local(reactor: Reactor, path: str) -> Stream:
    """OSError when nobody listens there; also when the backlog is full."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(path)
        return Stream(reactor, sock, ('', 0), ('', 0))
    except BaseException:
        sock.close()
        raise
