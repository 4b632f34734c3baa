"""The limits of destinations: kept to, evenly, from the moment they change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Callable

import pytest

from tests.support.world import Server, World

Make = Callable[..., World]


@pytest.fixture
def make(closing: ExitStack) -> Make:
    """make(limits, server='…'): a world with the server `one`, and another one, `free`."""
    def start(*limits: dict[str, Any], workers: int = 1, **server: Any) -> World:
        world = World({'one': Server(**server), 'free': Server()}, workers=workers)
        closing.callback(world.close)
        world.limit(*limits)
        world.engine.start()
        return world
    return start


def gaps(moments: list[float]) -> Iterator[float]:
    return (later - earlier for earlier, later in zip(moments, moments[1:]))


@pytest.mark.parametrize(('per_minute', 'seconds'), [(6, 0.05), (60, 0.05), (60, 3.0), (600, 0.3), (6000, 0.05)])
def test_messages_per_minute(make: Make, per_minute: int, seconds: float) -> None:
    """The set rate within 5 %, evenly, however long a message takes; and what is not limited is not."""
    world = make({'domain': 'one', 'domain_maxmessages': per_minute}, seconds=seconds)
    world.publish_many(per_minute * 5 // 4)
    world.publish_many(50, 'free')
    world.run(65)
    begin = world.servers['one'].taken[0]
    taken = [moment for moment in world.servers['one'].taken if moment < begin + 59.9]
    assert 0.95 * per_minute <= len(taken) <= 1.05 * per_minute
    assert all(gap == pytest.approx(60 / per_minute, abs=0.05) for gap in gaps(taken))
    assert len(world.servers['free'].taken) == 50 and world.servers['free'].taken[-1] < 1


def test_a_slow_pace_keeps_no_connection_for_long(make: Make) -> None:
    world = make({'domain': 'one', 'domain_maxmessages': 2})
    world.publish_many(10)
    world.run(290)
    assert len(world.servers['one'].connects) == len(world.servers['one'].taken) == 10
    assert [round(gap) for gap in gaps(world.servers['one'].taken)] == [30] * 9
    assert world.servers['one'].open == 0


def test_a_pace_of_connections_that_come_late(make: Make) -> None:
    """Each message needs a connection, which takes seconds: the rate is kept all the same."""
    world = make({'domain': 'one', 'domain_maxmessages': 6, 'connection_maxmessages': 1}, connect_seconds=4.0)
    world.publish_many(60)
    world.run(605)
    assert 57 <= len(world.servers['one'].taken) <= 61


@pytest.mark.parametrize('most', [1, 3, 40])
def test_connections(make: Make, most: int) -> None:
    world = make({'domain': 'one', 'domain_maxconnections': most}, seconds=1.0)
    world.publish_many(300)
    world.run(400)
    assert world.servers['one'].most_open == most and len(world.servers['one'].taken) == 300


def test_messages_per_connection(make: Make) -> None:
    world = make({'domain': 'one', 'connection_maxmessages': 7, 'domain_maxconnections': 2})
    world.publish_many(70)
    world.run(60)
    assert len(world.servers['one'].taken) == 70 and 10 <= len(world.servers['one'].connects) <= 11


def test_attempts_to_connect_per_minute(make: Make) -> None:
    world = make({'domain': 'one', 'domain_maxconnects': 30, 'connection_maxmessages': 1})
    world.publish_many(100)
    world.run(100)
    connects = world.servers['one'].connects
    assert 48 <= len(connects) <= 51 and all(gap == pytest.approx(2.0, abs=0.1) for gap in gaps(connects))


def test_the_time_that_a_connection_is_kept(make: Make) -> None:
    world = make({'domain': 'one', 'connection_maxidletime': 60_000})
    world.publish_many(1)
    world.run(59)
    assert world.servers['one'].open == 1
    world.publish_many(1)
    world.run(62)
    assert world.servers['one'].open == 0 and len(world.servers['one'].connects) == 1


def test_the_limits_of_a_domain_hold_for_all_with_its_exchangers(make: Make) -> None:
    """Also when there is no mail for it; and before it was looked up when there is."""
    world = make({'domain': 'one.named', 'domain_maxmessages': 60})
    world.run(1)
    for number in range(100):
        world.publish(f'r@one.other{number}')
    world.run(10)
    assert 9 <= len(world.servers['one'].taken) <= 11
    world = make({'domain': 'one.named', 'domain_maxmessages': 60})
    world.publish('r@one.named')
    for number in range(100):
        world.publish(f'r@one.other{number}')
    world.run(10)
    assert 9 <= len(world.servers['one'].taken) <= 11


def test_a_change_holds_at_once(make: Make) -> None:
    world = make({'domain': 'one', 'domain_maxmessages': 6})
    world.publish_many(3000)
    world.run(60)
    assert 6 <= len(world.servers['one'].taken) <= 7
    world.limit({'domain': 'one', 'domain_maxmessages': 600})
    world.run(30)
    assert 290 <= len(world.servers['one'].taken) <= 310
    world.limit({'domain': 'one', 'domain_maxconnections': 1})
    world.run(2)
    assert world.servers['one'].open == 1
    before = len(world.servers['one'].taken)
    world.limit({'domain': 'one', 'domain_maxmessages': 60})
    world.run(20)
    assert 19 <= len(world.servers['one'].taken) - before <= 22
    world.limit()
    world.run(1250)
    assert len(world.servers['one'].taken) == 3000 and world.errors == []


@pytest.mark.parametrize('pipelining', [False, True])
def test_fewer_connections_than_there_are(make: Make, pipelining: bool) -> None:
    """Also when each connection has announced one more message: after that one."""
    world = make({'domain': 'one', 'domain_maxconnections': 20}, seconds=1.0, pipelining=pipelining)
    world.publish_many(400)
    world.run(10)
    assert world.servers['one'].open == 20
    world.limit({'domain': 'one', 'domain_maxconnections': 3})
    world.run(2.5 if pipelining else 1.5)
    assert world.servers['one'].open == 3


def test_limits_are_shared_by_the_workers(make: Make) -> None:
    world = make({'domain': 'one', 'domain_maxmessages': 600, 'domain_maxconnections': 8}, workers=4, seconds=1.0)
    world.publish_many(500)
    world.run(60)
    assert world.servers['one'].most_open == 2 and 100 <= len(world.servers['one'].taken) <= 125


def test_who_differs_in_security_only_shares_a_pace(make: Make) -> None:
    """To the servers they are one client; and none of them waits for the end of the others."""
    world = make({'domain': 'one', 'domain_maxmessages': 60, 'domain_maxconnects': 30, 'connection_maxmessages': 3})
    levels = ('optional', 'opportunistic', 'required')
    for level in levels:
        world.publish_many(100, security=level)
    world.run(62)
    assert 57 <= len(world.servers['one'].taken) <= 62
    assert len(world.servers['one'].connects) <= 31
    world.run(250)
    assert len(world.servers['one'].taken) == 300


def test_who_differs_in_security_only_takes_turns(make: Make) -> None:
    world = make({'domain': 'one', 'domain_maxmessages': 60})
    for level in ('optional', 'required'):
        for number in range(100):
            world.publish(f'{level}{number}@one', security=level)
    world.run(42)
    counts = Counter(recipient[:3] for recipient in world.servers['one'].recipients)
    assert sum(counts.values()) >= 40 and abs(counts['opt'] - counts['req']) <= 2


def test_tags_share_a_pace(make: Make) -> None:
    world = make({'domain': 'one', 'domain_maxmessages': 60})
    world.publish_many(300, tags=['news'])
    world.publish_many(10, tags=['bills'])
    world.run(25)
    tags = Counter(recipient for recipient in world.servers['one'].recipients)
    assert len(tags) >= 15 and sum(count == 2 for count in tags.values()) == 10


def test_what_a_pace_leaves_waits_outside(make: Make) -> None:
    """Far more than is held: the pace is kept to for an hour."""
    world = make({'domain': 'one', 'domain_maxmessages': 60})
    world.publish_many(4000)
    world.run(3600)
    assert len(world.servers['one'].taken) == pytest.approx(3600, rel=0.01)
    assert world.store.held < 520 and world.store.put_back < 3 * 4000
