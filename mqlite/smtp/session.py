"""One SMTP session as the server sees it: who the client is, what it has said, what it may say next. Pure.

    state         means                                            left by
    greeted       connected, has not said hello                    EHLO, HELO
    ready         no transaction                                   MAIL
    mail          has a sender                                     RCPT accepted; RSET, EHLO, end of data -> ready
    rcpt          has a sender and recipients                      DATA -> data; BDAT -> chunk
    data          message data is coming, commands are not read    end of data -> ready
    chunk         so many octets of it are coming                  their end -> chunks, or ready after the last ones
    chunks        has a sender, recipients and some of the data    BDAT -> chunk; RSET, EHLO -> ready
    tls           the handshake is under way                       its end -> greeted, all that was said is forgotten
    auth          a login is under way, lines belong to it         the verdict -> ready

`commands.py` has the table of verbs; this file has the state that their rows test and change.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Callable, Protocol

from mqlite.errors import MqliteError
from mqlite.smtp.chunking import Chunk, ChunkReader
from mqlite.smtp.clients import Usage
from mqlite.smtp.reply import reply
from mqlite.smtp.sasl import Credentials, Exchange, Step

DATA, CHUNK, TLS, AUTH = 'data', 'chunk', 'tls', 'auth'  # what may come in place of the next command


class Refused(MqliteError):
    """A command was refused; `answer` is the reply to send. `chunk`: its octets come behind it all the same."""

    def __init__(self, name: str, *values: object) -> None:
        super().__init__(name)
        self.answer = reply(name, *values)
        self.chunk: Chunk | None = None


@dataclass
class Address:
    """A sender or a recipient of the transaction."""

    email: str  # '' for the null sender
    local: bool = False  # its mail goes to the local queue, and anybody may send to it
    parameters: Mapping[str, str] = field(default_factory=dict)  # what those behind it said, by their names


@dataclass(frozen=True)
class Objection:
    """A step that was asked about is refused, with this reply. `said`: whoever objects has sent it already."""

    answer: bytes
    said: bool = False


class Asker(Protocol):
    """Whoever has a say in the steps of one session: the plugins."""

    steps: frozenset[str]  # those that anybody wants to be asked about

    def ask(self, step: str, *subject: object) -> Awaitable[Objection | None]:
        """None: go on. `subject` is what the check of the step gave."""

    def end(self) -> Awaitable[None]:
        """The session is over; to be awaited whatever has happened."""


class Desk(Protocol):
    """Where clients log in."""

    def mechanisms(self, client: str, secure: bool) -> Sequence[str]:
        """How a client with this address may log in, with TLS and without; () for not at all."""

    def new_challenge(self) -> bytes:
        """For mechanisms that want one: nobody can foretell it."""

    def judge(self, session: Session, credentials: Credentials) -> Awaitable[bytes]:
        """The reply to credentials; has the effect on the session too."""


@dataclass(frozen=True)
class Limits:
    """What a client may ask of us."""

    size: int = 100 * 1024 * 1024  # bytes of a message
    recipients: int = 1000  # per message; RFC 5321 4.5.3.1.8 asks for at least 100
    errors: int = 20  # refused commands since the last message that was kept, then 421
    commands: int = 100  # commands since then that brought no message nearer; as Postfix
    header: int = 1024 * 1024  # bytes of a message's header
    hops: int = 50  # Received lines of a message: with more it goes round in circles; as Postfix
    dsn: bool = False  # the DSN extension is on offer
    loose: bool = False  # local parts may be anything
    must_log_in: bool = False  # to relay; else a client in range need not


@dataclass
class Session:
    """The state of one session."""

    hostname: str  # ours, in the greeting
    client: str  # the client's address
    client_port: int
    local: tuple[str, int]  # our address and port
    in_range: bool  # no stranger, by its address
    limits: Limits
    is_local: Callable[[str], bool] | None = None  # which addresses anybody may send to
    helo: str = ''
    esmtp: bool = False
    authenticated: bool = False  # by a login, or because a plugin says so
    welcome: bool = False  # was authenticated by a plugin before the client had said anything
    user: str = ''  # the login; '' before there is one
    exchange: tuple[Exchange, Step] | None = None  # of the AUTH that is under way
    failed_logins: int = 0
    sender: Address | None = None  # None: no transaction
    recipients: list[Address] | None = None
    starttls: bool = False  # is on offer
    cipher: tuple[str, str, int] | None = None  # its name, the version of TLS, secret bits; None in clear
    then: str = ''  # DATA, CHUNK, TLS, AUTH: comes in place of the next command
    chunks: ChunkReader | None = None  # the message, as far as BDAT has brought it
    chunk: Chunk | None = None  # that is coming, wanted or not
    errors: int = 0
    idle: int = 0  # commands that brought no message nearer
    pipelines: bool = False  # more has arrived behind the command in hand; of clients that may not do so everywhere
    said_quit: bool = False
    ended: bool = False  # close when the last reply is sent
    asker: Asker | None = None
    desk: Desk | None = None
    ends: float = math.inf  # when it has lasted long enough, by the monotonic clock
    usage: Usage | None = None  # what this client does; None when nobody counts it

    @property
    def may_relay(self) -> bool:
        return self.authenticated or self.in_range and not self.limits.must_log_in

    @property
    def receiving(self) -> bool:
        """A message is on its way."""
        return self.then == DATA or self.chunks is not None

    @property
    def secure(self) -> bool:
        return self.cipher is not None

    @property
    def utf8(self) -> bool:
        """The transaction may use what is not ASCII (RFC 6531)."""
        return self.sender is not None and 'SMTPUTF8' in self.sender.parameters

    @property
    def protocol(self) -> str:
        """How mail comes in over this session, for its trace (RFC 3848, RFC 6531 4.3). HELO over TLS has no word."""
        if not self.esmtp:
            return 'SMTP'
        return ('UTF8SMTP' if self.utf8 else 'ESMTP') + ('S' if self.secure else '') + ('A' if self.user else '')

    @property
    def mechanisms(self) -> Sequence[str]:
        """Those by which the client may log in now."""
        return self.desk.mechanisms(self.client, self.secure) if self.desk is not None else ()

    def greeting(self) -> bytes:
        return f'220 {self.hostname} ESMTP mqlite\r\n'.encode('ascii')

    def hello(self, name: str, esmtp: bool) -> None:
        """A new hello ends the transaction (RFC 5321 4.1.4)."""
        self.reset()
        self.helo, self.esmtp = name, esmtp

    def begin(self, sender: Address) -> None:
        self.sender, self.recipients = sender, []
        if self.usage is not None:
            self.usage.messages += 1

    def reset(self) -> None:
        """Forget the transaction, keep the session."""
        self.sender, self.recipients, self.chunks, self.then = None, None, None, ''

    def secured(self, cipher: tuple[str, str, int] | None) -> None:
        """TLS has begun: what was said before may have been said by anybody, and is forgotten (RFC 3207 4.2)."""
        self.reset()
        self.helo, self.esmtp, self.user, self.authenticated, self.cipher = '', False, '', self.welcome, cipher

    def expect(self, chunk: Chunk) -> None:
        """Its octets come next."""
        self.then, self.chunk = CHUNK, chunk
        if self.chunks is None and not chunk.refusal:
            self.chunks = ChunkReader(self.limits.size)

    def chunk_ended(self) -> bytes:
        """The reply to a chunk whose octets are here; b'' when the message is complete, and still to be judged."""
        assert self.chunk is not None
        octets, last, refusal = self.chunk
        if refusal:
            return refusal
        assert self.chunks is not None
        if not self.chunks.too_large:
            if last:
                return b''
            answer = reply('chunk-ok', octets)
            return answer if octets else self.idled(answer)
        answer = reply('too-large', self.limits.size)
        if not last:
            return answer  # the client may have sent all its chunks by now, and errs once
        self.reset()
        return self.failed(answer)

    def refuse(self, refusal: Refused) -> bytes:
        """What is to be sent now when a command was refused."""
        answer = self.failed(refusal.answer)
        if refusal.chunk is None or self.ended:
            return answer
        self.expect(refusal.chunk._replace(refusal=answer))
        return b''

    def refused(self, objection: Objection) -> bytes:
        """What is still to be sent when somebody has objected. A 421 means it: the session ends (RFC 5321 3.8)."""
        if objection.answer[:3] == b'421':
            self.ended = True
        answer = self.failed(objection.answer)
        return b'' if objection.said and answer is objection.answer else answer

    def kept(self) -> None:
        """A message was: the client is at work, and may err again."""
        self.errors = self.idle = 0

    def idled(self, answer: bytes) -> bytes:
        """Count a command that brings no message nearer; the answer, or the last one when there were too many."""
        if not self.in_range:
            self.idle += 1
            if self.idle > self.limits.commands:
                self.ended = True
                return reply('too-many-commands')
        return answer

    def failed(self, answer: bytes) -> bytes:
        """Count a refused command; the answer, or the last one when there were too many.

        A temporary refusal is not the client's error: it may send a thousand recipients and get 452 for the last ones.
        """
        if answer[:1] == b'4':
            return answer
        self.errors += 1
        if self.errors > self.limits.errors:
            self.ended = True
            return reply('too-many-errors')
        return answer
