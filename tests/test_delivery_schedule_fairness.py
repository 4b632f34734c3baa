"""The limit on connections, and that it is shared: nobody starves, and what is free is used."""

from __future__ import annotations

from collections import Counter
from typing import Callable

from mqlite.delivery.fairness import FAIR_SECONDS, FAIR_SHARE
from tests.support import scheduler
from tests.support.scheduler import OK, Bench, many

bench, make = scheduler.bench, scheduler.make  # fixtures


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
