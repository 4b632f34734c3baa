"""What is on pause, and who gets nothing."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from mqlite.delivery.pauses import HOLDS_PER_SECOND, LONGEST_HOLD, SHORTEST_HOLD, Holds, Pause, Pauses, read_pauses
from mqlite.delivery.suppressions import Suppression, read_suppressions
from tests.support.database import row
from tests.support.world import Server, World, start_world

NOW = 1_700_000_000.0


def paused(**values: Any) -> Pauses:
    return read_pauses([row('paused', **values)]).items


@pytest.mark.parametrize(('values', 'domain', 'pool', 'tags', 'holds'), [
    ({},                                        'a.example', '',  [],       True),
    ({'target': 'A.example.'},                  'a.example', '',  [],       True),
    ({'target': 'a.example'},                   'b.a.example', '', [],      False),
    ({'pool': 'p'},                             'a.example', 'p', [],       True),
    ({'pool': 'p'},                             'a.example', '',  [],       False),
    ({'tag': 't'},                              'a.example', '',  ['s', 't'], True),
    ({'tag': 't'},                              'a.example', '',  ['s'],    False),
    ({'tag': 't', 'target': 'a.example'},       'a.example', '',  ['t'],    True),
    ({'tag': 't', 'target': 'a.example'},       'b.example', '',  ['t'],    False),
    ({'expire': int(NOW) + 1},                  'a.example', '',  [],       True),
    ({'expire': int(NOW)},                      'a.example', '',  [],       False),
    ({'localip': '192.0.2.1'},                  'a.example', '',  [],       False),
    ({'target': '192.0.2.1'},                   'a.example', '',  [],       False),
])
def test_a_message_on_pause(values: dict[str, Any], domain: str, pool: str, tags: list[str], holds: bool) -> None:
    assert (paused(**values).of_message(domain, pool, tags, NOW) is not None) is holds


@pytest.mark.parametrize(('values', 'source', 'holds'), [
    ({'localip': '192.0.2.1'},                        '192.0.2.1', True),
    ({'localip': '192.0.2.1'},                        '192.0.2.2', False),
    ({'localip': '2001:DB8::1'},                      '2001:db8::1', True),
    ({'localip': '192.0.2.1', 'target': 'a.example'}, '192.0.2.1', True),
    ({'localip': '192.0.2.1', 'target': 'b.example'}, '192.0.2.1', False),
    ({'target': 'a.example'},                         '192.0.2.1', False),
])
def test_a_local_address_on_pause(values: dict[str, Any], source: str, holds: bool) -> None:
    assert (paused(**values).of_source(source, 'a.example', '', [], NOW) is not None) is holds


@pytest.mark.parametrize(('values', 'address', 'source', 'holds'), [
    ({'target': '192.0.2.1'},                          '192.0.2.1',   None,        True),
    ({'target': '2001:DB8::1'},                        '2001:db8::1', None,        True),
    ({'target': '192.0.2.1'},                          '192.0.2.2',   None,        False),
    ({'target': '192.0.2.1', 'localip': '192.0.2.9'},  '192.0.2.1',   '192.0.2.9', True),
    ({'target': '192.0.2.1', 'localip': '192.0.2.9'},  '192.0.2.1',   None,        False),
    ({'target': '192.0.2.1', 'expire': 1},             '192.0.2.1',   None,        False),
])
def test_the_address_of_a_server_on_pause(values: dict[str, Any], address: str, source: str | None,
                                          holds: bool) -> None:
    assert (paused(**values).of_address(address, source, NOW) is not None) is holds


def test_rows_that_cannot_be_kept_to_are_left_out() -> None:
    found = read_pauses([row('paused', id=7, target='192.0.2.1', tag='t'), row('paused', target='a.example')])
    assert [str(pause) for pause in found.items.all] == ['domain a.example'] and 'row 7' in found.faults[0]


def test_their_names() -> None:
    assert str(Pause()) == 'everything'
    assert str(Pause('192.0.2.1', 'p', 'a.example', '', 't')) == 'domain a.example mta 192.0.2.1 pool p tag t'


def test_few_are_looked_at_again_soon_and_many_seldom() -> None:
    holds, pause = Holds(), Pause()
    assert holds.next(pause, NOW) == SHORTEST_HOLD
    assert holds.next(Pause(expire=NOW + 3), NOW) == 3
    for _ in range(20 * HOLDS_PER_SECOND):
        last = holds.next(pause, NOW)
    assert last == pytest.approx(20, abs=0.1)
    for _ in range(1000 * HOLDS_PER_SECOND):
        last = holds.next(pause, NOW)
    assert last == LONGEST_HOLD
    assert holds.next(pause, NOW + 2 * LONGEST_HOLD) == SHORTEST_HOLD


@pytest.mark.parametrize(('values', 'recipient', 'found'), [
    ({'value': 'You@B.example', 'type': 'address', 'code': 551, 'extended': '5.1.1', 'description': 'Spamtrap'},
     'yoU@b.Example', Suppression(551, '5.1.1', 'Spamtrap')),
    ({'value': 'you@b.example'},                'you@b.example',  Suppression(550, '', 'suppressed')),
    ({'value': 'you@b.example'},                'me@b.example',   None),
    ({'value': 'B.example.', 'type': 'domain', 'code': 550}, 'me@b.example', Suppression(550, '', 'suppressed')),
    ({'value': 'b.example', 'code': 450},       'me@b.example',   Suppression(450, '', 'suppressed')),
    ({'value': 'b.example'},                    'me@a.b.example', None),
])
def test_a_suppression(values: dict[str, Any], recipient: str, found: Suppression | None) -> None:
    assert read_suppressions([row('suppressions', **values)]).items.of(recipient) == found


@pytest.mark.parametrize('values', [{'value': ''}, {'value': 'x', 'type': 'y'}, {'value': 'x', 'code': 250}])
def test_a_suppression_that_is_none(values: dict[str, Any]) -> None:
    found = read_suppressions([row('suppressions', id=9, **values)])
    assert not found.items and 'row 9' in found.faults[0]


# in the engine


@pytest.fixture
def world(closing: ExitStack) -> World:
    return start_world(closing, one=Server(seconds=1.0), two=Server(seconds=1.0))


def test_a_pause_and_its_end(world: World) -> None:
    """What waits goes back to the outbox, what is being sent is finished; what comes later waits outside, too."""
    world.publish_many(100, 'one')
    world.publish_many(20, 'two')
    world.run(1.5)
    world.pause({'target': 'one'})
    world.run(1.0)
    before = len(world.servers['one'].taken)
    assert world.store.held < 20
    world.publish_many(100, 'one')
    world.run(300)
    assert len(world.servers['one'].taken) == before and len(world.servers['two'].taken) == 20
    assert world.store.held == 0 and world.store.put_back < 200 * 32
    world.pause()
    world.run(60)
    assert len(world.servers['one'].taken) == 200 and world.errors == []


def test_a_pause_of_a_tag(world: World) -> None:
    world.publish_many(30, 'one', tags=['news', 'x'])
    world.publish_many(30, 'one', tags=['bills'])
    world.pause({'tag': 'news'})
    world.run(60)
    assert len(world.servers['one'].taken) == 30
    world.pause()
    world.run(60)
    assert len(world.servers['one'].taken) == 60


def test_a_pause_of_a_local_address(world: World) -> None:
    """The others are used; where there is no other, the message waits."""
    world.controls.pools = {'pair': ('192.0.2.1', '192.0.2.2'), 'single': ('192.0.2.1',)}
    world.pause({'localip': '192.0.2.1', 'target': 'one'})
    world.publish_many(10, 'one', pool='pair')
    world.publish_many(10, 'one', pool='single')
    world.publish_many(10, 'two', pool='single')
    world.run(30)
    assert len(world.servers['one'].taken) == 10 and len(world.servers['two'].taken) == 10
    assert {place.source for place in world.network.places if place.exchangers == (('one',),)} == {'192.0.2.2'}
    world.pause()
    world.run(30)
    assert len(world.servers['one'].taken) == 20


def test_a_pause_while_servers_are_looked_up(world: World) -> None:
    world.network.dns_seconds = 10.0
    world.publish_many(10, 'one')
    world.run(1)
    world.pause({'target': 'one'})
    world.run(20)
    assert world.servers['one'].connects == [] and world.store.held == 0


def test_everything_on_pause(world: World) -> None:
    world.pause({})
    world.publish_many(10, 'one')
    world.run(100)
    assert world.servers['one'].connects == [] and len(world.store) == 10


def test_a_pause_that_expires(world: World) -> None:
    world.pause({'target': 'one', 'expire': int(world.reactor.clock.time()) + 25})
    world.publish_many(10, 'one')
    world.run(24)
    assert world.servers['one'].taken == []
    world.run(10)
    assert len(world.servers['one'].taken) == 10


def test_time_that_is_over_is_over_on_pause_too(world: World) -> None:
    world.pause({})
    world.publish('1@one', maxdelivertime='2001-01-01 00:00:00')
    world.run(1)
    assert world.store.counts == {'results': 1, 'failure': 1}


def test_nothing_is_sent_to_who_is_suppressed(world: World) -> None:
    world.controls.suppressions = read_suppressions([row('suppressions', value='1@one')]).items
    world.publish_many(3, 'one')
    world.run(10)
    assert sorted(world.servers['one'].recipients) == ['0@one', '2@one']
    assert world.store.counts == {'results': 3, 'success': 2, 'failure': 1}


def test_a_pool_of_the_wrong_form_holds_up_nobody(closing: ExitStack) -> None:
    """Such a message has addresses of its own, and so nobody has looked at its pool."""
    world = start_world(closing, one=Server(seconds=10))
    for number in range(50):
        world.publish(f'{number}@one', ips=['192.0.2.1'], **({'pool': 5} if number == 25 else {}))
    world.run(15)
    world.pause({'tag': 'news'})
    world.force({'tag': 'old'})
    world.publish('late@one', ips=['192.0.2.1'], pool=5)
    world.run(600)
    assert (len(world.servers['one'].taken), world.store.counts['failure'], world.store.held) == (49, 2, 0)


@pytest.mark.parametrize('named', ['xn--bcher-kva.example', 'bücher.example', 'BÜCHER.example.'])
def test_a_domain_has_one_form(closing: ExitStack, named: str) -> None:
    """However the message and the table write it."""
    world = start_world(closing, **{'xn--bcher-kva': Server()})
    world.pause({'target': named})
    world.publish('jo@bücher.example')
    world.publish('jo@xn--bcher-kva.example')
    world.run(5)
    assert world.servers['xn--bcher-kva'].taken == []
    world.pause()
    world.limit({'domain': named, 'domain_maxmessages': 1})
    world.run(30)
    assert len(world.servers['xn--bcher-kva'].taken) == 1
    suppressions = read_suppressions([row('suppressions', value=named)]).items
    assert suppressions.of('jo@Bücher.example') and suppressions.of('JO@xn--bcher-kva.EXAMPLE')
