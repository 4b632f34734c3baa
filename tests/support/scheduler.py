"""A scheduler with sessions that do what the test says, for the tests of test_delivery_schedule*.

Every job comes out exactly once, whatever sessions do: `check` says so. A test file takes the fixtures `bench` and
`make` by assigning them.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any, Callable

import pytest

from mqlite.delivery.capacity import DEFAULT
from mqlite.delivery.controls import Controls
from mqlite.delivery.job import Job
from mqlite.delivery.room import Room
from mqlite.delivery.route import Exchangers, Place, Route
from mqlite.delivery.schedule import Scheduler
from mqlite.delivery.servers import Visit
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import sleep
from mqlite.message.document import Document
from mqlite.message.result import Result
from mqlite.queues.contract import Delivery
from mqlite.smtp.envelope import Envelope
from mqlite.smtp.reply import ClientFailure, Reply
from mqlite.smtp.shares import UNLIMITED, Shares
from tests.support.world import SteppingClock

IDLE_SECONDS = DEFAULT.idle_seconds
DOWN = Result('connect', 'timeout', description='down')
BIND = Result('bind', 'error', permanent=True, description='not ours')
OK = 'accepted'


class FakeStream:
    local, peer, sent, tls = ('192.0.2.1', 1), ('192.0.2.2', 25), 0, None

    def __init__(self, session: FakeSession) -> None:
        self._session = session

    def close(self) -> None:
        self._session.end()


class FakeSession:
    """A session whose `send` does what the bench says."""

    def __init__(self, bench: Bench, place: Place) -> None:
        self.mta, self.messages, self.sent_data, self.extensions = 'mx', 0, 0, ['DSN']
        self.companion, self.authentication = None, ''
        self.usable, self.ready, self.begun, self.announces = True, True, False, True
        self.stream = FakeStream(self)
        self.place, self.ended = place, False
        self._bench = bench

    async def send(self, envelope: Envelope, mime: bytes, sign: object = None, following: object = None) -> Reply:
        recipient = envelope.recipient
        assert self.ready and not self.ended
        self.messages += 1
        await sleep(self._bench.reactor, self._bench.send_seconds)
        self._bench.sent.append((recipient, self._bench.sessions.index(self)))
        outcome = self._bench.outcome(self, recipient)
        if isinstance(outcome, Exception):
            raise outcome
        return Reply(250, '', ('kept',))

    def hang_up(self) -> None:
        self.stream.close()

    async def quit(self) -> None:
        try:
            await sleep(self._bench.reactor, self._bench.quit_seconds)
        finally:
            self.end()

    def gone(self) -> ClientFailure:
        self.usable = self.ready = False
        return ClientFailure('mailfrom', 'lost', 'gone')

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self._bench.open_sessions -= 1


class Bench:
    """A scheduler, its dialler, and what came out. `outs`: (recipient, state or 'returned')."""

    signer = None

    def __init__(self, limit: int = UNLIMITED) -> None:
        self.errors: list[str] = []
        self.reactor = Reactor(SteppingClock(), lambda error, where: self.errors.append(f'{error} {where}'))
        self.shares = Shares(limit)
        self.controls = Controls()
        self.scheduler = Scheduler(self.reactor, self, self.shares.outgoing, self,  # type: ignore[arg-type]
                                   Room(UNLIMITED, UNLIMITED), self.controls)
        self.outs: list[tuple[str, str]] = []
        self.sent: list[tuple[str, int]] = []
        self.sessions: list[FakeSession] = []
        self.jobs: list[str] = []
        self.open_sessions = self.most_open = self.opening = 0
        self.send_seconds = self.quit_seconds = self.open_seconds = 0.0
        self.outcome: Callable[[FakeSession, str], object] = lambda session, recipient: None
        self.refuse: Callable[[Place], Exception | None] = lambda place: None
        self.servers: dict[str, Any] = {}  # of a domain, or why there are none; not here: it is its own
        self.asked: list[str] = []
        self.dns_seconds: dict[str, float] = {}
        self.seconds = 0.0  # for which the destination of the last job turned away is left alone

    async def exchangers(self, route: Route, for_mail: bool = True) -> Exchangers:
        self.asked.append(route.host)
        await sleep(self.reactor, self.dns_seconds.get(route.host, 0.0))
        found = self.servers.get(route.host, ((route.host,),))
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[no-any-return]

    async def open(self, place: Place, domain: str, visit: Visit | None = None) -> FakeSession:
        self.opening += 1
        await sleep(self.reactor, self.open_seconds)
        refusal = self.refuse(place)
        if refusal is not None:
            raise refusal
        self.open_sessions += 1
        self.most_open = max(self.most_open, self.open_sessions)
        self.sessions.append(FakeSession(self, place))
        return self.sessions[-1]

    def add(self, *recipients: str, sources: tuple[str, ...] | None = None, tags: object = None,
            priority: int = 0) -> None:
        for recipient in recipients:
            self.jobs.append(recipient)
            document = Document({'recipient': recipient, 'mime': 'x', 'tags': tags})
            route = Route(document.domain, 25, False)
            delivery = Delivery('outbox', len(self.jobs), b'', priority, 0)
            self.scheduler.add(Job(delivery, document, route, sources))

    def run(self, seconds: float = 1000.0) -> None:
        self.reactor.run(sleep(self.reactor, seconds))

    def stop(self, seconds: float) -> float:
        """How long it took."""
        begin = self.reactor.now()
        self.reactor.run(self.scheduler.stop(seconds))
        return self.reactor.now() - begin

    @property
    def states(self) -> Counter[str]:
        return Counter(state for _, state in self.outs)

    def check(self) -> None:
        """Everything came out once, and nothing is left."""
        assert Counter(recipient for recipient, _ in self.outs) == Counter(self.jobs)
        assert not self.scheduler._carriers and not self.scheduler._idle
        for destination in self.scheduler._destinations:
            assert not destination.line and not destination.carriers and not destination.connecting
        assert self.open_sessions == 0

    def attempted(self, job: Job, result: Result) -> None:
        self.outs.append((job.envelope.recipient, OK if result.result == OK else result.state))

    def unreachable(self, job: Job, result: Result, seconds: float) -> None:
        self.outs.append((job.envelope.recipient, 'unreachable'))
        self.seconds = seconds

    def put_out(self, job: Job, seconds: float) -> None:
        raise AssertionError('there is room')

    def returned(self, job: Job) -> None:
        self.outs.append((job.envelope.recipient, 'returned'))


@pytest.fixture
def make(closing: ExitStack) -> Callable[..., Bench]:
    def start(limit: int = UNLIMITED) -> Bench:
        bench = Bench(limit)
        closing.callback(bench.reactor.close)
        return bench
    return start


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()


def many(count: int, domain: str = 'a') -> list[str]:
    return [f'r{number}@{domain}' for number in range(count)]
