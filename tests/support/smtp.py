"""The real SMTP server with a store in memory and a virtual clock, and clients in the same process and loop."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Callable, Optional, TypeVar, Union

from mqlite.auth.desk import LoginDesk
from mqlite.auth.local import HardcodedLogins
from mqlite.loop.clock import VirtualClock
from mqlite.loop.connect import Listener, ListenSocket, connect
from mqlite.loop.reactor import Reactor
from mqlite.loop.stream import ConnectionLost, Stream
from mqlite.loop.task import Waiter, sleep
from mqlite.loop.tls import TlsContext, add_certificate, client_context, server_context
from mqlite.message.identifier import Identifiers
from mqlite.plugin.host import PluginHost
from mqlite.queues.contract import Consumer, Delivery, LargeMessage, Message, Publishable, QueueError, QueueStatus
from mqlite.receive import Receiver, ReceiverConfig
from mqlite.refused import RefusedMail
from mqlite.smtp.admission import AdmissionConfig
from mqlite.smtp.clients import ClientRule
from mqlite.smtp.server import LAST_WORDS_SECONDS, ServerConfig, SmtpServer
from mqlite.smtp.session import Limits, Objection, Session
from mqlite.smtp.shares import UNLIMITED, Shares
from tests.support.peers import Certificate
from tests.support.process import HOST

T = TypeVar('T')
NAME = 'mx.example'
GREETING = f'220 {NAME} ESMTP mqlite\r\n'.encode()
MakeDesk = Callable[[Reactor, Optional[PluginHost]], LoginDesk]
Receive = Callable[[Session, bytes], Awaitable[Union[bytes, Objection]]]


class MemoryStore:
    """`queues.contract.Store` without a disk. `error`: publishes fail with it. `held`: they wait for `keep_all`."""

    def __init__(self, reactor: Reactor) -> None:
        self.trouble: str | None = None
        self.error: Exception | None = None
        self.held = False
        self.queues: dict[str, list[Message]] = {}
        self._reactor = reactor
        self._waiting: list[tuple[Sequence[Message], Waiter[None]]] = []
        self._tags: dict[int, Message] = {}
        self._consumers: list[tuple[str, Callable[[Delivery], object]]] = []

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        for message in self._tags.values():
            self._add(message)
        self._tags.clear()

    def publish(self, messages: Sequence[Publishable]) -> Waiter[None]:
        waiter: Waiter[None] = Waiter(self._reactor)
        if self.trouble is not None:
            waiter.fail(QueueError(self.trouble))
        elif self.error is not None:
            waiter.fail(self.error)
        else:
            whole = [message.whole() if isinstance(message, LargeMessage) else message for message in messages]
            self._waiting.append((whole, waiter))
            if not self.held:
                self._reactor.call_at_turn_end(self.keep_all)
        return waiter

    def keep_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for messages, waiter in waiting:
            for message in messages:
                self._add(message)
            waiter.set()

    def settle(self, delivery: Delivery, messages: Sequence[Message]) -> Waiter[None]:
        del self._tags[delivery.tag]
        return self.publish(messages)

    def release(self, delivery: Delivery) -> None:
        self._add(self._tags.pop(delivery.tag))

    def consume(self, queue: str, prefetch: int, prefetch_bytes: int,
                on_delivery: Callable[[Delivery], object]) -> Consumer:
        raise NotImplementedError('receiving mail consumes nothing')

    async def fetch(self, queue: str, count: int, waiting: bool = False) -> list[Delivery]:
        ready = self.queues.get(queue, [])
        taken, self.queues[queue] = ready[:count], ready[count:]
        return [self._take(message) for message in taken]

    async def purge(self, queue: str) -> int:
        return len(self.queues.pop(queue, []))

    async def list_queues(self) -> list[QueueStatus]:
        return [QueueStatus(name, len(messages), 0, 0, sum(len(message.body) for message in messages))
                for name, messages in sorted(self.queues.items()) if messages]

    def _add(self, message: Message) -> None:
        self.queues.setdefault(message.queue, []).append(message)

    def _take(self, message: Message) -> Delivery:
        tag = len(self._tags) + 1
        self._tags[tag] = message
        return Delivery(message.queue, tag, message.body, message.priority, 0)


class Bench:
    """A server on a free port, its reactor with the virtual clock, and its store; errors of tasks are raised.

    With a `certificate` it offers STARTTLS, and listens for TLS on another port too; `over_tls`: clients go there.
    """

    def __init__(self, receive: Receive | None = None, timeout: float = 300.0, connections: int = UNLIMITED,
                 relay: bool = True, plugins: Callable[[Reactor], PluginHost] | None = None,
                 in_range: Callable[[str], bool] | None = None, is_proxy: Callable[[str], bool] = ClientRule([]),
                 is_local: Callable[[str], bool] | None = None, config: Mapping[str, Any] | None = None,
                 admission: Mapping[str, Any] | None = None, certificate: Certificate | None = None,
                 over_tls: bool = False, desk: MakeDesk | None = None, **limits: Any) -> None:
        """`relay`: everybody may, or nobody, unless `in_range` says who. `config`, `admission`: of ServerConfig and
        AdmissionConfig, what has no name here. What the operator is told is in `notes`.
        """
        self.clock = VirtualClock()
        self.errors: list[BaseException] = []
        self.reactor = Reactor(self.clock, lambda error, where: self.errors.append(error))
        self.store = MemoryStore(self.reactor)
        self.receiver = Receiver(self.clock, self.store, Identifiers('id', 0, 0),
                                 ReceiverConfig(NAME, 'inbox', True, 'local'))
        host = plugins(self.reactor) if plugins else None
        self.notes: list[str] = []
        self.shares = Shares(connections)
        let_in = AdmissionConfig(self.shares.incoming, in_range or (lambda address: relay), is_proxy,
                                 **(admission or {}))
        server_config = ServerConfig(NAME, Limits(**limits), timeout, let_in, self.notes.append, is_local,
                                     **(config or {}))
        refused = RefusedMail(self.reactor, self.store, 'refused', NAME, self.notes.append)
        self.server = SmtpServer(self.reactor, server_config, receive or self.receiver.receive,
                                 host.ask_for if host else None, refused.keep,
                                 partial(server_context_of, certificate) if certificate else None,
                                 desk(self.reactor, host) if desk else None)
        self.listener = Listener(self.reactor, ListenSocket(HOST, 0), self.server.accept, self._trouble)
        self.secure_listener = Listener(self.reactor, ListenSocket(HOST, 0), partial(self.server.accept, tls=True),
                                        self._trouble)
        self.over_tls = over_tls
        self.listener.start()
        if certificate is not None:  # else whoever tries the port by accident would find no TLS there
            self.secure_listener.start()
        self.clients: list[Stream] = []

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_failure: object) -> None:
        self.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it; what a session raised by mistake is raised here."""
        result = self.reactor.run(coroutine)
        if self.errors:
            raise self.errors[0]
        return result

    async def client(self, greeted: bool = True) -> Stream:
        """A connection to the server, its greeting read and checked."""
        stream = await connect(self.reactor, HOST, (self.secure_listener if self.over_tls else self.listener).port)
        self.clients.append(stream)
        if self.over_tls:
            await self.start_tls(stream)
        if greeted:
            assert await self.read(stream, len(GREETING)) == GREETING
        return stream

    async def start_tls(self, stream: Stream) -> None:
        """The client's side of the handshake."""
        await stream.start_tls(any_client_context(), server_side=False)

    async def read(self, stream: Stream, count: int) -> bytes:
        """That many bytes, or what came before the server closed."""
        data = b''
        while len(data) < count:
            taken = stream.take()
            if not taken:
                try:
                    await stream.wait_bytes()
                except ConnectionLost:
                    break
            data += taken
        if len(data) > count:
            stream.put_back(data[count:])
        return data[:count]

    async def read_line(self, stream: Stream) -> bytes:
        line = stream.next_line(8192)
        while line is None:
            try:
                await stream.wait_bytes()
            except ConnectionLost:
                return stream.take()
            line = stream.next_line(8192)
        return line

    async def ask(self, stream: Stream, data: bytes) -> list[bytes]:
        """Send, and read one reply: its lines."""
        stream.write(data)
        stream.flush()
        lines = [await self.read_line(stream)]
        while lines[-1][3:4] == b'-':
            lines.append(await self.read_line(stream))
        return lines

    async def talk(self, stream: Stream, *commands: bytes) -> bytes:
        """Each command in its turn; the codes of the replies."""
        return b' '.join([(await self.ask(stream, command + b'\r\n'))[-1][:3] for command in commands])

    async def quiet(self, seconds: float = 0.01) -> None:
        """Let the server do what it has to do: the virtual clock moves only when both sides are idle."""
        await sleep(self.reactor, seconds)

    def documents(self, queue: str = 'inbox') -> list[dict[str, Any]]:
        return [json.loads(message.body) for message in self.store.queues.get(queue, [])]

    def close(self) -> None:
        """End clients and sessions, the farewells of the latter included."""
        for stream in self.clients:
            stream.close()
        self.listener.close()
        self.secure_listener.close()
        self.reactor.run(self.server.stop(0.0))
        self.reactor.run(self.quiet(LAST_WORDS_SECONDS + 1))
        self.reactor.close()

    def _trouble(self, text: str) -> None:
        raise AssertionError(text)


def logins(passwords: dict[str, str], **options: Any) -> MakeDesk:
    """For `desk` of a bench: these logins, each with its password, and options of LoginDesk."""
    store = HardcodedLogins({login: password.encode() for login, password in passwords.items()})
    return lambda reactor, _host: LoginDesk(reactor, NAME, store, **options)


any_client_context = lru_cache(client_context)  # reading the system's authorities takes its time


@lru_cache
def server_context_of(certificate: Certificate) -> TlsContext:
    context = server_context()
    add_certificate(context, str(certificate.certificate), str(certificate.key))
    return context


def without_received(mime: str) -> bytes:
    """The bytes of a kept message without the Received line that we put in front."""
    data = mime.encode('utf-8', 'surrogateescape')
    assert data.startswith(b'Received: from ')
    end = data.index(b'\r\n')
    while data[end + 2:end + 3] == b'\t':
        end = data.index(b'\r\n', end + 2)
    return data[end + 2:]
