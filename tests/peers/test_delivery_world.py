"""100,000 messages for 1,000 domains on 100 exchangers, a tenth of them slow or down, one that refuses connections."""

from __future__ import annotations

import random
from contextlib import ExitStack

import pytest

from tests.support.world import Server, World

MESSAGES, EXCHANGERS, DOMAINS = 100_000, 100, 10  # domains per exchanger
RATE = 600  # per minute, to one of the healthy ones


def servers() -> dict[str, Server]:
    made = {f'good{number}': Server(seconds=0.05) for number in range(EXCHANGERS - 12)}
    made.update({f'slow{number}': Server(seconds=30.0) for number in range(5)})
    made.update({f'dead{number}': Server(down=True) for number in range(5)})
    return {**made, 'busy': Server(most=4), 'paced': Server()}


def publish(world: World, names: list[str]) -> None:
    recipients = [f'{number}@{names[number % EXCHANGERS]}.d{number // EXCHANGERS % DOMAINS}'
                  for number in range(MESSAGES)]
    random.Random(1).shuffle(recipients)
    for recipient in recipients:
        if recipient.partition('@')[2].partition('.')[0] in names:
            world.publish(recipient)


def healthy_done(world: World) -> float:
    return max(server.taken[-1] for name, server in world.servers.items() if name.startswith('good'))


@pytest.mark.parametrize('connections', [500, 200])  # of 500, a refused one is met; of 200, everybody has one or two
def test_a_hundred_thousand_messages(closing: ExitStack, connections: int) -> None:
    names = list(servers())
    assert len(names) == EXCHANGERS
    count = MESSAGES // EXCHANGERS
    only_good = {name: server for name, server in servers().items() if name.startswith('good')}
    alone = World(only_good, connections=connections)
    world = World(servers(), connections=connections)
    for one in (alone, world):
        closing.callback(one.close)
        one.limit({'domain': 'paced.d3', 'domain_maxmessages': RATE})
        publish(one, names if one is world else [*only_good, *([''] * 12)])
        one.engine.start()
        one.run(120)
    healthy = [server for name, server in world.servers.items() if name.startswith('good')]
    print(f'healthy: {healthy_done(world):.1f} s, alone {healthy_done(alone):.1f} s; '
          f'in hand at most {world.store.most_held}, put back {world.store.put_back}')
    assert all(len(server.taken) == count for server in healthy)
    assert healthy_done(world) < 1.4 * healthy_done(alone)
    paced = [moment for moment in world.servers['paced'].taken if moment < 90]
    assert RATE * 0.95 <= 60 * (len(paced) - 1) / (paced[-1] - paced[0]) <= RATE * 1.05
    busy = world.servers['busy']
    assert busy.most_open == (4 if connections == 500 else 2) and len(busy.taken) == count and busy.refused < 15
    world.run(3600)
    for number in range(5):
        slow, dead = world.servers[f'slow{number}'], world.servers[f'dead{number}']
        assert len(slow.taken) == count, 'nobody starves'
        assert len(dead.connects) < 60 and not dead.taken
    assert world.store.most_held <= 1000 and world.errors == []
    assert world.store.counts['success'] == MESSAGES - 5 * count
