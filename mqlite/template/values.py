"""What a value of JSON is as text, as a number, as truth, and what it has inside. Pure.

Nothing here fails: what is not there is None, and None is '' or 0 or false, because a template meets documents of every
shape. Names in templates have underscores where names in JSON have dashes: `-` means minus there.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

from mqlite.errors import PermanentError

Value = Any  # None, bool, int, float, str, list or dict, as JSON has them
LARGEST = 2 ** 63  # numbers stay below, as in MailerQ: unbounded ones would grow to gigabytes by squaring

_NUMBER = re.compile(r'\s*([-+]?[0-9]{1,18})(\.[0-9]{1,18})?(?:[eE][-+]?[0-9]{1,3})?')


class TemplateError(PermanentError):
    """The fault of whoever wrote the template; the text says what is wrong, and in which line."""


def text_of(value: Value) -> str:
    """As it is shown. Lists and objects are shown as JSON, with blanks as MailerQ writes them."""
    if isinstance(value, str):
        return value
    if value is None:
        return ''
    if isinstance(value, bool):
        return 'true' if value else 'false'
    if isinstance(value, float):
        return format(value, '.12g')
    if isinstance(value, list):
        return f'[ {", ".join(map(_inner, value))} ]' if value else '[ ]'
    if isinstance(value, dict):
        return f'{{ {", ".join(f"{_inner(key)}: {_inner(inner)}" for key, inner in value.items())} }}'
    return str(value)


def _inner(value: Value) -> str:
    """Within a list or object, where texts have quotes."""
    if value is None:
        return 'null'
    if not isinstance(value, str):
        return text_of(value)
    escaped = value.replace('\\', '\\\\').replace('"', '\\"')
    return f'"{escaped}"'


def number_of(value: Value) -> int | float:
    """A number; of a text the number that it begins with; 0 for everything else."""
    if isinstance(value, int):
        return max(1 - LARGEST, min(LARGEST - 1, int(value)))
    if isinstance(value, float):
        return value
    match = _NUMBER.match(value) if isinstance(value, str) else None
    if match is None:
        return 0
    text = match.group()
    return int(text) if text == match.group(1) or text.strip() == match.group(1) else float(text)


def whole_of(value: Value) -> int:
    """A whole number, cut off towards 0, and within the range of numbers."""
    number = number_of(value)
    if number != number:  # NaN
        return 0
    return int(max(-LARGEST + 1, min(LARGEST - 1, number)))


def truth_of(value: Value) -> bool:
    """'', '0', 0, null, and lists and objects without members are false."""
    return value != '0' if isinstance(value, str) and value else bool(value)


def member_of(value: Value, name: str) -> Value:
    """`value.name`; the name as it is, else with dashes in place of its underscores."""
    if not isinstance(value, dict):
        return None
    return value[name] if name in value else value.get(name.replace('_', '-'))


def item_of(value: Value, key: Value) -> Value:
    """`value[key]`: a position in a list, counted from 0; in an object a name, else a position."""
    if isinstance(value, dict):
        name = text_of(key)
        if name in value or not isinstance(key, int):
            return member_of(value, name)
        value = list(islice(value.values(), max(key, 0) + 1)) if key < len(value) else []
    if not isinstance(value, list) or isinstance(key, str) and not key.isdigit():
        return None
    position = whole_of(key)
    return value[position] if 0 <= position < len(value) else None
