"""Jobs, carriers and connections: what goes to whom, in which order, over which connection.

The other files of this name: fairness, failures, stop.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from mqlite.delivery import verdict
from mqlite.delivery.attempt import NoSession
from mqlite.delivery.capacity import DEFAULT
from mqlite.delivery.destination import UNPROVEN
from mqlite.delivery.job import Job
from mqlite.delivery.route import Place, Route
from mqlite.delivery.standing import FIRST_WINDOW
from mqlite.message.document import Document
from mqlite.queues.contract import Delivery
from mqlite.smtp.envelope import Envelope
from tests.support import scheduler
from tests.support.scheduler import BIND, DOWN, IDLE_SECONDS, OK, Bench, many

bench, make = scheduler.bench, scheduler.make  # fixtures


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


# what a job and its result hold


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
