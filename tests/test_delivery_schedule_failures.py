"""Jobs whose server fails, hangs up or cannot be reached, and mistakes of ours: each comes out once all the same."""

from __future__ import annotations

import pytest

from mqlite.delivery import verdict
from mqlite.delivery.attempt import NoSession
from mqlite.delivery.destination import UNPROVEN
from mqlite.delivery.destinations import KEPT_SECONDS
from mqlite.delivery.forced import ForcedError
from mqlite.delivery.standing import FIRST_PAUSE, FIRST_WINDOW, HOLD_SECONDS, JITTER, LONGEST_PAUSE
from mqlite.smtp.reply import ClientFailure
from tests.support import scheduler
from tests.support.scheduler import DOWN, OK, Bench, FakeSession, many

bench, make = scheduler.bench, scheduler.make  # fixtures


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


def test_a_mistake_of_ours_in_the_lookup(bench: Bench) -> None:
    bench.servers = {'a': KeyError('oops')}
    bench.add('1@a', '1@b')
    bench.run()
    assert sorted(bench.outs) == [('1@a', 'process'), ('1@b', OK)] and len(bench.errors) == 1
