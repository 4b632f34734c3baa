"""What the database orders for certain answers: tables `response_patterns`, `response_actions`, and the one between.

A pattern without an action does nothing. The column `pool` of a pattern is not looked at: which pool an address was
chosen from is not known any more when the answer comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from mqlite.database.live import Database
from mqlite.database.patterns import make_match
from mqlite.database.tables import Row
from mqlite.delivery.response import ACTIONS, Action, Rule, Selection, obey, ordered, read_value
from mqlite.log import Log
from mqlite.message.document import Document
from mqlite.message.result import Result

TABLES = ('response_actions', 'response_patterns_actions', 'response_patterns')


class ResponseRules:
    """The rules at this moment, the first one first."""

    def __init__(self, database: Database, log: Log) -> None:
        self._log = log
        self._rows: dict[str, Iterable[Row]] = {}
        self.rules: list[Rule] = []
        for table in TABLES:
            database.follow(table, tuple, partial(self._take, table))

    def obey(self, document: Document, result: Result) -> Result:
        """The result of an attempt as the rules want it; they may change properties of the document, too."""
        tags = document.fields.get('tags')
        source = result.connected.source if result.connected is not None else ''
        selection = Selection(source, document.domain, tags if isinstance(tags, list) else ())
        return obey(ordered(self.rules, selection, result), document.fields, result)

    def _take(self, table: str, rows: Iterable[Row]) -> None:
        self._rows[table] = rows
        if len(self._rows) == len(TABLES):
            faults: list[str] = []
            self.rules = read_rules(self._rows, faults)
            for fault in faults:
                self._log.warning(fault)


def read_rules(rows: Mapping[str, Iterable[Row]], faults: list[str]) -> list[Rule]:
    """The rules by priority, the lowest number first; a line in `faults` for each row that is left out."""
    actions: dict[int, Action] = {}
    for row in rows['response_actions']:
        kind = row.text('action')
        if kind in ACTIONS:
            actions[row.number('id')] = Action(kind, row.text('property'), read_value(row.text('value')))
        else:
            faults.append(f'row {row.number("id")} of table response_actions is left out: {kind!r} is no action; '
                          f'there are {", ".join(ACTIONS)}')
    linked: dict[int, list[Action]] = {}
    for row in rows['response_patterns_actions']:
        action = actions.get(row.number('response_action'))
        if action is not None:
            linked.setdefault(row.number('response_pattern'), []).append(action)
    found = []
    for row in rows['response_patterns']:
        number = row.number('id')
        try:
            match = make_match(row.text('type'), row.text('pattern'))
        except ValueError as error:
            faults.append(f'row {number} of table response_patterns is left out: {error}')
            continue
        if number in linked:
            found.append((row.number('priority'), number, Rule(
                row.text('localip'), row.text('domain').lower(), row.text('tag'), match, bool(row.number('final')),
                tuple(linked[number]))))
    return [rule for _priority, _number, rule in sorted(found, key=lambda entry: entry[:2])]
