"""Jobs, carriers and connections: every job comes out exactly once, whatever sessions do."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any, Callable

import pytest

from mqlite.delivery import verdict
from mqlite.delivery.attempt import NoSession
from mqlite.delivery.capacity import DEFAULT
from mqlite.delivery.controls import Controls
from mqlite.delivery.destination import UNPROVEN
from mqlite.delivery.destinations import KEPT_SECONDS
from mqlite.delivery.fairness import FAIR_SECONDS, FAIR_SHARE
from mqlite.delivery.forced import ForcedError
from mqlite.delivery.job import Job
from mqlite.delivery.room import Room
from mqlite.delivery.route import Exchangers, Place, Route
from mqlite.delivery.schedule import Scheduler
from mqlite.delivery.servers import Visit
from mqlite.delivery.standing import FIRST_PAUSE, FIRST_WINDOW, HOLD_SECONDS, JITTER, LONGEST_PAUSE
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


# connections


def test_a_connection_is_kept_for_the_next(bench: Bench) -> None:
    bench.add('1@a')
    bench.run(IDLE_SECONDS - 1)
    bench.add('2@a')
    bench.run(IDLE_SECONDS - 1)
    assert bench.open_sessions == 1
    bench.run(2)
    assert bench.sent == [('1@a', 0), ('2@a', 0)] and bench.open_sessions == 0
    bench.check()


def test_a_connection_that_is_not_ready_is_not_kept(bench: Bench) -> None:
    bench.outcome = lambda session, _: setattr(session, 'ready', False)
    bench.add('1@a')
    bench.run(0.1)
    bench.check()


def test_a_connection_that_went_bad_while_idle_is_replaced(bench: Bench) -> None:
    bench.add('1@a')
    bench.run(1)
    bench.sessions[0].ready = False
    bench.add('2@a')
    bench.run()
    assert bench.sent == [('1@a', 0), ('2@a', 1)]
    bench.check()


def test_a_job_and_the_end_of_idleness_in_the_same_turn(bench: Bench) -> None:
    bench.reactor.call_at(IDLE_SECONDS, bench.add, '2@a')
    bench.add('1@a')
    bench.run()
    assert bench.states == {OK: 2} and bench.errors == []
    bench.check()


def test_carriers_of_a_destination(bench: Bench) -> None:
    """Two to see whether anybody is there, five when there is, and one more for each message that is answered."""
    bench.send_seconds = 1
    bench.open_seconds = 0.1
    bench.add(*many(100))
    for seconds, connections in ((0.05, UNPROVEN), (1.0, FIRST_WINDOW), (1.0, 2 * FIRST_WINDOW)):
        bench.run(seconds)
        assert bench.opening == connections
    bench.run()
    assert bench.states == {OK: 100} and bench.most_open == DEFAULT.connections
    assert len(bench.sessions) == DEFAULT.connections
    bench.check()


@pytest.mark.parametrize('outcome', ['silence', 'lost'])
def test_a_server_that_does_not_answer_gets_no_more_connections(bench: Bench, outcome: str) -> None:
    if outcome == 'silence':
        bench.send_seconds = 600
    bench.outcome = lambda session, recipient: session.gone()
    bench.add(*many(100))
    bench.run(500)
    assert bench.most_open <= FIRST_WINDOW
    bench.stop(0)
    bench.check()


def test_the_next_carrier_does_not_wait_for_a_goodbye(bench: Bench) -> None:
    bench.quit_seconds = 4
    bench.add('1@a')
    bench.run(IDLE_SECONDS + 1)
    bench.add('2@a')
    bench.run(0.5)
    assert bench.states == {OK: 2} and bench.open_sessions == 2


# the limit


def test_the_limit_on_connections(make: Callable[..., Bench]) -> None:
    bench = make(limit=3)
    bench.send_seconds, bench.quit_seconds = 1, 1
    for domain in 'abcdefg':
        bench.add(*many(5, domain))
    bench.run()
    assert bench.states == {OK: 35} and bench.most_open == 3
    bench.check()


def test_nobody_starves(make: Callable[..., Bench]) -> None:
    """The busy destination gives way after its share, also when it is never without work."""
    bench = make(limit=1)
    bench.outcome = lambda session, recipient: bench.add('more@a') if recipient.endswith('a') and \
        len(bench.jobs) < 200 else None
    bench.add(*many(3, 'a'), '1@b', '1@c', '2@b')
    bench.run()
    order = [recipient[-1] for recipient, _ in bench.sent]
    assert order.index('b') == FAIR_SHARE
    assert order[FAIR_SHARE:FAIR_SHARE + 4] in (list('bbca'), list('bbac'))
    assert order.index('c') <= 2 * FAIR_SHARE + 2
    assert bench.states == {OK: len(bench.jobs)}
    bench.check()


def test_a_place_that_a_client_leaves_is_used(make: Callable[..., Bench]) -> None:
    bench = make(limit=3)
    for _ in range(3):
        bench.shares.incoming.take()
    bench.add('1@a', '1@b')
    bench.run(10)
    assert bench.sent == []
    bench.shares.incoming.give_back()
    bench.run(10)
    assert bench.states == {OK: 2} and bench.most_open == 1
    bench.check()
    assert bench.shares.used == 2


def test_an_idle_connection_makes_room(make: Callable[..., Bench]) -> None:
    bench = make(limit=2)
    bench.add('1@a', '1@b')
    bench.run(1)
    bench.add('1@c', '1@d')
    bench.run(1)
    assert bench.states == {OK: 4} and bench.most_open == 2
    bench.run()
    bench.check()


def test_nobody_is_idle_while_others_starve(make: Callable[..., Bench]) -> None:
    bench = make(limit=1)
    bench.send_seconds = 2
    bench.add('1@a')
    bench.run(1)
    bench.add('1@b')
    bench.run(3.5)
    assert bench.states == {OK: 2}


def test_making_room_keeps_the_job_that_comes_meanwhile(make: Callable[..., Bench]) -> None:
    bench = make(limit=1)
    bench.add('1@a')
    bench.run(1)
    bench.add('1@b', '2@a')
    bench.run()
    assert bench.states == {OK: 3} and bench.sent[:2] == [('1@a', 0), ('2@a', 0)]
    bench.check()


def test_after_a_while_it_is_another_connection_that_gives_way(make: Callable[..., Bench]) -> None:
    """Of a slow server, twenty messages would be too long a share."""
    bench = make(limit=1)
    bench.send_seconds = FAIR_SECONDS / 2
    bench.add(*many(50))
    bench.run(1)
    bench.add('1@b')
    bench.run(2 * FAIR_SECONDS)
    assert ('1@b', OK) in bench.outs
    bench.run()
    assert bench.states == {OK: 51}
    bench.check()


def test_places_are_shared_evenly(make: Callable[..., Bench]) -> None:
    """Whoever comes first has them all, but not for long; then they stay about equal, and all are used."""
    bench = make(limit=9)
    bench.send_seconds = 0.5
    bench.add(*many(2000, 'a'))
    bench.run(20)
    bench.add(*many(2000, 'b'), *many(2000, 'c'))
    bench.run(20)
    counts: Counter[str] = Counter()
    for _ in range(20):
        bench.run(1)
        for destination in bench.scheduler._destinations:
            counts[destination.domain] += destination.carriers
    assert sum(counts.values()) == 20 * 9 and min(counts.values()) >= 50
    bench.stop(0)
    bench.check()


# who goes where


def test_domains_with_the_same_exchangers_share_a_line(bench: Bench) -> None:
    servers = (('mx1', 'mx2'), ('mx3',))
    bench.servers = {f'd{number}': servers for number in range(100)}
    bench.send_seconds = 1
    bench.add(*(f'r@d{number}' for number in range(100)), '1@other')
    bench.run()
    assert bench.states == {OK: 101} and bench.most_open == DEFAULT.connections + 1
    assert {session.place for session in bench.sessions} == {
        Place(servers, 25, None), Place((('other',),), 25, None)}
    bench.check()


def test_a_domain_is_asked_for_once(bench: Bench) -> None:
    bench.dns_seconds = {'a': 1.0}
    bench.add(*many(50))
    bench.run(2)
    bench.add(*many(50))
    bench.run()
    assert bench.asked == ['a'] and bench.states == {OK: 100}
    bench.add('late@a')
    bench.run()
    assert bench.asked == ['a', 'a']


def test_name_servers_that_do_not_answer_hold_up_nobody_else(bench: Bench) -> None:
    bench.dns_seconds = {'a': 100.0}
    bench.servers = {name: NoSession(verdict.unresolved(name == 'b', 'unknown')) for name in 'ab'}
    bench.add('1@a', '1@b', '1@c', '2@a')
    bench.run(1)
    assert bench.outs == [('1@b', 'dns'), ('1@c', OK)]
    bench.run(100)
    assert bench.states == {'dns': 3, OK: 1}
    bench.check()


def test_stop_while_exchangers_are_looked_up(bench: Bench) -> None:
    bench.dns_seconds = {'a': 100.0}
    bench.add('1@a', '2@a')
    bench.run(1)
    assert bench.stop(30) == 0 and bench.states == {'returned': 2}


def test_a_mistake_of_ours_in_the_lookup(bench: Bench) -> None:
    bench.servers = {'a': KeyError('oops')}
    bench.add('1@a', '1@b')
    bench.run()
    assert sorted(bench.outs) == [('1@a', 'process'), ('1@b', OK)] and len(bench.errors) == 1


def test_tags_take_turns_and_the_highest_priority_goes_first(bench: Bench) -> None:
    bench.send_seconds = 1
    bench.dns_seconds = {'a': 1.0}
    bench.refuse = lambda _: NoSession(DOWN) if bench.open_sessions else None
    bench.add('news1@a', 'news2@a', 'news3@a', tags=['news'])
    bench.add('bill1@a', tags=['bills', 'news'])
    bench.add('plain1@a', 'plain2@a', tags='bills')
    bench.add('urgent@a', priority=5)
    bench.run()
    assert [recipient[:-2] for recipient, _ in bench.sent] == [
        'urgent', 'news1', 'bill1', 'plain1', 'news2', 'plain2', 'news3']
    bench.check()


def test_a_line_for_each_local_address(bench: Bench) -> None:
    """The shorter one is chosen, so that one that is slow gets less."""
    bench.send_seconds = 1
    bench.add(*many(200), sources=('192.0.2.1', '192.0.2.2'))
    bench.run(0.5)
    assert bench.most_open == 2 * FIRST_WINDOW
    bench.run()
    assert bench.states == {OK: 200} and bench.most_open == 2 * DEFAULT.connections
    assert Counter(session.place.source for session in bench.sessions) == {
        '192.0.2.1': DEFAULT.connections, '192.0.2.2': DEFAULT.connections}
    bench.check()


def test_a_local_address_that_cannot_be_used(bench: Bench) -> None:
    """Its jobs go on to the next of theirs; it is not tried for each of them."""
    bench.refuse = lambda place: NoSession(BIND, local=True) if place.source == 'bad' else None
    bench.add(*many(20), sources=('bad', 'good', 'bad'))
    bench.run(1)
    bench.add(*many(20, 'b'), sources=('good', 'bad'))
    bench.run(1)
    bench.add(*many(20), sources=('bad', 'good'))
    bench.run()
    assert bench.states == {OK: 60} and {session.place.source for session in bench.sessions} == {'good'}
    assert bench.opening - len(bench.sessions) <= 2 * UNPROVEN
    bench.check()


@pytest.mark.parametrize(('sources', 'state'), [(('bad',), 'bind'), (('bad', 'worse'), 'bind'), ((), 'bind')])
def test_no_local_address_can_be_used(bench: Bench, sources: tuple[str, ...], state: str) -> None:
    bench.refuse = lambda place: NoSession(BIND, local=True)
    bench.add('1@a', '2@a', sources=sources)
    bench.run(1)
    bench.add('3@a', sources=sources)
    bench.run()
    assert bench.states == {state: 3}
    bench.check()


# failures


def test_a_server_that_is_to_fail_fails_once_for_all_that_wait(bench: Bench) -> None:
    bench.open_seconds = 1.0
    bench.refuse = lambda _: NoSession(verdict.forced(ForcedError()), forced=True)
    bench.add(*many(20))
    bench.run(10)
    assert bench.states == {'process': 20} and bench.opening <= UNPROVEN
    bench.check()


def test_no_session_fails_all_that_wait(bench: Bench) -> None:
    bench.open_seconds = 30
    bench.refuse = lambda _: NoSession(DOWN)
    bench.add(*many(50))
    bench.add('1@b')
    bench.run(40)
    assert bench.states == {'connect': 51}
    assert bench.opening == UNPROVEN + UNPROVEN - 1
    bench.check()


def test_one_connection_and_no_second(bench: Bench) -> None:
    """A server that takes one connection at a time: all jobs go over that one."""
    bench.send_seconds = 10
    bench.refuse = lambda _: NoSession(DOWN) if bench.open_sessions else None
    bench.add('1@a')
    bench.run(1)
    bench.add(*many(8))
    bench.run()
    assert bench.states == {OK: 9} and len(bench.sessions) == 1
    bench.check()


def test_the_second_carrier_is_refused_while_the_first_is_idle(bench: Bench) -> None:
    bench.open_seconds = 1
    bench.refuse = lambda _: NoSession(DOWN) if bench.sessions else None
    bench.add('1@a', '2@a', '3@a')
    bench.run()
    assert bench.states == {OK: 3} and len(bench.sessions) == 1
    bench.check()


def test_a_refused_connection_is_not_tried_for_every_message(bench: Bench) -> None:
    """Five are taken and no sixth: five are kept, and now and then one more is tried."""
    bench.send_seconds = 1
    bench.refuse = lambda _: NoSession(DOWN) if bench.open_sessions >= 5 else None
    bench.add(*many(3000))
    bench.run(300)
    assert bench.most_open == 5 and 1400 <= len(bench.outs) <= 1500
    assert 2 <= bench.opening - len(bench.sessions) <= FIRST_WINDOW + 300 / HOLD_SECONDS
    bench.refuse = lambda _: None
    bench.run(1000)
    assert bench.most_open > 5 and bench.states == {OK: 3000}
    bench.check()


def test_a_destination_that_is_down_is_left_alone_for_longer_and_longer(bench: Bench) -> None:
    bench.refuse = lambda _: NoSession(DOWN)
    pauses = []
    for number in range(8):
        bench.add(f'{number}@a')
        bench.run(0.01)
        bench.add(f'{number}more@a')
        pauses.append(bench.seconds)
        bench.run(bench.seconds + 0.001)  # sums of seconds are rounded
    assert bench.outs == [(f'{n}{more}@a', state) for n in range(8)
                          for more, state in (('', 'connect'), ('more', 'unreachable'))]
    for number, pause in enumerate(pauses):
        expected = min(FIRST_PAUSE * 2 ** number, LONGEST_PAUSE)
        assert (1 - JITTER) * expected - 1 <= pause <= (1 + JITTER) * expected
    assert len(set(pauses)) == 8 and bench.opening == 8
    bench.refuse = lambda _: None
    bench.add('up@a')
    bench.run()
    bench.refuse = lambda _: NoSession(DOWN)
    bench.add('down@a')
    bench.run(0.01)
    bench.add('more@a')
    assert bench.outs[-3:] == [('up@a', OK), ('down@a', 'connect'), ('more@a', 'unreachable')]
    assert bench.seconds <= (1 + JITTER) * FIRST_PAUSE
    bench.check()


def test_one_of_two_first_connections_is_enough(bench: Bench) -> None:
    bench.open_seconds = 1
    bench.refuse = lambda _: NoSession(DOWN) if bench.opening > 1 and not bench.sessions else None
    bench.add(*many(10))
    bench.run()
    assert bench.states == {OK: 10} or bench.states == {'connect': 10}
    bench.check()


def test_destinations_are_forgotten(bench: Bench) -> None:
    bench.add(*(f'r@d{number}' for number in range(100)))
    bench.run(KEPT_SECONDS / 2)
    bench.add('r@d1')
    bench.run(KEPT_SECONDS / 2 + 61)
    assert [str(one.place) for one in bench.scheduler._destinations] == ['d1 port 25']
    bench.run(KEPT_SECONDS)
    assert not list(bench.scheduler._destinations) and bench.reactor._timers.next_time() is None


def test_a_reused_connection_that_is_gone_is_no_attempt(bench: Bench) -> None:
    bench.outcome = lambda session, recipient: session.gone() if session.messages > 1 else None
    bench.add('1@a')
    bench.run(1)
    bench.add('2@a')
    bench.run()
    assert bench.sent == [('1@a', 0), ('2@a', 0), ('2@a', 1)] and bench.states == {OK: 2}
    bench.check()


@pytest.mark.parametrize(('messages', 'state', 'usable'), [
    (1, 'mailfrom', False), (2, 'mailfrom', True), (2, 'rcptto', False), (2, 'message', False)])
def test_what_is_an_attempt(bench: Bench, messages: int, state: str, usable: bool) -> None:
    def outcome(session: FakeSession, recipient: str) -> object:
        if session.messages < messages:
            return None
        session.usable = session.ready = usable
        return ClientFailure(state, 'lost', 'gone')

    bench.outcome = outcome
    bench.add('1@a')
    bench.run(1)
    bench.add('2@a')
    bench.run()
    assert bench.states[state] == (2 if messages == 1 else 1)
    assert len(bench.sent) == 2
    bench.check()


@pytest.mark.parametrize('place', ['open', 'send'])
def test_a_mistake_of_ours(bench: Bench, place: str) -> None:
    """Each job that meets it has its result, each time it is reported once, and the others are not held up."""
    faults: list[Exception] = [KeyError('oops'), KeyError('oops')]
    if place == 'open':
        bench.refuse = lambda _: faults.pop() if faults else None
    else:
        bench.outcome = lambda session, recipient: faults.pop() if faults else None
    bench.add(*many(3), '1@b')
    bench.run()
    assert bench.states == ({'process': 3, OK: 1} if place == 'open' else {'process': 2, OK: 2})
    assert len(bench.errors) == 2 and all('oops' in error and 'carrier to' in error for error in bench.errors)
    bench.check()


# stopping


def test_stop_finishes_what_is_sent_and_returns_the_rest(bench: Bench) -> None:
    bench.send_seconds = 10
    bench.add(*many(30))
    bench.run(1)
    assert bench.stop(30) == pytest.approx(9)
    assert bench.states == {OK: FIRST_WINDOW, 'returned': 30 - FIRST_WINDOW}
    bench.add('late@a')
    assert bench.outs[-1] == ('late@a', 'returned')
    bench.check()


def test_stop_is_bounded(bench: Bench) -> None:
    bench.send_seconds = 1000
    bench.add(*many(3), '1@b')
    bench.run(1)
    assert bench.stop(30) == pytest.approx(30)
    assert bench.states == {'returned': 4}
    bench.check()


def test_stop_while_connecting(bench: Bench) -> None:
    bench.open_seconds = 1000
    bench.add('1@a')
    bench.run(1)
    assert bench.stop(5) == 0
    assert bench.states == {'returned': 1}
    bench.check()


def test_stop_in_a_goodbye_without_end(bench: Bench) -> None:
    bench.quit_seconds = 1000
    bench.add('1@a')
    bench.run(IDLE_SECONDS + 1)
    assert bench.stop(5) == pytest.approx(5)
    bench.check()


def test_stop_does_not_wait_for_idle_connections(bench: Bench) -> None:
    bench.add('1@a', '1@b')
    bench.run(1)
    assert bench.stop(30) == pytest.approx(0)
    bench.check()


def test_what_would_line_up_again_while_stopping_is_returned(bench: Bench) -> None:
    bench.outcome = lambda session, recipient: session.gone() if session.messages > 1 else None
    bench.add('1@a')
    bench.run(1)
    bench.send_seconds = 10
    bench.add('2@a')
    bench.run(1)
    bench.stop(30)
    assert bench.outs == [('1@a', OK), ('2@a', 'returned')]
    bench.check()


def test_starving_destinations_at_the_stop(make: Callable[..., Bench]) -> None:
    bench = make(limit=1)
    bench.send_seconds = 5
    bench.add('1@a', '1@b', '1@c')
    bench.run(1)
    bench.stop(30)
    assert bench.states == {OK: 1, 'returned': 2}
    assert not bench.scheduler._carriers


def test_the_job_holds_what_it_needs() -> None:
    document = Document({'recipient': 'r@b.example', 'envelope': 's@a.example', 'mime': 'a\nb'})
    job = Job(Delivery('outbox', 1, b'', 0, 0), document, Route('b.example', 25, False))
    assert (job.envelope, job.mime) == (Envelope('s@a.example', 'r@b.example'), b'a\r\nb\r\n')
    assert 'mime' not in document.fields


def test_results_say_what_is_known_of_the_connection(bench: Bench) -> None:
    found: list[Any] = []
    bench.attempted = lambda job, result: found.append(result)  # type: ignore[method-assign]
    bench.add('1@a')
    bench.run()
    [result] = found
    assert result.dsn is True and result.connected.messages == 1 and result.connected.target == '192.0.2.2'
