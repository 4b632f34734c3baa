"""Pauses, forced errors and answers that stop messages whose commands have left already, behind another message."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Callable

import pytest

from mqlite.smtp.reply import Reply
from tests.support.world import Server, World, start_world


@pytest.fixture
def world(closing: ExitStack) -> World:
    """The server `one` takes a second for a message."""
    return start_world(closing, one=Server(seconds=1.0, pipelining=True))


@pytest.mark.parametrize('stop', [
    lambda world: world.pause({'target': 'one'}),
    lambda world: world.pause({'tag': 'news'}),
], ids=['domain', 'tag'])
def test_a_pause(world: World, stop: Callable[[World], None]) -> None:
    """What is being sent is finished; what was only announced waits, and is sent once."""
    world.publish_many(100, 'one', tags=['news'])
    world.run(3.5)
    before, sending = len(world.servers['one'].taken), world.servers['one'].open
    stop(world)
    world.run(5)
    assert len(world.servers['one'].taken) == before + sending and world.servers['one'].open == 0
    assert world.store.counts['success'] + len(world.store) == 100
    world.pause()
    world.run(1300)
    assert sorted(world.servers['one'].recipients) == sorted(f'{number}@one' for number in range(100))
    assert world.errors == []


def test_a_forced_error(world: World) -> None:
    world.publish_many(100, 'one')
    world.run(3.5)
    before, sending = len(world.servers['one'].taken), world.servers['one'].open
    world.force({'target': 'one'})
    world.run(60)
    assert len(world.servers['one'].taken) == before + sending == world.store.counts['success']
    assert world.store.counts['failure'] == 100 - before - sending and world.store.held == 0 and world.errors == []


def test_a_connection_that_is_not_to_be_used(world: World) -> None:
    """It ends with the message in hand; what was announced there goes over another one."""
    world.publish_many(100, 'one')
    world.run(3.5)
    server = world.servers['one']
    before, sending = len(server.connects), server.open
    world.pause({'target': '192.0.2.2'})
    world.run(1)
    assert len(server.connects) == before + sending
    world.run(60)
    assert len(set(server.recipients)) == len(server.recipients) == 100 and world.errors == []


def test_an_answer_that_orders_a_pause(world: World) -> None:
    """Those that are being sent when it comes get their answers; no other message is begun."""
    world.flood({'pattern': 'too many', 'type': 'substr', 'pause': 60})
    world.publish_many(100, 'one')
    world.run(3.5)
    server = world.servers['one']
    before, sending = len(server.taken), server.open
    server.refusal = Reply(450, '', ('too many',))
    world.run(1)
    server.refusal = None
    world.run(50)
    assert len(server.taken) == before and world.store.counts['retry'] == sending and server.open == 0
    world.run(1300)
    assert len(set(server.recipients)) == len(server.recipients) == 100 and world.errors == []
