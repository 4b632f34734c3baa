"""A database file as another program writes it, and a log that is kept in memory."""

from __future__ import annotations

import contextlib
import sqlite3

from mqlite.database.file import DatabaseFile
from mqlite.database.tables import TABLES, Row, Value, places_of
from mqlite.log import Log

_opened: list[DatabaseFile] = []


def make_database(path: str, **how: bool) -> DatabaseFile:
    """Opened, and made when it is not there; open until the end of the test, unless somebody closes it before."""
    file = DatabaseFile(path)
    _opened.append(file)
    file.open(**how)
    return file


def close_databases() -> None:
    while _opened:
        _opened.pop().close()


def execute(path: str, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def insert(table: str, **columns: object) -> str:
    """A statement that adds a row."""
    values = ', '.join(f"'{value}'" for value in columns.values())
    return f'INSERT INTO {table} ({", ".join(columns)}) VALUES ({values})'


def row(table: str, **values: Value) -> Row:
    """As it would be read; columns that are not named have their defaults."""
    columns = {'id': 1, **{column.name: column.default for column in TABLES[table].columns}, **values}
    return Row(places_of(TABLES[table]), tuple(columns[name] for name in places_of(TABLES[table])))


class Notes(Log):
    """A log that is kept in memory."""

    def __init__(self) -> None:
        super().__init__([])
        self.lines: list[str] = []

    def _write(self, level: str, text: str) -> None:
        self.lines.append(f'{level}: {text}')
