"""From the text of a template to pieces: plain text, and tags with the tokens inside them. Pure.

A brace begins a tag unless white space follows it, so that most of CSS and JavaScript is plain text; what else begins
with a brace and is no tag is an error that says so, rather than mail with half a tag in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from mqlite.template.values import TemplateError, Value

TOKENS_LIMIT = 300  # in one tag: evaluating a chain of operators goes as deep as it is long

#   what stands there    kind of piece
_FIXED = {
    'else':        'else',
    '/if':         'endif',
    'endif':       'endif',
    'foreachelse': 'foreachelse',
    '/foreach':    'endforeach',
}
_TEXTS = {'ldelim': '{', 'rdelim': '}'}
_OPENING = ('if', 'elseif', 'foreach', 'assign')  # a keyword and an expression behind it

_WORD = re.compile(r'(/?[A-Za-z]+)(\}|\s)')
_LITERAL_END = re.compile(r'\{/literal\}', re.IGNORECASE)
_TOKEN = re.compile(r'''\s*(?:
    \$(?P<variable>[A-Za-z][A-Za-z0-9_]*)
  | (?P<name>[A-Za-z][A-Za-z0-9_]*)
  | (?P<number>[0-9]{1,18}(?:\.[0-9]{1,18}(?:[eE][-+]?[0-9]{1,3})?)?)
  | "(?P<double>(?:[^"\\]|\\.)*)"
  | '(?P<single>(?:[^'\\]|\\.)*)'
  | (?P<sign>==|!=|<>|<=|>=|=>|=~|&&|\|\||[-+*/%<>=!|:.()[\]}])
)''', re.VERBOSE | re.DOTALL)


class Token(NamedTuple):
    """`kind`: variable, name, literal, or sign; the last one of a tag is the sign `}`."""

    kind: str
    value: Value


class Piece(NamedTuple):
    """`kind`: text, show, or one of those above. `line` counts from 1."""

    kind: str
    line: int
    text: str = ''
    tokens: tuple[Token, ...] = ()


def scan(text: str) -> Iterator[Piece]:
    """The pieces in their order. TemplateError."""
    at, line = 0, 1
    while at < len(text):
        brace = text.find('{', at)
        if brace < 0:
            brace = len(text)
        if brace > at:
            yield Piece('text', line, text[at:brace])
        if brace == len(text):
            return
        line += text.count('\n', at, brace)
        piece, at = _tag(text, brace + 1, line)
        if piece is not None:
            yield piece
        line += text.count('\n', brace, at)


def _tag(text: str, at: int, line: int) -> tuple[Piece | None, int]:
    """The tag whose brace stands before `at`, and where it ends. None for a comment."""
    following = text[at:at + 1]
    if not following or following.isspace():
        return Piece('text', line, '{'), at
    if following == '*':
        stop = text.find('*}', at) + 2
        if stop < 2:
            raise TemplateError(f'line {line}: a comment without its end')
        return None, stop
    match = _WORD.match(text, at)
    word, closed = (match.group(1).lower(), match.group(2) == '}') if match else ('', False)
    if match and closed and word == 'literal':
        end = _LITERAL_END.search(text, match.end())
        if end is None:
            raise TemplateError(f'line {line}: {{literal}} without {{/literal}}')
        return Piece('text', line, text[match.end():end.start()]), end.end()
    if match and closed and word in _TEXTS:
        return Piece('text', line, _TEXTS[word]), match.end()
    if match and closed and word in _FIXED:
        return Piece(_FIXED[word], line), match.end()
    if match and not closed and word in _OPENING:
        tokens, stop = _tokens(text, match.end(), line)
        return Piece(word, line, '', tokens), stop
    if following not in '$"\'(0123456789':
        raise TemplateError(f'line {line}: {{{text[at:at + 20]}... is no tag; write {{ldelim}} for a brace')
    tokens, stop = _tokens(text, at, line)
    return Piece('show', line, '', tokens), stop


def _tokens(text: str, at: int, line: int) -> tuple[tuple[Token, ...], int]:
    """The tokens up to the closing brace, and where it ends."""
    found: list[Token] = []
    while not found or found[-1] != _CLOSING:
        match = _TOKEN.match(text, at)
        if match is None:
            raise TemplateError(f'line {line}: in a tag, {text[at:at + 20].strip()!r} is not understood')
        found.append(_token(match))
        if len(found) > TOKENS_LIMIT:
            raise TemplateError(f'line {line}: a tag has more than {TOKENS_LIMIT} words and signs')
        at = match.end()
    return tuple(found), at


_CLOSING = Token('sign', '}')


def _token(match: re.Match[str]) -> Token:
    kind, text = match.lastgroup or '', match.group(match.lastgroup or 0)
    if kind == 'number':
        return Token('literal', float(text) if '.' in text else int(text))
    if kind == 'double':
        return Token('literal', text.replace('\\"', '"'))
    if kind == 'single':
        return Token('literal', text.replace("\\'", "'"))
    return Token(kind, text)
