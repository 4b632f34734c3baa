"""The property `inlinecss`: what style blocks of HTML mail say, said again in style attributes. Pure.

Mail programs that show mail within a web page drop style blocks. What a rule with a simple selector declares (see
`css.py`) goes into the `style` of every element that it matches, by the cascade of CSS: specificity, then order; what
stands in the attribute already wins, `!important` wins over that. The rules that were taken are no longer in their
block, and a block that has none left is gone; everything else (`@media`, `:hover`) stays where it is.

Only start tags and style blocks are touched, the rest of the HTML is the same character for character. Elements are
found as browsers find them, as far as it matters here: void elements, comments, raw text, and end tags that may be left
out.

Limits: TEXT_LIMIT characters, ELEMENTS elements, MATCHES tests of an element against a part of a selector, STYLES
characters in the attributes.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from mqlite.message.css import Compound, Declaration, Rule, Selector, StyleError, parse_declarations, parse_sheet
from mqlite.message.mime import Entity, text_parts
from mqlite.message.transfer import set_text, text_of

TEXT_LIMIT = 2 * 1024 * 1024  # characters
ELEMENTS = 20000
MATCHES = 200000
STYLES = 4 * TEXT_LIMIT  # characters in all attributes that are written
DEPTH = 100  # elements within each other that are told apart

#: Each attribute begins in another way, so that there is only one way to match: no time is lost with going back.
_TAG = re.compile(r'<(/?)([A-Za-z][^\s/<>]*)(?=[\s/>])((?:[^"\'<>]|"[^"]*"|\'[^\']*\')*)>')
_ATTRIBUTE = re.compile(r'([^\s"\'<>/=]+)(?:\s*=\s*(?:"([^"]*)"|\'([^\']*)\'|([^\s"\'<>]+)))?')

_VOID = frozenset('area base br col embed hr img input link meta source track wbr'.split())
_RAW = frozenset('script style textarea title xmp'.split())
_HEAD = frozenset('head title meta link style script base'.split())
_CELLS = frozenset(['td', 'th'])
_ROWS = _CELLS | {'tr'}
_GROUPS = _ROWS | {'thead', 'tbody', 'tfoot'}
#   opening this     ends these, if they are the innermost ones
_ENDS = {
    'li': frozenset(['li']), 'option': frozenset(['option']), 'dt': frozenset(['dt', 'dd']),
    'dd': frozenset(['dt', 'dd']), 'td': _CELLS, 'th': _CELLS, 'tr': _ROWS, 'tbody': _GROUPS, 'thead': _GROUPS,
    'tfoot': _GROUPS,
    **{tag: frozenset(['p']) for tag in (
        'address article aside blockquote center div dl fieldset footer form h1 h2 h3 h4 h5 h6 header hr main nav ol p '
        'pre section table ul').split()},
}


class Element:
    """A start tag, and what it is within."""

    __slots__ = ('attributes', 'classes', 'end', 'in_head', 'parent', 'start', 'tag')

    def __init__(self, match: re.Match[str], parent: Element | None) -> None:
        self.tag = match.group(2).lower()
        self.start, self.end = match.span()
        self.parent = parent
        self.in_head: bool = self.tag in _HEAD or parent is not None and parent.in_head
        self.attributes: dict[str, str] = {}
        for name, *values in _ATTRIBUTE.findall(match.group(3)):
            self.attributes.setdefault(name.lower(), html.unescape(''.join(values)))
        self.classes = frozenset(self.attributes.get('class', '').split())


class _Document:
    """The elements of a text, and its style blocks: the element, and where its text ends and its end tag."""

    def __init__(self, text: str) -> None:
        self.elements: list[Element] = []
        self.styles: list[tuple[Element, int, int]] = []
        self._open: list[Element] = []
        at = text.find('<')
        while at >= 0:
            at = text.find('<', self._read(text, at))

    def _read(self, text: str, at: int) -> int:
        """What begins at this bracket; where to go on."""
        if text.startswith('<!--', at):
            end = text.find('-->', at + 4)
            return len(text) if end < 0 else end + 3
        match = _TAG.match(text, at)
        if match is None:
            return at + 1
        if match.group(1):
            self._close(match.group(2).lower())
            return match.end()
        element = self._start(match)
        if element.tag not in _RAW:
            return match.end()
        closing = re.compile(f'</{element.tag}', re.IGNORECASE).search(text, match.end())
        end = text.find('>', closing.end()) if closing else -1
        stop, after = (closing.start(), end + 1) if closing and end >= 0 else (len(text), len(text))
        if element.tag == 'style':
            self.styles.append((element, stop, after))
        return after

    def _start(self, match: re.Match[str]) -> Element:
        if len(self.elements) >= ELEMENTS:
            raise StyleError(f'the HTML has more than {ELEMENTS} elements')
        ended_by_this = _ENDS.get(match.group(2).lower(), ())
        while self._open and self._open[-1].tag in ended_by_this:
            self._open.pop()
        element = Element(match, self._open[-1] if self._open else None)
        self.elements.append(element)
        if element.tag not in _VOID and element.tag not in _RAW and len(self._open) < DEPTH:
            self._open.append(element)
        return element

    def _close(self, tag: str) -> None:
        if any(element.tag == tag for element in self._open):
            while self._open.pop().tag != tag:
                pass


def inline_styles(mime: bytes) -> bytes:
    """The message with the styles of its HTML in attributes. StyleError, TransferError."""
    whole = Entity(mime)
    for part in text_parts(whole, ('text/html',)):
        text = text_of(part)
        if '<style' in text.lower():
            set_text(part, inline_html(text))
    return whole.octets()


def inline_html(text: str) -> str:
    """The HTML with its styles in attributes. StyleError."""
    if len(text) > TEXT_LIMIT:
        raise StyleError(f'the HTML has more than {TEXT_LIMIT} characters')
    document = _Document(text)
    rules: list[Rule] = []
    changes: list[tuple[int, int, str]] = []
    for style, stop, after in document.styles:
        if style.attributes.get('media', 'all').strip().lower() in ('', 'all', 'screen'):
            found, rest = parse_sheet(text[style.end:stop], len(rules))
            rules += found
            changes.append((style.end, stop, f'\n{rest}\n') if rest else (style.start, after, ''))
    matcher, room = _Matcher(rules), STYLES
    for element in document.elements:
        chosen = [] if element.in_head else matcher.rules_for(element)
        if chosen:
            tag = _with_style(text[element.start:element.end], element, chosen)
            changes.append((element.start, element.end, tag))
            room -= len(tag)
            if room < 0:
                raise StyleError(f'the attributes would have more than {STYLES} characters')
    return _changed(text, sorted(changes))


def _changed(text: str, changes: Sequence[tuple[int, int, str]]) -> str:
    pieces, at = [], 0
    for start, stop, instead in changes:
        pieces += [text[at:start], instead]
        at = stop
    return ''.join([*pieces, text[at:]])


class _Matcher:
    """Finds the rules of an element, looking at those only that name its id, a class of it or its tag."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._left = MATCHES
        self._by_key: dict[tuple[str, str], list[Rule]] = {}
        for rule in rules:
            last = rule.selector.compounds[0]
            key = (('id', last.ids[0]) if last.ids else ('class', last.classes[0]) if last.classes
                   else ('tag', last.tag))
            self._by_key.setdefault(key, []).append(rule)

    def rules_for(self, element: Element) -> list[Rule]:
        """Those that match, the strongest last."""
        keys = [('tag', element.tag), ('tag', ''), ('id', element.attributes.get('id', '')),
                *(('class', name) for name in element.classes)]
        found = [rule for key in keys for rule in self._by_key.get(key, ()) if self._matches(rule.selector, element)]
        return sorted(found, key=lambda rule: (rule.selector.specificity, rule.order))

    def _matches(self, selector: Selector, element: Element) -> bool:
        """From the element outwards: which elements can each compound stand for?"""
        here = [element] if self._is(selector.compounds[0], element) else []
        for child, compound in zip(selector.children, selector.compounds[1:]):
            if not here:
                return False
            around = [inner.parent for inner in here if inner.parent is not None] if child else _ancestors(here[0])
            here = [outer for outer in around if self._is(compound, outer)]
        return bool(here)

    def _is(self, compound: Compound, element: Element) -> bool:
        self._left -= 1
        if self._left < 0:
            raise StyleError('there are too many elements for so many selectors')
        return ((not compound.tag or compound.tag == element.tag)
                and all(element.attributes.get('id') == name for name in compound.ids)
                and all(name in element.classes for name in compound.classes)
                and all(name in element.attributes and value in (None, element.attributes[name])
                        for name, value in compound.attributes))


