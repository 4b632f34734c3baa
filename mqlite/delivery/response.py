"""What the operator has ordered for certain answers: tables `response_patterns` and `response_actions`. Pure.

    result of an attempt ─► rules whose selection and pattern match, by priority ─► actions ─► result, document

A rule selects by local address, domain and tag; what is empty selects all. Its pattern is compared with the text of the
answer, and with the whole of it: `450 4.2.1 Come back later`. A rule that is `final` is the last one looked at.

    action      property   value       effect
    fail        -          -           the message is given up
    retry       -          seconds     it is tried again, after so long; without a value as the retry policy says
    set         name       JSON, text  property of the message
    setresult   name       JSON, text  property of the result; `fatal` also decides whether the message is given up
    addtag, removetag      text        its tags
    addip, removeip, setip address     its `ips`

Documents are published anew with what was set. Nothing changes a message that was accepted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable

from mqlite.database.patterns import Match
from mqlite.message.result import Result

# Properties that are not the operator's to set: they say what the message is, or what became of it.
PROTECTED = frozenset(['mime', 'results', 'recipient', 'envelope'])


@dataclass(frozen=True)
class Action:
    """A row of response_actions."""

    kind: str  # a word of ACTIONS
    name: str
    value: Any


@dataclass(frozen=True)
class Rule:
    """A row of response_patterns, with its actions."""

    source: str
    domain: str
    tag: str
    matches: Match
    final: bool
    actions: tuple[Action, ...]

    def applies(self, source: str, domain: str, tags: Sequence[str], answers: Sequence[str]) -> bool:
        return ((not self.source or self.source == source) and (not self.domain or self.domain == domain)
                and (not self.tag or self.tag in tags) and any(self.matches(text) for text in answers))


@dataclass(frozen=True)
class Selection:
    """What rules select by."""

    source: str  # local address; '' where there was no connection
    domain: str
    tags: Sequence[str]


def ordered(rules: Iterable[Rule], selection: Selection, result: Result) -> list[Action]:
    """The actions for this result; `rules` in the order of their priority."""
    answers = answers_of(result)
    actions: list[Action] = []
    for rule in rules:
        if rule.applies(selection.source, selection.domain, selection.tags, answers):
            actions += rule.actions
            if rule.final:
                break
    return actions


def answers_of(result: Result) -> tuple[str, str]:
    """What patterns are compared with: the text, and the whole answer."""
    code = '' if result.code is None else f'{result.code} '
    whole = f'{code}{result.status} {result.description}' if result.status else code + result.description
    return result.description, whole


def obey(actions: Iterable[Action], fields: dict[str, Any], result: Result) -> Result:
    """Change the properties of the document, and give the result as it now is."""
    for action in actions:
        result = ACTIONS[action.kind](action, fields, result)
    return result


def read_value(text: str) -> Any:
    """What a column says: JSON where it is some, otherwise the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _fail(_action: Action, _fields: dict[str, Any], result: Result) -> Result:
    return replace(result, permanent=True, wait=None)


def _retry(action: Action, _fields: dict[str, Any], result: Result) -> Result:
    seconds = action.value if isinstance(action.value, int) and action.value > 0 else None
    return replace(result, permanent=False, wait=seconds)


def _set(action: Action, fields: dict[str, Any], result: Result) -> Result:
    if action.name and action.name not in PROTECTED:
        fields[action.name] = action.value
    return result


def _set_result(action: Action, _fields: dict[str, Any], result: Result) -> Result:
    if action.name == 'fatal':
        result = replace(result, permanent=bool(action.value))
    return replace(result, more={**result.more, action.name: action.value}) if action.name else result


def _change_list(name: str, keep: Callable[[list[Any], Any], list[Any]]) -> Callable[..., Result]:
    def change(action: Action, fields: dict[str, Any], result: Result) -> Result:
        present = fields.get(name)
        fields[name] = keep(present if isinstance(present, list) else [], action.value)
        return result
    return change


def _with(items: list[Any], item: Any) -> list[Any]:
    return items if item in items else [*items, item]


def _without(items: list[Any], item: Any) -> list[Any]:
    return [other for other in items if other != item]


ACTIONS: dict[str, Callable[[Action, dict[str, Any], Result], Result]] = {
    'fail':      _fail,
    'retry':     _retry,
    'set':       _set,
    'setresult': _set_result,
    'addtag':    _change_list('tags', _with),
    'removetag': _change_list('tags', _without),
    'addip':     _change_list('ips', _with),
    'removeip':  _change_list('ips', _without),
    'setip':     _change_list('ips', lambda _items, item: [item]),
}
