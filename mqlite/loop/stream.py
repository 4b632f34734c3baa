"""A buffered byte stream over TCP or TLS.

Reading is synchronous first: `next_line()` or `take()` answers from the buffer, and only when it has nothing does the
caller `await wait_bytes()`. What was written is sent when the caller waits, so that the replies to a pipelined batch,
or the end of a message and its final dot, leave in one segment.

    driver           next_line / take             wait_bytes, drain
       |                    |                          |
       v                    v                          v
    write() -> _out    _in (bounded)  <- recv      flush, then sleep
                            ^
                            paused while more than HIGH_WATER waits to be taken

Bounds: input beyond HIGH_WATER stays in the kernel, which stops the peer; a line longer than its limit raises; output
is bounded by the writer, who awaits `drain()`. There is one deadline for the stream, set by the driver for what it is
doing now; when it passes, whoever waits gets Timeout. After an error or the end of the peer's data every wait raises
ConnectionLost; what was received before can still be taken.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

from mqlite.errors import MqliteError
from mqlite.loop.reactor import READ, WRITE, Reactor
from mqlite.loop.task import Timeout, Waiter
from mqlite.loop.timers import Timer
from mqlite.loop.tls import TlsError, TlsLayer

HIGH_WATER = 131072  # bytes of input held before the peer is stopped
RECEIVE_SIZE = 65536  # bytes asked of the kernel at a time: one turn's share of one stream


class ConnectionLost(MqliteError):
    """The peer closed or reset the connection."""


class LineTooLong(MqliteError):
    """The peer sent more than the limit without an end of line."""


class Stream:
    """One connection. All methods belong to the reactor's thread; at most one task reads and one drains."""

    __slots__ = ('reactor', 'peer', 'received', 'sent', '_sock', '_fd', '_in', '_at', '_out', '_unsent', '_reader',
                 '_writer', '_events', '_lost', '_deadline', '_timer', '_tls')

    def __init__(self, reactor: Reactor, sock: socket.socket, peer: tuple[str, int]) -> None:
        self.reactor = reactor
        self.peer = peer  # (address, port)
        self.received = self.sent = 0  # bytes of the application, TLS records not counted
        self._sock = sock
        self._fd = sock.fileno()
        self._in, self._at = b'', 0
        self._out: list[bytes] = []
        self._unsent = memoryview(b'')
        self._reader: Waiter[None] | None = None
        self._writer: Waiter[None] | None = None
        self._events = 0
        self._lost: MqliteError | None = None
        self._deadline: float | None = None
        self._timer: Timer | None = None
        self._tls: TlsLayer | None = None
        self._want(READ)

    # reading

    @property
    def buffered(self) -> int:
        """Bytes that were received and not taken yet."""
        return len(self._in) - self._at

    def next_line(self, limit: int) -> bytes | None:
        """The next line with its LF, or None when it is not complete. More than `limit` bytes raise LineTooLong."""
        at = self._at
        end = self._in.find(b'\n', at, at + limit) + 1
        if end:
            line = self._in[at:end]
            self._at = end
            return line
        if len(self._in) - at >= limit:
            raise LineTooLong(f'no end of line within {limit} bytes')
        return None

    def take(self) -> bytes:
        """All that is buffered; may be empty."""
        data = self._in[self._at:] if self._at else self._in
        self._in, self._at = b'', 0
        return data

    def put_back(self, data: bytes) -> None:
        """Return bytes that were taken and belong to what comes next."""
        if data:
            self._in, self._at = data + self.take(), 0

    def wait_bytes(self) -> Waiter[None]:
        """Send what was written, then wait until more input has arrived. To be awaited at once."""
        self.flush()
        waiter = self._reader = Waiter(self.reactor)
        if self._lost is not None:
            waiter.fail(self._lost)
        elif not self._events & READ:
            self._want(self._events | READ)
        return waiter

    # writing

    def write(self, data: bytes) -> None:
        """Add to what is sent at the next flush: by wait_bytes, drain, or close."""
        self._out.append(data)

    def flush(self) -> None:
        """Send as much as the kernel takes now; the rest follows by itself."""
        out = self._out
        if out:
            data = out[0] if len(out) == 1 else b''.join(out)
            out.clear()
            self.sent += len(data)
            try:
                self._send(data if self._tls is None else self._tls.send(data))
            except TlsError as error:
                self._lose(error)

    async def drain(self) -> None:
        """Wait until the kernel has taken all that was written."""
        self.flush()
        while self._unsent:
            if self._lost is not None:
                raise self._lost
            self._writer = Waiter(self.reactor)
            try:
                await self._writer
            finally:
                self._writer = None
        if self._lost is not None:
            raise self._lost

    # the life of the connection

    @property
    def lost(self) -> bool:
        """The peer is gone: nothing more will arrive."""
        return self._lost is not None

    @property
    def closed(self) -> bool:
        return self._fd < 0

    @property
    def local(self) -> tuple[str, int]:
        """(address, port) of our end."""
        try:
            name: Any = self._sock.getsockname()
        except OSError:
            return '', 0
        return (name[0], name[1]) if isinstance(name, tuple) else ('', 0)

    def fileno(self) -> int:
        return self._fd

    def expire_in(self, seconds: float) -> None:
        """Whoever waits on the stream after so many seconds from now gets Timeout; replaces the deadline before."""
        when = self._deadline = self.reactor.turn_time + seconds
        if self._timer is None:
            self._timer = self.reactor.call_at(when, self._check_deadline)
        elif when < self._timer.when:
            self._timer.cancel()
            self._timer = self.reactor.call_at(when, self._check_deadline)

    async def start_tls(self, context: ssl.SSLContext, server_side: bool, hostname: str | None = None) -> None:
        """Do the handshake. The caller has made sure that `buffered` is 0: earlier bytes would be in clear."""
        await self.drain()
        layer = TlsLayer(context, server_side, hostname)
        complete = layer.handshake(b'')
        while True:
            self._send(layer.pending_output())
            if complete:
                break
            await self.wait_bytes()
            try:
                complete = layer.handshake(self.take())
            except TlsError:
                self._send(layer.pending_output())  # the alert tells the peer why
                raise
        self._tls = layer
        self._received(self._decrypt(layer, b''))

    @property
    def cipher(self) -> tuple[str, str, int] | None:
        """(cipher name, protocol version, secret bits), None in clear."""
        return None if self._tls is None else self._tls.cipher()

    def close(self) -> None:
        """Send what can be sent at once, and close. Idempotent."""
        if self._fd < 0:
            return
        self.flush()
        if self._tls is not None and self._lost is None:
            self._send(self._tls.close_notify())
        self._want(0)
        if self._timer is not None:
            self._timer.cancel()
        self._fd = -1
        self._sock.close()
        self._lose(ConnectionLost('the connection was closed on our side'))

    async def finish(self, seconds: float) -> None:
        """Close so that the peer reads our last words even when it is still sending: stop, discard, then close."""
        self.expire_in(seconds)
        try:
            await self.drain()
            self._sock.shutdown(socket.SHUT_WR)
            while True:
                self.take()
                await self.wait_bytes()
        except (MqliteError, OSError):
            pass  # the peer has closed, or its time is up
        finally:
            self.close()

    # what the kernel and the clock tell

    def _want(self, events: int) -> None:
        if events != self._events:
            self._events = events
            if events:
                self.reactor.watch(self._fd, events, self._on_ready)
            else:
                self.reactor.unwatch(self._fd)

    def _on_ready(self, events: int) -> None:
        if events & WRITE:
            self._send(b'')
        if events & READ and self._events & READ:
            try:
                data = self._sock.recv(RECEIVE_SIZE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._lose(ConnectionLost(f'connection lost: {error.strerror}'))
                return
            if data:
                self._received(data if self._tls is None else self._decrypt(self._tls, data))
            else:
                self._lose(ConnectionLost('the peer closed the connection'))

    def _decrypt(self, tls: TlsLayer, data: bytes) -> bytes:
        try:
            data = tls.receive(data)
        except TlsError as error:
            self._lose(error)
            return b''
        self._send(tls.pending_output())
        if tls.closed:
            self._lose(ConnectionLost('the peer closed the TLS connection'))
        return data

    def _received(self, data: bytes) -> None:
        if not data:
            return
        self.received += len(data)
        self._in = data if self._at == len(self._in) else self._in[self._at:] + data
        self._at = 0
        if len(self._in) >= HIGH_WATER:
            self._want(self._events & ~READ)
        if self._reader is not None and not self._reader.done:
            self._reader.set()

    def _send(self, data: bytes) -> None:
        if self._unsent:
            view = memoryview(bytes(self._unsent) + data) if data else self._unsent
        else:
            view = memoryview(data)
        if view and self._fd >= 0:
            try:
                view = view[self._sock.send(view):]
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                view = memoryview(b'')
                self._unsent = view
                self._lose(ConnectionLost(f'connection lost: {error.strerror}'))
                return
        self._unsent = view
        if self._fd >= 0:
            self._want(self._events | WRITE if view else self._events & ~WRITE)
        if not view and self._writer is not None and not self._writer.done:
            self._writer.set()

    def _lose(self, error: MqliteError) -> None:
        if self._lost is None:
            self._lost = error
        if self._fd >= 0:
            self._want(self._events & ~READ)
        for waiter in (self._reader, self._writer):
            if waiter is not None and not waiter.done:
                waiter.fail(self._lost)

    def _check_deadline(self) -> None:
        self._timer = None
        if self._deadline is None or self._fd < 0:
            return
        if self._deadline > self.reactor.clock.monotonic():
            self._timer = self.reactor.call_at(self._deadline, self._check_deadline)
            return
        self._deadline = None
        for waiter in (self._reader, self._writer):
            if waiter is not None and not waiter.done:
                waiter.fail(Timeout('the time for this step ran out'))