def _ancestors(element: Element) -> Iterator[Element]:
    outer = element.parent
    while outer is not None:
        yield outer
        outer = outer.parent


def _with_style(tag: str, element: Element, rules: Sequence[Rule]) -> str:
    """The start tag with what the rules declare in its style."""
    own = tuple(parse_declarations(element.attributes.get('style', '')))
    strength = [*(rule.declarations for rule in rules), own]
    style: dict[str, str] = {}
    for important in (False, True):
        for declarations in strength:
            _put(style, declarations, important)
    text = html.escape('; '.join(f'{name}: {value}' for name, value in style.items()))
    found = next((match for match in _ATTRIBUTE.finditer(tag, 1 + len(element.tag))
                  if match.group(1).lower() == 'style'), None)
    if found is not None:
        return f'{tag[:found.start()]}style="{text}"{tag[found.end():]}'
    at = 1 + len(element.tag)  # in front of the others: the last one may end in a slash that is part of it
    return f'{tag[:at]} style="{text}"{tag[at:]}'


def _put(style: dict[str, str], declarations: Sequence[Declaration], important: bool) -> None:
    """Later ones stand last, so that `margin-top` behind `margin` counts, and the other way round."""
    for declaration in declarations:
        if declaration.important is important:
            style.pop(declaration.name, None)
            style[declaration.name] = declaration.value
