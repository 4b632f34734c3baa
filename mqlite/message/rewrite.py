"""The property `headers` of a document: fields of the header that are taken out, put in or changed. Pure.

    {"remove": ["x-old"], "prepend": {"x-a": ["1", "2"]}, "append": {...}, "replace": {...}, "update": {...}}

    in this order   what it does
    remove          every field of these names
    prepend         new fields, before the others
    append, add     new fields, behind the others
    replace         the first field of the name gets the value, others of that name go; appended if there is none
    update          the same, but only where there is one

Names have no case. A value is one line of text (see `fields.py`), or several values in an array.
"""

from __future__ import annotations

from typing import Any

from mqlite.message.fields import FieldError, make_field
from mqlite.message.headers import header_end
from mqlite.message.mime import field_name, split_fields

_CHANGES = ('remove', 'prepend', 'append', 'add', 'replace', 'update')


def change_header(mime: bytes, changes: object) -> bytes:
    """The message with these changes of its header. FieldError."""
    if not isinstance(changes, dict):
        raise FieldError('"headers" must be an object')
    unknown = set(changes) - set(_CHANGES)
    if unknown:
        raise FieldError(f'"headers" has {min(unknown)[:100]!r}, which is none of {", ".join(_CHANGES)}')
    end = header_end(mime)
    fields = split_fields(mime[:end])
    gone = {name.lower() for name in _names(changes.get('remove'))}
    fields = [field for field in fields if field_name(field) not in gone]
    fields = [*_made(changes, 'prepend'), *fields, *_made(changes, 'append'), *_made(changes, 'add')]
    for kind in ('replace', 'update'):
        for name, value in _object(changes, kind).items():
            fields = _replaced(fields, name.lower(), _fields_of(name, value), append=kind == 'replace')
    return b''.join(fields) + (mime[end:] or b'\r\n')


def _replaced(fields: list[bytes], name: str, made: list[bytes], append: bool) -> list[bytes]:
    """The fields with `made` in the place of the first one of this name, and without the others."""
    kept = [field for field in fields if field_name(field) != name]
    if len(kept) == len(fields):
        return [*fields, *made] if append else fields
    first = next(at for at, field in enumerate(fields) if field_name(field) == name)
    return [*fields[:first], *made, *(field for field in fields[first:] if field_name(field) != name)]


def _names(value: object) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise FieldError('"headers.remove" must be a name or an array of names')


def _made(changes: dict[str, Any], kind: str) -> list[bytes]:
    return [field for name, value in _object(changes, kind).items() for field in _fields_of(name, value)]


def _object(changes: dict[str, Any], kind: str) -> dict[str, Any]:
    value = changes.get(kind)
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise FieldError(f'"headers.{kind}" must be an object of names and values')


def _fields_of(name: str, value: object) -> list[bytes]:
    values = value if isinstance(value, list) else [value]
    return [make_field(name, _text(name, item)) for item in values]


def _text(name: str, value: object) -> str:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise FieldError(f'the value of {name[:100]!r} in "headers" must be a text or an array of texts')
