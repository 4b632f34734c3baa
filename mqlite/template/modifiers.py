"""THE MODIFIER TABLE: `{$value|name:argument:...}`, as MailerQ documents them; but for regex_replace, which is a
node (`Substituted`). Pure.

A row says how many arguments there may be, and what the modifier makes of a list or an object: most leave them alone,
those that count say 0, those that look inside take them. Arguments are constants of the template. What a modifier makes
of a text is at most VALUE_LIMIT characters; those that could make more look first.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import html
import re
from collections.abc import Sequence
from itertools import islice
from typing import Callable, NamedTuple
from urllib.parse import quote, unquote

from mqlite.template.nodes import UNIT, VALUE_LIMIT
from mqlite.template.values import TemplateError, Value, text_of, truth_of, whole_of

_BLANKS = ' \t\n\r\0\x0b'
_ALIKE = object()  # lists and objects are left as they are
_INSIDE = object()  # they are taken as they are
_JOINED = object()  # the texts in them are taken together, without the names


class Modifier(NamedTuple):
    """A row."""

    function: Callable[..., Value]
    least: int  # arguments
    most: int
    of_lists: object

    def apply(self, arguments: Sequence[Value], spend: Callable[[int], None], value: Value) -> Value:
        """What it makes of the value. `spend` is told of the work, and may raise."""
        if self.of_lists is not _INSIDE:
            if isinstance(value, (list, dict)) and self.of_lists is not _JOINED:
                return value if self.of_lists is _ALIKE else self.of_lists
            value = _joined(value)
            spend(len(value) // UNIT)
        made = self.function(value, *arguments)
        if isinstance(made, str):
            spend(len(made) // UNIT)
            _sized(len(made))
        return made


def _sized(length: int) -> None:
    """Before something of this length is made."""
    if length > VALUE_LIMIT:
        raise TemplateError('a value becomes too long')


def _joined(value: Value) -> str:
    if isinstance(value, dict):
        value = list(value.values())
    return ''.join(map(_joined, value)) if isinstance(value, list) else text_of(value)


def _base64_decode(text: str) -> str:
    try:
        return base64.b64decode(text + '=' * (-len(text) % 4)).decode('utf-8', 'replace')
    except (binascii.Error, ValueError):
        return text


def _base64_encode(text: str) -> str:
    return base64.b64encode(_octets(text)).decode('ascii')


def _octets(text: str) -> bytes:
    """As UTF-8; lone surrogates stand for bytes that were none (see message/document), others for nothing."""
    try:
        return text.encode('utf-8', 'surrogateescape')
    except UnicodeEncodeError:
        return text.encode('utf-8', 'replace')


def _cat(value: Value, *more: Value) -> str:
    return text_of(value) + ''.join(map(text_of, more))


def _count(value: Value) -> int:
    return len(value) if isinstance(value, (list, dict)) else 0


def _count_characters(text: str, blanks: Value = False) -> int:
    return len(text) if truth_of(blanks) else len(''.join(text.split()))


def _count_paragraphs(text: str) -> int:
    """Paragraphs end with line breaks; the last one need not."""
    return len([line for line in re.split(r'\r\n|\r|\n', text) if line.strip()])


def _count_words(text: str) -> int:
    return sum(any(c.isalnum() for c in word) for word in text.split())


def _default(value: Value, instead: Value) -> Value:
    return instead if _is_empty(value) else value


def _is_empty(value: Value) -> bool:
    return not value if isinstance(value, (list, dict)) else not text_of(value)


def _escape(text: str, what: Value = 'html') -> str:
    return _ESCAPES.get(text_of(what).lower(), _unchanged)(text)


def _unchanged(text: str) -> str:
    return text


def _hashed(name: str) -> Callable[[str], str]:
    return lambda text: hashlib.new(name, _octets(text), usedforsecurity=False).hexdigest()


def _indent(text: str, count: Value = 1, character: Value = ' ') -> str:
    blanks = max(whole_of(count), 0), text_of(character)
    _sized(len(text) + (text.count('\n') + 1) * blanks[0] * len(blanks[1]))
    space = blanks[1] * blanks[0]
    return space + text.replace('\n', '\n' + space)


def _nl2br(text: str) -> str:
    return text.replace('\n', '<br />')


def _range(value: Value, first: Value, end: Value = None) -> Value:
    """Of a list or object the members from `first` up to and without `end`; one number alone is the end."""
    if not isinstance(value, (list, dict)):
        return value
    start, stop = (0, first) if end is None else (first, end)
    span = max(whole_of(start), 0), max(whole_of(stop), 0)
    return dict(islice(value.items(), *span)) if isinstance(value, dict) else value[slice(*span)]


def _replace(text: str, old: Value, new: Value) -> str:
    before, after = text_of(old), text_of(new)
    if not before:
        return text
    _sized(len(text) + text.count(before) * (len(after) - len(before)))
    return text.replace(before, after)


def _spacify(text: str, separator: Value = ' ') -> str:
    between = text_of(separator)
    _sized(len(text) * (len(between) + 1))
    return between.join(text)


def _strstr(text: str, what: Value, before: Value = False) -> str:
    at = text.find(text_of(what))
    if at < 0:
        return ''
    return text[:at] if truth_of(before) else text[at:]


def _substr(text: str, start: Value, length: Value = None) -> str:
    """Out of range: unchanged."""
    first = whole_of(start)
    if not 0 <= first <= len(text):
        return text
    return text[first:] if length is None else text[first:first + max(whole_of(length), 0)]


def _trim(text: str) -> str:
    return text.strip(_BLANKS)


def _truncate(text: str, length: Value = 80, mark: Value = '...', break_words: Value = False) -> str:
    """At most `length` characters, the mark at the end included; between words, unless words may be broken."""
    limit, etc = max(whole_of(length), 0), text_of(mark)
    if not limit or len(text) <= limit:
        return text if limit else ''
    room = limit - min(limit, len(etc))
    if truth_of(break_words):
        return text[:room] + etc
    return _whole_words(text[:room + 1])[:room] + etc


def _whole_words(text: str) -> str:
    """Without the last word, and the blanks before it; the text itself if it is one word."""
    words = text.split()
    if not words or text[-1:].isspace():
        return text.rstrip()
    return text[:-len(words[-1])].rstrip() if len(words[-1]) < len(text) else text


def _ucfirst(text: str) -> str:
    return text[:1].upper() + text[1:]


def _urldecode(text: str) -> str:
    return unquote(text, errors='replace')


def _urlencode(text: str) -> str:
    return quote(_octets(text), safe='')


_ESCAPES: dict[str, Callable[[str], str]] = {'html': html.escape, 'url': _urlencode, 'base64': _base64_encode}

#   name                        function            arguments   of a list or object
MODIFIERS = {
    'base64_decode':    Modifier(_base64_decode,    0, 0,       _ALIKE),
    'base64_encode':    Modifier(_base64_encode,    0, 0,       _ALIKE),
    'cat':              Modifier(_cat,              1, 9,       _INSIDE),
    'count':            Modifier(_count,            0, 0,       _INSIDE),
    'count_characters': Modifier(_count_characters, 0, 1,       0),
    'count_paragraphs': Modifier(_count_paragraphs, 0, 0,       0),
    'count_words':      Modifier(_count_words,      0, 0,       0),
    'default':          Modifier(_default,          1, 1,       _INSIDE),
    'empty':            Modifier(_is_empty,         0, 0,       _INSIDE),
    'escape':           Modifier(_escape,           0, 1,       _ALIKE),
    'indent':           Modifier(_indent,           0, 2,       _ALIKE),
    'lower':            Modifier(str.lower,         0, 0,       _ALIKE),
    'md5':              Modifier(_hashed('md5'),    0, 0,       _JOINED),
    'nl2br':            Modifier(_nl2br,            0, 0,       _ALIKE),
    'range':            Modifier(_range,            1, 2,       _INSIDE),
    'replace':          Modifier(_replace,          2, 2,       _ALIKE),
    'sha1':             Modifier(_hashed('sha1'),   0, 0,       _JOINED),
    'sha256':           Modifier(_hashed('sha256'), 0, 0,       _JOINED),
    'sha512':           Modifier(_hashed('sha512'), 0, 0,       _JOINED),
    'spacify':          Modifier(_spacify,          0, 1,       _ALIKE),
    'strlen':           Modifier(len,               0, 0,       0),
    'strstr':           Modifier(_strstr,           1, 2,       _ALIKE),
    'substr':           Modifier(_substr,           1, 2,       _ALIKE),
    'tolower':          Modifier(str.lower,         0, 0,       _ALIKE),
    'toupper':          Modifier(str.upper,         0, 0,       _ALIKE),
    'trim':             Modifier(_trim,             0, 0,       _ALIKE),
    'truncate':         Modifier(_truncate,         0, 3,       _ALIKE),
    'ucfirst':          Modifier(_ucfirst,          0, 0,       _ALIKE),
    'upper':            Modifier(str.upper,         0, 0,       _ALIKE),
    'urldecode':        Modifier(_urldecode,        0, 0,       _ALIKE),
    'urlencode':        Modifier(_urlencode,        0, 0,       _ALIKE),
}
