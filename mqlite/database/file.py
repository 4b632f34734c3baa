"""The database file: its tables made, checked and mended, read as a whole, and rows added and taken off. Blocking.

This file is the only door to `sqlite3` for the database. The daemon calls it in a worker thread (see `live.py`),
commands call it as they are. A change is one short transaction, and who finds the file locked waits for a while.

What is read is read in one transaction, so a reader never sees half of another program's change. A row that cannot be
understood (text that is not UTF-8, a word for a number) is left out and named, the others hold.

The file keeps SQLite's usual journal, not a write-ahead log: it is read and written by other programs, copied, and
replaced by a newer one while we run, and a log that lies beside it would then be taken for that of the new file.

Limits: everything is kept in memory, a few hundred bytes for a row; a row is as large as SQLite allows (10^9 bytes).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mqlite.database.tables import TABLES, Row, Table, Value, make_value, places_of, sql_type
from mqlite.errors import ConfigError, MqliteError, TemporaryError

_BUSY_SECONDS = 10.0  # how long we wait for another program's transaction
_PASSING = ('locked', 'is full', 'disk I/O', 'No space left')  # in the text of an error: it may be well again later
_QUEUE_FILE = 0x6D716C71  # the application_id of the embedded queue, which may not be mixed with this


class Mark(NamedTuple):
    """Differs from an earlier one when the file has been changed by another connection, or is another file."""

    device: int
    inode: int
    version: int


class Content(NamedTuple):
    """What the file held when it was read, and a line for each row that was left out."""

    mark: Mark
    rows: Mapping[str, tuple[Row, ...]]
    faults: tuple[str, ...]


class DatabaseFile:
    """One connection. ConfigError: the file cannot be used as it is; TemporaryError: not now."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None

    def open(self, validate: bool = True, repair: bool = False, purge: bool = False) -> None:
        """Open the file, made with its tables when it is not there. `validate`: ConfigError when the tables are not as
        they should be; `repair` mends them first; `purge` makes them all anew, empty."""
        with contextlib.ExitStack() as undo, self._explained():
            undo.callback(self.close)
            is_new = self._connect()
            if is_new or purge:
                self._make_anew()
            elif repair:
                for table in TABLES.values():
                    self._repair(table)
            if validate:
                self._check()
            undo.pop_all()

    def close(self) -> None:
        """Idempotent."""
        if self._db is not None:
            self._db.close()
        self._db = None

    def mark(self) -> Mark:
        """Cheap: one stat and a look at the first page."""
        with self._explained():
            return self._mark()

    def read(self) -> Content:
        """Everything. Opens the file anew when its name leads to another one."""
        with self._explained():
            file = os.stat(self.path)
            if self._db is None or (file.st_dev, file.st_ino) != self._identity:
                self.close()
                self._connect()
            faults: list[str] = []
            mark = self._mark()  # before: what comes in between is read at once and then again, never missed
            with self._transaction('BEGIN') as db:
                rows = {table.name: tuple(_read(db, table, faults)) for table in TABLES.values()}
            return Content(mark, rows, tuple(f'{self.path}: {fault}' for fault in faults))

    def add(self, name: str, values: Mapping[str, Value]) -> bool:
        """Add a row; False when there is one with these values already. A column that is not named has its default."""
        columns, marks = ', '.join(map(_quoted, values)), ', '.join('?' * len(values))
        with self._explained(), self._transaction('BEGIN IMMEDIATE') as db:
            condition, parameters = _where(TABLES[name], values)
            if db.execute(f'SELECT 1 FROM {_quoted(name)} WHERE {condition}', parameters).fetchone():
                return False
            db.execute(f'INSERT INTO {_quoted(name)} ({columns}) VALUES ({marks})', tuple(values.values()))
            return True

    def remove(self, name: str, values: Mapping[str, Value]) -> int:
        """Delete the rows with these values; how many there were."""
        with self._explained(), self._transaction('BEGIN IMMEDIATE') as db:
            condition, parameters = _where(TABLES[name], values)
            return db.execute(f'DELETE FROM {_quoted(name)} WHERE {condition}', parameters).rowcount

    def keep_only(self, name: str, column: str, wanted: Sequence[str]) -> None:
        """Let the column have these values and no others: rows are added and removed, those that fit stay as they are.
        Nothing is written when nothing differs."""
        with self._explained(), self._transaction('BEGIN') as db:
            text = f"coalesce({_quoted(column)}, '')"
            there = {value.decode('utf-8', 'replace')
                     for value, in db.execute(f'SELECT CAST({text} AS BLOB) FROM {_quoted(name)}')}
            gone, new = there - set(wanted), [value for value in dict.fromkeys(wanted) if value not in there]
            db.executemany(f'DELETE FROM {_quoted(name)} WHERE {text} = ?', [(value,) for value in gone])
            db.executemany(f'INSERT INTO {_quoted(name)} ({_quoted(column)}) VALUES (?)', [(value,) for value in new])

    # the file

    def _connect(self) -> bool:
        """Open, and create when it is not there; whether it is new, that is without any table."""
        with contextlib.suppress(FileExistsError):  # keys may be in it, so it is its owner's only
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        file = os.stat(self.path)
        self._identity = file.st_dev, file.st_ino
        db = self._db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None,
                                        check_same_thread=False)
        db.text_factory = bytes  # one text that is not UTF-8 is not to spoil the others
        if db.execute('PRAGMA application_id').fetchone()[0] == _QUEUE_FILE:
            raise ConfigError(f'{self.path} is the file of the embedded queue; let database-address name another one')
        return not db.execute('SELECT count(*) FROM sqlite_master').fetchone()[0]

    def _mark(self) -> Mark:
        file = os.stat(self.path)
        return Mark(file.st_dev, file.st_ino, self._connected().execute('PRAGMA data_version').fetchone()[0])

    def _connected(self) -> sqlite3.Connection:
        assert self._db is not None, 'the file was not opened'
        return self._db

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        db = self._connected()
        db.execute(begin)
        try:
            yield db
            db.execute('COMMIT')
        except BaseException:
            if db.in_transaction:
                db.execute('ROLLBACK')
            raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """What SQLite and the system complain of, for the operator."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            kind: type[MqliteError] = TemporaryError if any(word in reason for word in _PASSING) else ConfigError
            raise kind(f'the database {self.path} cannot be used: {reason}; check database-address, the file and '
                       f'its permissions') from error

    # the tables

    def _make_anew(self) -> None:
        with self._transaction('BEGIN IMMEDIATE') as db:
            for table in TABLES.values():
                db.execute(f'DROP TABLE IF EXISTS {_quoted(table.name)}')
                db.execute(_create(table, table.name))

    def _repair(self, table: Table) -> None:
        """Create the table, or make it anew around its rows where a column is missing; obsolete ones then go."""
        there = self._columns(table)
        if there and not _missing(table, there):
            return
        with self._transaction('BEGIN IMMEDIATE') as db:
            if not there:
                db.execute(_create(table, table.name))
                return
            kept = ', '.join(_quoted(name) for name in places_of(table) if name in there)
            db.execute('DROP TABLE IF EXISTS mqlite_repair')
            db.execute(_create(table, 'mqlite_repair'))
            if kept:
                db.execute(f'INSERT INTO mqlite_repair ({kept}) SELECT {kept} FROM {_quoted(table.name)}')
            db.execute(f'DROP TABLE {_quoted(table.name)}')
            db.execute(f'ALTER TABLE mqlite_repair RENAME TO {_quoted(table.name)}')

    def _check(self) -> None:
        """ConfigError that names everything that is missing."""
        wrong = []
        for table in TABLES.values():
            there = self._columns(table)
            if not there:
                wrong.append(f'there is no table {table.name}')
            elif _missing(table, there):
                wrong.append(f'table {table.name} has no column {", ".join(_missing(table, there))}')
        if wrong:
            raise ConfigError(f'the database {self.path} is incomplete: {"; ".join(wrong)}. Start once with '
                              f'--repair-database to add it, or with database-validate: false to do without')

    def _columns(self, table: Table) -> set[str]:
        return _columns(self._connected(), table)


def _columns(db: sqlite3.Connection, table: Table) -> set[str]:
    """The names of the columns that the table has in the file; none when it is not there."""
    rows = db.execute(f'PRAGMA table_info({_quoted(table.name)})')
    return {row[1].decode('utf-8', 'replace').lower() for row in rows}


def _missing(table: Table, there: set[str]) -> list[str]:
    return [name for name in places_of(table) if name not in there]


def _create(table: Table, name: str) -> str:
    columns = ', '.join(f'{_quoted(column.name)} {sql_type(column)}' for column in table.columns)
    return f'CREATE TABLE {_quoted(name)} (id INTEGER PRIMARY KEY, {columns})'


def _quoted(name: str) -> str:
    """Names come from the tables table only; some are words of SQL."""
    return f'"{name}"'


def _where(table: Table, values: Mapping[str, Value]) -> tuple[str, tuple[Value, ...]]:
    """A condition for the rows with these values, NULL being the same as nothing, and its parameters."""
    columns = places_of(table)
    unknown = [name for name in values if name not in columns]
    assert values and not unknown, f'table {table.name} has no column {unknown}'
    tests = (f'coalesce({_quoted(name)}, {repr("") if isinstance(value, str) else 0}) = ?'
             for name, value in values.items())
    return ' AND '.join(tests), tuple(values.values())


def _read(db: sqlite3.Connection, table: Table, faults: list[str]) -> Iterator[Row]:
    """The rows of a table by id; a column that the file does not have has its default."""
    there = _columns(db, table)
    if not there:
        return
    places = places_of(table)
    key = 'id' if 'id' in there else 'rowid'
    stored = [(place, column) for place, column in enumerate(table.columns, 1) if column.name in there]
    names = ', '.join([key, *(_quoted(column.name) for _, column in stored)])
    defaults: list[Value] = [0, *(column.default for column in table.columns)]
    for found in db.execute(f'SELECT {names} FROM {_quoted(table.name)} ORDER BY {key}'):
        values = defaults.copy()
        values[0] = found[0]
        try:
            for (place, column), value in zip(stored, found[1:]):
                values[place] = make_value(value, column)
        except ValueError as error:
            faults.append(f'row {found[0]} of table {table.name} is left out: {column.name}: {error}')
            continue
        yield Row(places, tuple(values))
