"""What the database orders for certain answers: tables `response_patterns`, `response_actions`, and the one between.

A pattern without an action does nothing. The column `pool` of a pattern is not looked at: which pool an address was
chosen from is not known any more when the answer comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from operator import attrgetter

from mqlite.database.live import Database
from mqlite.database.patterns import make_match
from mqlite.database.tables import Row, Usable
from mqlite.delivery.response import ACTIONS, Action, Rule, Selection, obey, ordered, read_value
from mqlite.message.document import Document, DocumentError
from mqlite.message.result import Result
from mqlite.smtp.dsn import NOTHING
from mqlite.smtp.envelope import plain_domain

_READ_BY_US = attrgetter('retries', 'max_attempts', 'deadline', 'not_before', 'priority', 'smarthost', 'security',
                         'pool', 'ips')


class ResponseRules:
    """The rules at this moment, the first one first."""

    def __init__(self, database: Database) -> None:
        self.rules: list[Rule] = []
        self._actions: dict[int, Action] = {}
        self._links: Iterable[Row] = ()
        self._patterns: dict[int, Rule] = {}
        database.follow('response_actions', read_actions, self._take_actions)
        database.follow('response_patterns_actions', Usable, self._take_links)
        database.follow('response_patterns', read_patterns, self._take_patterns)

    def obey(self, document: Document, result: Result) -> Result:
        """The result of an attempt as the rules want it; they may change properties of the document, too."""
        tags = document.fields.get('tags')
        source = result.connected.source if result.connected is not None else ''
        selection = Selection(source, document.domain, tags if isinstance(tags, list) else ())
        return obey(ordered(self.rules, selection, result), document.fields, result)

    def _take_actions(self, actions: dict[int, Action]) -> None:
        self._actions = actions
        self._link()

    def _take_links(self, links: Iterable[Row]) -> None:
        self._links = links
        self._link()

    def _take_patterns(self, patterns: dict[int, Rule]) -> None:
        self._patterns = patterns
        self._link()

    def _link(self) -> None:
        linked: dict[int, list[Action]] = {}
        for link in self._links:
            action = self._actions.get(link.number('response_action'))
            if action is not None:
                linked.setdefault(link.number('response_pattern'), []).append(action)
        self.rules = [replace(rule, actions=tuple(linked[number])) for number, rule in self._patterns.items()
                      if number in linked]


def read_actions(rows: Iterable[Row]) -> Usable[dict[int, Action]]:
    """By id."""
    actions: dict[int, Action] = {}
    faults = []
    for row in rows:
        action = Action(row.text('action'), row.text('property'), read_value(row.text('value')))
        try:
            _check(action)
        except (ValueError, DocumentError) as error:
            faults.append(f'row {row.number("id")} of table response_actions is left out: {error}')
        else:
            actions[row.number('id')] = action
    return Usable(actions, faults)


def _check(action: Action) -> None:
    """ValueError, DocumentError: a property of the wrong form would be found out when the message cannot be kept."""
    if action.kind not in ACTIONS:
        raise ValueError(f'{action.kind!r} is no action; there are {", ".join(ACTIONS)}')
    document = Document({action.name: action.value} if action.kind == 'set' else {})
    _ = _READ_BY_US(document), document.notices(NOTHING)


def read_patterns(rows: Iterable[Row]) -> Usable[dict[int, Rule]]:
    """Rules without their actions, by id; in the order of their priority, the lowest number first."""
    found: list[tuple[int, int, Rule]] = []
    faults = []
    for row in rows:
        number = row.number('id')
        try:
            match = make_match(row.text('type'), row.text('pattern'))
        except ValueError as error:
            faults.append(f'row {number} of table response_patterns is left out: {error}')
        else:
            rule = Rule(row.text('localip'), plain_domain(row.text('domain')), row.text('tag'), match,
                        bool(row.number('final')), ())
            found.append((row.number('priority'), number, rule))
    return Usable({number: rule for _, number, rule in sorted(found, key=lambda entry: entry[:2])}, faults)
