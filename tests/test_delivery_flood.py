"""What is sent less of after certain answers: which answers, for how long, and in the engine."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mqlite.database.live import Database
from mqlite.delivery.capacity import DEFAULT, Capacity
from mqlite.delivery.controls import Controls
from mqlite.delivery.destinations import KEPT_SECONDS
from mqlite.delivery.explain import Question
from mqlite.delivery.flood import Flood, FloodRule, FloodRules, read_floods
from mqlite.loop.reactor import Reactor
from mqlite.message.result import Connected, Result
from mqlite.smtp.reply import Reply
from mqlite.why_text import write_answer
from tests.support.database import Notes, execute, insert, make_database, row
from tests.support.world import Server, World, start_world

LINK = Connected('mx', '192.0.2.1', '192.0.2.2', 1, 0, 0)
BUSY = Result('rcptto', 'error', False, 450, '4.7.0', 'Flood detected from 192.0.2.1', connected=LINK)


def rule(**values: Any) -> FloodRule:
    values = {'pattern': 'flood', 'type': 'substr', 'pause': 60, **values}
    found, = read_floods([row('flood_responses', **values)]).items.all
    return found


@pytest.mark.parametrize(('values', 'result', 'fits'), [
    ({},                                                      BUSY, True),
    ({'pattern': 'greylisted'},                               BUSY, False),
    ({'pattern': 'Flood detected'},                           BUSY, True),
    ({'pattern': 'Flood detected from 192.0.2.1', 'type': 'exact'},           BUSY, True),
    ({'pattern': '450 4.7.0 flood detected from 192.0.2.1', 'type': ''},      BUSY, True),
    ({'pattern': 'flood', 'type': 'exact'},                   BUSY, False),
    ({'pattern': '45? 4.7.*', 'type': 'fnmatch'},             BUSY, True),
    ({'pattern': r'^flood .* \d+', 'type': 'regex'},          BUSY, True),
    ({},           Result('connect', 'error', False, description='flood'), False),
    ({},           Result('process', 'error', True, 550, '', 'flood'), False),
    ({},           Result('message', 'accepted', False, 250, '', 'no flood', connected=LINK), False),
    ({},           Result('rcptto', 'timeout', False, description='flood', connected=LINK), False),
    ({},           Result('intro', 'error', True, 554, '', 'flood', connected=LINK), True),
])
def test_which_answers(values: dict[str, Any], result: Result, fits: bool) -> None:
    """Answers of servers, to whatever, that are no success."""
    assert (FloodRules([rule(**values)]).of(result) is not None) is fits


def test_of_several_rows_the_first_one_holds() -> None:
    rows = [row('flood_responses', id=number, name=name, pattern=pattern, type='substr', pause=1)
            for number, (name, pattern) in enumerate([('a', 'other'), ('b', 'flood'), ('', 'detected')], 1)]
    rules = read_floods(rows).items
    found = rules.of(BUSY)
    assert found is not None and found.name == 'b' and [one.name for one in rules.all] == ['a', 'b', 'detected']


@pytest.mark.parametrize(('values', 'reason'), [
    ({'pattern': ''},                         'it has no pattern'),
    ({'pause': 0, 'duration': 0},             'it has neither a pause nor a duration'),
    ({'pause': -1, 'duration': -7},           'it has neither a pause nor a duration'),
    ({'type': 'like'},                        "'like' is no type of pattern; there are exact, fnmatch, substr, regex"),
    ({'type': 'regex', 'pattern': '['},       "'[' is no regular expression: unterminated character set at position 0"),
])
def test_rows_that_are_left_out(values: dict[str, Any], reason: str) -> None:
    found = read_floods([row('flood_responses', **{'id': 9, 'pattern': 'x', 'type': 'substr', 'pause': 5, **values})])
    assert found.items.all == () and found.faults == [f'row 9 of table flood_responses is left out: {reason}']


def test_its_limits() -> None:
    """-1 leaves what holds anyhow, 0 is no limit."""
    usual = Capacity(8, 100, 600.0, 30.0, 1.5)
    flood = Flood()
    assert flood.over(usual) == usual
    flood.begin(rule(duration=60, domain_maxmessages=6, connection_maxmessages=0, domain_maxconnections=1), 0.0)
    assert flood.over(usual) == Capacity(1, 0, 6.0, 30.0, 1.5) and flood.over(DEFAULT).connects == 0.0


def test_for_how_long() -> None:
    """First the pause, then the limits; another answer begins anew, but does not end what lasts longer."""
    flood, short, long = Flood(), rule(pause=10, duration=20), rule(id=2, pause=100)
    flood.begin(short, 0.0)
    assert (flood.pause_left(4), flood.slow_left(4), flood.change_in(4)) == (6, 26, 6)
    assert (flood.pause_left(11), flood.slow_left(11), flood.change_in(11)) == (0, 19, 19)
    flood.begin(short, 11.0)
    assert (flood.pause_left(11), flood.slow_left(11)) == (10, 30)
    flood.begin(long, 12.0)
    flood.begin(short, 13.0)
    assert (flood.pause_left(13), flood.slow_left(13)) == (99, 119)
    flood.keep(FloodRules([short]))
    assert (flood.pause_left(13), flood.slow_left(13)) == (0, 119)
    flood.keep(FloodRules())
    assert flood.change_in(13) == 0


def test_the_database_is_followed(tmp_path: Path, closing: ExitStack) -> None:
    path, reactor, notes = str(tmp_path / 'config.db'), Reactor(), Notes()
    closing.callback(reactor.close)
    make_database(path).close()
    execute(path, insert('flood_responses', pattern='flood', type='substr', pause=60),
            insert('flood_responses', type='substr', pause=60))
    controls = Controls(Database(reactor, make_database(path), 600.0, notes))
    assert controls.floods.of(BUSY) is not None
    assert [line for line in notes.lines if 'flood' in line] == [
        'warning: row 2 of table flood_responses is left out: it has no pattern']


# in the engine

TOO_MANY = Reply(450, '4.7.0', ('too many messages',))


@pytest.fixture
def world(closing: ExitStack) -> World:
    return start_world(closing, one=Server(seconds=0.1), two=Server())


def order(world: World, **values: Any) -> None:
    world.flood({'pattern': 'too many', 'type': 'substr', **values})


def refuse_once(world: World, **fields: Any) -> None:
    """One message is refused, and then the server takes them again."""
    world.servers['one'].refusal = TOO_MANY
    world.publish('refused@one', **fields)
    world.run(0.5)
    world.servers['one'].refusal = None


def told(world: World, text: str) -> str:
    return write_answer(text, [world.engine.explain(Question(text), 5)], None, [])


def test_a_pause_and_then_a_lower_rate(world: World) -> None:
    order(world, name='slow down', pause=60, duration=120, domain_maxmessages=30)
    refuse_once(world)
    world.publish_many(600, 'one')
    world.publish_many(50, 'two')
    world.run(59)
    one = world.servers['one']
    assert one.taken == [] and one.open == 0 and len(world.servers['two'].taken) == 50
    assert world.store.held == 0, 'what waits takes no room'
    assert "held: nothing is sent after an answer: flood response 'slow down', for 0.6 s" in told(world, 'one')
    world.run(61)
    assert len(one.taken) == pytest.approx(30, abs=3)
    assert "messages per minute 30 (flood response 'slow down', for 59.6 s)" in told(world, 'one')
    world.run(59)
    assert len(one.taken) == pytest.approx(60, abs=3)
    world.run(120)
    assert len(one.taken) == 600 and 'flood' not in told(world, 'one') and world.errors == []


def test_what_waits_goes_back_and_what_is_being_sent_is_finished(world: World) -> None:
    world.servers['one'].seconds = 1.0
    order(world, pause=30)
    world.publish_many(300, 'one')
    world.run(1.5)
    world.servers['one'].refusal = TOO_MANY
    world.run(2)
    world.servers['one'].refusal = None
    before = len(world.servers['one'].taken)
    assert before == 5 and world.servers['one'].open == 0 and world.store.held == 0
    world.run(20)
    assert len(world.servers['one'].taken) == before
    world.run(60)
    assert len(world.servers['one'].taken) + world.store.counts['retry'] == 300 and world.errors == []


def test_limits_alone_hold_at_once(world: World) -> None:
    order(world, duration=60, domain_maxconnections=1)
    refuse_once(world)
    world.servers['one'].seconds = 1.0
    world.publish_many(100, 'one')
    world.run(40)
    assert world.servers['one'].most_open == 1 and 35 <= len(world.servers['one'].taken) <= 40
    world.run(60)
    assert world.servers['one'].most_open > 1 and len(world.servers['one'].taken) == 100


def test_the_limits_that_were_hold_again(world: World) -> None:
    world.limit({'domain': 'one', 'domain_maxmessages': 600})
    order(world, duration=30, domain_maxmessages=60)
    refuse_once(world)
    world.publish_many(400, 'one')
    world.run(29)
    assert len(world.servers['one'].taken) == pytest.approx(29, abs=2)
    world.run(10)
    assert len(world.servers['one'].taken) == pytest.approx(29 + 95, abs=8)


def test_an_answer_in_place_of_a_greeting(world: World) -> None:
    """The message that met it is tried again as ever; for those that come later no attempt is counted."""
    world.servers['one'].greeting = Reply(421, '', ('too many connections',))
    order(world, pause=100)
    world.publish('1@one')
    world.run(1)
    world.servers['one'].greeting = None
    world.publish_many(20, 'one')
    connects = len(world.servers['one'].connects)
    world.run(90)
    assert len(world.servers['one'].connects) == connects
    world.run(40)
    assert len(world.servers['one'].taken) == 20 and world.store.counts['retry'] == 1


def test_it_is_about_one_local_address(world: World) -> None:
    """Messages that may go from another one do."""
    world.controls.pools = {'a': ('192.0.2.1',), 'both': ('192.0.2.1', '192.0.2.2')}
    order(world, pause=100)
    refuse_once(world, pool='a')
    world.publish_many(10, 'one', pool='a')
    world.publish_many(10, 'one', pool='both')
    world.run(30)
    assert len(world.servers['one'].taken) == 10
    assert {place.source for place in world.network.places[1:]} == {'192.0.2.2'}
    world.run(100)
    assert len(world.servers['one'].taken) == 20


def test_it_is_about_all_that_differ_in_security_only(world: World) -> None:
    """To the server they are one client; one that comes later is too."""
    order(world, pause=60, duration=120, domain_maxmessages=30)
    world.publish('before@one', security='optional')
    world.run(1)
    refuse_once(world)
    world.publish_many(10, 'one', security='optional')
    world.publish_many(10, 'one', security='required')
    world.run(50)
    assert world.servers['one'].recipients == ['before@one'] and world.store.held == 0
    assert "flood response 'too many'" in told(world, 'one')
    world.run(20)
    assert 2 <= len(world.servers['one'].recipients) <= 8
    world.run(200)
    assert len(world.servers['one'].recipients) == 21 and 'flood' not in told(world, 'one') and world.errors == []


def test_a_row_that_is_deleted_ends_what_it_ordered(world: World) -> None:
    order(world, pause=5000)
    refuse_once(world)
    world.run(KEPT_SECONDS)
    world.publish_many(10, 'one')
    world.run(5)
    assert world.servers['one'].taken == [], 'it is not forgotten while it holds'
    world.flood({'pattern': 'another', 'type': 'substr', 'pause': 5})
    world.publish('new@one')
    world.run(1)
    assert world.servers['one'].recipients == ['new@one']
    world.run(600)
    assert len(world.servers['one'].taken) == 12


def test_answers_of_every_worker_for_itself(closing: ExitStack) -> None:
    """The limits of a row are shared by the workers like those of the table capacity."""
    world = World({'one': Server(seconds=0.1)}, workers=4)
    closing.callback(world.close)
    world.engine.start()
    order(world, duration=100, domain_maxmessages=240)
    refuse_once(world)
    world.publish_many(300, 'one')
    world.run(60)
    assert len(world.servers['one'].taken) == pytest.approx(60, abs=3)
