"""The canonical forms of a message (RFC 6376 section 3.4): what is hashed, so that harmless changes on the way do not
break a signature. Pure, on whole buffers at the speed of C. A message here has CRLF line ends throughout.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mqlite.message.headers import header_end
from mqlite.message.mime import field_name, split_fields

SIMPLE, RELAXED = 'simple', 'relaxed'

_SPACES = re.compile(rb'[ \t]+')


class Field(NamedTuple):
    """A header field: its name in lower case, and the whole of it with its CRLF."""

    name: str
    raw: bytes


def split_message(mime: bytes) -> tuple[list[Field], bytes]:
    """Header fields in their order, and the body behind the empty line."""
    end = header_end(mime)
    return [Field(field_name(raw), raw) for raw in split_fields(mime[:end])], mime[end + 2:]


def canonical_field(raw: bytes, form: str) -> bytes:
    """One field, with its CRLF."""
    if form == SIMPLE:
        return raw
    name, _, value = raw.partition(b':')
    value = _SPACES.sub(b' ', value.replace(b'\r\n', b''))
    return name.strip(b' \t').lower() + b':' + value.strip(b' ') + b'\r\n'


def canonical_body(body: bytes, form: str) -> bytes:
    """The body; of empty lines at its end nothing is left (simple: an empty body is one empty line)."""
    if form == RELAXED:
        if b'\t' in body or b'  ' in body or b' \r\n' in body or body[-1:] == b' ':
            body = _SPACES.sub(b' ', body).replace(b' \r\n', b'\r\n')
            body = body[:-1] if body[-1:] == b' ' else body
    if body.endswith(b'\r\n\r\n') or body == b'\r\n':
        body = _strip_empty_lines(body)
    if body[-2:] != b'\r\n' and (body or form == SIMPLE):
        body += b'\r\n'
    return body


def _strip_empty_lines(body: bytes) -> bytes:
    """Without the empty lines at the end. A CR or LF of its own ends no line, so they go two by two."""
    end = len(body)
    while body[end - 2:end] == b'\r\n':
        end -= 2
    return body[:end]
