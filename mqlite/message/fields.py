"""Writing fields of a header: folding, and what is not ASCII as encoded words. Pure.

    make_field('Subject', 'Grüße aus Köln')    b'Subject: =?utf-8?b?R3LDvMOfZSBhdXMgS8O2bG4=?=\\r\\n'

Sources: RFC 5322 (2.1.1 lengths, 2.2.3 folding), RFC 2047 (encoded words: whole characters in each, lines of 76).

A value is one line however it is given: CR, LF, NUL and other controls cannot come through, so that nobody adds a
field of his own. Lines are broken at spaces, about 76 characters apart; a word that makes a line longer than LINE_LIMIT
cannot be written, and FieldError says so.
"""

from __future__ import annotations

import base64
import re

from mqlite.errors import PermanentError
from mqlite.message.addresses import read_addresses

LINE_LIMIT = 998  # octets without CRLF, RFC 5322 section 2.1.1
_FOLD_AT = 76  # octets; RFC 5322 asks for at most 78
_WORD_OCTETS = 36  # in an encoded word: 48 characters of base64 and 12 around them; 76 with the name of the field

#: Fields of addresses: only the names in them may be encoded words.
ADDRESSES = frozenset(['from', 'sender', 'reply-to', 'to', 'cc', 'bcc', 'resent-from', 'resent-sender', 'resent-to',
                       'resent-cc', 'disposition-notification-to'])

_NAME = re.compile('[!-9;-~]{1,100}')
_FOLDED = re.compile(r'(?:\r\n|\r|\n)[ \t]*')
_CONTROLS = re.compile(r'[\x00-\x1f\x7f-\x9f]+')
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+")


class FieldError(PermanentError):
    """This cannot be a field of a header."""


def make_field(name: str, value: str) -> bytes:
    """The field with its CRLF. FieldError."""
    if not _NAME.fullmatch(name):
        raise FieldError(f'{name[:100]!r} is no name of a header field')
    text = _CONTROLS.sub(' ', _FOLDED.sub(' ', value)).strip(' ')
    if not text.isascii():
        text = _encoded_addresses(text) if name.lower() in ADDRESSES else encoded(text)
    return fold(name, text).encode('utf-8', 'surrogateescape')


def fold(name: str, text: str) -> str:
    """`name: text` with line breaks at spaces, and at the end. FieldError when that is not enough."""
    lines, line = [], f'{name}:'
    for word in text.split(' '):
        if word and len(line) + len(word) >= _FOLD_AT and line.strip(' ') and line != f'{name}:':
            lines.append(line)
            line = ''
        line += f' {word}'
    lines.append(line)
    if any(len(line.encode('utf-8', 'surrogateescape')) > LINE_LIMIT for line in lines):
        raise FieldError(f'{name} has a word of more than {LINE_LIMIT} octets')
    return '\r\n'.join(lines) + '\r\n'


def encoded(text: str) -> str:
    """Plain text with encoded words where it is not ASCII: from the first such word to the last."""
    words = text.split(' ')
    special = [n for n, word in enumerate(words) if not word.isascii() or '=?' in word]
    if not special:
        return text
    first, last = special[0], special[-1] + 1
    return ' '.join([*words[:first], _encoded_words(' '.join(words[first:last])), *words[last:]])


def _encoded_words(text: str) -> str:
    """As many encoded words as it takes; the spaces between them do not count when they are read."""
    pieces, octets = [], b''
    for character in text:
        more = character.encode('utf-8', 'replace')
        if len(octets) + len(more) > _WORD_OCTETS:
            pieces.append(octets)
            octets = b''
        octets += more
    return ' '.join(f'=?utf-8?b?{base64.b64encode(piece).decode("ascii")}?=' for piece in [*pieces, octets])


def _encoded_addresses(text: str) -> str:
    """A list of addresses whose names are encoded words; an address itself stays as it is (RFC 6532). FieldError."""
    found = [(name, address) for name, address in read_addresses([text]) if name or address]
    if not found:
        raise FieldError('these are no addresses: the names in them cannot be encoded')
    return ', '.join(format_address(name, address) for name, address in found)


def format_address(name: str, address: str) -> str:
    """`name <address>`; the address alone when there is no name. The name is quoted or encoded as it must be."""
    name = _CONTROLS.sub(' ', name).strip(' ')
    if not name:
        return address
    if not name.isascii() or '=?' in name:
        return f'{_encoded_words(name)} <{address}>'
    if not _ATOMS.fullmatch(name):
        escaped = name.replace('\\', '\\\\').replace('"', '\\"')
        name = f'"{escaped}"'
    return f'{name} <{address}>'
