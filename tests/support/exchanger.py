"""A scripted mail exchanger on the reactor of the client that talks to it, and a bench with a clock that jumps.

    exchanger.script['RCPT'] = [b'450 4.2.1 later']     the next RCPT gets this, those after it the usual reply
    exchanger.script['MAIL'] = b'550 no'                every MAIL gets this
    exchanger.script['DATA'] = b'421 bye' + DROP        said, and then hung up; DROP alone: hung up
    exchanger.script['.']    = SILENCE                  no reply, ever
    exchanger.script['DATA'] = b'354 go' + DEAF         said, and then nothing is read any more

Stages: CONNECT (the greeting), each command's verb, and `.` for the reply after the final dot. Unlike `sink.py` there
are no threads, so that the virtual clock cannot outrun it. It is not built from mqlite's own grammar and framing.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Union

from mqlite.errors import MqliteError
from mqlite.loop.clock import VirtualClock
from mqlite.loop.connect import Listener, ListenSocket, connect
from mqlite.loop.reactor import Reactor
from mqlite.loop.stream import Stream
from mqlite.loop.task import Task, Waiter, sleep
from mqlite.loop.tls import TlsContext
from mqlite.smtp.client import ClientSession
from mqlite.smtp.envelope import Envelope
from mqlite.smtp.reply import ClientFailure, Reply
from tests.support.process import HOST

DROP = b'<drop>'
SILENCE = b'<silence>'
DEAF = b'<deaf>'
REPLIES = {
    'CONNECT': b'220 mx.example ESMTP', 'HELO': b'250 mx.example', 'STARTTLS': b'220 go', 'MAIL': b'250 2.1.0 sender',
    'RCPT': b'250 2.1.5 recipient', 'DATA': b'354 go', '.': b'250 2.0.0 kept', 'RSET': b'250 reset', 'QUIT': b'221 bye',
}
Scripted = Union[bytes, list[bytes]]


class Exchanger:
    """Listens at once. `commands`: all lines, in order. `messages`: (MAIL line, RCPT lines, bytes on the wire)."""

    def __init__(self, reactor: Reactor, *extensions: bytes, address: str = HOST, port: int = 0,
                 tls: TlsContext | None = None) -> None:
        self.script: dict[str, Scripted] = {}
        self.extensions = [*extensions, *([b'STARTTLS'] if tls else [])]
        self.commands: list[bytes] = []
        self.messages: list[tuple[bytes, list[bytes], bytes]] = []
        self.clients: list[Stream] = []  # a connection each, as they came
        self.open = self.most_open = 0
        self._tasks: list[Task[None]] = []  # who waits for ever must not be garbage
        self._tls = tls
        self.reactor = reactor
        self._listener = Listener(reactor, ListenSocket(address, port), self._accepted, print)
        self.port = self._listener.port
        self._listener.start()

    @property
    def verbs(self) -> list[str]:
        return [line.split(b' ')[0].decode() for line in self.commands]

    @property
    def recipients(self) -> list[str]:
        """Of the messages taken, in that order."""
        return [line[9:-1].decode() for _, lines, _ in self.messages for line in lines]

    def close(self) -> None:
        self._listener.close()
        for stream in self.clients:
            stream.close()

    def refuse_connections(self) -> None:
        self._listener.close()

    def _accepted(self, stream: Stream) -> None:
        self.clients.append(stream)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        self._tasks.append(self.reactor.spawn(self._serve(stream), 'exchanger'))

    async def _serve(self, stream: Stream) -> None:
        try:
            await _Conversation(self, stream, self._tls).hold()
        except MqliteError:
            pass  # the client has gone
        finally:
            self.open -= 1
            stream.close()


class _Conversation:
    def __init__(self, exchanger: Exchanger, stream: Stream, tls: TlsContext | None) -> None:
        self.exchanger = exchanger
        self.stream = stream
        self.tls = tls
        self.mail = b''
        self.recipients: list[bytes] = []

    async def hold(self) -> None:
        going = await self.answer('CONNECT')
        while going:
            line = (await self.read_until(b'\r\n')).decode('latin-1')
            self.exchanger.commands.append(line.encode('latin-1'))
            going = await self.obey(line, line.split(' ')[0])

    async def obey(self, line: str, verb: str) -> bool:
        if verb == 'RSET':
            self.mail, self.recipients = b'', []
        if not await self.answer(verb) or verb == 'QUIT':
            return False
        accepted = self.last[:1] in b'23'
        if verb == 'MAIL':
            self.mail, self.recipients = (line.encode('latin-1') if accepted else b''), []
        elif verb == 'RCPT' and accepted:
            self.recipients.append(line.encode('latin-1'))
        elif verb == 'DATA' and accepted:
            wire = await self.read_until(b'\r\n.\r\n', b'\r\n')
            if not await self.answer('.'):
                return False
            if self.last[:1] == b'2':
                self.exchanger.messages.append((self.mail, self.recipients, wire[2:] + b'\r\n'))
        elif verb == 'STARTTLS' and accepted and self.tls is not None:
            await self.stream.start_tls(self.tls, server_side=True)
        return True

    async def answer(self, stage: str) -> bool:
        """Whether the conversation goes on."""
        self.last = reply = self.reply_to(stage)
        if reply == SILENCE:
            while True:
                self.stream.take()
                await self.stream.wait_bytes()
        text = reply.replace(DROP, b'').replace(DEAF, b'')
        self.stream.write(text + b'\r\n' if text else b'')
        self.stream.flush()
        if DEAF in reply:
            await Waiter(self.exchanger.reactor)
        return DROP not in reply

    def reply_to(self, stage: str) -> bytes:
        scripted = self.exchanger.script.get(stage)
        if isinstance(scripted, list):
            scripted = scripted.pop(0) if scripted else None
        if scripted is not None:
            return scripted
        if stage == 'EHLO':
            lines = [b'mx.example', *self.exchanger.extensions]
            return b'\r\n'.join([*(b'250-' + line for line in lines[:-1]), b'250 ' + lines[-1]])
        if (stage == 'RCPT' and not self.mail) or (stage == 'DATA' and not self.recipients):
            return b'503 5.5.1 bad sequence of commands'
        return REPLIES.get(stage, b'500 what?')

    async def read_until(self, mark: bytes, before: bytes = b'') -> bytes:
        data = before + self.stream.take()
        while mark not in data:
            await self.stream.wait_bytes()
            data += self.stream.take()
        taken, _, rest = data.partition(mark)
        self.stream.put_back(rest)
        return taken


class ClientBench:
    """A reactor with a clock that jumps, an exchanger, and sessions with it."""

    def __init__(self, *extensions: bytes, tls: TlsContext | None = None, client_tls: TlsContext | None = None) -> None:
        self.reactor = Reactor(VirtualClock())
        self.exchanger = Exchanger(self.reactor, *extensions, tls=tls)
        self.session: ClientSession
        self._tls = client_tls

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.reactor.run(work)

    def start(self) -> ClientFailure | None:
        return self.run(self._try(self._start()))  # type: ignore[no-any-return]

    def send(self, recipient: str = 'r@b.example', mime: bytes = b'Subject: x\r\n\r\n.dot\r\n',
             sender: str = 's@a.example', **wishes: Any) -> Reply | ClientFailure:
        """The reply to the final dot, or what went wrong. `wishes`: the rest of the envelope."""
        envelope = Envelope(sender, recipient, **wishes)
        return self.run(self._try(self.session.send(envelope, mime)))  # type: ignore[no-any-return]

    def send_two(self, first: str, second: str, **wishes: Any) -> list[Reply | ClientFailure]:
        """Messages to both, the second one announced with the end of the first; what came of each that was sent."""
        following = Envelope('s@a.example', second, **wishes), b'Subject: x\r\n\r\n'

        async def send() -> list[Reply | ClientFailure]:
            outcomes = [await self._try(self.session.send(Envelope('s@a.example', first), b'x\r\n',
                                                          following=lambda: following))]
            if self.session.begun and self.session.usable:
                outcomes.append(await self._try(self.session.send(*following)))
            return outcomes
        return self.run(send())  # type: ignore[no-any-return]

    def quit(self) -> None:
        """Say goodbye, and let the exchanger hear it."""
        self.run(self.session.quit())
        self.settle()

    def settle(self, seconds: float = 0.01) -> None:
        self.run(sleep(self.reactor, seconds))

    def close(self) -> None:
        self.session.stream.close()
        self.exchanger.close()
        self.settle()
        self.reactor.close()

    async def _start(self) -> None:
        stream = await connect(self.reactor, HOST, self.exchanger.port)
        self.session = ClientSession(stream, 'me.example')
        await self.session.start(self._tls, 'mx.example')

    async def _try(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await work
        except ClientFailure as failure:
            return failure
