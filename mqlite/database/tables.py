"""THE TABLES TABLE: every table of the database with its columns, and what a row of one is. Pure.

The tables are MailerQ's. Its documentation lists all of them, and names only some of the columns: those stand here as
they are named there (5.13: `localip`, `domain`, `pattern`, `type`, `sign`, `target`; 3.0: the limits of `capacity`, the
columns of `dkim_keys` and `ips`; the fields of the REST API for what it serves). Columns of other tables are ours, and
so are the tables `pools`, `poolips` and `suppressions`, which hold what MailerQ shows in its console and REST API.

As there: no constraints and no foreign keys, text in UTF-8, booleans are integers, NULL and 0 mean the same (NULL in a
text column is the empty text), and -1 in a column of limits falls back to the default. Whoever uses a table decides
what its rows mean; here is only their shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar, Union, cast

Value = Union[str, int]
T = TypeVar('T')


class Column(NamedTuple):
    """`default`: of a row or table that does not name the column; its type is that of the column."""

    name: str
    default: Value


class Table(NamedTuple):
    """A row of the tables table. `id` is a column of every table, and is not listed."""

    name: str
    columns: tuple[Column, ...]
    help: str


def _text(names: str) -> tuple[Column, ...]:
    return tuple(Column(name, '') for name in names.split())


def _number(names: str, default: int = 0) -> tuple[Column, ...]:
    return tuple(Column(name, default) for name in names.split())


#                per minute; connections: open at once; idle time in milliseconds
_LIMITS = _number('domain_maxmessages domain_maxconnects domain_maxconnections ip_maxmessages ip_maxconnects '
                  'ip_maxconnections connection_maxmessages connection_maxidletime', -1) + _number('secure')
_SOURCE = _text('localip pool')
_RULE = _text('name localip pool domain tag') + _number('priority final')
_SELECTION = _text('localip pool target tag') + _number('expire')  # expire: seconds since 1970

TABLES: Mapping[str, Table] = {table.name: table for table in (
    Table('capacity', _text('name localip domain') + _LIMITS, 'how much may be sent; empty: from or to all'),
    Table('capacity_rules', _number('capacity') + _SOURCE + _text('domain'), 'further sources and domains of those'),
    Table('dkim_keys', _text('domain selector privatekey algorithm') + _number('expire'), 'keys to sign with'),
    Table('dkim_patterns', _text('sign type') + _number('dkim_key'), 'which sender addresses are signed with which'),
    Table('dns', _text('domain ip'), 'addresses to send to in place of what DNS says'),
    Table('errors', _SELECTION + _number('code') + _text('extended description'), 'deliveries that are to fail'),
    Table('flood_responses', _text('name pattern type') + _number('pause duration') + _LIMITS,
          'limits that hold for a while after an answer like this'),
    Table('ips', _text('ip vhost exchange outbox'), 'addresses of this host, for other programs'),
    Table('locals', _text('address type'), 'addresses that mail is received for'),
    Table('mtanames', _text('ip name'), 'names to say hello with, by address'),
    Table('paused', _SELECTION, 'deliveries that are to wait'),
    Table('pools', _text('name description'), 'names of groups of our addresses'),
    Table('poolips', _text('name ip'), 'their addresses'),
    Table('response_actions', _text('name action property value'), 'what to do about an answer'),
    Table('response_patterns', _RULE + _text('pattern type'), 'which answers'),
    Table('response_patterns_actions', _number('response_pattern response_action'), 'what to do about which'),
    Table('rewrite_actions', _number('rewrite_trigger') + _text('action property value'), 'changes to messages'),
    Table('rewrite_triggers', _RULE + _text('property pattern type'), 'which messages'),
    Table('suppressions', _text('type value') + _number('code') + _text('extended description'),
          'recipients and domains that nothing is sent to'),
)}


class Row:
    """One row; the columns that the table in the file does not have are there with their defaults."""

    __slots__ = ('_places', 'values')

    def __init__(self, places: Mapping[str, int], values: tuple[Value, ...]) -> None:
        """`places`: where each column stands in the values; one mapping for all rows of a table."""
        self._places = places
        self.values = values

    def text(self, column: str) -> str:
        return cast(str, self.values[self._places[column]])

    def number(self, column: str, fallback: int = -1) -> int:
        """`fallback` stands in for -1."""
        value = cast(int, self.values[self._places[column]])
        return fallback if value == -1 else value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Row) and self.values == other.values

    def __hash__(self) -> int:
        return hash(self.values)

    def __repr__(self) -> str:
        return f'Row({", ".join(f"{name}={self.values[place]!r}" for name, place in self._places.items())})'


@dataclass(frozen=True)
class Usable(Generic[T]):
    """What somebody could make of the rows of a table, and a line for each that is left out."""

    items: T
    faults: Sequence[str] = ()


def places_of(table: Table) -> dict[str, int]:
    """Where the columns stand in the values of a row: `id` first."""
    return {name: place for place, name in enumerate(['id', *(column.name for column in table.columns)])}


def make_value(stored: object, column: Column) -> Value:
    """The value of a column from what SQLite has in it, which may be of any type. ValueError says what is wrong."""
    is_text = isinstance(column.default, str)
    if stored is None:
        return '' if is_text else 0
    text = stored.decode() if isinstance(stored, bytes) else str(stored)  # UnicodeDecodeError is a ValueError
    if is_text:
        return text
    try:
        return int(float(text)) if isinstance(stored, float) else int(text)
    except (ValueError, OverflowError):
        raise ValueError(f'{text!r} is not a whole number') from None


def sql_type(column: Column) -> str:
    """As it stands in CREATE TABLE."""
    return 'TEXT' if isinstance(column.default, str) else f'INTEGER DEFAULT {column.default}'
