"""A buffered byte stream over TCP or TLS.

Reading is synchronous first: `next_line()` or `take()` answers from the buffer, and only when it has nothing does the
caller `await wait_bytes()`. What was written is sent when the caller waits, at the end of the turn: so the replies to a
pipelined batch, or the end of a message and its final dot, leave in one segment, and what many streams have written in
one turn leaves without other work in between, which is faster than by turns.

    driver           next_line / take             wait_bytes, drain
       |                    |                          |
       v                    v                          v
    write() -> _out    _in (bounded)  <- recv      flush, and sleep
                            ^
                            paused while more than HIGH_WATER waits to be taken

Bounds: input beyond HIGH_WATER stays in the kernel, which stops the peer; a line longer than its limit raises; output
is bounded by the writer, who awaits `drain()` when `unsent` grows: wait_bytes does not wait for the peer to read, or
two sides that both insist on being read first would wait for ever.

There is one deadline for the stream, set by the driver for what it is doing now; once it has passed, every wait raises
Timeout, until it is set anew. After an error or the end of the peer's data every wait raises ConnectionLost; what was
received before can still be taken, and should be looked at: a server that hangs up says why.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any, Callable

from mqlite.errors import MqliteError
from mqlite.loop.reactor import READ, WRITE, Reactor
from mqlite.loop.task import Timeout, Waiter
from mqlite.loop.timers import Timer
from mqlite.loop.tls import TlsDetails, TlsError, TlsLayer

HIGH_WATER = 131072  # bytes of input held before the peer is stopped
RECEIVE_SIZE = 65536  # bytes asked of the kernel at a time: one turn's share of one stream


class ConnectionLost(MqliteError):
    """The peer closed or reset the connection."""


class LineTooLong(MqliteError):
    """The peer sent more than the limit without an end of line."""


class Stream:
    """One connection. All methods belong to the reactor's thread; at most one task reads and one drains."""

    __slots__ = ('reactor', 'peer', 'received', 'heard', 'sent', 'on_lost', '_sock', '_fd', '_in', '_at', '_out',
                 '_unsent', '_behind', '_reader', '_writer', '_events', '_local', '_lost', '_deadline', '_expired',
                 '_timer', '_tls', '_refused')

    def __init__(self, reactor: Reactor, sock: socket.socket, peer: tuple[str, int],
                 local: tuple[str, int] | None = None) -> None:
        """`local`: our end, if the caller knows it; it saves a system call per connection."""
        self.reactor = reactor
        self.peer = peer  # (address, port)
        self.received = self.sent = 0  # bytes of the application, TLS records not counted
        self.heard = reactor.turn_time  # when the peer has last sent something, or connected
        self.on_lost: Callable[[], object] | None = None  # for who waits for something else than this stream
        self._sock = sock
        self._fd = sock.fileno()
        self._in, self._at = b'', 0
        self._out: list[bytes] = []
        self._unsent = memoryview(b'')  # what the kernel takes next
        self._behind: list[bytes] = []  # and after that: not joined to it each time, it may be very much
        self._reader: Waiter[None] | None = None
        self._writer: Waiter[None] | None = None
        self._events = 0
        self._local = local
        self._lost: MqliteError | None = None
        self._refused = False  # sending has failed: what is written from now on goes nowhere
        self._deadline: float | None = None
        self._expired = False
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

    def look(self) -> bool:
        """Whether something has arrived that was not taken, also if the reactor has not come to it."""
        return self.buffered > 0 or self._lost is None and self._receive() and self.buffered > 0

    def wait_bytes(self) -> Waiter[None]:
        """Wait until more input has arrived; what was written is sent at the end of this turn. To be awaited at once.
        """
        waiter = self._reader = Waiter(self.reactor)
        if self._out:
            self.reactor.call_at_turn_end(self.flush)
        if self._lost is not None:
            waiter.fail(self._lost)
        elif self._expired:
            waiter.fail(_time_out())
        elif not self._events & READ:
            self._want(self._events | READ)
        return waiter

    # writing

    @property
    def unsent(self) -> int:
        """Bytes that were flushed and that the kernel has not taken: the peer is slow to read."""
        return len(self._unsent) + sum(map(len, self._behind))

    def write(self, data: bytes) -> None:
        """Add to what is sent at the next flush: by wait_bytes, drain, or close."""
        self._out.append(data)

    def flush(self) -> None:
        """Send as much as the kernel takes now; the rest follows by itself."""
        out = self._out
        if out:
            data = out[0] if len(out) == 1 else b''.join(out)
            out.clear()
            if not data:
                return
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
            if self._expired:
                raise _time_out()
            self._writer = Waiter(self.reactor)
            try:
                await self._writer
            finally:
                self._writer = None
        if self._lost is not None:
            raise self._lost

    # the life of the connection

    @property
    def waits_for_peer(self) -> bool:
        """Whether it is the peer's turn: somebody waits for it to send, or to read."""
        return any(waiter is not None and not waiter.done for waiter in (self._reader, self._writer))

    @property
    def lost(self) -> bool:
        """The peer is gone: nothing more will arrive."""
        return self._lost is not None

    @property
    def closed(self) -> bool:
        return self._fd < 0

    @property
    def local(self) -> tuple[str, int]:
        """(address, port) of our end; ('', 0) when it has none."""
        if self._local is None:
            try:
                name: Any = self._sock.getsockname()
            except OSError:
                return '', 0
            self._local = (name[0], name[1]) if isinstance(name, tuple) else ('', 0)
        return self._local

    def fileno(self) -> int:
        return self._fd

    def expire_in(self, seconds: float | None) -> None:
        """Whoever waits on the stream after so many seconds from now gets Timeout; replaces the deadline before.

        None: no deadline, for a connection that may be idle.
        """
        self._expired = False
        if seconds is None:
            self._deadline = None
            return
        when = self._deadline = self.reactor.turn_time + seconds
        if self._timer is None:
            self._timer = self.reactor.call_at(when, self._check_deadline)
        elif when < self._timer.when:
            self._timer.cancel()
            self._timer = self.reactor.call_at(when, self._check_deadline)

    async def start_tls(self, context: ssl.SSLContext, server_side: bool, hostname: str | None = None) -> None:
        """Do the handshake; TlsError when it fails, and then the stream is only good for closing.

        What is buffered belongs to the handshake: a client's first flight is often here before we are. If it was sent
        in clear instead, the handshake fails, and it cannot pass for something protected (CVE-2011-0411).
        """
        await self.drain()
        before = self.received - self.buffered
        layer = TlsLayer(context, server_side, hostname)
        complete = self._handshake(layer)
        while True:
            self._send(layer.pending_output())
            if complete:
                break
            await self.wait_bytes()
            complete = self._handshake(layer)
        self._tls, self.received = layer, before
        self._decrypt(layer, b'')

    def _handshake(self, layer: TlsLayer) -> bool:
        try:
            return layer.handshake(self.take())
        except TlsError:
            self._send(layer.pending_output())  # the alert tells the peer why
            raise

    @property
    def cipher(self) -> tuple[str, str, int] | None:
        """(cipher name, protocol version, secret bits), None in clear."""
        return None if self._tls is None else self._tls.cipher()

    @property
    def tls(self) -> TlsDetails | None:
        """What protects the connection; None in clear."""
        return None if self._tls is None else self._tls.details()

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
        self._drop_unsent()
        self._sock.close()
        self._lose(ConnectionLost('the connection was closed on our side'))

    async def finish(self, seconds: float) -> None:
        """Close so that the peer reads our last words even when it is still sending: stop, discard, then close."""
        self.expire_in(seconds)
        try:
            await self.drain()
            if self._tls is not None:
                self._send(self._tls.close_notify())
                self._tls = None  # what still comes is discarded unread
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
            self._receive()

    def _receive(self) -> bool:
        """Take what the kernel has, up to RECEIVE_SIZE; False when it has nothing, or never will."""
        try:
            data = self._sock.recv(RECEIVE_SIZE)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._lose(ConnectionLost(f'connection lost: {error.strerror}'))
            return False
        if not data:
            self._lose(ConnectionLost('the peer closed the connection'))
        elif self._tls is None:
            self._received(data)
        else:
            self._decrypt(self._tls, data)
        return bool(data)

    def _decrypt(self, tls: TlsLayer, data: bytes) -> None:
        self._received(tls.receive(data))
        answer = tls.pending_output()
        if answer:
            self._send(answer)
        if tls.failed is not None:
            self._lose(tls.failed)
        elif tls.closed:
            self._lose(ConnectionLost('the peer closed the TLS connection'))

    def _received(self, data: bytes) -> None:
        if not data:
            return
        self.received += len(data)
        self.heard = self.reactor.turn_time
        self._in = data if self._at == len(self._in) else self._in[self._at:] + data
        self._at = 0
        if len(self._in) >= HIGH_WATER:
            self._want(self._events & ~READ)
        if self._reader is not None and not self._reader.done:
            self._reader.set()

    def _send(self, data: bytes) -> None:
        """Give the kernel what waits and then this; the rest waits until it takes more."""
        if self._refused or self._fd < 0:
            return
        view: bytes | memoryview = data
        waited = len(self._unsent) > 0
        if waited:
            if data:
                self._behind.append(data)
            view = self._unsent
        while view:
            try:
                sent = self._sock.send(view)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._send_failed(error)
                return
            if sent < len(view):
                self._unsent = memoryview(view)[sent:]
                self._want(self._events | WRITE)
                return
            if not waited:
                return  # the usual case
            view = b''.join(self._behind)
            self._behind.clear()
        self._unsent = memoryview(view)
        self._want(self._events & ~WRITE)
        if self._writer is not None and not self._writer.done:
            self._writer.set()

    def _drop_unsent(self) -> None:
        self._unsent = memoryview(b'')
        self._behind.clear()

    def _send_failed(self, error: OSError) -> None:
        """The peer takes nothing more. What it said before is in the kernel still."""
        self._refused = True
        self._drop_unsent()
        while self.buffered < HIGH_WATER and self._lost is None and self._receive():
            pass
        self._want(self._events & ~WRITE)
        self._lose(ConnectionLost(f'connection lost: {error.strerror}'))

    def _lose(self, error: MqliteError) -> None:
        if self._lost is None:
            self._lost = error
        if self._fd >= 0:
            self._want(self._events & ~READ)
        for waiter in (self._reader, self._writer):
            if waiter is not None and not waiter.done:
                waiter.fail(self._lost)
        if self.on_lost is not None:
            self.on_lost()

    def _check_deadline(self) -> None:
        self._timer = None
        if self._deadline is None or self._fd < 0:
            return
        if self._deadline > self.reactor.clock.monotonic():
            self._timer = self.reactor.call_at(self._deadline, self._check_deadline)
            return
        self._deadline, self._expired = None, True
        for waiter in (self._reader, self._writer):
            if waiter is not None and not waiter.done:
                waiter.fail(_time_out())


def _time_out() -> Timeout:
    return Timeout('the time for this step ran out')
