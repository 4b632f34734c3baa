"""The nodes of a compiled template, and the run that evaluates them. Pure.

Expressions have `value(run)`, statements have `do(run)`. A run has WORK_LIMIT units of work: each statement costs one,
and each text that is made or shown costs one for every 32 characters. That bounds loops, output (16 Mi characters) and
time (about a second) with one number. A single value has at most VALUE_LIMIT characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable, Protocol

from mqlite.template.pattern import Pattern, compile_pattern
from mqlite.template.values import (
    LARGEST,
    TemplateError,
    Value,
    item_of,
    member_of,
    number_of,
    text_of,
    truth_of,
)

WORK_LIMIT = 524288  # units, see above
UNIT = 32  # characters
VALUE_LIMIT = 1 << 20  # characters


class Run:
    """One evaluation: the variables, what was written, and the work that is left."""

    def __init__(self, variables: dict[str, Value]) -> None:
        self.variables = variables
        self.written: list[str] = []
        self._left = WORK_LIMIT

    def spend(self, units: int) -> None:
        self._left -= units
        if self._left < 0:
            raise TemplateError('the template loops too often or writes too much')

    def write(self, text: str) -> None:
        self.spend(len(text) // UNIT)
        self.written.append(text)

    def do(self, statements: Sequence[Statement]) -> None:
        self.spend(len(statements))
        for statement in statements:
            statement.do(self)


class Statement(Protocol):
    """Something that is done."""

    def do(self, run: Run) -> None: ...


class Expression(Protocol):
    """Something that has a value. `kind`: number or truth where that is known beforehand, else value."""

    kind: str

    def value(self, run: Run) -> Value: ...


# expressions

@dataclass
class Literal:
    """A constant."""

    constant: Value

    def __post_init__(self) -> None:
        is_number = isinstance(self.constant, (int, float))
        self.kind = 'truth' if isinstance(self.constant, bool) else 'number' if is_number else 'value'

    def value(self, run: Run) -> Value:
        return self.constant


@dataclass
class Variable:
    """`$name`."""

    name: str
    kind: str = 'value'

    def value(self, run: Run) -> Value:
        return member_of(run.variables, self.name)


@dataclass
class Member:
    """`whole.name`."""

    whole: Expression
    name: str
    kind: str = 'value'

    def value(self, run: Run) -> Value:
        return member_of(self.whole.value(run), self.name)


@dataclass
class Item:
    """`whole[key]`."""

    whole: Expression
    key: Expression
    kind: str = 'value'

    def value(self, run: Run) -> Value:
        return item_of(self.whole.value(run), self.key.value(run))


@dataclass
class Modified:
    """`operand|modifier:...`."""

    operand: Expression
    apply: Callable[[Callable[[int], None], Value], Value]
    kind: str = 'value'

    def value(self, run: Run) -> Value:
        return self.apply(run.spend, self.operand.value(run))


@dataclass
class Matches:
    """`operand =~ pattern`."""

    operand: Expression
    pattern: Expression
    kind: str = 'truth'

    def value(self, run: Run) -> bool:
        pattern = compile_pattern(text_of(self.pattern.value(run)))
        return pattern.search(text_of(self.operand.value(run)), 0, run.spend) is not None


@dataclass
class Substituted:
    """`operand|regex_replace:pattern:replacement`. Lists and objects stay as they are."""

    operand: Expression
    pattern: Pattern
    replacement: str
    kind: str = 'value'

    def value(self, run: Run) -> Value:
        value = self.operand.value(run)
        if isinstance(value, (list, dict)):
            return value
        return self.pattern.substitute(text_of(value), self.replacement, run.spend, VALUE_LIMIT)


@dataclass
class Not:
    """`not operand`."""

    operand: Expression
    kind: str = 'truth'

    def value(self, run: Run) -> bool:
        return not truth_of(self.operand.value(run))


@dataclass
class Either:
    """`left or right`; the right side only when it matters. `decisive`: the truth that settles it (or: true)."""

    decisive: bool
    left: Expression
    right: Expression
    kind: str = 'truth'

    def value(self, run: Run) -> bool:
        if truth_of(self.left.value(run)) is self.decisive:
            return self.decisive
        return truth_of(self.right.value(run))


@dataclass
class Binary:
    """Both sides are evaluated, then the operation."""

    operation: Callable[[Value, Value], Value]
    left: Expression
    right: Expression
    kind: str

    def value(self, run: Run) -> Value:
        return self.operation(self.left.value(run), self.right.value(run))


# operations of Binary

def add(left: Value, right: Value) -> Value:
    return _bounded(number_of(left) + number_of(right))


def subtract(left: Value, right: Value) -> Value:
    return _bounded(number_of(left) - number_of(right))


def multiply(left: Value, right: Value) -> Value:
    return _bounded(number_of(left) * number_of(right))


def divide(left: Value, right: Value) -> Value:
    """Whole numbers give a whole number when it comes out even."""
    dividend, divisor = number_of(left), _divisor(right)
    if isinstance(dividend, int) and isinstance(divisor, int) and dividend % divisor == 0:
        return dividend // divisor
    return dividend / divisor


def modulo(left: Value, right: Value) -> Value:
    return number_of(left) % _divisor(right)


def _divisor(value: Value) -> int | float:
    number = number_of(value)
    if number == 0:
        raise TemplateError('division by zero')
    return number


def _bounded(number: int | float) -> int | float:
    if abs(number) >= LARGEST and isinstance(number, int):
        raise TemplateError('a number becomes too large')
    return number


def equality(left: Expression, right: Expression) -> Callable[[Value, Value], bool]:
    """How these two are compared: as numbers when one is known to be a number, then as truths, else as texts."""
    for kind, convert in (('number', number_of), ('truth', truth_of)):
        if kind in (left.kind, right.kind):
            return lambda a, b: convert(a) == convert(b)
    return lambda a, b: text_of(a) == text_of(b)


# statements

@dataclass
class Text:
    """Plain text."""

    text: str

    def do(self, run: Run) -> None:
        run.write(self.text)


@dataclass
class Show:
    """`{expression}`."""

    expression: Expression

    def do(self, run: Run) -> None:
        run.write(text_of(self.expression.value(run)))


@dataclass
class Assign:
    """`{$name = expression}`."""

    name: str
    expression: Expression

    def do(self, run: Run) -> None:
        run.variables[self.name] = self.expression.value(run)


@dataclass
class If:
    """The first branch whose condition is true, else `otherwise`."""

    branches: list[tuple[Expression, list[Statement]]]
    otherwise: list[Statement]

    def do(self, run: Run) -> None:
        for condition, statements in self.branches:
            if truth_of(condition.value(run)):
                run.do(statements)
                return
        run.do(self.otherwise)


@dataclass
class Foreach:
    """Once for each member of a list or object; `otherwise` when there is none. `key` is '' when nobody asks for it."""

    collection: Expression
    key: str
    item: str
    statements: list[Statement]
    otherwise: list[Statement]

    def do(self, run: Run) -> None:
        members = self.collection.value(run)
        if not isinstance(members, (list, dict)) or not members:
            run.do(self.otherwise)
            return
        for key, item in members.items() if isinstance(members, dict) else enumerate(members):
            run.spend(1)
            if self.key:
                run.variables[self.key] = key
            run.variables[self.item] = item
            run.do(self.statements)
