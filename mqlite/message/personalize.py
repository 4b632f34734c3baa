"""Personalized mail: parts of a message that are templates, filled in with the property `data` of its document. Pure.

In a message: the fields From, To and Subject, and every text/plain and text/html part that is no attachment. In a
message that is an object still: all its texts but what is attached. Besides `data` a template knows `$envelope` and
`$recipient`.

What a value says is text: it can add no field to the header and no address to a field. HTML has to ask for |escape.
"""

from __future__ import annotations

import re
from typing import Any

from mqlite.message.fields import FieldError, format_address, make_field
from mqlite.message.mime import Entity, field_name, split_fields, text_parts
from mqlite.message.transfer import set_text, text_of
from mqlite.message.words import decode_words
from mqlite.template.parser import compile_template

_FIELDS = ('from', 'to', 'subject')
_TEXTS = ('', 'text/plain', 'text/html')
#: One of several addresses: up to a comma that is not in quotes, nor in a tag.
_ITEM = re.compile(r'(?:"(?:[^"\\]|\\.)*"|\{[^}]*\}|[^,])+', re.DOTALL)
_NAMED = re.compile(r'(.*?)\s*<([^<>]*)>\s*', re.DOTALL)
_LIMIT = 2048  # characters of a field with addresses: longer ones take those expressions too long
_NO_ADDRESS = re.compile(r'[\s<>,;\x00-\x1f\x7f]')


def personalize(mime: bytes, variables: dict[str, Any]) -> bytes:
    """The message with its templates filled in. TemplateError, FieldError, TransferError."""
    whole = Entity(mime)
    whole.header = b''.join(_personal_field(field, variables) if field_name(field) in _FIELDS else field
                            for field in split_fields(whole.header))
    for part in text_parts(whole, _TEXTS):
        text = text_of(part)
        if '{' in text:
            set_text(part, compile_template(text).render(variables))
            if part is whole and part.contents.type:
                whole.set_field('mime-version', b'MIME-Version: 1.0\r\n')
    return whole.octets()


def _personal_field(field: bytes, variables: dict[str, Any]) -> bytes:
    name, _, value = field.partition(b':')
    text = decode_words(value.replace(b'\r\n', b'').decode('utf-8', 'surrogateescape').strip(' \t'))
    if '{' not in text:
        return field
    spelled = name.decode('latin-1').strip(' \t')
    if spelled.lower() == 'subject':
        return make_field(spelled, compile_template(text).render(variables))
    if len(text) > _LIMIT:
        raise FieldError(f'{spelled} is a template of more than {_LIMIT} characters')
    return make_field(spelled, ', '.join(_personal_address(item, variables) for item in _ITEM.findall(text)))


def _personal_address(text: str, variables: dict[str, Any]) -> str:
    """`name <address>` with both filled in apart, so that a comma in a name stays in the name."""
    match = _NAMED.fullmatch(text)
    name, address = match.groups() if match else ('', text)
    address = compile_template(address).render(variables).strip()
    if _NO_ADDRESS.search(address):
        raise FieldError(f'{address[:60]!r} is no address')
    return format_address(compile_template(name.strip().strip('"')).render(variables), address)


def personalize_object(value: Any, variables: dict[str, Any]) -> Any:
    """The property `mime` as an object with its templates filled in. TemplateError.

    The texts of attachments are data, and so are names of properties.
    """
    if isinstance(value, str):
        return compile_template(value).render(variables) if '{' in value else value
    if isinstance(value, list):
        return [personalize_object(item, variables) for item in value]
    if isinstance(value, dict):
        return {name: item if name == 'data' else personalize_object(item, variables) for name, item in value.items()}
    return value

