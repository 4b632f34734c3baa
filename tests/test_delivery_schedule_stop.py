"""The end of the scheduler: what is sent is finished, the rest is returned, and it takes no longer than it may."""

from __future__ import annotations

from typing import Callable

import pytest

from mqlite.delivery.standing import FIRST_WINDOW
from tests.support import scheduler
from tests.support.scheduler import IDLE_SECONDS, OK, Bench, many

bench, make = scheduler.bench, scheduler.make  # fixtures


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


def test_stop_while_exchangers_are_looked_up(bench: Bench) -> None:
    bench.dns_seconds = {'a': 100.0}
    bench.add('1@a', '2@a')
    bench.run(1)
    assert bench.stop(30) == 0 and bench.states == {'returned': 2}
