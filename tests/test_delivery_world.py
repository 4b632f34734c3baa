"""Who shares what: many destinations, some of them slow, down or limited, and nobody is to suffer for another.

The same in large, with 100,000 messages, is in tests/peers/test_delivery_world.py.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from mqlite.delivery.room import AGAIN_PER_SECOND
from tests.support.world import Server, World

DOMAINS = 10  # of each server


def mixed(count: int, names: list[str], domains: int = DOMAINS) -> Iterator[str]:
    """Recipients for each server, all mixed."""
    recipients = [f'r{number}@{name}.d{number % domains}' for name in names for number in range(count)]
    random.Random(1).shuffle(recipients)
    return iter(recipients)


def done_at(world: World, names: list[str]) -> float:
    """When the last message of these servers was taken."""
    return max(world.servers[name].taken[-1] for name in names)


def run_healthy_and(others: dict[str, Server], closing: ExitStack, healthy: int, count: int,
                    seconds: float) -> tuple[World, list[str], float]:
    """A world with healthy servers and others; the time that the healthy ones take when they are alone."""
    names = [f'good{number}' for number in range(healthy)]
    alone = World({name: Server() for name in names})
    world = World({**{name: Server() for name in names}, **others})
    for one in (alone, world):
        closing.callback(one.close)
        for recipient in mixed(count, list(one.servers)):
            one.publish(recipient)
        one.engine.start()
        one.run(seconds)
        assert all(len(one.servers[name].taken) == count for name in names) and one.errors == []
    return world, names, done_at(alone, names)


def test_slow_and_dead_servers_delay_nobody(closing: ExitStack) -> None:
    others = {'slow1': Server(seconds=30), 'slow2': Server(seconds=30), 'dead1': Server(down=True),
              'dead2': Server(down=True), 'busy': Server(most=3)}
    world, names, alone = run_healthy_and(others, closing, healthy=15, count=150, seconds=600)
    assert done_at(world, names) <= 1.5 * alone + 1
    assert world.store.most_held <= 1000 and world.engine._room.count == world.store.held
    assert len(others['busy'].taken) == 150 and others['busy'].most_open == 3 and others['busy'].refused <= 5
    for name in ('slow1', 'slow2'):
        assert len(others[name].taken) == 150, 'as many connections as it is worth'
    for name in ('dead1', 'dead2'):
        assert len(others[name].connects) <= 12


def test_room_is_not_held_by_one_slow_server(closing: ExitStack) -> None:
    """Three thousand messages for it come first, then some for others."""
    world = World({'slow': Server(seconds=60), 'good': Server()})
    closing.callback(world.close)
    for number in range(3000):
        world.publish(f'{number}@slow')
    for number in range(300):
        world.publish(f'{number}@good')
    world.engine.start()
    world.run(15)
    assert len(world.servers['good'].taken) == 300
    world.run(585)
    assert 60 <= len(world.servers['slow'].taken) <= 200
    assert world.store.put_back < 1.2 * 600 * AGAIN_PER_SECOND
    assert len(world.store) + world.store.held + len(world.servers['slow'].taken) == 3000


@pytest.mark.parametrize(('size', 'slow', 'good'), [(300_000, 300, 30), (3_000_000, 40, 5)])
def test_room_is_counted_in_bytes(closing: ExitStack, size: int, slow: int, good: int) -> None:
    world = World({'slow': Server(seconds=60), 'good': Server()})
    closing.callback(world.close)
    for number in range(slow):
        world.publish(f'{number}@slow', size=size)
    for number in range(good):
        world.publish(f'{number}@good', size=size)
    world.engine.start()
    world.run(10)
    assert len(world.servers['good'].taken) == good
    assert world.store.most_size <= world.engine._room.most_size + size + 100


def test_name_servers_that_do_not_answer_hold_no_room(closing: ExitStack) -> None:
    world = World({'good': Server(), 'lost': Server()})
    closing.callback(world.close)
    world.network.dns_seconds = 1000.0
    for number in range(2000):
        world.publish(f'r@lost.d{number}')
    world.engine.start()
    world.run(1)
    world.network.dns_seconds = 0.02
    for number in range(100):
        world.publish(f'{number}@good')
    world.run(20)
    assert len(world.servers['good'].taken) == 100


def test_a_crowd_of_slow_servers(closing: ExitStack) -> None:
    """There are more of them than connections: everybody has a turn."""
    slow = {f'slow{number}': Server(seconds=10) for number in range(100)}
    world = World({**slow, 'good': Server()}, connections=60)
    closing.callback(world.close)
    for recipient in mixed(30, list(slow), domains=1):
        world.publish(recipient)
    for number in range(300):
        world.publish(f'{number}@good')
    world.engine.start()
    world.run(300)
    taken = [len(server.taken) for server in slow.values()]
    assert min(taken) >= 10 and len(world.servers['good'].taken) >= 60
    world.run(600)
    assert all(len(server.taken) == 30 for server in slow.values())


def test_what_was_put_back_comes_when_there_is_room(closing: ExitStack) -> None:
    """The server of a destination that was slow has become fast."""
    world = World({'one': Server(seconds=60), 'other': Server(seconds=60)})
    closing.callback(world.close)
    for number in range(1000):
        world.publish(f'{number}@one')
        world.publish(f'{number}@other')
    world.engine.start()
    world.run(120)
    for server in world.servers.values():
        server.seconds = 0.05
    world.run(1500)
    assert all(len(server.taken) == 1000 for server in world.servers.values())


def test_a_server_that_is_slow_to_greet_is_not_slow(closing: ExitStack) -> None:
    """Far more than half of the room waits for it meanwhile; what is put back comes again within seconds."""
    world = World({'one': Server(connect_seconds=6.0)})
    closing.callback(world.close)
    for number in range(3000):
        world.publish(f'{number}@one')
    world.engine.start()
    world.run(80)
    assert len(world.servers['one'].taken) == 3000
