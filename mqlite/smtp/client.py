"""The SMTP client's driver: one connection to one server, any number of messages one after the other.

    greeting -> EHLO (HELO) -> [STARTTLS -> handshake -> EHLO] -> [AUTH] -> { MAIL RCPT DATA message }* -> QUIT

Each step has a state, named as in the results, and a time limit. What goes wrong comes out as ClientFailure with the
state in which it happened; what it means for the message is decided elsewhere (`delivery/verdict.py`). The client
parses no text itself: replies come from `reply.ReplyReader`.

With PIPELINING, MAIL, RCPT and DATA leave in one write (RFC 2920); the message and its final dot always do. Who has
another message waiting lets its commands leave behind the final dot of the one before: message content may be the first
of a group (RFC 2920 3.1), and a message then costs one write and one round trip. After ClientFailure the session can go
on only if `ready` says so.

Replies have no number: a server that answers more, or less, than it was asked makes every later answer mean something
else. So a command is sent only when nothing is left to read, and after any doubt the connection is not used again.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable
from typing import Any, Callable, Optional, Protocol

from mqlite.loop.stream import ConnectionLost, LineTooLong, Stream
from mqlite.loop.task import Timeout
from mqlite.loop.tls import TlsContext, TlsError
from mqlite.smtp.envelope import Envelope
from mqlite.smtp.framing import encode_data
from mqlite.smtp.reply import LINE_LIMIT, BadReply, ClientFailure, Reply, ReplyReader
from mqlite.smtp.sasl_client import Login, choose_mechanism, client_steps

#   state           seconds  RFC 5321 section 4.5.3.2
TIME_LIMITS = {
    'intro':        300,   # .1 initial 220
    'ehlo':         300,   # as for MAIL, and so is what follows
    'helo':         300,
    'starttls':     300,
    'handshake':    120,
    'authplain':    300,
    'authlogin':    300,
    'authusername': 300,
    'authpassword': 300,
    'authcram':     300,
    'authresponse': 300,
    'mailfrom':     300,   # .2
    'rcptto':       300,   # .3
    'data':         120,   # .4 DATA initiation
    'block':        180,   # .5 each piece of the message
    'message':      600,   # .6 DATA termination
    'quit':         5,     # nothing depends on it
}
#   the commands of a transaction: state, kind of reply
_TRANSACTION = (
    ('mailfrom', 2),
    ('rcptto',   2),
    ('data',     3),
)
_BLOCK = 262144  # bytes of a message written before we wait for the peer to take them
_MAIL_MAX = re.compile(r'\bMAILMAX=([1-9][0-9]{0,5})\b')  # RFC 9422 section 4.1
_NO_LIMIT = 1 << 30
_BAD_SEQUENCE = 503  # RFC 5321 4.2.3
_CLOSING = 421  # the server says that it closes the connection (RFC 5321 3.8)
_NAME_LIMIT = 255  # characters kept of the name in the greeting


Sign = Callable[[bytes], Awaitable[bytes]]
Following = Callable[[], Optional[tuple[Envelope, bytes]]]  # the next message, if there is one


class Companion(Protocol):
    """Whoever has a say in what goes out on a connection: the plugins."""

    def begin(self, fields: dict[str, Any], sender: str, recipient: str, body: bytes) -> None:
        """The next message; `fields` are the properties of its document, and may be changed. `body`: the document."""

    def before_data(self, mime: bytes | None) -> Awaitable[bytes]:
        """The server waits for the message: what to send. ClientFailure to refuse."""

    def after_dot(self) -> Awaitable[None]:
        """The message is out, the reply is not here."""

    def finish(self) -> None:
        """The message is settled."""

    def end(self) -> None:
        """The connection is closed."""


class ClientSession:
    """A conversation with a server."""

    def __init__(self, stream: Stream, hostname: str) -> None:
        self.stream = stream
        self.hostname = hostname  # the name we say hello with
        self.mta = ''  # the name in the server's greeting
        self.extensions: dict[str, str] = {}  # EHLO keyword -> its parameters
        self.authentication = ''  # the mechanism of our login
        self.messages = 0  # transactions begun on this connection
        self.sent_data = 0  # bytes of the message of the last transaction, as they went out
        self.usable = True  # we know where in the conversation the server is, and it has not said that it leaves
        self.companion: Companion | None = None
        self.announces = True  # the server takes commands behind a final dot that it has not answered, for all we know
        self.begun = False  # the commands of the next message have left, with the end of the one before
        self._reader = ReplyReader()
        self._most = _NO_LIMIT  # transactions on this connection
        self._dirty = False  # a transaction was left half done: RSET comes first

    @property
    def ready(self) -> bool:
        """Another transaction may follow: as far as we can see now, the server is there and waits for it."""
        return self.messages < self._most and self._in_step

    @property
    def _in_step(self) -> bool:
        return self.usable and not self.begun and not self.stream.lost and not self.stream.buffered

    async def start(self, tls: TlsContext | None, server_name: str, login: Login | None = None,
                    strict: bool = False) -> None:
        """Greeting and hello; STARTTLS when the server has it and `tls` is given; the login, if there is one. `strict`:
        nothing goes on without TLS."""
        greeting = await self._reply('intro')
        self._expect(greeting, 'intro', 2)
        self.mta = greeting.lines[0].split(' ', 1)[0][:_NAME_LIMIT]
        await self._hello()
        if tls is not None and 'STARTTLS' in self.extensions:
            await self._start_tls(tls, server_name)
        elif strict:
            raise self._unusable('starttls', 'error', 'the server has no STARTTLS, and nothing is to go in clear')
        if login is not None:
            await self._authenticate(login)

    async def send(self, envelope: Envelope, mime: bytes | None, sign: Sign | None = None,
                   following: Following | None = None) -> Reply:
        """One message to one recipient; the reply to its final dot. `mime` has CRLF line ends.

        With a companion the message may be another one in the end, or come from it alone: then `mime` is None. `sign`
        is asked for the message that goes out in place of it, once nothing else will change it. `following`: asked when
        the message leaves. If `begun` says so afterwards, what it gave must be sent next, by a call with the same.
        """
        if not self.begun or not await self._go_on():
            obstacle = envelope.obstacle(self.extensions)
            if obstacle is not None:
                raise ClientFailure('mailfrom', 'error', obstacle.text, obstacle)
            if sign is not None and mime is not None and self.companion is None:
                mime = await sign(mime)
            await self._begin(envelope, mime if self.companion is None else None)
        if self.companion is not None:
            mime = await self._final(self.companion, mime, sign)
        assert mime is not None
        return await self._message(mime, following)

    async def _begin(self, envelope: Envelope, mime: bytes | None) -> None:
        """MAIL, RCPT and DATA. `mime`: None when the message is not known yet."""
        self.messages, self.sent_data = self.messages + 1, 0
        if self._dirty:
            await self._reset()
        self._dirty = True
        commands = self._commands(envelope, mime)
        if 'PIPELINING' in self.extensions:
            self._check_silence('mailfrom')
            self.stream.write(b''.join(commands))
            await self._answers()
        else:
            for (state, kind), command in zip(_TRANSACTION, commands):
                self._expect(await self._ask(state, command), state, kind)

    async def _go_on(self) -> bool:
        """The commands have left. The message before is over, taken or not (RFC 5321 4.1.1.4); a server that has not
        forgotten one that it refused is no use for the next one, which is not to blame. False when they have to leave
        again: a server that wants no command before it has answered the message has ignored them all (Haraka, which
        takes them for smuggled)."""
        self.messages, self.sent_data, self.begun = self.messages + 1, 0, False
        refused, self._dirty = self._dirty, True
        try:
            await self._answers()
        except ClientFailure as failure:
            if failure.state == 'mailfrom' and failure.reply is None:
                self.announces = False  # it says nothing to that, or hangs up
            if failure.state == 'mailfrom' and self.usable:
                if failure.reply is not None and failure.reply.code == _BAD_SEQUENCE:
                    self.messages, self.announces = self.messages - 1, False
                    return False
                self.usable = not refused
            raise
        return True

    def _commands(self, envelope: Envelope, mime: bytes | None) -> tuple[bytes, ...]:
        """Those of _TRANSACTION."""
        return envelope.mail_command(self.extensions, mime), envelope.rcpt_command(self.extensions), b'DATA\r\n'

    async def _final(self, companion: Companion, mime: bytes | None, sign: Sign | None) -> bytes:
        """The message as it is to be sent. Whatever stops us here leaves the server waiting for it."""
        self.usable = False
        try:
            mime = await companion.before_data(mime)
            if sign is not None:
                mime = await sign(mime)
        except ConnectionLost as error:
            raise ClientFailure('data', 'lost', str(error)) from error
        self.usable = True
        return mime

    async def quit(self) -> None:
        """Say goodbye and close; nothing can go wrong that matters."""
        try:
            if self._in_step:
                await self._ask('quit', b'QUIT\r\n')
        except ClientFailure:
            pass
        finally:
            self.hang_up()

    def hang_up(self) -> None:
        """Close without a word."""
        self.stream.close()
        if self.companion is not None:
            self.companion.end()

    # the steps

    async def _hello(self) -> None:
        reply = await self._ask('ehlo', f'EHLO {self.hostname}\r\n'.encode('ascii'))
        if reply.code // 100 == 2:
            words = [line.upper().split(None, 1) for line in reply.lines[1:]]
            self.extensions = {word[0]: ''.join(word[1:]) for word in words if word}
        elif reply.code // 100 == 5:
            self._expect(await self._ask('helo', f'HELO {self.hostname}\r\n'.encode('ascii')), 'helo', 2)
            self.extensions = {}
        else:
            self._expect(reply, 'ehlo', 2)
        most = _MAIL_MAX.search(self.extensions.get('LIMITS', ''))
        self._most = int(most.group(1)) if most else _NO_LIMIT

    async def _start_tls(self, context: TlsContext, server_name: str) -> None:
        """RFC 3207. What the server said before counts no more; bytes behind its 220 were sent in clear: not by it.

        With TLS 1.3 a server that refuses our side of the handshake says so after it, in place of its first answer.
        """
        self._expect(await self._ask('starttls', b'STARTTLS\r\n'), 'starttls', 2)
        if self.stream.buffered:
            raise self._unusable('starttls', 'invalid', 'the server sent more than its answer before TLS')
        self.stream.expire_in(TIME_LIMITS['handshake'])
        try:
            await self.stream.start_tls(context, server_side=False, hostname=server_name)
        except TlsError as error:
            raise self._unusable('handshake', 'error', str(error)) from error
        except Timeout as error:
            raise self._unusable('handshake', 'timeout', str(error)) from error
        except ConnectionLost as error:
            raise self._unusable('handshake', 'lost', str(error)) from error
        self.extensions = {}
        try:
            await self._hello()
        except ClientFailure as failure:
            if failure.kind == 'lost':
                raise ClientFailure('handshake', 'lost', failure.text) from failure
            raise

    async def _authenticate(self, login: Login) -> None:
        """RFC 4954. A server that wants more or less steps than the mechanism has is no use any more."""
        stream = self.stream
        mechanism = choose_mechanism(self.extensions.get('AUTH', '').split(), stream.cipher is not None, stream.peer[0])
        if mechanism is None:
            raise ClientFailure('ehlo', 'error',
                                'the server offers no login that is safe here: PLAIN or LOGIN over TLS, or CRAM-MD5')
        steps, challenge = client_steps(mechanism, login), ''
        for number, (state, make_line) in enumerate(steps, start=1):
            try:
                line = make_line(challenge)
            except BadReply as error:
                raise self._unusable(state, 'invalid', str(error)) from error
            reply = await self._ask(state, line)
            self._expect(reply, state, 2 if number == len(steps) else 3)
            challenge = reply.text
        self.authentication = mechanism

    async def _reset(self) -> None:
        """Forget the transaction before. A server that does not is no use for the next one, which is not to blame."""
        reply = await self._ask('mailfrom', b'RSET\r\n')
        if reply.code // 100 != 2:
            raise self._unusable('mailfrom', 'invalid', f'the server does not forget a transaction: {reply.text}')

    async def _answers(self) -> None:
        """Read the replies to all commands, also those behind a refusal, so that the next ones match.

        The first refusal is the one that counts, whatever follows it: some servers refuse and hang up.
        """
        failure: ClientFailure | None = None
        for state, kind in _TRANSACTION:
            try:
                self._expect(self._next_reply(state) or await self._reply(state), state, kind)
                if failure is not None and state == 'data':
                    await self._empty_message(failure.state)
            except ClientFailure as error:
                failure = failure or error
            if not self.usable:
                break
        if failure is not None:
            raise failure

    async def _empty_message(self, refused: str) -> None:
        """The server takes data although it refused: give it none (RFC 2920 3.1).

        Only where the recipient was refused, and so nobody gets it. Who refuses the sender and wants data is confused.
        """
        if refused != 'rcptto':
            raise self._unusable('data', 'invalid', 'the server wants a message from a sender that it refused')
        self._expect(await self._ask('message', b'.\r\n'), 'message', 2)

    async def _message(self, mime: bytes, following: Following | None) -> Reply:
        data = encode_data(mime)
        last = await self._write_all_but_last(data) if len(data) > _BLOCK else data
        if self.stream.buffered:
            raise await self._early_reply()
        self.stream.write(last)
        self.sent_data = len(data)
        if following is not None and self.announces and 'PIPELINING' in self.extensions:
            self._write_ahead(following())
        if self.companion is not None:
            self.stream.flush()
            with contextlib.suppress(ConnectionLost):  # waiting for the reply says it better
                await self.companion.after_dot()
        reply = await self._reply('message')
        self._expect(reply, 'message', 2)
        self._dirty = False
        return reply

    def _write_ahead(self, message: tuple[Envelope, bytes] | None) -> None:
        """The commands of the next message, unless it cannot go to this server."""
        if message is not None and message[0].obstacle(self.extensions) is None:
            self.stream.write(b''.join(self._commands(*message)))
            self.begun = True

    async def _write_all_but_last(self, data: bytes) -> bytes:
        """Write in pieces, each with its time limit; the last one is for the caller, to go with the wait for the reply.

        A server that has had enough says so, and may hang up: then its words count, not the lost connection.
        """
        at = 0
        try:
            while len(data) - at > _BLOCK and not self.stream.buffered:
                self.stream.write(data[at:at + _BLOCK])
                self.stream.expire_in(TIME_LIMITS['block'])
                await self.stream.drain()
                at += _BLOCK
        except Timeout as error:
            raise self._unusable('data', 'timeout', str(error)) from error
        except (ConnectionLost, TlsError) as error:
            if not self.stream.buffered:
                raise self._unusable('data', 'lost', str(error)) from error
        return data[at:] if at else data

    async def _early_reply(self) -> ClientFailure:
        """The server has answered before it had the whole message. Even a 2yz does not mean that it took it."""
        reply = await self._reply('data')
        self.usable = False
        return ClientFailure('data', 'error' if reply.code >= 400 else 'invalid', reply.text, reply)

    # replies

    async def _ask(self, state: str, command: bytes) -> Reply:
        """One command and its reply, whatever it is."""
        self._check_silence(state)
        self.stream.write(command)
        return await self._reply(state)

    def _check_silence(self, state: str) -> None:
        if self.stream.buffered:
            raise self._unusable(state, 'invalid', 'the server said more than it was asked')

    async def _reply(self, state: str) -> Reply:
        reply = self._next_reply(state)
        if reply is not None:
            return reply
        self.stream.expire_in(TIME_LIMITS[state])
        try:
            while reply is None:
                await self.stream.wait_bytes()
                reply = self._next_reply(state)
        except Timeout as error:
            raise self._unusable(state, 'timeout', 'the server did not answer in time') from error
        except (ConnectionLost, TlsError) as error:
            raise self._unusable(state, 'lost', str(error)) from error
        return reply

    def _next_reply(self, state: str) -> Reply | None:
        """The next reply, or None while it is not complete: those to what was sent together come together."""
        reply = None
        try:
            while reply is None:
                line = self.stream.next_line(LINE_LIMIT)
                if line is None:
                    return None
                reply = self._reader.feed(line)
        except (BadReply, LineTooLong) as error:
            raise self._unusable(state, 'invalid', str(error)) from error
        return reply

    def _expect(self, reply: Reply, state: str, kind: int) -> None:
        """ClientFailure unless the reply is of the kind: 2 for 2yz, 3 for 3yz."""
        if reply.code // 100 != kind:
            invalid = reply.code // 100 < 4  # a 2yz where 3yz belongs: it does not speak SMTP
            if invalid or reply.code == _CLOSING:
                self.usable = False
            raise ClientFailure(state, 'invalid' if invalid else 'error', reply.text, reply)

    def _unusable(self, state: str, kind: str, text: str) -> ClientFailure:
        self.usable = False
        return ClientFailure(state, kind, text)
