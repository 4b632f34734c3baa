"""Style sheets as far as style attributes can say the same: rules with simple selectors, and what is left. Pure.

    p { color: red }   .a, td > b.c { … }   #id [lang] { … }      can be written into attributes
    a:hover { … }   a + b { … }   * { … }   @media … { … }         stay in the sheet

Sources: CSS 2.2 chapters 4 (syntax), 5 (selectors), 6.4 (the cascade). Comments are dropped. What cannot be parsed
stays in the sheet, up to the next brace, as browsers skip it.

Limits: SHEET_LIMIT characters of a sheet, SELECTORS selectors in all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mqlite.errors import PermanentError

SHEET_LIMIT = 262144  # characters
SELECTORS = 2000
PARTS = 20  # compounds of a selector, and tests in a compound: as deep as anybody writes

_COMMENT = re.compile(r'/\*.*?(?:\*/|\Z)', re.DOTALL)
_BRACE_OR_TEXT = re.compile(r'[{}]|"[^"\n]*"|\'[^\'\n]*\'')
_SIMPLE = re.compile(r'''(?P<tag>[A-Za-z][A-Za-z0-9-]*)
                       | \#(?P<id>[A-Za-z_-][A-Za-z0-9_-]*)
                       | \.(?P<cls>[A-Za-z_-][A-Za-z0-9_-]*)
                       | \[(?P<attribute>[A-Za-z-]+)
                         (?:=(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[\w-]+)))?\]''', re.VERBOSE)
_PROPERTY = re.compile(r'-{0,2}[A-Za-z_][A-Za-z0-9_-]*')


class StyleError(PermanentError):
    """This is too much style."""


@dataclass(frozen=True)
class Compound:
    """What one element must be: its tag ('' for any), ids, classes, attributes with a value or with any (None)."""

    tag: str
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    attributes: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class Selector:
    """Compounds from the element outwards. `children[n]`: compound n must be right within the next one, not deeper."""

    compounds: tuple[Compound, ...]
    children: tuple[bool, ...]

    @property
    def specificity(self) -> tuple[int, int, int]:
        """Ids; classes and attributes; tags (CSS 2.2 section 6.4.3)."""
        return (sum(len(part.ids) for part in self.compounds),
                sum(len(part.classes) + len(part.attributes) for part in self.compounds),
                sum(bool(part.tag) for part in self.compounds))


@dataclass(frozen=True)
class Declaration:
    """`name: value`, `!important` apart."""

    name: str
    value: str
    important: bool


@dataclass(frozen=True)
class Rule:
    """One selector and what it declares. `order`: where it stands among all of them."""

    selector: Selector
    declarations: tuple[Declaration, ...]
    order: int


def parse_sheet(text: str, first: int = 0) -> tuple[list[Rule], str]:
    """The rules that attributes can say, numbered from `first`, and the sheet without them. StyleError."""
    if len(text) > SHEET_LIMIT:
        raise StyleError(f'a style sheet has more than {SHEET_LIMIT} characters')
    rules: list[Rule] = []
    rest: list[str] = []
    for prelude, block, whole in _blocks(_COMMENT.sub('', text).replace('<!--', '').replace('-->', '')):
        chosen = [] if prelude.lstrip().startswith('@') or '{' in block else [
            (words, parse_selector(words)) for words in prelude.split(',')]
        declarations = tuple(parse_declarations(block)) if chosen else ()
        if first + len(rules) + len(chosen) > SELECTORS:
            raise StyleError(f'there are more than {SELECTORS} selectors')
        rules += [Rule(selector, declarations, first + len(rules) + at)
                  for at, (_, selector) in enumerate(chosen) if selector is not None]
        left = [words.strip() for words, selector in chosen if selector is None]
        if len(left) == len(chosen):
            rest.append(whole)
        elif left:
            rest.append(f'{", ".join(left)} {{{block}}}\n')
    return rules, ''.join(rest).strip()


def _blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """What stands before a block, what is in it, and both as they stand. What is no block has `@` before it."""
    at = 0
    while at < len(text):
        start, stop = _block(text, at)
        semicolon = text.find(';', at, start)
        while semicolon >= 0 and text[at:semicolon].lstrip().startswith('@'):  # @import, @charset
            yield '@', '', text[at:semicolon + 1]
            at = semicolon + 1
            semicolon = text.find(';', at, start)
        if text[start:start + 1] == '{':
            yield text[at:start], text[start + 1:stop], text[at:stop + 1]
            at = stop + 1
        else:
            yield '@', '', text[at:start + 1]  # a brace that closes nothing, or the end
            at = start + 1


def _block(text: str, at: int) -> tuple[int, int]:
    """Where the next brace stands, and the one that closes it; the end of the text where there is none."""
    depth, start = 0, len(text)
    for match in _BRACE_OR_TEXT.finditer(text, at):
        if match.group() == '{':
            start = match.start() if not depth else start
            depth += 1
        elif match.group() == '}':
            depth -= 1
            if depth <= 0:
                return min(start, match.start()), match.start()
    return start, len(text)


def parse_selector(text: str) -> Selector | None:
    """None for a selector that attributes cannot say."""
    compounds: list[Compound] = []
    children: list[bool] = []
    words = text.replace('>', ' > ').split()
    if not words or len(words) > PARTS or '>' in (words[0], words[-1]):
        return None
    for word in reversed(words):
        if word == '>':
            if children and children[-1]:
                return None
            children[-1:] = [True]
            continue
        compound = _parse_compound(word)
        if compound is None:
            return None
        compounds.append(compound)
        children.append(False)
    return Selector(tuple(compounds), tuple(children))


def _parse_compound(word: str) -> Compound | None:
    tag, at = '', 0
    ids: list[str] = []
    classes: list[str] = []
    attributes: list[tuple[str, str | None]] = []
    while at < len(word):
        match = _SIMPLE.match(word, at)
        if match is None or len(ids) + len(classes) + len(attributes) >= PARTS:
            return None
        if match['tag'] is not None:
            if at:
                return None
            tag = match['tag'].lower()
        elif match['id'] is not None:
            ids.append(match['id'])
        elif match['cls'] is not None:
            classes.append(match['cls'])
        else:
            values = [match[name] for name in ('double', 'single', 'bare') if match[name] is not None]
            attributes.append((match['attribute'].lower(), values[0] if values else None))
        at = match.end()
    return Compound(tag, tuple(ids), tuple(classes), tuple(attributes)) if word else None


def parse_declarations(text: str) -> Iterator[Declaration]:
    """What a block or a style attribute declares; what is no declaration is left out, as browsers do."""
    for piece in _split_declarations(text):
        name, colon, value = piece.partition(':')
        name, value = name.strip(), value.strip()
        before, mark, word = value.rpartition('!')
        important = bool(mark) and word.strip().lower() == 'important'
        if important:
            value = before.rstrip()
        if colon and value and _PROPERTY.fullmatch(name):
            yield Declaration(name if name.startswith('--') else name.lower(), value, important)


def _split_declarations(text: str) -> Iterator[str]:
    """At semicolons that are neither quoted nor within parentheses: url(data:image/png;base64,...)."""
    start = depth = 0
    quote = ''
    for at, character in enumerate(text):
        if quote:
            quote = '' if character == quote else quote
        elif character in '"\'':
            quote = character
        elif character == '(':
            depth += 1
        elif character == ')':
            depth = max(depth - 1, 0)
        elif character == ';' and not depth:
            yield text[start:at]
            start = at + 1
    yield text[start:]
