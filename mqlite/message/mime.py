"""The parts of a message: what their headers say, and a tree that gives back every octet. Pure.

    multipart/mixed
      pieces   b'--b\\r\\n', Entity, b'\\r\\n--b\\r\\n', Entity, b'\\r\\n--b--\\r\\n'
    message/rfc822
      pieces   Entity
    everything else
      pieces   its body

So a part can be changed, and `octets()` of the whole is the message with nothing else touched. Sources: RFC 2045 (5.1
parameters), RFC 2046 (5.1.1 delimiters), RFC 2231 (parameters in pieces and other character sets).

Limits: PARTS parts in all and DEPTH within each other; what is beyond them, and a multipart without its delimiters,
stays one piece. HEADER_LIMIT octets of a header are looked at, and FIELD_LIMIT of a field.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Union
from urllib.parse import unquote

from mqlite.message.headers import header_end

PARTS = 1000
DEPTH = 20
HEADER_LIMIT = 65536  # octets of a header, of the message or of a part
FIELD_LIMIT = 2048  # octets of a field: a boundary has 70 at most (RFC 2046 5.1.1), file names are longer

_FIELD_END = re.compile(rb'\r\n(?![ \t])')
#: ; name=value, name*0=beginning; name*1=rest (in pieces), name*=charset'language'%41%42 (RFC 2045 5.1, RFC 2231)
_PARAMETER = re.compile(r';\s*([^\s;=*]+)(?:\*\d+)?(\*?)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))', re.DOTALL)
_CHARSET = re.compile(r"[^']*'[^']*'")


@dataclass(frozen=True)
class Contents:
    """What the header of a message, or of a part of one, says of what is in it. '' for what it does not say."""

    type: str  # in lower case
    boundary: str
    charset: str  # in lower case
    filename: str
    encoding: str  # Content-Transfer-Encoding, in lower case
    disposition: str  # in lower case


def field_start(name: bytes) -> re.Pattern[bytes]:
    """For `field_text`."""
    return re.compile(rb'(?:^|\r\n)%s[ \t]*:' % name, re.IGNORECASE)


_TYPE = field_start(b'content-type')
_DISPOSITION = field_start(b'content-disposition')
_ENCODING = field_start(b'content-transfer-encoding')


def field_text(header: bytes, start: re.Pattern[bytes]) -> str:
    """The first field that begins like this, unfolded; '' when there is none."""
    found = start.search(header, 0, HEADER_LIMIT)
    if found is None:
        return ''
    value = header[found.end():found.end() + FIELD_LIMIT]
    return _FIELD_END.split(value, 1)[0].replace(b'\r\n', b'').decode('latin-1').strip()


def read_contents(header: bytes) -> Contents:
    kind, _, rest = field_text(header, _TYPE).partition(';')
    disposition, _, names = field_text(header, _DISPOSITION).partition(';')
    of_type, of_disposition = _parameters(rest), _parameters(names)
    return Contents(kind.strip().lower(), of_type.get('boundary', ''), of_type.get('charset', '').lower(),
                    of_disposition.get('filename', of_type.get('name', '')),
                    field_text(header, _ENCODING).lower(), disposition.strip().lower())


def _parameters(text: str) -> dict[str, str]:
    """The parameters of a field by name, in lower case; one that comes in pieces is put together in their order."""
    found: dict[str, str] = {}
    for name, encoded, quoted, token in _PARAMETER.findall(';' + text) if text else ():
        name, value = name.lower(), re.sub(r'\\(.)', r'\1', quoted) or token
        if encoded:
            value = unquote(value if name in found else _CHARSET.sub('', value, 1), errors='replace')
        found[name] = found.get(name, '') + value
    return found


def split_fields(header: bytes) -> list[bytes]:
    """The fields of a header, each with its CRLF and the lines that it goes on in."""
    ends = [match.end() for match in _FIELD_END.finditer(header)]
    if header and (not ends or ends[-1] < len(header)):
        ends.append(len(header))
    return [header[start:end] for start, end in zip([0, *ends], ends)]


def field_name(field: bytes) -> str:
    """The name of a field in lower case; '' when it is none."""
    name, colon, _ = field.partition(b':')
    return name.rstrip(b' \t').decode('latin-1').lower() if colon else ''


Piece = Union[bytes, 'Entity']


class Entity:
    """A message or a part of one. `header` ends with the CRLF of its last field, `gap` is the empty line behind it."""

    def __init__(self, octets: bytes, depth: int = DEPTH, room: Iterator[int] | None = None) -> None:
        """CRLF line ends. `depth`: levels that may be within; `room`: gives out the parts that there may be."""
        end = header_end(octets)
        self.header = octets[:end]
        self.gap = octets[end:end + 2]
        self.contents = read_contents(self.header)
        self.pieces: list[Piece] = [octets[end + 2:]]
        if depth and self.contents.type.startswith(('multipart/', 'message/rfc822', 'message/global')):
            self.pieces = self._split(octets[end + 2:], depth - 1, iter(range(PARTS)) if room is None else room)

    def _split(self, body: bytes, depth: int, room: Iterator[int]) -> list[Piece]:
        if self.contents.encoding not in ('', '7bit', '8bit', 'binary'):
            return [body]
        if self.contents.type in ('message/rfc822', 'message/global'):
            return [Entity(body, depth, room)] if next(room, None) is not None else [body]
        return _parts(body, self.contents.boundary, depth, room) if self.contents.boundary else [body]

    @property
    def is_leaf(self) -> bool:
        """It has a body of its own."""
        return len(self.pieces) == 1 and isinstance(self.pieces[0], bytes)

    @property
    def body(self) -> bytes:
        """Of a leaf."""
        piece = self.pieces[0]
        assert isinstance(piece, bytes)
        return piece

    @body.setter
    def body(self, octets: bytes) -> None:
        self.pieces = [octets]
        self.gap = b'\r\n'

    def inner(self) -> Iterator[Entity]:
        """The parts right within it."""
        return (piece for piece in self.pieces if isinstance(piece, Entity))

    def octets(self) -> bytes:
        return b''.join((self.header, self.gap, *(piece if isinstance(piece, bytes) else piece.octets()
                                                  for piece in self.pieces)))

    def set_field(self, name: str, field: bytes) -> None:
        """Put this field in the place of those of that name (lower case), or behind the last one."""
        fields, placed = [], False
        for old in split_fields(self.header):
            if field_name(old) != name:
                fields.append(old)
            elif not placed:
                fields.append(field)
                placed = True
        self.header = b''.join(fields if placed else [*fields, field])
        self.contents = read_contents(self.header)


def text_parts(entity: Entity, types: Container[str]) -> Iterator[Entity]:
    """The texts of these types that are the message's own: not attached, and not of a message within it."""
    contents = entity.contents
    if contents.type.startswith('multipart/'):
        for part in entity.inner():
            yield from text_parts(part, types)
    elif contents.type in types and contents.disposition != 'attachment' and entity.is_leaf:
        yield entity


def _parts(body: bytes, boundary: str, depth: int, room: Iterator[int]) -> list[Piece]:
    """The body as pieces. The CRLF in front of a delimiter belongs to it (RFC 2046 5.1.1)."""
    delimiter = re.compile(rb'(?<![^\n])--%s(--)?[ \t]*(?:\r\n|\Z)' % re.escape(boundary.encode('latin-1', 'replace')))
    pieces: list[Piece] = []
    at, start = 0, -1  # what has been taken; where the part begins that is being looked at, -1 before the first
    for match in delimiter.finditer(body):
        if start >= 0:
            end = max(match.start() - 2, start)
            pieces.append(Entity(body[start:end], depth, room))
            at = end
        if match.group(1) or next(room, None) is None:
            break
        pieces.append(body[at:match.end()])
        at = start = match.end()
    else:
        if start >= 0:
            pieces.append(Entity(body[start:], depth, room))
            at = len(body)
    return [*pieces, body[at:]]
