"""What the operator orders for certain answers: which rules hold, what their actions do, and in the engine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mqlite.database.live import Database
from mqlite.database.patterns import make_match
from mqlite.delivery.response import Action, Rule, Selection, obey, ordered, read_value
from mqlite.delivery.response_rules import ResponseRules
from mqlite.loop.reactor import Reactor
from mqlite.message.document import Document
from mqlite.message.result import Connected, Result
from tests.support.database import Notes, execute, insert, make_database

REFUSED = Result('rcptto', 'error', True, 550, '5.1.1', 'No such user here',
                 connected=Connected('mx', '192.0.2.1', '192.0.2.2', 1, 0, 0))
DEFERRED = Result('rcptto', 'error', False, 450, '', 'Come back later')
WHO = Selection('192.0.2.1', 'b.example', ['t1', 't2'])
FAIL = (Action('fail', '', ''),)


def rule(source: str = '', domain: str = '', tag: str = '', kind: str = 'substr', pattern: str = 'user',
         final: bool = False, actions: tuple[Action, ...] = FAIL) -> Rule:
    return Rule(source, domain, tag, make_match(kind, pattern), final, actions)


@pytest.mark.parametrize(('made', 'result', 'applies'), [
    (rule(),                                                REFUSED,  True),
    (rule(source='192.0.2.1', domain='b.example', tag='t2'), REFUSED, True),
    (rule(source='192.0.2.9'),                              REFUSED,  False),
    (rule(domain='c.example'),                              REFUSED,  False),
    (rule(tag='t3'),                                        REFUSED,  False),
    (rule(pattern='mailbox'),                               REFUSED,  False),
    (rule(kind='exact', pattern='no such USER here'),       REFUSED,  True),
    (rule(kind='exact', pattern='550 5.1.1 No such user here'), REFUSED, True),
    (rule(kind='regex', pattern='^550 '),                   REFUSED,  True),
    (rule(kind='fnmatch', pattern='450 come*'),             DEFERRED, True),
    (rule(kind='exact', pattern='Come back'),               DEFERRED, False),
])
def test_which_rules_apply(made: Rule, result: Result, applies: bool) -> None:
    assert bool(ordered([made], WHO, result)) is applies


def test_rules_add_up_until_a_final_one() -> None:
    rules = [rule(actions=(Action('addtag', '', name),), final=name == 'b') for name in ('a', 'b', 'c')]
    assert [action.value for action in ordered(rules, WHO, REFUSED)] == ['a', 'b']


@pytest.mark.parametrize(('action', 'result', 'fields', 'more'), [
    (Action('fail', '', ''),               DEFERRED, {}, {'permanent': True}),
    (Action('retry', '', ''),              REFUSED,  {}, {'permanent': False, 'wait': None}),
    (Action('retry', '', 90),              REFUSED,  {}, {'permanent': False, 'wait': 90}),
    (Action('retry', '', -5),              REFUSED,  {}, {'permanent': False, 'wait': None}),
    (Action('set', 'class', 'bad'),        REFUSED,  {'class': 'bad'}, {}),
    (Action('set', 'mime', 'x'),           REFUSED,  {}, {}),
    (Action('setresult', 'kind', [1]),     REFUSED,  {}, {'more': {'kind': [1]}}),
    (Action('setresult', 'fatal', False),  REFUSED,  {}, {'permanent': False, 'more': {'fatal': False}}),
    (Action('setresult', 'fatal', 1),      DEFERRED, {}, {'permanent': True, 'more': {'fatal': 1}}),
    (Action('addtag', '', 't'),            REFUSED,  {'tags': ['old', 't']}, {}),
    (Action('addtag', '', 'old'),          REFUSED,  {'tags': ['old']}, {}),
    (Action('removetag', '', 'old'),       REFUSED,  {'tags': []}, {}),
    (Action('addip', '', '192.0.2.7'),     REFUSED,  {'ips': ['192.0.2.1', '192.0.2.7']}, {}),
    (Action('removeip', '', '192.0.2.1'),  REFUSED,  {'ips': []}, {}),
    (Action('setip', '', '192.0.2.8'),     REFUSED,  {'ips': ['192.0.2.8']}, {}),
])
def test_actions(action: Action, result: Result, fields: dict[str, Any], more: dict[str, Any]) -> None:
    document: dict[str, Any] = {'tags': ['old'], 'ips': ['192.0.2.1'], 'mime': 'm'}
    changed = obey([action], document, result)
    assert document == {'tags': ['old'], 'ips': ['192.0.2.1'], 'mime': 'm', **fields}
    assert {name: getattr(changed, name) for name in more} == more


@pytest.mark.parametrize(('text', 'value'), [('', ''), ('90', 90), ('true', True), ('["a"]', ['a']), ('word', 'word'),
                                             ('192.0.2.1', '192.0.2.1'), ('[' * 100_000, '[' * 100_000)])
def test_values(text: str, value: object) -> None:
    assert read_value(text) == value


@pytest.fixture
def make(tmp_path: Path, closing: ExitStack) -> Callable[..., tuple[ResponseRules, Notes]]:
    """make(statement, ...): the rules of a database that is filled so, and its log."""
    def read(*statements: str) -> tuple[ResponseRules, Notes]:
        path, notes, reactor = str(tmp_path / 'database.db'), Notes(), Reactor()
        closing.callback(reactor.close)
        make_database(path).close()
        execute(path, *statements)
        return ResponseRules(Database(reactor, make_database(path), 600, notes)), notes
    return read


def pattern(number: int, text: str, **columns: object) -> str:
    return insert('response_patterns', **{'id': number, 'pattern': text, 'type': 'substr', **columns})


def action(number: int, kind: str, name: str = '', value: object = '') -> str:
    return insert('response_actions', id=number, action=kind, property=name, value=value)


def link(one: int, other: int) -> str:
    return insert('response_patterns_actions', response_pattern=one, response_action=other)


def test_rules_of_the_database(make: Callable[..., tuple[ResponseRules, Notes]]) -> None:
    rules, notes = make(pattern(1, 'user', priority=5), pattern(2, 'user', priority=1, domain='B.Example'),
                        pattern(3, '(', type='regex'), pattern(4, 'user'),
                        action(1, 'addtag', '', 'second'), action(2, 'addtag', '', 'first'), action(3, 'explode'),
                        link(1, 1), link(2, 2), link(3, 1), link(1, 3), link(1, 77))
    document = Document({'recipient': 'a@b.example'})
    assert rules.obey(document, REFUSED) == REFUSED
    assert document.fields['tags'] == ['first', 'second']
    assert [line.split('left out: ')[1] for line in notes.lines if 'left out' in line] == [
        "'explode' is no action; there are fail, retry, set, setresult, addtag, removetag, addip, removeip, setip",
        "'(' is no regular expression: missing ), unterminated subpattern at position 0"]


@pytest.mark.parametrize(('name', 'value', 'why'), [
    ('retries',        '600',                       '"retries" must be an array of seconds'),
    ('maxattempts',    'many',                      '"maxattempts" must be a whole number'),
    ('nextattempt',    '2030-01-01 00:00:00',       '"nextattempt" must be an object with a "time"'),
    ('maxdelivertime', '2030',                      '"maxdelivertime": a time must be'),
    ('dsn',            'NEVER',                     '"dsn" must be an object'),
    ('retries',        '[600]',                     ''),
    ('nextattempt',    '{"time": "2030-01-01 00:00:00"}', ''),
    ('campaign',       '{"x": [1]}',                ''),
])
def test_a_property_of_the_wrong_form_is_not_set(make: Callable[..., tuple[ResponseRules, Notes]], name: str,
                                                 value: str, why: str) -> None:
    """The message could not be kept with it: it was tried every ten minutes without end, and no attempt counted."""
    rules, notes = make(pattern(1, 'user'), action(1, 'set', name, value), link(1, 1))
    left_out = [line for line in notes.lines if 'left out' in line]
    assert len(rules.rules) == (0 if why else 1) and len(left_out) == (1 if why else 0)
    assert all(why in line for line in left_out)
