"""What the DNS cache keeps, how long, and what it lets go first."""

from __future__ import annotations

import pytest

from mqlite.dns.cache import MAX_NEGATIVE_TTL, MAX_TTL, Cache
from mqlite.dns.lookup import FAILURE_TTL, Answer, Failed, NoData, NoSuchDomain, Outcome
from mqlite.dns.message import Question, Type

WHAT = Question('example.com', Type.A)


@pytest.mark.parametrize(('outcome', 'seconds'), [
    (Answer(('192.0.2.1',), 300), 300),
    (Answer(('192.0.2.1',), 0), 60),
    (Answer(('192.0.2.1',), 59), 60),
    (Answer(('192.0.2.1',), 2 ** 31 - 1), MAX_TTL),
    (NoData(300), 300),
    (NoData(0), 60),
    (NoData(MAX_TTL), MAX_NEGATIVE_TTL),
    (NoSuchDomain(300), 300),
    (NoSuchDomain(0), 60),
    (NoSuchDomain(MAX_TTL), MAX_NEGATIVE_TTL),
    (Failed('no reply'), FAILURE_TTL),
], ids=repr)
def test_how_long(outcome: Outcome, seconds: float) -> None:
    cache = Cache(min_ttl=60)
    cache.put(WHAT, outcome, 1000)
    assert cache.get(WHAT, 1000) is outcome
    assert cache.get(WHAT, 1000 + seconds - 0.001) is outcome
    assert cache.get(WHAT, 1000 + seconds) is None
    assert len(cache) == 0


def test_questions_are_kept_apart() -> None:
    cache = Cache(min_ttl=60)
    cache.put(WHAT, NoData(0), 0)
    assert cache.get(Question('example.com', Type.AAAA), 0) is None
    assert cache.get(Question('example.org', Type.A), 0) is None


def test_the_newest_outcome_replaces_the_one_before() -> None:
    cache = Cache(min_ttl=60, capacity=4)
    for _ in range(10):
        cache.put(WHAT, Answer(('192.0.2.1', '192.0.2.2'), 300), 0)
    cache.put(WHAT, NoData(0), 100)
    assert cache.get(WHAT, 159) == NoData(0) and cache.get(WHAT, 160) is None


def test_the_least_recently_used_goes_first() -> None:
    cache = Cache(min_ttl=60, capacity=3)
    a, b, c, d = [Question(name, Type.A) for name in 'abcd']
    for question in (a, b, c):
        cache.put(question, NoData(0), 0)
    cache.get(a, 1)
    cache.put(d, NoData(0), 2)
    assert [question.name for question in (a, b, c, d) if cache.get(question, 3)] == ['a', 'c', 'd']


def test_records_weigh_as_well() -> None:
    cache = Cache(min_ttl=60, capacity=10)
    for n in range(5):
        cache.put(Question(f'{n}.example', Type.A), Answer(tuple(f'192.0.2.{n}' for n in range(4)), 300), 0)
    assert len(cache) == 2


def test_an_outcome_larger_than_the_cache_is_not_kept() -> None:
    cache = Cache(min_ttl=60, capacity=3)
    cache.put(WHAT, Answer(('192.0.2.1', '192.0.2.2', '192.0.2.3'), 300), 0)
    assert len(cache) == 0
