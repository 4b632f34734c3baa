"""The database: its tables made, checked and mended; rows of every shape; the copy in memory, kept up to date."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Callable

import pytest

from mqlite.database.file import DatabaseFile
from mqlite.database.live import LOOK_SECONDS, Database, Rows
from mqlite.database.open import open_file, prepare
from mqlite.database.tables import TABLES, Column, Usable, make_value
from mqlite.errors import ConfigError, TemporaryError
from mqlite.loop.task import sleep
from mqlite.queues.sqlite import Database as QueueFile
from mqlite.settings import load
from tests.support.daemon import Daemon
from tests.support.database import Notes, execute, make_database
from tests.support.loop import LoopBench

TTL = 600.0


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / 'config.db')


def test_a_missing_file_is_made_with_all_tables_and_is_private(path: str) -> None:
    content = make_database(path).read()
    assert content.rows == dict.fromkeys(TABLES, ()) and not content.faults
    assert os.stat(path).st_mode & 0o777 == 0o600
    make_database(path).close()      # and it passes the check


def test_every_documented_table_is_there() -> None:
    documented = ('capacity capacity_rules dkim_keys dkim_patterns dns errors flood_responses ips locals mtanames '
                  'paused response_actions response_patterns response_patterns_actions rewrite_actions '
                  'rewrite_triggers')
    assert set(documented.split()) <= set(TABLES)
    assert all(len({column.name for column in table.columns} | {'id'}) == len(table.columns) + 1
               for table in TABLES.values())


@pytest.mark.parametrize(('stored', 'default', 'value'), [
    (b'you@example.org', '', 'you@example.org'),
    (None,               '', ''),
    (b'',                '', ''),
    (7,                  '', '7'),
    ('größe'.encode(),   '', 'größe'),
    (5,                  -1, 5),
    (None,               -1, 0),
    (b'12',              0,  12),
    (3.0,                0,  3),
    (-1,                 0,  -1),
])
def test_what_sqlite_has_becomes_text_or_number(stored: object, default: str | int, value: str | int) -> None:
    assert make_value(stored, Column('x', default)) == value


@pytest.mark.parametrize(('stored', 'default'), [(b'ten', 0), (b'\xff', ''), (float('inf'), 0), (b'', 0)])
def test_what_cannot_be_understood_is_said(stored: object, default: str | int) -> None:
    with pytest.raises(ValueError):
        make_value(stored, Column('x', default))


def test_rows_come_by_id_and_a_column_left_out_has_its_default(path: str) -> None:
    file = make_database(path)
    execute(path, "INSERT INTO capacity (id, domain, domain_maxconnects) VALUES (9, 'b.example', 5)",
            "INSERT INTO capacity (id, domain, domain_maxmessages) VALUES (2, 'a.example', NULL)")
    first, second = file.read().rows['capacity']
    assert (first.text('domain'), second.text('domain')) == ('a.example', 'b.example')
    assert first.number('id') == 2 and second.text('localip') == ''
    assert second.number('domain_maxconnects', 100) == 5
    assert first.number('domain_maxmessages', 100) == 0             # NULL is 0: no limit
    assert second.number('domain_maxmessages', 100) == 100          # -1: falls back


def test_a_row_that_cannot_be_read_is_left_out_and_named(path: str) -> None:
    file = make_database(path)
    execute(path, "INSERT INTO capacity (id, domain, secure) VALUES (1, 'a.example', 'ten'), (2, 'b.example', 1)",
            "INSERT INTO locals (id, address) VALUES (5, CAST(x'ff40' AS TEXT))")
    content = file.read()
    assert [row.number('id') for row in content.rows['capacity']] == [2]
    assert content.rows['locals'] == ()
    assert "row 1 of table capacity is left out: secure: 'ten' is not a whole number" in content.faults[0]
    assert 'row 5 of table locals is left out: address' in content.faults[1]


def test_the_table_ips_has_the_addresses_of_this_host(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, log = load(f'database-address: sqlite://{path}')[0], Notes()

    def prepared(*addresses: str) -> list[tuple[str, str]]:
        monkeypatch.setattr('mqlite.database.open.local_addresses', lambda: list(addresses))
        prepare(settings, log)
        with contextlib.closing(make_database(path)) as file:
            return [(row.text('ip'), row.text('outbox')) for row in file.read().rows['ips']]

    assert prepared('192.0.2.1', '::1', '192.0.2.1') == [('192.0.2.1', ''), ('::1', '')]
    execute(path, "UPDATE ips SET outbox = 'mine' WHERE ip = '::1'", 'INSERT INTO ips (ip) VALUES (NULL)')
    changed = os.stat(path).st_mtime_ns
    assert prepared('::1', '192.0.2.3') == [('::1', 'mine'), ('192.0.2.3', '')]
    assert os.stat(path).st_mtime_ns != changed
    changed = os.stat(path).st_mtime_ns
    prepared('192.0.2.3', '::1')
    assert os.stat(path).st_mtime_ns == changed and log.lines == []


def test_addresses_that_cannot_be_listed_stop_nothing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[str]:
        raise ConfigError('cannot list the addresses of this host')
    monkeypatch.setattr('mqlite.database.open.local_addresses', fail)
    log = Notes()
    prepare(load(f'database-address: sqlite://{path}')[0], log)
    assert log.lines == ['warning: the table ips is not up to date: cannot list the addresses of this host']


def test_adding_and_removing(path: str) -> None:
    file = make_database(path)
    assert file.add('locals', {'address': 'you@example.org', 'type': ''})
    assert not file.add('locals', {'address': 'you@example.org', 'type': ''})
    execute(path, "INSERT INTO locals (address) VALUES ('null@example.org')")
    assert not file.add('locals', {'address': 'null@example.org', 'type': ''})     # NULL and nothing are the same
    assert file.remove('locals', {'address': 'null@example.org', 'type': ''}) == 1
    assert file.remove('locals', {'address': 'null@example.org'}) == 0
    assert [row.text('address') for row in file.read().rows['locals']] == ['you@example.org']


# what is wrong with a file

@pytest.mark.parametrize(('damage', 'complaint'), [
    ('DROP TABLE paused',                                 'there is no table paused'),
    ('ALTER TABLE locals RENAME COLUMN address TO email', 'table locals has no column address'),
])
def test_a_broken_table_is_named_or_mended(path: str, damage: str, complaint: str) -> None:
    make_database(path).close()
    execute(path, "INSERT INTO locals (type) VALUES ('exact')", damage)
    with pytest.raises(ConfigError, match=f'{complaint}.*--repair-database'):
        make_database(path)
    file = make_database(path, repair=True)
    assert [row.text('type') for row in file.read().rows['locals']] == ['exact']
    file.close()
    make_database(path)


def test_without_validation_what_is_missing_is_empty_or_default(path: str) -> None:
    make_database(path).close()
    execute(path, 'DROP TABLE paused', 'DROP TABLE locals', 'CREATE TABLE locals (address TEXT, note TEXT)',
            "INSERT INTO locals VALUES ('you@example.org', 'hello')")
    rows = make_database(path, validate=False).read().rows
    assert rows['paused'] == ()
    assert [(row.number('id'), row.text('address'), row.text('type')) for row in rows['locals']] == [
        (1, 'you@example.org', '')]


def test_further_columns_are_no_fault(path: str) -> None:
    make_database(path).close()
    execute(path, 'ALTER TABLE locals ADD COLUMN note TEXT')
    make_database(path)


def test_purging_makes_empty_tables(path: str) -> None:
    file = make_database(path)
    file.add('locals', {'address': 'you@example.org'})
    file.close()
    execute(path, 'ALTER TABLE dns RENAME TO gone')
    assert make_database(path, purge=True).read().rows == dict.fromkeys(TABLES, ())


@pytest.mark.parametrize(('content', 'complaint'), [
    (b'this is no database, but long enough to be looked at as one\n' * 20, 'not a database'),
    (None, 'is the file of the embedded queue'),
])
def test_another_file_is_left_alone(path: str, content: bytes | None, complaint: str) -> None:
    if content is None:
        queue = QueueFile(path)
        queue.open()
        queue.close()
    else:
        Path(path).write_bytes(content)
    before = Path(path).read_bytes()
    with pytest.raises(ConfigError, match=complaint):
        make_database(path, purge=True)
    assert Path(path).read_bytes() == before


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='No such file or directory; check database-address'):
        make_database(str(tmp_path / 'no' / 'config.db'))


def test_a_file_that_somebody_holds_can_be_used_later(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mqlite.database.file._BUSY_SECONDS', 0.0)
    file = make_database(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute('BEGIN IMMEDIATE')
        with pytest.raises(TemporaryError, match='locked'):
            file.add('locals', {'address': 'you@example.org'})
        assert file.read().rows['locals'] == ()     # who reads does not wait
    assert file.add('locals', {'address': 'you@example.org'})


@pytest.mark.parametrize('address', ['mysql://joe:pw@db.example/mailerq', 'postgresql://db.example/mailerq',
                                     'sqlite:///'])
def test_an_address_that_cannot_be_used_says_what_can(address: str) -> None:
    settings, problems = load(f'database-address: {address}')
    with pytest.raises(ConfigError) as raised:
        open_file(settings)
    assert problems == [] and 'pw' not in str(raised.value)
    with pytest.raises(ConfigError):
        prepare(settings, Notes())


def test_no_address_no_database() -> None:
    assert open_file(load()[0]) is None
    prepare(load()[0], Notes())


def test_preparing_mends_or_purges_once_and_says_what_is_gone(path: str) -> None:
    file, log = make_database(path), Notes()
    file.add('locals', {'address': 'you@example.org'})
    file.close()
    execute(path, 'DROP TABLE dns')
    address = f'database-address: sqlite://{path}\n'
    with pytest.raises(ConfigError, match='no table dns'):
        prepare(load(address)[0], log)
    prepare(load(address + 'repair-database: true')[0], log)
    assert log.lines == [] and len(make_database(path).read().rows['locals']) == 1
    prepare(load(address + 'purge-database: true')[0], log)
    assert len(log.lines) == 1 and 'empty' in log.lines[0] and make_database(path).read().rows['locals'] == ()


# the copy in memory

class Bench(LoopBench):
    """A database under a clock that jumps, and what its log says."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.log = Notes()
        self.database = Database(self.reactor, make_database(path), TTL, self.log)
        self.seen: list[list[str]] = []
        self.database.follow('locals', lambda rows: Usable([row.text('address') for row in rows]), self.seen.append)

    def later(self, *steps: Callable[[], object]) -> None:
        """Start; after each step give the database time to look; stop."""
        async def main() -> None:
            self.database.start()
            for step in steps:
                step()
                await sleep(self.reactor, LOOK_SECONDS * 1.5)
            await self.database.stop()
        self.run(main())

    def insert(self, address: str) -> None:
        execute(self.path, f"INSERT INTO locals (address) VALUES ('{address}')")


