"""A small SMTP receiver in the test's own process: it keeps the exact bytes, and answers as the test tells it to.

Deliberately not built from mqlite's own grammar and framing: a mistake there must not be made on both sides. It reads
with blocking sockets, a thread per connection, and checks nothing: whatever the client sends is recorded.

    sink.script['RCPT'] = [b'450 4.2.1 later']      the next RCPT gets this, those after it the usual reply
    sink.script['EHLO'] = b'502 5.5.1 what?'        every EHLO gets this
    sink.script['.']    = [DROP]                    the connection is closed instead of a reply
    sink.script['MAIL'] = [SILENCE]                 no reply, ever, until the client or the test gives up

Stages: CONNECT (the greeting), each command's verb, and `.` for the reply after the final dot.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.support.peers import Certificate
from tests.support.process import HOST, WAIT_SECONDS

DROP = b'<drop>'
SILENCE = b'<silence>'
END_OF_DATA = b'\r\n.\r\n'

REPLIES = {
    'CONNECT':  b'220 sink.example ESMTP',
    'EHLO':     b'',                                # made from `extensions`
    'HELO':     b'250 sink.example',
    'STARTTLS': b'220 2.0.0 go ahead',
    'MAIL':     b'250 2.1.0 sender ok',
    'RCPT':     b'250 2.1.5 recipient ok',
    'DATA':     b'354 go ahead',
    '.':        b'250 2.0.0 kept',
    'RSET':     b'250 2.0.0 forgotten',
    'NOOP':     b'250 2.0.0 ok',
    'QUIT':     b'221 2.0.0 bye',
}
EXTENSIONS = (b'PIPELINING', b'SIZE 104857600', b'8BITMIME', b'ENHANCEDSTATUSCODES')


@dataclass
class Transaction:
    """One mail as the client sent it; the commands without CRLF."""

    mail: bytes                                     # b'MAIL FROM:<a@example.org> SIZE=12'
    connection: int                                 # counted from 1
    tls: bool
    recipients: list[bytes] = field(default_factory=list)       # the RCPT commands that got a 2yz
    wire: bytes = b''                               # everything between the 354 and CRLF.CRLF, its first CRLF included

    @property
    def message(self) -> bytes:
        """The wire bytes without dot-stuffing (RFC 5321 section 4.5.2)."""
        return (b'\r\n' + self.wire).replace(b'\r\n.', b'\r\n')[2:]


class CapturingSink:
    """Listens at once; `close` ends every connection. With a certificate it offers STARTTLS.

    `transactions`: every mail that reached its final dot, in that order, whatever the reply was.
    `commands`: every command line of all connections, in order. `connections`: how many were made.
    """

    def __init__(self, certificate: Certificate | None = None, extensions: Sequence[bytes] = EXTENSIONS) -> None:
        self.script: dict[str, bytes | list[bytes]] = {}
        self.extensions = [*extensions, *([b'STARTTLS'] if certificate else [])]
        self.transactions: list[Transaction] = []
        self.commands: list[bytes] = []
        self.connections = 0
        self.changed = threading.Condition()
        self.tls: ssl.SSLContext | None = None
        if certificate:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(certificate.certificate, certificate.key)
        self._open: list[_Connection] = []
        self._listener = socket.create_server((HOST, 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def wait_for(self, count: int, seconds: float = WAIT_SECONDS) -> list[Transaction]:
        """The transactions, once there are at least `count`; AssertionError with the commands seen when not in time."""
        with self.changed:
            arrived = self.changed.wait_for(lambda: len(self.transactions) >= count, seconds)
            assert arrived, f'{len(self.transactions)} of {count} mails in {seconds} s; commands: {self.commands}'
            return list(self.transactions)

    def close(self) -> None:
        # shutdown wakes a thread that is blocked in accept or recv; close alone does not
        for endpoint in (self._listener, *(connection.socket for connection in self._open)):
            with contextlib.suppress(OSError):
                endpoint.shutdown(socket.SHUT_RDWR)
            endpoint.close()

    def reply_to(self, stage: str) -> bytes:
        """The scripted reply, or the usual one; DROP or SILENCE."""
        with self.changed:
            scripted = self.script.get(stage)
            if isinstance(scripted, list):
                scripted = scripted.pop(0) if scripted else None
        if scripted is not None:
            return scripted
        return REPLIES.get(stage, b'500 5.5.1 unknown command')

    def _accept(self) -> None:
        with contextlib.suppress(OSError):          # closed by the test
            while True:
                accepted, _ = self._listener.accept()
                with self.changed:
                    self.connections += 1
                    connection = _Connection(self, accepted, self.connections)
                    self._open.append(connection)
                threading.Thread(target=connection.serve, daemon=True).start()


class _Gone(Exception):
    """The client closed the connection, or the script says that we do."""


class _Connection:
    """One client: blocking reads from our own buffer, so that a pipelined burst is kept across commands."""

    def __init__(self, sink: CapturingSink, accepted: socket.socket, number: int) -> None:
        self.sink = sink
        self.socket = accepted
        self.number = number
        self.buffer = b''
        self.transaction: Transaction | None = None

    def serve(self) -> None:
        with contextlib.suppress(OSError, _Gone):
            self.answer('CONNECT')
            for line in self.command_lines():
                self.obey(line)
        self.socket.close()

    def read_until(self, mark: bytes) -> bytes:
        """The bytes before the mark, which is taken off the buffer too."""
        searched = 0
        while (found := self.buffer.find(mark, searched)) < 0:
            searched = max(0, len(self.buffer) - len(mark))
            packet = self.socket.recv(1 << 18)
            if not packet:
                raise _Gone
            self.buffer += packet
        taken, self.buffer = self.buffer[:found], self.buffer[found + len(mark):]
        return taken

    def command_lines(self) -> Iterator[bytes]:
        while True:
            line = self.read_until(b'\r\n')
            with self.sink.changed:
                self.sink.commands.append(line)
            yield line

    def answer(self, stage: str) -> bytes:
        """Send the reply of the stage; it is returned, without its CRLF."""
        reply = self.sink.reply_to(stage)
        if stage == 'EHLO' and not reply:
            lines = [b'sink.example', *self.sink.extensions]
            reply = b'\r\n'.join([*(b'250-' + line for line in lines[:-1]), b'250 ' + lines[-1]])
        if reply == DROP:
            raise _Gone
        if reply == SILENCE:
            self.read_until(b'never')               # until the client gives up
        self.socket.sendall(reply + b'\r\n')
        return reply

    def obey(self, line: bytes) -> None:
        verb = line.split(b' ')[0].upper().decode('latin-1')
        reply = self.answer(verb)
        accepted = reply[:1] in b'23'
        if verb == 'QUIT':
            raise _Gone
        if verb == 'STARTTLS' and accepted and self.sink.tls:
            self.start_tls(self.sink.tls)
        elif verb == 'MAIL' and accepted:
            self.transaction = Transaction(line, self.number, isinstance(self.socket, ssl.SSLSocket))
        elif verb == 'RCPT' and accepted and self.transaction:
            self.transaction.recipients.append(line)
        elif verb == 'DATA' and accepted and self.transaction:
            self.take_message(self.transaction)
        elif verb in ('RSET', 'EHLO', 'HELO'):
            self.transaction = None

    def start_tls(self, context: ssl.SSLContext) -> None:
        assert not self.buffer, 'the client sent commands in plain text after STARTTLS'
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def take_message(self, transaction: Transaction) -> None:
        self.buffer = b'\r\n' + self.buffer         # the CRLF of DATA may be the first half of the end
        transaction.wire = (self.read_until(END_OF_DATA) + b'\r\n')[2:]
        self.transaction = None
        with self.sink.changed:
            self.sink.transactions.append(transaction)
            self.sink.changed.notify_all()
        self.answer('.')
