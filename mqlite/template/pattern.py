"""Regular expressions in linear time, for `=~` and `regex_replace`. Pure.

Python's own engine goes back and tries again, which takes ages for patterns like (a+)+$; one such template would stop
the whole process. This one follows all ways at once (Thompson; the way to keep captures is Pike's), so that its work is
at most the length of the text times that of the pattern, and is counted while it is done.

    a . [a-z] [^a-z] \\d \\D \\w \\W \\s \\S \\n \\r \\t   ^ $ \\b \\B   ( ) (?: ) |   * + ? {m} {m,} {m,n} (lazy: *?)

Neither back references nor looking around, which cannot be done this way. `.` is not a line end; case counts.
The leftmost match counts, then the one that an engine which goes back would find first.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Callable

from mqlite.template.values import TemplateError

PROGRAM_LIMIT = 1000  # characters of a pattern, and its steps when compiled: counts like {1,500} are written out
DEPTH_LIMIT = 50  # groups within each other

_Test = Callable[[str], bool]
_Step = tuple[str, Any, int]
_Captures = tuple[int, ...]
# kinds of steps; the number is the second way of a split
#   char test    look test    save slot    split first second    match

_CLASSES: dict[str, _Test] = {'d': str.isdigit, 'w': lambda c: c.isalnum() or c == '_', 's': str.isspace}
_CONTROLS = {'n': '\n', 'r': '\r', 't': '\t'}
_COUNT = re.compile(r'\{([0-9]{1,4})(,?)([0-9]{0,4})\}')
_REFERENCE = re.compile(r'[$\\]([0-9&])')


class Pattern:
    """A compiled pattern."""

    def __init__(self, text: str) -> None:
        """TemplateError."""
        if len(text) > PROGRAM_LIMIT:
            raise TemplateError(f'the regular expression {text[:40]!r} is too long')
        parser = _Parser(text)
        self._program: list[_Step] = [('save', 0, 0), *parser.whole(), ('save', 1, 0), ('match', None, 0)]
        if len(self._program) > PROGRAM_LIMIT:
            raise TemplateError(f'the regular expression {text[:40]!r} is too long')
        self._empty: _Captures = (-1,) * (2 * parser.groups + 2)

    def search(self, text: str, at: int, spend: Callable[[int], None]) -> _Captures | None:
        """The leftmost match from `at` on: start and end of the whole, of group 1, and so on; -1 where there is none.

        `spend` is told how many steps are made, and may raise.
        """
        found: _Captures | None = None
        ways: list[tuple[int, _Captures]] = []
        known: set[int] = set()
        for position in range(at, len(text) + 1):
            if found is None:
                self._follow(0, self._empty, text, position, ways, known)
            elif not ways:
                break
            spend(len(known))
            character, going, ways, known = text[position:position + 1], ways, [], set()
            for step, captures in going:
                kind, test, _ = self._program[step]
                if kind == 'match':
                    found = captures
                    break
                if character and test(character):
                    self._follow(step + 1, captures, text, position + 1, ways, known)
        return found

    def _follow(self, step: int, captures: _Captures, text: str, position: int,
                ways: list[tuple[int, _Captures]], known: set[int]) -> None:
        """Add the steps that can be reached without a character, those to be preferred first. Known ones have been."""
        waiting = [(step, captures)]
        while waiting:
            step, captures = waiting.pop()
            if step in known:
                continue
            known.add(step)
            kind, value, second = self._program[step]
            if kind == 'split':
                waiting += [(step + second, captures), (step + value, captures)]
            elif kind == 'save':
                waiting.append((step + 1, (*captures[:value], position, *captures[value + 1:])))
            elif kind == 'look':
                if value(text, position):
                    waiting.append((step + 1, captures))
            else:
                ways.append((step, captures))

    def substitute(self, text: str, replacement: str, spend: Callable[[int], None], limit: int) -> str:
        """Every match replaced; $1 stands for what group 1 matched, $0 and $& for the whole."""
        pieces, at, size = [], 0, 0
        while at <= len(text):
            match = self.search(text, at, spend)
            if match is None:
                break
            start, end = match[:2]
            pieces += [text[at:start], _filled(replacement, text, match)]
            if end == start:
                pieces.append(text[end:end + 1])
                end += 1
            at = end
            size += sum(map(len, pieces[-3:]))
            if size > limit:
                raise TemplateError('a value becomes too long')
        return ''.join([*pieces, text[at:]])


compile_pattern = lru_cache(maxsize=64)(Pattern)


def _filled(replacement: str, text: str, match: _Captures) -> str:
    def group(reference: re.Match[str]) -> str:
        number = 0 if reference.group(1) == '&' else int(reference.group(1))
        start, end = match[2 * number:2 * number + 2] if 2 * number < len(match) else (-1, -1)
        return text[start:end] if end >= 0 else ''
    return _REFERENCE.sub(group, replacement)


class _Parser:
    """From the text of a pattern to steps. Jumps are relative, so that pieces can be put together and repeated."""

    def __init__(self, text: str) -> None:
        self.groups = 0
        self._text = text
        self._at = 0
        self._depth = 0

    def whole(self) -> list[_Step]:
        steps = self._alternatives()
        if self._at < len(self._text):
            raise self._fault('a ) without its (')
        return steps

    def _alternatives(self) -> list[_Step]:
        steps = self._sequence()
        while self._accept('|'):
            other = self._sequence()
            steps = [('split', 1, len(steps) + 2), *steps, _jump(len(other) + 1), *other]
        return steps

    def _sequence(self) -> list[_Step]:
        steps: list[_Step] = []
        while self._at < len(self._text) and self._text[self._at] not in '|)':
            steps += self._repeated(self._single())
            if len(steps) > PROGRAM_LIMIT:
                raise self._fault('it is too long')
        return steps

    def _repeated(self, steps: list[_Step]) -> list[_Step]:
        count = _COUNT.match(self._text, self._at)
        sign = self._text[self._at:self._at + 1]
        if count:
            self._at = count.end()
            least = int(count.group(1))
            most = int(count.group(3)) if count.group(3) else -1 if count.group(2) else least
        elif sign and sign in '*+?':
            self._at += 1
            least, most = {'*': (0, -1), '+': (1, -1), '?': (0, 1)}[sign]
        else:
            return steps
        lazy = self._accept('?')
        if max(least, most) * len(steps) > PROGRAM_LIMIT:
            raise self._fault('it is too long')
        if most < 0:
            more = [_split(1, len(steps) + 2, lazy), *steps, _jump(-len(steps) - 1)]
        else:
            more = [_split(1, len(steps) + 1, lazy), *steps] * max(most - least, 0)
        return steps * least + more

    def _single(self) -> list[_Step]:
        character = self._take()
        if character == '(':
            return self._group()
        if character == '.':
            return [('char', _is_not_line_end, 0)]
        if character == '[':
            return [('char', self._set(), 0)]
        if character == '^':
            return [('look', _is_start, 0)]
        if character == '$':
            return [('look', _is_end, 0)]
        if character == '\\':
            return [self._escaped()]
        if character in '*+?':
            raise self._fault('nothing to repeat')
        return [('char', character.__eq__, 0)]

    def _group(self) -> list[_Step]:
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise self._fault('too many groups within each other')
        captures = not self._text.startswith('?:', self._at)
        if not captures:
            self._at += 2
        elif self._text.startswith('?', self._at):
            raise self._fault('of the groups with (? there is only (?:')
        else:
            self.groups += 1
        number = 2 * self.groups
        steps = self._alternatives()
        if not self._accept(')'):
            raise self._fault('a ( without its )')
        self._depth -= 1
        return [('save', number, 0), *steps, ('save', number + 1, 0)] if captures else steps

    def _escaped(self) -> _Step:
        character = self._take()
        if character in 'bB':
            return ('look', _is_boundary if character == 'b' else _is_no_boundary, 0)
        if character.isdigit():
            raise self._fault('there are no back references')
        return ('char', _class_of(character) or _CONTROLS.get(character, character).__eq__, 0)

    def _set(self) -> _Test:
        """Behind `[`, up to its `]`."""
        negative = self._accept('^')
        singles, ranges, classes = set(), [], []
        first = True
        while first or not self._accept(']'):
            first = False
            character = self._take()
            if character == '\\':
                character = self._take()
                named = _class_of(character)
                if named is not None:
                    classes.append(named)
                    continue
                character = _CONTROLS.get(character, character)
            if self._text.startswith('-', self._at) and not self._text.startswith('-]', self._at):
                self._at += 1
                last = self._take()
                ranges.append((character, self._take() if last == '\\' else last))
            else:
                singles.add(character)
        return lambda c: negative != (c in singles or any(low <= c <= high for low, high in ranges)
                                      or any(test(c) for test in classes))

    def _take(self) -> str:
        if self._at >= len(self._text):
            raise self._fault('it ends too early')
        self._at += 1
        return self._text[self._at - 1]

    def _accept(self, character: str) -> bool:
        found = self._text.startswith(character, self._at)
        self._at += found
        return found

    def _fault(self, text: str) -> TemplateError:
        return TemplateError(f'the regular expression {self._text[:40]!r}: {text}')


def _split(first: int, second: int, swap: bool) -> _Step:
    return ('split', second, first) if swap else ('split', first, second)


def _jump(distance: int) -> _Step:
    return ('split', distance, distance)


def _class_of(letter: str) -> _Test | None:
    """The test of \\d and its like, upper case for its opposite."""
    test = _CLASSES.get(letter.lower())
    if test is None or letter.islower():
        return test
    return lambda c: not test(c)


def _is_not_line_end(character: str) -> bool:
    return character not in '\r\n'


def _is_start(text: str, position: int) -> bool:
    return position == 0


def _is_end(text: str, position: int) -> bool:
    return position == len(text)


def _is_boundary(text: str, position: int) -> bool:
    word = _CLASSES['w']
    before, after = text[max(position - 1, 0):position], text[position:position + 1]
    return (bool(before) and word(before)) != (bool(after) and word(after))


def _is_no_boundary(text: str, position: int) -> bool:
    return not _is_boundary(text, position)
