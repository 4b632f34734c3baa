"""From the pieces of a template to its nodes. Pure.

Expressions, what binds least first (as in MailerQ's own grammar):

    or ||    and &&    not !    == != =~    < <= > >=    + -    * / %    minus sign    |modifier    .member [item]

The words eq ne gt gte ge lt lte le stand for the signs. Keywords have no case, names do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Callable

from mqlite.template import nodes
from mqlite.template.modifiers import MODIFIERS
from mqlite.template.nodes import Expression, Statement
from mqlite.template.pattern import Pattern, compile_pattern
from mqlite.template.scanner import Piece, Token, scan
from mqlite.template.values import TemplateError, Value, number_of, text_of

DEPTH_LIMIT = 50  # blocks, and parentheses, within each other
CACHED_TEXT = 65536  # characters: a longer template is compiled each time, so that few of them do not fill the memory

_Operation = Callable[[Value, Value], Value]

#   sign  (binding power, operation, kind of the result); those without one are made for what they compare
_BINARY: dict[str, tuple[int, _Operation | None, str]] = {
    '==': (4, None, 'truth'),
    '!=': (4, None, 'truth'),
    '=~': (4, None, 'truth'),
    '<':  (5, lambda a, b: number_of(a) < number_of(b), 'truth'),
    '<=': (5, lambda a, b: number_of(a) <= number_of(b), 'truth'),
    '>':  (5, lambda a, b: number_of(a) > number_of(b), 'truth'),
    '>=': (5, lambda a, b: number_of(a) >= number_of(b), 'truth'),
    '+':  (6, nodes.add, 'number'),
    '-':  (6, nodes.subtract, 'number'),
    '*':  (7, nodes.multiply, 'number'),
    '/':  (7, nodes.divide, 'number'),
    '%':  (7, nodes.modulo, 'number'),
}
_OR, _AND, _NOT, _MINUS = 1, 2, 3, 8  # binding powers
_SYNONYMS = {'or': '||', 'and': '&&', 'not': '!', 'eq': '==', 'ne': '!=', '<>': '!=', 'gt': '>', 'gte': '>=',
             'ge': '>=', 'lt': '<', 'lte': '<=', 'le': '<='}
_CONSTANTS = {'true': True, 'false': False}


class Template:
    """A compiled template."""

    def __init__(self, statements: Sequence[Statement]) -> None:
        self._statements = statements

    def render(self, variables: dict[str, Any]) -> str:
        """The text with these variables, which stay as they are. TemplateError."""
        run = nodes.Run(dict(variables))
        run.do(self._statements)
        return ''.join(run.written)


def compile_template(text: str) -> Template:
    """TemplateError says in which line it is wrong. Short templates are compiled once."""
    return _compile_once(text) if len(text) <= CACHED_TEXT else _compile(text)


def _compile(text: str) -> Template:
    return Template(_Blocks(scan(text)).parse())


_compile_once = lru_cache(maxsize=128)(_compile)


class _Blocks:
    """Takes pieces, makes statements."""

    def __init__(self, pieces: Any) -> None:
        self._pieces = pieces
        self._depth = 0

    def parse(self) -> list[Statement]:
        statements, end = self._until(())
        assert end is None
        return statements

    def _until(self, ends: tuple[str, ...], opened: Piece | None = None) -> tuple[list[Statement], Piece | None]:
        """The statements up to a piece of these kinds, and that piece."""
        found: list[Statement] = []
        for piece in self._pieces:
            if piece.kind in ends:
                return found, piece
            found.append(self._statement(piece))
        if opened is not None:
            raise TemplateError(f'line {opened.line}: {{{opened.kind}}} without {{/{opened.kind}}}')
        return found, None

    def _statement(self, piece: Piece) -> Statement:
        if piece.kind == 'text':
            return nodes.Text(piece.text)
        tokens = _Tokens(piece)
        if piece.kind == 'show':
            return tokens.shown()
        if piece.kind == 'assign':
            return tokens.assigned()
        if piece.kind not in ('if', 'foreach'):
            raise TemplateError(f'line {piece.line}: {{{piece.kind}}} belongs to no block')
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise TemplateError(f'line {piece.line}: more than {DEPTH_LIMIT} blocks within each other')
        block = self._if(piece, tokens) if piece.kind == 'if' else self._foreach(piece, tokens)
        self._depth -= 1
        return block

    def _if(self, piece: Piece, tokens: _Tokens) -> Statement:
        branches: list[tuple[Expression, list[Statement]]] = []
        otherwise: list[Statement] = []
        condition = tokens.whole()
        while True:
            statements, end = self._until(('elseif', 'else', 'endif'), piece)
            branches.append((condition, statements))
            assert end is not None
            if end.kind != 'elseif':
                break
            condition = _Tokens(end).whole()
        if end.kind == 'else':
            otherwise, _ = self._until(('endif',), piece)
        return nodes.If(branches, otherwise)

    def _foreach(self, piece: Piece, tokens: _Tokens) -> Statement:
        collection, key, item = tokens.loop()
        otherwise: list[Statement] = []
        statements, end = self._until(('foreachelse', 'endforeach'), piece)
        assert end is not None
        if end.kind == 'foreachelse':
            otherwise, _ = self._until(('endforeach',), piece)
        return nodes.Foreach(collection, key, item, statements, otherwise)


class _Tokens:
    """Takes the tokens of one tag, makes expressions."""

    def __init__(self, piece: Piece) -> None:
        self._tokens = piece.tokens
        self._line = piece.line
        self._at = 0
        self._depth = 0

    # whole tags

    def whole(self) -> Expression:
        """One expression and nothing behind it."""
        expression = self._expression(0)
        self._expect('}')
        return expression

    def shown(self) -> Statement:
        if [token.value for token in self._tokens[1:2]] == ['='] and self._next.kind == 'variable':
            name = self._variable()
            self._expect('=')
            return nodes.Assign(name, self.whole())
        return nodes.Show(self.whole())

    def assigned(self) -> Statement:
        """`expression to $name`."""
        expression = self._expression(0)
        self._expect('to')
        name = self._variable()
        self._expect('}')
        return nodes.Assign(name, expression)

    def loop(self) -> tuple[Expression, str, str]:
        """`$item in list`, `list as $item`, `list as $key => $item`: list, key, item."""
        collection, key = self._expression(0), ''
        if self._accept('in'):
            if not isinstance(collection, nodes.Variable):
                raise self._fault('before "in" stands one variable')
            item, collection = collection.name, self._expression(0)
        else:
            self._expect('as')
            item = self._variable()
            if self._accept('=>'):
                key, item = item, self._variable()
        self._expect('}')
        return collection, key, item

    # expressions

    def _expression(self, power: int) -> Expression:
        """An expression whose operators bind at least as strongly as `power`."""
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise self._fault(f'more than {DEPTH_LIMIT} operators within each other')
        left = self._prefixed()
        while True:
            sign = self._sign()
            strength = {'||': _OR, '&&': _AND}.get(sign) or _BINARY.get(sign, (0,))[0]
            if not strength or strength < power:
                break
            self._at += 1
            left = self._combined(sign, left, self._expression(strength + 1))
        self._depth -= 1
        return left

    def _combined(self, sign: str, left: Expression, right: Expression) -> Expression:
        if sign in ('||', '&&'):
            return nodes.Either(sign == '||', left, right)
        _, operation, kind = _BINARY[sign]
        if sign == '=~':
            return self._matches(left, right)
        if operation is not None:
            return nodes.Binary(operation, left, right, kind)
        same = nodes.Binary(nodes.equality(left, right), left, right, kind)
        return same if sign == '==' else nodes.Not(same)

    def _matches(self, left: Expression, right: Expression) -> Expression:
        if isinstance(right, nodes.Literal):
            self._pattern(right.constant)
        return nodes.Matches(left, right)

    def _pattern(self, value: Value) -> Pattern:
        try:
            return compile_pattern(text_of(value))
        except TemplateError as error:
            raise self._fault(str(error)) from None

    def _prefixed(self) -> Expression:
        sign = self._sign()
        if sign == '!':
            self._at += 1
            return nodes.Not(self._expression(_NOT))
        if sign == '-':
            self._at += 1
            return nodes.Binary(nodes.subtract, nodes.Literal(0), self._expression(_MINUS), 'number')
        return self._suffixed(self._operand())

    def _operand(self) -> Expression:
        token = self._take()
        if token.kind == 'literal':
            return nodes.Literal(token.value)
        if token.kind == 'variable':
            return nodes.Variable(token.value)
        if token.kind == 'name' and token.value.lower() in _CONSTANTS:
            return nodes.Literal(_CONSTANTS[token.value.lower()])
        if token == ('sign', '('):
            expression = self._expression(0)
            self._expect(')')
            return expression
        raise self._fault(f'{token.value!r} is not expected')

    def _suffixed(self, expression: Expression) -> Expression:
        while True:
            if self._accept('.'):
                expression = nodes.Member(expression, self._name())
            elif self._accept('['):
                expression = nodes.Item(expression, self._expression(0))
                self._expect(']')
            elif self._accept('|'):
                expression = self._modified(expression)
            else:
                return expression

    def _modified(self, expression: Expression) -> Expression:
        """Behind `|`. A modifier that does not exist has no effect, as in MailerQ."""
        name, values = self._name(), []
        while self._accept(':'):
            values.append(self._literal())
        if name.lower() == 'regex_replace':
            if len(values) != 2:
                raise self._fault(f'|{name} takes 2 values, not {len(values)}')
            return nodes.Substituted(expression, self._pattern(values[0]), text_of(values[1]))
        row = MODIFIERS.get(name.lower())
        if row is None:
            return expression
        if not row.least <= len(values) <= row.most:
            raise self._fault(f'|{name} takes {row.least} to {row.most} values, not {len(values)}')
        return nodes.Modified(expression, partial(row.apply, values))

    def _literal(self) -> Value:
        negative = self._accept('-')
        token = self._take()
        if token.kind == 'literal':
            return -number_of(token.value) if negative else token.value
        if token.kind == 'name' and token.value.lower() in _CONSTANTS and not negative:
            return _CONSTANTS[token.value.lower()]
        raise self._fault('the values of a modifier are texts and numbers')

    # tokens

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _sign(self) -> str:
        """The next token if it is an operator, spelled as a sign; else ''."""
        token = self._next
        if token.kind == 'name':
            return _SYNONYMS.get(token.value.lower(), '')
        return str(_SYNONYMS.get(token.value, token.value)) if token.kind == 'sign' else ''

    def _take(self) -> Token:
        token = self._next
        if token == ('sign', '}'):
            raise self._fault('the tag ends too early')
        self._at += 1
        return token

    def _accept(self, text: str) -> bool:
        """Take the next token if it is this sign or keyword."""
        token = self._next
        if token.kind in ('sign', 'name') and token.value.lower() == text:
            self._at += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            raise self._fault(f'{self._next.value!r} stands where {text!r} is expected')

    def _variable(self) -> str:
        token = self._take()
        if token.kind != 'variable':
            raise self._fault('a variable is expected')
        return str(token.value)

    def _name(self) -> str:
        token = self._take()
        if token.kind != 'name':
            raise self._fault('a name is expected')
        return str(token.value)

    def _fault(self, text: str) -> TemplateError:
        return TemplateError(f'line {self._line}: {text}')
