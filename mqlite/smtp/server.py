"""The SMTP server's driver: streams in, conversations, and the end of both. It awaits; it parses nothing.

    accept -> (PROXY header) -> greet -> { line -> commands.answer } ... DATA -> DataReader -> receive() -> reply ...
                                                   |                     BDAT -> ChunkReader ->
                                   with plugins:   check -> ask -> proceed

Replies to a pipelined batch leave together, because the stream sends what was written only when its input has run dry.
A client that does not take its replies is not read from: it cannot make us keep more than OUTPUT_LIMIT of them.
`receive` decides what becomes of a message, and is awaited: its reply means "kept". While a handshake is under way
nothing is said in clear, whatever happens. Limits: the Limits of the session, `timeout` seconds for each command, each
piece of data and each handshake, `min_rate` for a message; and what `admission.py` holds. A stranger must wait for each
reply that RFC 2920 tells it to wait for.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Callable

from mqlite.loop.reactor import Reactor
from mqlite.loop.stream import ConnectionLost, LineTooLong, Stream
from mqlite.loop.sync import Signal
from mqlite.loop.task import Cancelled, Task, Timeout
from mqlite.loop.tls import TlsContext, TlsError
from mqlite.smtp.admission import Admission, AdmissionConfig, Displaced
from mqlite.smtp.chunking import ChunkReader
from mqlite.smtp.commands import LINE_LIMIT, answer, check
from mqlite.smtp.framing import DataReader, has_bare_line_ends, normalise
from mqlite.smtp.proxy import ProxyFault
from mqlite.smtp.reply import reply
from mqlite.smtp.sasl import LINE_LIMIT as AUTH_LINE_LIMIT
from mqlite.smtp.sasl import AuthRefused
from mqlite.smtp.session import AUTH, CHUNK, DATA, TLS, Asker, Desk, Limits, Objection, Refused, Session

LAST_WORDS_SECONDS = 5.0  # for a client to read our 421 while it is still sending
FAREWELLS = 100  # such clients at once: they are no part of the share, and take descriptors
OUTPUT_LIMIT = 65536  # bytes of replies to one batch before we wait for the client to take them


@dataclass(frozen=True)
class ServerConfig:
    """What the server needs to know."""

    hostname: str
    limits: Limits
    timeout: float  # seconds
    admission: AdmissionConfig  # who is let in
    on_note: Callable[[str], object] = id  # told in a line what an operator should know
    is_local: Callable[[str], bool] | None = None  # addresses that anybody may send to
    min_rate: float = 0.0  # bytes of a message per second; 0: any
    normalises: bool = False  # bare line ends are mended instead of refused


class SmtpServer:
    """All sessions of one reactor."""

    def __init__(self, reactor: Reactor, config: ServerConfig,
                 receive: Callable[[Session, bytes], Awaitable[bytes | Objection]],
                 ask_for: Callable[[Session, Stream], Asker] | None = None,
                 on_refused: Callable[[Session, bytes, bytes], object] | None = None,
                 tls_context: Callable[[], TlsContext] | None = None, desk: Desk | None = None) -> None:
        """`ask_for`: makes the asker of a new session, where there are plugins. `on_refused` is told of a message that
        was received and refused, with the reply. `tls_context`: for a handshake that begins now; without it there is
        no TLS. `desk`: without it nobody logs in.
        """
        self._reactor = reactor
        self._config = config
        self._receive = receive
        self._ask_for = ask_for
        self._on_refused = on_refused
        self._tls_context = tls_context
        self._desk = desk
        self._tasks: dict[Task[None], tuple[Stream, Session]] = {}
        self._admission = Admission(reactor, config.admission)
        self._farewells = 0
        self._ended = Signal(reactor)
        self._stopping = False

    def __len__(self) -> int:
        return len(self._tasks)

    def accept(self, stream: Stream, tls: bool = False) -> None:
        """Serve a client that has just connected. `tls`: it begins with a handshake."""
        config = self._config
        address, port = stream.peer
        if self._stopping or not self._admission.enter(self._tasks):
            self._say_farewell(stream, b'' if tls else reply('shutdown' if self._stopping else 'too-busy'))
            return
        session = Session(config.hostname, address, port, stream.local, config.admission.in_range(address),
                          config.limits, config.is_local, starttls=self._tls_context is not None,
                          then=TLS if tls else '', desk=self._desk)
        task = self._reactor.spawn(self._serve(stream, session), 'smtp session')
        self._tasks[task] = stream, session

    async def stop(self, seconds: float) -> None:
        """End the sessions: idle ones with 421 now, those that send a message after it, all within `seconds`."""
        self._stopping = True
        for task, (_stream, session) in list(self._tasks.items()):
            if not session.receiving:
                task.cancel()
        timer = self._reactor.call_later(seconds, self._end_all)
        while self._tasks:
            await self._ended.wait()
        timer.cancel()

    def _end_all(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    async def _serve(self, stream: Stream, session: Session) -> None:
        task = self._reactor.current
        last_words = b''
        try:
            await self._admission.identify(stream, session)
            await self._converse(stream, session)
        except ProxyFault as fault:
            self._config.on_note(f'{session.client}, which is in smtp-proxy: {fault}')
            last_words = reply('not-proxied')
        except Timeout:
            last_words = reply('timeout')
        except Refused as refusal:
            last_words = refusal.answer
        except Displaced:
            last_words = reply('too-busy')
        except Cancelled:
            last_words = reply('shutdown')
        except (ConnectionLost, TlsError):
            pass  # the client has gone: what it had not finished was never accepted
        except Exception:
            last_words = reply('internal-error')
            raise  # a mistake of ours: the reactor reports it
        finally:
            if session.said_quit or stream.lost:
                stream.close()
            else:
                self._say_farewell(stream, b'' if session.then == TLS else last_words)
            try:
                if session.asker is not None:
                    await session.asker.end()
            finally:
                del self._tasks[task]  # type: ignore[arg-type]
                self._admission.leave(session)
                self._ended.notify()

    def _say_farewell(self, stream: Stream, last_words: bytes) -> None:
        """We end it, while the client may be sending: closing at once would reset the connection under our reply."""
        if last_words:
            stream.write(last_words)
        stream.flush()
        if self._farewells < FAREWELLS:
            self._farewells += 1
            self._reactor.spawn(self._finish(stream), 'smtp farewell')
        else:
            stream.close()

    async def _finish(self, stream: Stream) -> None:
        try:
            await stream.finish(LAST_WORDS_SECONDS)
        finally:
            self._farewells -= 1

    async def _converse(self, stream: Stream, session: Session) -> None:
        timeout, unread, strict = self._config.timeout, 0, not session.in_range
        limit = LINE_LIMIT if session.desk is None else AUTH_LINE_LIMIT
        stream.expire_in(timeout)
        stream.write(await self._greet(stream, session))
        stream.expire_in(timeout)
        while not session.ended:
            try:
                line = stream.next_line(limit)
                if line is None:
                    unread = 0
                    stream.flush()
                    if self._reactor.turn_time > session.ends:
                        raise Refused('session-over')
                    await (stream.drain() if stream.unsent else stream.wait_bytes())
                    continue
                if strict:
                    session.pipelines = stream.buffered > 0
                text = answer(session, line) if session.asker is None else await self._answer(session, line)
            except LineTooLong:
                await self._skip_line(stream)
                text = session.failed(reply('line-too-long'))
            stream.write(text)
            unread += len(text)
            if unread > OUTPUT_LIMIT:
                await stream.drain()
                unread = 0
            stream.expire_in(timeout)
            if session.then:
                stream.write(await self._go_on(stream, session))
                stream.expire_in(timeout)
                if self._stopping and not session.receiving:
                    raise Cancelled

    async def _greet(self, stream: Stream, session: Session) -> bytes:
        """The greeting, or why there is none. Plugins see a client when it can be talked to: behind the handshake."""
        if session.then == TLS:
            await self._shake_hands(stream, session)
        if self._ask_for is not None:
            session.asker = self._ask_for(session, stream)
        objection = None if session.asker is None else await self._ask(session, 'mq_smtp_in_connect')
        session.welcome = session.authenticated
        if objection is None and session.secure:
            objection = await self._ask(session, 'mq_smtp_in_secure')
        if objection is None and not session.in_range and await self._admission.speaks_early(stream):
            objection = Objection(reply('early-talker'))
        if objection is None:
            return session.greeting()
        session.ended = True
        return session.refused(objection)

    async def _answer(self, session: Session, line: bytes) -> bytes:
        """The reply to one line, where others have a say."""
        try:
            checked = check(session, line)
        except Refused as refusal:
            return session.refuse(refusal)
        objection = await self._ask(session, checked.command.step, checked.subject)
        return checked.proceed(session) if objection is None else session.refused(objection)

    async def _ask(self, session: Session, step: str, *subject: object) -> Objection | None:
        asker = session.asker
        return await asker.ask(step, *subject) if asker is not None and step in asker.steps else None

    async def _go_on(self, stream: Stream, session: Session) -> bytes:
        """What the last command has begun, in place of the next one; the reply."""
        if session.then == DATA:
            return await self._receive_data(stream, session)
        if session.then == CHUNK:
            return await self._receive_chunk(stream, session)
        return await (self._log_in if session.then == AUTH else self._start_tls)(stream, session)

    async def _start_tls(self, stream: Stream, session: Session) -> bytes:
        """Commands that came in clear behind STARTTLS must never be taken for encrypted ones (CVE-2011-0411)."""
        if stream.buffered:
            session.reset()
            session.ended = True
            return reply('tls-pipelined')
        stream.write(reply('start-tls'))
        await self._shake_hands(stream, session)
        objection = await self._ask(session, 'mq_smtp_in_secure')
        if objection is None:
            return b''
        session.ended = True
        return session.refused(objection)

    async def _shake_hands(self, stream: Stream, session: Session) -> None:
        """TlsError, and then nothing more can be said."""
        assert self._tls_context is not None
        try:
            await stream.start_tls(self._tls_context(), server_side=True)
        except TlsError as error:
            self._config.on_note(f'{session.client}: no TLS: {error}')
            raise
        session.secured(stream.cipher)

    async def _log_in(self, stream: Stream, session: Session) -> bytes:
        """The rest of an AUTH exchange, and the verdict."""
        assert session.exchange is not None and session.desk is not None
        (exchange, step), session.exchange, session.then = session.exchange, None, ''
        try:
            while isinstance(step, bytes):
                stream.write(step)
                step = exchange.feed(await self._read_line(stream, AUTH_LINE_LIMIT))
                stream.expire_in(self._config.timeout)
        except AuthRefused as refusal:
            return session.failed(reply(refusal.name))
        except LineTooLong:
            await self._skip_line(stream)
            return session.failed(reply('auth-too-long'))
        return await session.desk.judge(session, step)

    async def _read_line(self, stream: Stream, limit: int) -> bytes:
        line = stream.next_line(limit)
        while line is None:
            await stream.wait_bytes()
            line = stream.next_line(limit)
        return line

    async def _receive_data(self, stream: Stream, session: Session) -> bytes:
        """Read the data to its end; the reply to it."""
        reader = DataReader(session.limits.size)
        await self._read_body(stream, session, reader)
        if reader.too_large:
            text = session.failed(reply('too-large', session.limits.size))
        else:
            text = await self._conclude(session, reader.body())
        session.reset()
        return text

    async def _receive_chunk(self, stream: Stream, session: Session) -> bytes:
        """Read the octets that BDAT has announced, wanted or not; the reply to them."""
        chunk, session.then = session.chunk, ''
        assert chunk is not None
        reader = session.chunks if session.chunks is not None and not chunk.refusal else ChunkReader(0)
        reader.expect(chunk.octets)
        await self._read_body(stream, session, reader)
        text = session.chunk_ended()
        if not text:
            text = await self._conclude(session, reader.body())
            session.reset()
        return text

    async def _read_body(self, stream: Stream, session: Session, reader: DataReader | ChunkReader) -> None:
        begun, before = self._reactor.turn_time, reader.size
        rest = reader.feed(stream.take())
        while rest is None:
            stream.expire_in(self._patience(session, begun, reader.size - before))
            await stream.wait_bytes()
            rest = reader.feed(stream.take())
        stream.put_back(rest)

    async def _conclude(self, session: Session, data: bytes) -> bytes:
        """A message is here; the reply to it."""
        verdict = await self._judge(session, data)
        if isinstance(verdict, Objection):
            if self._on_refused is not None:
                self._on_refused(session, data, verdict.answer)
            return session.refused(verdict)
        if verdict[:1] == b'2':
            session.kept()
        return verdict

    def _patience(self, session: Session, begun: float, size: int) -> float:
        """How long to wait for more of a message, of which so much has come since then."""
        now, timeout, rate = self._reactor.turn_time, self._config.timeout, self._config.min_rate
        ends = min(session.ends, begun + timeout + size / rate) if rate else session.ends
        return min(timeout, ends - now)

    async def _judge(self, session: Session, data: bytes) -> bytes | Objection:
        """What becomes of a message that was received: the reply, or why it is refused."""
        if has_bare_line_ends(data):
            if not self._config.normalises:
                return Objection(reply('bare-line-end'))
            data = normalise(data)
        objection = None if session.asker is None else await self._ask(session, 'mq_smtp_in_data', data)
        return objection or await self._receive(session, data)

    async def _skip_line(self, stream: Stream) -> None:
        """Drop input up to the end of the line that is too long; the command's time limit goes on."""
        while True:
            data = stream.take()
            end = data.find(b'\n') + 1
            if end:
                stream.put_back(data[end:])
                return
            await stream.wait_bytes()