@pytest.fixture
def bench(path: str, closing: contextlib.ExitStack) -> Bench:
    made_one = Bench(path)
    closing.callback(made_one.close)
    return made_one


def test_a_change_is_seen_within_seconds(bench: Bench) -> None:
    bench.later(lambda: bench.insert('a@example.org'), lambda: None, lambda: bench.insert('b@example.org'))
    assert bench.seen == [[], ['a@example.org'], ['a@example.org', 'b@example.org']]
    assert [row.text('address') for row in bench.database.rows('locals')] == ['a@example.org', 'b@example.org']
    assert bench.log.lines == ['info: table locals has changed: 1 rows', 'info: table locals has changed: 2 rows']


def test_who_follows_another_table_is_left_in_peace(bench: Bench) -> None:
    told: list[Rows] = []
    bench.database.follow('dns', Usable, told.append)
    bench.later(lambda: bench.insert('a@example.org'))
    assert told == [()] and bench.database.rows('locals') != ()


def test_a_file_put_in_its_place_is_noticed(bench: Bench, tmp_path: Path) -> None:
    def replace() -> None:
        file = make_database(str(tmp_path / 'new.db'))
        file.add('locals', {'address': 'new@example.org'})
        file.close()
        os.rename(tmp_path / 'new.db', bench.path)
    bench.later(replace)
    assert bench.seen[1:] == [['new@example.org']]


