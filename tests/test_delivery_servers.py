"""The limits of each address of a destination's servers: what they leave room for, and kept to by the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Callable

import pytest

from mqlite.delivery.capacity import Capacity
from mqlite.delivery.explain import Question
from mqlite.delivery.servers import FULL_SECONDS, MOST, Servers, Visit
from mqlite.smtp.reply import Reply
from mqlite.why_text import write_answer
from tests.support.world import Server, World

Make = Callable[..., World]
ADDRESSES = ('192.0.2.2', '192.0.2.3', '192.0.2.4')


def servers(**limits: float) -> Servers:
    made = Servers()
    made.limit(Capacity(**{f'address_{name}': value for name, value in limits.items()}), 0.0)  # type: ignore[arg-type]
    return made


def visiting(of: Servers, address: str, now: float) -> Visit:
    visit = Visit(of)
    visit.enter(address, now)
    return visit


def test_connections() -> None:
    """They are counted by address, until they end, and only once."""
    found = servers(connections=2)
    first, second = visiting(found, 'a', 0.0), visiting(found, 'a', 0.0)
    assert found.wait('a', 1.0) == FULL_SECONDS and found.wait('b', 1.0) == 0.0
    assert first.leave() and not first.leave() and found.wait('a', 1.0) == 0.0
    third = visiting(found, 'a', 2.0)
    assert not third.is_crowded
    found.limit(Capacity(address_connections=1), 3.0)
    assert [one.is_crowded for one in (second, third)] == [True, True]
    third.leave()
    assert [one.is_crowded for one in (second, third)] == [False, False]


def test_attempts_to_connect() -> None:
    found = servers(connects=6)
    visiting(found, 'a', 100.0).leave()
    assert found.wait('a', 104.0) == pytest.approx(6.0) and found.wait('a', 110.0) == found.wait('b', 100.0) == 0.0
    found.limit(Capacity(), 104.0)
    assert found.wait('a', 104.0) == 0.0


def test_messages() -> None:
    """Also a connection to an address that may have no message now is of no use."""
    found = servers(messages=30)
    one, other = visiting(found, 'a', 100.0), visiting(found, 'b', 98.0)
    assert one.message_wait(100.5) == 0.0 and found.wait('a', 100.5) == pytest.approx(1.5), 'it came for one'
    one.take(100.5)
    assert one.message_wait(100.5) == pytest.approx(1.5) == found.wait('a', 100.5)
    other.missed()
    assert other.message_wait(99.5) == pytest.approx(0.5) and found.wait('b', 100.5) == 0.0
    one.take(102.0)
    one.take(110.0)
    assert one.message_wait(110.0) == pytest.approx(2.0), 'the time before is no credit'


def test_a_message_that_did_not_go() -> None:
    """A kept connection was gone: the next one need not wait for it."""
    one = visiting(servers(messages=30), 'a', 100.0)
    one.take(100.0)
    one.take(102.0)
    assert one.message_wait(102.0) == pytest.approx(2.0)
    one.give_back()
    assert one.message_wait(102.0) == 0.0
    one.leave()
    one.give_back()


def test_memory_is_bounded() -> None:
    found = servers(connects=6)
    kept = visiting(found, 'kept', 0.0)
    for number in range(5 * MOST):
        visiting(found, f'{number}', 0.0).leave()
    assert found.wait('kept', 1.0) and not found.wait('0', 1.0) and found.wait(f'{5 * MOST - 1}', 1.0)
    assert kept.leave()


# in the engine


@pytest.fixture
def make(closing: ExitStack) -> Make:
    """make(limits, server='…'): a world with the server `one` at three addresses, and another one, `free`."""
    def start(*limits: dict[str, Any], workers: int = 1, **server: Any) -> World:
        world = World({'one': Server(addresses=ADDRESSES, **server), 'free': Server()}, workers=workers)
        closing.callback(world.close)
        world.limit(*limits)
        world.engine.start()
        return world
    return start


def gaps(moments: list[float]) -> Iterator[float]:
    return (later - earlier for earlier, later in zip(moments, moments[1:]))


@pytest.mark.parametrize(('most', 'in_all'), [(1, 20), (3, 20), (40, 20), (3, 5)])
def test_connections_to_an_address(make: Make, most: int, in_all: int) -> None:
    world = make({'domain': 'one', 'ip_maxconnections': most, 'domain_maxconnections': in_all}, seconds=1.0)
    world.publish_many(300)
    world.publish_many(50, 'free')
    world.run(30)
    one = world.servers['one']
    assert max(one.most_at.values()) == min(most, in_all) and one.most_open == min(3 * most, in_all)
    assert len(world.servers['free'].taken) == 50
    world.run(200)
    assert len(one.taken) == 300 and world.errors == [] and one.refused == 0


@pytest.mark.parametrize(('per_minute', 'seconds'), [(6, 0.05), (60, 0.05), (60, 2.5), (600, 0.3)])
def test_messages_per_minute_and_address(make: Make, per_minute: int, seconds: float) -> None:
    """The set rate within 5 % at each of the addresses, evenly, and no connection more than is of use."""
    world = make({'domain': 'one', 'ip_maxmessages': per_minute}, seconds=seconds)
    world.publish_many(per_minute * 4)
    world.publish_many(50, 'free')
    world.run(70)
    one = world.servers['one']
    for address in ADDRESSES:
        begin = one.taken_at[address][0]
        taken = [moment for moment in one.taken_at[address] if moment < begin + 59.9]
        assert 0.95 * per_minute <= len(taken) <= 1.05 * per_minute + 1
        assert all(gap > 60 / per_minute - 0.05 for gap in gaps(taken)), 'also while there are few connections'
        assert all(gap == pytest.approx(60 / per_minute, abs=0.05) for gap in gaps(taken[5:]))
    assert world.servers['free'].taken[-1] < 1
    world.run(60)
    assert len(one.taken) == 4 * per_minute and world.errors == []
    assert one.most_open <= 3 * (1 + seconds * per_minute / 60)


def test_attempts_to_connect_per_minute_and_address(make: Make) -> None:
    """5 per minute and address, 15 in all."""
    world = make({'domain': 'one', 'ip_maxconnects': 5, 'connection_maxmessages': 1})
    world.publish_many(100)
    world.run(120)
    for address in ADDRESSES:
        connects = world.servers['one'].connects_at[address]
        assert 9 <= len(connects) <= 11 and all(gap == pytest.approx(12.0, abs=0.5) for gap in gaps(connects))
    assert len(world.servers['one'].taken) == sum(map(len, world.servers['one'].connects_at.values()))


def test_who_differs_in_security_only_shares_the_paces_of_an_address(make: Make) -> None:
    world = make({'domain': 'one', 'ip_maxmessages': 30, 'ip_maxconnects': 6, 'connection_maxmessages': 7})
    levels = ('optional', 'opportunistic', 'required')
    for level in levels:
        world.publish_many(100, security=level)
    world.run(62)
    one = world.servers['one']
    assert all(26 <= len(one.taken_at[address]) <= 32 for address in ADDRESSES)
    assert all(len(one.connects_at[address]) <= 8 for address in ADDRESSES)
    assert all(sum(place.security.level == level for place in world.network.places) >= 2 for level in levels)
    world.run(250)
    assert len(one.taken) == 300 and world.errors == []


def test_all_of_them_together(make: Make) -> None:
    """The limits of the destination hold as well."""
    world = make({'domain': 'one', 'ip_maxmessages': 60, 'ip_maxconnections': 1, 'domain_maxmessages': 90})
    world.publish_many(300)
    world.run(60)
    one = world.servers['one']
    assert len(one.taken) == pytest.approx(90, abs=3) and max(one.most_at.values()) == 1
    assert all(len(taken) <= 61 for taken in one.taken_at.values())


def test_a_slow_pace_keeps_no_connection_for_long(make: Make) -> None:
    world = make({'domain': 'one', 'ip_maxmessages': 2})
    world.publish_many(20)
    world.run(100)
    one = world.servers['one']
    assert len(one.taken) == len(one.connects) == 12 and one.open == 0


def test_each_local_address_has_its_own(make: Make) -> None:
    world = make({'domain': 'one', 'ip_maxconnections': 1}, {'domain': 'one', 'localip': '192.0.2.9',
                                                            'ip_maxconnections': 2}, seconds=1.0)
    for number in range(200):
        world.publish(f'{number}@one', ips=['192.0.2.9' if number % 2 else '192.0.2.8'])
    world.run(10)
    assert world.servers['one'].most_open == 3 + 6


def test_a_change_holds_at_once(make: Make) -> None:
    """Also for connections that were opened when there was no such limit."""
    world = make(seconds=1.0)
    world.publish_many(900)
    world.run(10)
    one = world.servers['one']
    assert one.open_at[ADDRESSES[0]] == 20
    world.limit({'domain': 'one', 'ip_maxconnections': 2})
    world.run(3)
    assert one.open == 6 and max(one.open_at.values()) == 2
    world.limit({'domain': 'one', 'ip_maxconnections': 1})
    world.run(2)
    assert one.open == 3
    world.limit({'domain': 'one', 'ip_maxmessages': 30})
    world.run(2)
    before = len(one.taken)
    world.run(20)
    assert len(one.taken) - before == pytest.approx(30, abs=4)
    world.limit()
    world.run(1300)
    assert len(one.taken) == 900 and world.errors == []


def test_the_limits_are_shared_by_the_workers(make: Make) -> None:
    world = make({'domain': 'one', 'ip_maxmessages': 240, 'ip_maxconnections': 4}, workers=4)
    world.publish_many(300)
    world.run(60)
    assert max(world.servers['one'].most_at.values()) == 1
    assert len(world.servers['one'].taken) == pytest.approx(180, abs=6)


def test_they_go_down_for_a_while_after_an_answer(make: Make) -> None:
    world = make({'domain': 'one', 'ip_maxconnections': 4}, seconds=1.0)
    world.flood({'pattern': '', 'type': 'substr'}, {'pattern': '^4', 'type': 'regex', 'duration': 60,
                                                    'ip_maxconnections': 1})
    world.publish_many(900)
    world.run(10)
    one = world.servers['one']
    assert one.open == 12
    one.refusal = Reply(450, '4.7.0', ('slow down',))
    world.run(1.2)
    one.refusal = None
    world.run(2)
    assert one.open == 3
    world.run(80)
    assert one.open == 12


def test_why_says_so(make: Make) -> None:
    world = make({'domain': 'one', 'ip_maxconnections': 1}, seconds=10.0)
    world.publish_many(100)
    world.run(12)

    def told() -> str:
        return write_answer('one', [world.engine.explain(Question('one'), 1)], None, [])
    assert 'connections per address 1' in told()
    assert 'held: no address of its servers may have another connection, for ' in told()
    world.limit({'domain': 'one', 'ip_maxmessages': 20})
    world.servers['one'].seconds = 0.1
    world.run(15.5)
    assert 'held: at most 20 messages per minute and address, for ' in told()
