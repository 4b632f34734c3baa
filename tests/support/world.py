"""A world to deliver to, in memory: domains, servers that behave in known ways, and a store; for the real engine.

Nothing here touches a socket or a file, and the clock jumps, so that an hour of a hundred servers takes seconds. The
store hands out as the embedded one does: at the end of a turn, no more than the consumer's window, and half of it for
messages whose time has come.
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Callable

from mqlite.database.tables import Value
from mqlite.delivery import verdict
from mqlite.delivery.attempt import NoSession
from mqlite.delivery.capacity import Limits
from mqlite.delivery.controls import Controls
from mqlite.delivery.engine import Engine, EngineConfig
from mqlite.delivery.flood import read_floods
from mqlite.delivery.forced import read_errors
from mqlite.delivery.pauses import read_pauses
from mqlite.delivery.retry import RetryPolicy
from mqlite.delivery.route import Exchangers, Place, Route, RouteConfig
from mqlite.delivery.servers import Visit
from mqlite.loop.clock import VirtualClock
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import Waiter, sleep
from mqlite.message.result import Connected
from mqlite.queues.contract import Delivery, Message
from mqlite.smtp.client import Following
from mqlite.smtp.envelope import Envelope
from mqlite.smtp.reply import ClientFailure, Reply
from mqlite.smtp.shares import Shares
from tests.support.database import row

QUEUES = {'results': 'results', 'success': 'success', 'failure': 'failure', 'retry': 'retry'}


class SteppingClock(VirtualClock):
    """Nothing here moves bytes between sockets: the kernel needs no time."""

    GRACE = 0.0


@dataclass
class Server:
    """How it behaves, and what it has seen. `most`: connections that it takes; one more is turned away."""

    seconds: float = 0.05  # for a message
    pipelining: bool = False  # the next message is announced with the end of the one before
    connect_seconds: float = 0.01
    down: bool = False
    refusal: Reply | None = None  # to every message
    greeting: Reply | None = None  # in place of a welcome
    most: int = 1 << 30
    open: int = 0
    most_open: int = 0
    refused: int = 0
    connects: list[float] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)  # when each message was
    recipients: list[str] = field(default_factory=list)
    addresses: tuple[str, ...] = ('192.0.2.2',)
    open_at: Counter[str] = field(default_factory=Counter)
    most_at: Counter[str] = field(default_factory=Counter)
    connects_at: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    taken_at: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


class Session:
    """What the engine uses of a ClientSession."""

    mta, sent_data, authentication, companion = 'mx', 0, '', None
    usable, begun, announces = True, False, True
    extensions = ('DSN', '8BITMIME')
    local, sent, tls = ('192.0.2.1', 1), 0, None

    def __init__(self, reactor: Reactor, server: Server, address: str) -> None:
        self.messages = 0
        self.peer = address, 25
        server.open_at[address] += 1
        server.most_at[address] = max(server.most_at[address], server.open_at[address])
        server.connects_at[address].append(reactor.now())
        self.stream = self
        self._reactor = reactor
        self._server = server
        self._ended = False

    @property
    def ready(self) -> bool:
        return not self._ended and not self.begun

    async def send(self, envelope: Envelope, mime: bytes, sign: object = None,
                   following: Following | None = None) -> Reply:
        self.messages, self.begun = self.messages + 1, False
        self.begun = self._server.pipelining and following is not None and following() is not None
        await sleep(self._reactor, self._server.seconds)
        if self._server.refusal is not None:
            raise ClientFailure('rcptto', 'error', '', self._server.refusal)
        self._server.taken.append(self._reactor.now())
        self._server.taken_at[self.peer[0]].append(self._reactor.now())
        self._server.recipients.append(envelope.recipient)
        return Reply(250, '', ('kept',))

    async def quit(self) -> None:
        self.close()

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            self._server.open -= 1
            self._server.open_at[self.peer[0]] -= 1

    hang_up = close


class Network:
    """In place of a Dialler: every domain has the server of the same name up to its first dot."""

    hooks = signer = None

    def __init__(self, reactor: Reactor, servers: dict[str, Server]) -> None:
        self.dns_seconds = 0.02
        self.places: list[Place] = []  # of every connection that was tried
        self._reactor = reactor
        self._servers = servers

    async def exchangers(self, route: Route, for_mail: bool = True) -> Exchangers:
        await sleep(self._reactor, self.dns_seconds)
        return ((route.host.partition('.')[0],),)

    async def open(self, place: Place, domain: str, visit: Visit | None = None) -> Session:
        server = self._servers[place.exchangers[0][0]]
        address = _choose(server, visit, self._reactor.now())
        self.places.append(place)
        server.connects.append(self._reactor.now())
        if server.down:
            await sleep(self._reactor, 30.0)
            raise NoSession(verdict.not_connected('down', True, 'no answer'))
        await sleep(self._reactor, server.connect_seconds)
        if server.greeting is not None:
            failure = ClientFailure('intro', 'error', '', server.greeting)
            raise NoSession(verdict.failed(failure, Connected('mx', '192.0.2.1', '192.0.2.2', 0, 0, 0)))
        if server.open >= server.most:
            server.refused += 1
            raise NoSession(verdict.not_connected('busy', False, '421 too many connections'))
        server.open += 1
        server.most_open = max(server.most_open, server.open)
        return Session(self._reactor, server, address)


def _choose(server: Server, visit: Visit | None, now: float) -> str:
    """The first address that the limits leave room at."""
    if visit is None:
        return server.addresses[0]
    waits = {address: visit.wait(address, now) for address in server.addresses}
    if all(waits.values()):
        raise NoSession(verdict.held_back(), held=min(waits.values()))
    address = next(address for address, wait in waits.items() if not wait)
    visit.enter(address, now)
    return address


class MemoryStore:
    """One queue that is consumed, and counts of what was published to the others. See contract.Store."""

    trouble = None

    def __init__(self, reactor: Reactor) -> None:
        self.counts: Counter[str] = Counter()
        self.put_back = 0
        self.held = self.held_size = self.most_held = self.most_size = 0
        self._reactor = reactor
        self._ready: deque[Message] = deque()
        self._waiting: list[tuple[float, int, Message]] = []
        self._order = itertools.count()
        self._scheduled = False
        self._on_delivery: Callable[[Delivery], object] | None = None
        self._prefetch = self._prefetch_size = 0

    def __len__(self) -> int:
        return len(self._ready) + len(self._waiting)

    def add(self, message: Message) -> None:
        if message.queue != 'outbox':
            self.counts[message.queue] += 1
        elif message.due > self._reactor.clock.time():
            heapq.heappush(self._waiting, (message.due, next(self._order), message))
            self._reactor.call_later(message.due - self._reactor.clock.time(), self._schedule)
        else:
            self._ready.append(message)
        self._schedule()

    def consume(self, queue: str, prefetch: int, prefetch_bytes: int,
                on_delivery: Callable[[Delivery], object]) -> MemoryStore:
        self._prefetch, self._prefetch_size, self._on_delivery = prefetch, prefetch_bytes, on_delivery
        self._schedule()
        return self

    def stop(self) -> None:
        self._on_delivery = None

    def settle(self, delivery: Delivery, messages: Sequence[Message]) -> Waiter[None]:
        self._gave(delivery)
        self.put_back += any(message.body is delivery.body for message in messages)
        for message in messages:
            self.add(message)
        waiter = Waiter[None](self._reactor)
        waiter.set()
        return waiter

    def release(self, delivery: Delivery) -> None:
        self._gave(delivery)
        self._ready.appendleft(Message(delivery.queue, delivery.body, delivery.priority))

    def _gave(self, delivery: Delivery) -> None:
        self.held -= 1
        self.held_size -= len(delivery.body)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and self._on_delivery is not None:
            self._scheduled = True
            self._reactor.call_at_turn_end(self._hand_out)

    def _hand_out(self) -> None:
        self._scheduled, now = False, self._reactor.clock.time()
        room = self._prefetch - self.held
        if room < max(1, self._prefetch // 4) or self._on_delivery is None:
            return
        batch: list[Message] = []
        while self._waiting and self._waiting[0][0] <= now and len(batch) < (room + 1) // 2:
            batch.append(heapq.heappop(self._waiting)[2])
        while self._ready and len(batch) < room:
            batch.append(self._ready.popleft())
        for number, message in enumerate(batch):
            if self.held_size >= self._prefetch_size:
                self._ready.extendleft(reversed(batch[number:]))
                break
            self.held += 1
            self.held_size += len(message.body)
            self.most_held, self.most_size = max(self.most_held, self.held), max(self.most_size, self.held_size)
            self._on_delivery(Delivery('outbox', 1, message.body, message.priority, 0))


class World:
    """An engine and its world. `servers`: by name; a domain is `server` or `server.anything`."""

    def __init__(self, servers: dict[str, Server], connections: int = 500, prefetch: int = 1000,
                 workers: int = 1) -> None:
        self.errors: list[str] = []
        self.reactor = Reactor(SteppingClock(), lambda error, where: self.errors.append(f'{error!r} {where}'))
        self.servers = servers
        self.network = Network(self.reactor, servers)
        self.store = MemoryStore(self.reactor)
        self.controls = Controls()
        config = EngineConfig('outbox', QUEUES, RetryPolicy((600,), 0, 86400.0), RouteConfig(None, None, ()),
                              Shares(connections).outgoing, prefetch=prefetch, controls=self.controls, workers=workers)
        self.engine = Engine(self.reactor, self.store, self.network, config)  # type: ignore[arg-type]

    def publish(self, recipient: str, size: int = 100, **fields: object) -> None:
        document = {'recipient': recipient, 'mime': 'x' * size, **fields}
        self.store.add(Message('outbox', json.dumps(document).encode()))

    def publish_many(self, count: int, domain: str = 'one', **fields: Any) -> None:
        for number in range(count):
            self.publish(f'{number}@{domain}', **fields)

    def limit(self, *rows: dict[str, Value]) -> None:
        """The rows of the table `capacity`, from now on."""
        self.controls.limits = Limits([row('capacity', id=number, **values) for number, values in enumerate(rows, 1)])
        self.controls.on_limits()

    def flood(self, *rows: dict[str, Value]) -> None:
        """The rows of the table `flood_responses`, from now on."""
        self.controls.floods = read_floods([row('flood_responses', **values) for values in rows]).items
        self.controls.on_floods()

    def pause(self, *rows: dict[str, Value]) -> None:
        """The rows of the table `paused`, from now on."""
        self.controls.pauses = read_pauses([row('paused', **values) for values in rows]).items
        self.controls.on_intercepts()

    def force(self, *rows: dict[str, Value]) -> None:
        """The rows of the table `errors`, from now on."""
        self.controls.errors = read_errors([row('errors', **values) for values in rows]).items
        self.controls.on_intercepts()

    def run(self, seconds: float) -> None:
        self.reactor.run(sleep(self.reactor, seconds))

    def close(self) -> None:
        self.reactor.run(self.engine.stop(0.0))
        self.reactor.close()


def start_world(closing: ExitStack, **servers: Server) -> World:
    """One whose engine runs."""
    made = World(servers)
    closing.callback(made.close)
    made.engine.start()
    return made