def test_what_was_read_holds_while_the_file_cannot_be_read(bench: Bench, tmp_path: Path) -> None:
    bench.later(lambda: bench.insert('a@example.org'),
                lambda: shutil.move(bench.path, tmp_path / 'aside'), lambda: None, lambda: None,
                lambda: shutil.move(tmp_path / 'aside', bench.path))
    assert bench.seen == [[], ['a@example.org']]
    assert [line.split(':')[0] for line in bench.log.lines[1:]] == ['warning', 'info']
    assert 'what was read before holds' in bench.log.lines[1] and 'can be used again' in bench.log.lines[2]


def test_a_faulty_row_is_named_once(bench: Bench) -> None:
    bench.later(lambda: execute(bench.path, "INSERT INTO paused (expire) VALUES ('never')"),
                lambda: bench.insert('a@example.org'))
    assert sum('table paused is left out' in line for line in bench.log.lines) == 1


def test_everything_is_read_anew_when_its_time_is_over(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the mark of a change cannot be trusted, database-ttl still holds."""
    mark = bench.database._content.mark
    monkeypatch.setattr(DatabaseFile, 'mark', lambda _file: mark)

    async def main() -> list[int]:
        bench.database.start()
        bench.insert('a@example.org')
        await sleep(bench.reactor, TTL - 2 * LOOK_SECONDS)
        early = len(bench.seen)
        await sleep(bench.reactor, 4 * LOOK_SECONDS)
        await bench.database.stop()
        return [early, len(bench.seen)]

    assert bench.run(main()) == [1, 2]


def test_the_daemon_reads_it_and_starts_only_with_one_that_is_whole(start_daemon: Callable[..., Daemon], path: str,
                                                                    ) -> None:
    make_database(path).close()
    execute(path, 'DROP TABLE locals')
    with pytest.raises(AssertionError, match='there is no table locals'):
        start_daemon(database_address=f'sqlite://{path}')
    start_daemon(database_address=f'sqlite://{path}', repair_database='true').stop()
    make_database(path).close()
