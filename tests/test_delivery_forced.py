"""What fails because the operator wants it to: which messages, with which answer, and in the engine."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mqlite.database.live import Database
from mqlite.delivery import verdict
from mqlite.delivery.controls import Controls
from mqlite.delivery.explain import Question
from mqlite.delivery.forced import ForcedError, read_errors
from mqlite.loop.reactor import Reactor
from mqlite.message.document import Document
from tests.support.database import Notes, execute, insert, make_database, row
from tests.support.world import Server, World, start_world

NOW = 1_700_000_000.0


@pytest.mark.parametrize(('values', 'source', 'fails'), [
    ({},                                                        None,        True),
    ({'target': '*', 'localip': '*', 'pool': '*'},              None,        True),
    ({'target': 'A.example.', 'tag': 't'},                      None,        True),
    ({'target': 'a.example', 'tag': 's'},                       None,        False),
    ({'target': 'b.example'},                                   None,        False),
    ({'pool': 'p'},                                             None,        True),
    ({'localip': '192.0.2.1'},                                  None,        False),
    ({'localip': '192.0.2.1', 'target': 'a.example'},           '192.0.2.1', True),
    ({'localip': '192.0.2.1'},                                  '192.0.2.2', False),
    ({'target': '192.0.2.1'},                                   None,        False),
    ({'expire': int(NOW) + 1},                                  None,        True),
    ({'expire': int(NOW)},                                      None,        False),
])
def test_which_messages(values: dict[str, Any], source: str | None, fails: bool) -> None:
    document = Document({'recipient': 'r@a.example', 'pool': 'p', 'tags': ['t']})
    errors = read_errors([row('errors', code=550, **values)]).items
    assert (errors.of(document, source, NOW) is not None) is fails


@pytest.mark.parametrize(('values', 'answer', 'permanent'), [
    ({},                                                                       '550 forced error',           True),
    ({'code': 421, 'description': 'forced deferring'},                         '421 forced deferring',       False),
    ({'code': 521, 'extended': '5.2.1'},                                       '521 5.2.1 forced error',     True),
    ({'code': 553, 'extended': '5.1.1', 'description': 'invalid mailbox'},     '553 5.1.1 invalid mailbox',  True),
    ({'code': 250},                                                            '250 forced error',           True),
    ({'code': 599, 'description': 'x' * 5000},                                 '599 ' + 'x' * 5000,          True),
])
def test_the_answer(values: dict[str, Any], answer: str, permanent: bool) -> None:
    error, = read_errors([row('errors', **values)]).items.all
    result = verdict.forced(error)
    assert error.answer == answer and result.permanent is permanent
    assert (result.state, result.result, result.code) == ('process', 'error', error.code)
    assert len(result.description) <= verdict.TEXT_LIMIT


@pytest.mark.parametrize('values', [{'code': 199}, {'code': 600}, {'code': -5}, {'target': '192.0.2.1', 'tag': 't'},
                                    {'target': '2001:db8::1', 'pool': 'p'}])
def test_rows_that_cannot_be_kept_to_are_left_out(values: dict[str, Any]) -> None:
    found = read_errors([row('errors', id=7, **values), row('errors', target='a.example')])
    assert found.items.all == (ForcedError(domain='a.example'),)
    assert found.faults[0].startswith('row 7 of table errors is left out: ')


def test_the_database_is_followed(tmp_path: Path, closing: ExitStack) -> None:
    path, reactor, notes = str(tmp_path / 'config.db'), Reactor(), Notes()
    closing.callback(reactor.close)
    make_database(path).close()
    execute(path, insert('errors', target='a.example', code=421), insert('errors', code=7))
    controls = Controls(Database(reactor, make_database(path), 600.0, notes))
    assert [error.answer for error in controls.errors.all] == ['421 forced error'] and controls.intercepts
    assert [line for line in notes.lines if 'errors' in line] == [
        'warning: row 2 of table errors is left out: 7 is no code; there are 200 to 599']


# in the engine


@pytest.fixture
def world(closing: ExitStack) -> World:
    return start_world(closing, one=Server(seconds=1.0), two=Server(seconds=1.0))


def explain(world: World, text: str) -> dict[str, Any]:
    return world.engine.explain(Question(text), 5)


def test_nothing_is_tried(world: World) -> None:
    world.force({'target': 'one', 'code': 553, 'extended': '5.1.1', 'description': 'invalid mailbox'})
    world.publish_many(5, 'one')
    world.publish_many(5, 'two')
    world.run(10)
    assert world.servers['one'].connects == [] and len(world.servers['two'].taken) == 5
    assert world.store.counts == {'results': 10, 'success': 5, 'failure': 5}
    facts = explain(world, '1@one')
    assert facts['errors'] == ['553 5.1.1 invalid mailbox (domain one)']
    assert [(last['state'], last['code'], last['again']) for last in facts['lately']] == [('process', 553, None)]
    assert explain(world, 'two')['errors'] == []


def test_what_is_deferred_is_tried_again(world: World) -> None:
    world.force({'target': 'one', 'code': 421})
    world.publish_many(3, 'one')
    world.run(10)
    assert world.store.counts == {'retry': 3} and len(world.store) == 3
    world.force()
    world.run(700)
    assert len(world.servers['one'].taken) == 3


def test_it_holds_for_what_waits(world: World) -> None:
    """What is being sent is finished."""
    world.publish_many(100, 'one', tags=['news'])
    world.publish_many(10, 'one', tags=['bills'])
    world.run(1.5)
    before = len(world.servers['one'].taken)
    world.force({'tag': 'news'})
    world.run(60)
    assert before < 10 and world.errors == []
    failed = world.store.counts['failure']
    assert 80 < failed < 100 and world.store.counts['success'] == 110 - failed
    assert world.store.held == 0 and len(world.store) == 0


def test_what_is_on_pause_fails_all_the_same(world: World) -> None:
    world.pause({})
    world.publish_many(10, 'one')
    world.run(1)
    assert len(world.store) == 10
    world.force({'target': 'one'})
    world.run(60)
    assert world.store.counts == {'results': 10, 'failure': 10}


def test_a_local_address(world: World) -> None:
    """The others are used, also for what waits already; where there is no other, the message fails; or waits, if one is
    only on pause."""
    world.controls.pools = {'pair': ('192.0.2.1', '192.0.2.2'), 'single': ('192.0.2.1',)}
    world.publish_many(40, 'one', pool='pair')
    world.run(0.5)
    world.force({'localip': '192.0.2.1', 'target': 'one'})
    before = len(world.network.places)
    world.publish_many(10, 'one', pool='single')
    world.publish_many(10, 'two', pool='single')
    world.run(60)
    assert len(world.servers['one'].taken) == 40 and len(world.servers['two'].taken) == 10
    assert {place.source for place in world.network.places[before:] if place.exchangers == (('one',),)} <= {'192.0.2.2'}
    assert world.store.counts['failure'] == 10
    world.pause({'localip': '192.0.2.2'})
    world.publish_many(5, 'one', pool='pair')
    world.run(20)
    assert len(world.store) == 5 and world.store.counts['failure'] == 10


def test_an_error_that_expires(world: World) -> None:
    world.force({'target': 'one', 'expire': int(world.reactor.clock.time()) + 25})
    world.publish('1@one')
    world.run(26)
    world.publish('2@one')
    world.run(5)
    assert world.servers['one'].recipients == ['2@one']
