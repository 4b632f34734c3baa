"""The queue file: who may read it, what is refused, what is left after the worst: killed, full, locked, two at once.

Whatever a child has printed before it died was promised to somebody. Children are in `support/queue_child.py`.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from mqlite.errors import ConfigError, TemporaryError
from mqlite.queues import sqlite, statements
from mqlite.queues.contract import Delivery, LargeMessage, Message, QueueError
from mqlite.queues.sqlite import Batch, Database, Want
from mqlite.queues.statements import APPLICATION_ID, SCHEMA_VERSION
from tests.support.loop import open_descriptors
from tests.support.process import ROOT, Process, wait_until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / 'queue.db'


@pytest.fixture
def start(tmp_path: Path, closing: contextlib.ExitStack) -> Callable[..., Process]:
    """start(COMMAND, PATH, …): a child of `queue_child`."""
    def make(*words: object) -> Process:
        command = [sys.executable, '-m', 'tests.support.queue_child', *map(str, words)]
        process = Process(command, ROOT)
        closing.callback(process.close)
        return process
    return make


@contextlib.contextmanager
def opened(path: Path | str) -> Iterator[Database]:
    database = Database(str(path))
    database.open()
    try:
        yield database
    finally:
        database.close()


def publish(database: Database, *bodies: bytes, queue: str = 'q') -> None:
    database.apply(Batch(publish=[Message(queue, body) for body in bodies]), 0)


def contents(path: Path, queue: str = 'q') -> list[Delivery]:
    """What is on a queue, after those who died have been seen to."""
    with opened(path) as database:
        database.recover()
        return database.fetch(queue, 1_000_000, 0)


def names(path: Path, queue: str) -> list[str]:
    return [delivery.body.decode().strip() for delivery in contents(path, queue)]


# the file


@pytest.mark.parametrize('umask', [0o000, 0o022, 0o077])
def test_only_the_owner_may_read_the_files(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with opened(path) as database:
            publish(database, b'private')
            files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert files == {f'queue.db{ending}': 0o600 for ending in ('', '-wal', '-shm', '-owner1', '-turn')}
    assert [file.name for file in path.parent.iterdir()] == ['queue.db']


def test_a_mode_that_the_operator_chose_is_kept(path: Path) -> None:
    path.touch()
    path.chmod(0o660)
    with opened(path) as database:
        publish(database, b'shared')
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(Path(f'{path}-wal').stat().st_mode) == 0o660
        assert stat.S_IMODE(Path(f'{path}-turn').stat().st_mode) == 0o660


def test_the_file_says_whose_it_is_and_is_durable(path: Path) -> None:
    with opened(path) as database:
        pragmas = {name: database._read(f'PRAGMA {name}', {})[0][0] for name in
                   ('application_id', 'user_version', 'journal_mode', 'synchronous', 'page_size')}
    assert pragmas == {'application_id': APPLICATION_ID, 'user_version': SCHEMA_VERSION, 'journal_mode': 'wal',
                       'synchronous': 2, 'page_size': 16384}


@pytest.mark.parametrize('statement', [statements.READY, statements.DUE, statements.WAITING,
                                       statements.NEXT_DUE, *statements.PURGE])
def test_a_consumer_walks_an_index_however_long_the_queue_is(path: Path, statement: str) -> None:
    with opened(path) as database:
        plan = [row[3] for row in database._db.execute(f'EXPLAIN QUERY PLAN {statement}', ['q'] + [1] * (
            statement.count('?') - 1))]
    assert not [step for step in plan if 'TEMP B-TREE' in step or step.startswith('SCAN m')], plan
    assert [step for step in plan if 'INDEX ready' in step or 'INDEX waiting' in step], plan


def test_a_time_that_is_no_time_means_now(path: Path) -> None:
    with opened(path) as database:
        for due in (-5.0, float('nan'), 0.0):
            database.apply(Batch(publish=[Message('q', b'mail', 0, due)]), 0)
        assert len(database.fetch('q', 10, 1.0)) == 3


# bodies in pieces


def test_a_body_in_pieces_is_one_body(path: Path) -> None:
    large = [b'a' * 40000, b'', b'b' * 40000, b'c']
    with opened(path) as database:
        database.apply(Batch([Message('q', b'x'), Message('q', b'y')], large=[LargeMessage('q', large, 7, 3.0)]), 0)
        database.apply(Batch(large=[LargeMessage('q', [b'z'])]), 0)
        [status] = database.status(5.0)
        assert (status.ready, status.size) == (4, 80004)
        [taken] = database.apply(Batch(wanted=[Want('q', 2, 10)]), 5.0)
        assert [(delivery.body, delivery.priority) for delivery in taken.deliveries] == [(b''.join(large), 7)]
        database.apply(Batch(released=[taken.deliveries[0].tag]), 0)
        assert sorted(delivery.body for delivery in database.fetch('q', 9, 5.0)) == [b''.join(large), b'x', b'y', b'z']


@pytest.mark.parametrize('settle', [True, False])
def test_the_pieces_go_with_their_message(path: Path, settle: bool) -> None:
    with opened(path) as database:
        for _ in range(3):
            database.apply(Batch(large=[LargeMessage('q', [b'1', b'2'])]), 0)
        if settle:
            database.apply(Batch(settled=[delivery.tag for delivery in database.fetch('q', 2, 0)]), 0)
        else:
            database.fetch('q', 1, 0)
            assert database.purge('q') == 2
        assert database._read('SELECT count(*) FROM part', {}) == [(2,)]


def test_a_body_that_breaks_off_leaves_nothing(path: Path) -> None:
    def break_off() -> Iterator[bytes]:
        yield b'1'
        raise ZeroDivisionError

    with opened(path) as database:
        with pytest.raises(ZeroDivisionError):
            database.apply(Batch(large=[LargeMessage('q', break_off())]), 0)
        assert database.fetch('q', 9, 0) == [] and database._read('SELECT count(*) FROM part', {}) == [(0,)]


# what is refused


def make_foreign(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute('CREATE TABLE theirs (data TEXT)')


def make_other_version(path: Path) -> None:
    with opened(path) as database:
        database._db.execute(f'PRAGMA user_version = {SCHEMA_VERSION + 1}')


def make_marked(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute('PRAGMA application_id = 77')


def make_unreadable_header(path: Path) -> None:
    with opened(path) as database:
        publish(database, b'x' * 50_000)
    path.write_bytes(b'SQLite format 3\0' + os.urandom(100) + path.read_bytes()[116:])


@pytest.mark.parametrize(('make', 'text'), [
    (make_foreign,                                     'is a database of another program; let queue-address name'),
    (make_marked,                                      'is a database of another program'),
    (make_other_version,                               'made by another version of mqlite'),
    (lambda path: path.write_text('hostname: x\n' * 99), 'file is not a database; check queue-address'),
    (make_unreadable_header,                           'file is not a database'),
    (lambda path: path.mkdir(),                        'unable to open database file; check queue-address'),
    (lambda path: path.symlink_to('/no/such/folder/x'), 'No such file or directory'),
])
def test_what_is_not_ours_is_refused_and_left_as_it_was(path: Path, make: Callable[[Path], object], text: str) -> None:
    make(path)
    before = path.read_bytes() if path.is_file() else b''
    files, descriptors = sorted(path.parent.iterdir()), open_descriptors()
    database = Database(str(path))
    with pytest.raises(ConfigError, match=text):
        database.open()
    database.close()
    assert (path.read_bytes() if path.is_file() else b'') == before
    assert (sorted(path.parent.iterdir()), open_descriptors()) == (files, descriptors)


@pytest.mark.parametrize('name', ['no/such/folder/queue.db', 'a-file/queue.db', ''])
def test_a_path_that_leads_nowhere(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path('a-file').touch()
    with pytest.raises(ConfigError, match='check queue-address, the folder and its permissions'):
        Database(name).open()


def test_a_file_that_cannot_be_written(path: Path) -> None:
    """By an unprivileged process, since root may write everything."""
    with opened(path):
        pass
    path.chmod(0o444)
    path.parent.chmod(0o755)
    program = f'import os\nfrom mqlite.queues.sqlite import Database\nos.getuid() or os.setuid(65534)\n' \
              f'Database({str(path)!r}).open()'
    folders = [path.parent, *path.parent.parents]
    modes = {folder: folder.stat().st_mode for folder in folders if not folder.stat().st_mode & 0o001}
    for folder, mode in modes.items():
        folder.chmod(stat.S_IMODE(mode) | 0o011)
    try:
        done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True)
    finally:
        for folder, mode in modes.items():
            folder.chmod(stat.S_IMODE(mode))
    assert 'ConfigError: cannot use the queue file' in done.stderr, done.stderr
    assert 'check queue-address, the folder and its permissions' in done.stderr


# several at once


def test_one_file_under_several_names_is_one_queue(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = path.parent / 'link.db'
    link.symlink_to(path)
    monkeypatch.chdir(path.parent)
    with opened(path.name) as relative, opened(link) as linked, opened(path) as plain:
        monkeypatch.chdir('/')
        publish(relative, b'mail')
        assert len(relative.fetch('q', 1, 0)) == 1
        assert (linked.recover(), plain.recover()) == (0, 0)     # nobody takes the others for dead
        assert plain.fetch('q', 1, 0) == []


def test_many_processes_may_make_the_file_together(path: Path) -> None:
    program = f'import sys\nfrom mqlite.queues.sqlite import *\nsys.stdin.read()\nd = Database({str(path)!r})\n' \
              f'd.open(); d.apply(Batch(publish=[Message("q", b"x")]), 0); d.close()'
    children = [subprocess.Popen([sys.executable, '-c', program], cwd=ROOT, stdin=subprocess.PIPE,
                                 stderr=subprocess.PIPE) for _ in range(6)]
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
    for child in children:
        assert child.stderr is not None
        errors = child.stderr.read()
        child.stderr.close()
        assert (child.wait(20), errors) == (0, b'')
    assert len(contents(path)) == 6


def test_locked_by_another_process(path: Path, start: Callable[..., Process], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, '_BUSY_SECONDS', 0.05)
    with opened(path) as database:
        publish(database, b'1')
        locker = start('lock', path)
        locker.wait_printed('locked')
        for call in (lambda: publish(database, b'2'), lambda: database.fetch('q', 1, 0), lambda: database.purge('q'),
                     lambda: database.apply(Batch(), 0)):
            with pytest.raises(TemporaryError, match=f'{path} cannot be used now: database is locked'):
                call()
        assert database.status(0)[0].ready == 1     # reading goes on
        with pytest.raises(TemporaryError, match='database is locked'):
            Database(str(path)).open()
        locker.kill()
        publish(database, b'3')
        assert [delivery.body for delivery in database.fetch('q', 9, 0)] == [b'1', b'3']


def test_an_owner_whose_file_cannot_be_looked_at_counts_as_alive(path: Path) -> None:
    with opened(path) as one, opened(path) as other:
        publish(one, b'mail')
        one.fetch('q', 1, 0)
        owner = Path(f'{path}-owner{one._owner}')
        owner.rename(f'{owner}.away')
        owner.mkdir()                           # opening it for writing fails, as for a file of another user
        assert other.recover() == 0
        owner.rmdir()
        Path(f'{owner}.away').rename(owner)


def test_three_processes_share_and_the_living_take_over_from_the_dead(path: Path,
                                                                      start: Callable[..., Process]) -> None:
    bodies = {f'm{number}' for number in range(2000)}
    with opened(path) as database:
        publish(database, *(name.encode() for name in sorted(bodies)))
    holder = start('hold', path)
    holder.wait_for(lambda: holder.output().count('holding') == 100, '100 messages to be held')
    consumers = [start('consume', path) for _ in range(3)]

    def settled() -> Counter[tuple[str, str]]:
        rows = [line.split() for child in consumers for line in child.output().splitlines()]
        return Counter((row[1], row[2]) for row in rows if row[0] == 'settled' and len(row) == 3)

    wait_until(lambda: len(settled()) >= 1900, 'what is not held to be delivered')
    held = {line.split()[1] for line in holder.output().splitlines()}
    assert len(held) == 100
    assert settled() == Counter((name, '0') for name in bodies - held)      # each once
    holder.kill()
    wait_until(lambda: len(settled()) >= 2000, 'what the dead one held to be delivered')
    assert settled() == Counter([*((name, '0') for name in bodies - held), *((name, '1') for name in held)])
    for child in consumers:
        child.kill()
    assert contents(path) == []
    assert sorted(names(path, 'results')) == sorted(bodies)


# the worst


def test_killed_before_any_statement(tmp_path: Path, start: Callable[..., Process]) -> None:
    """What was answered is true, what was not is wholly there or wholly not, and nothing needs repair."""
    child = start('statements', tmp_path)
    child.wait_printed('ended')
    last = int(child.output().split()[-1])
    assert last > 25
    for number in range(1, last + 1):
        steps = (tmp_path / f'{number}.log').read_text().split()
        file = tmp_path / f'{number}.db'
        queue = {delivery.body: delivery.lost for delivery in contents(file)}
        results = [delivery.body for delivery in contents(file, 'results')]
        everything = sorted([*queue, *results])
        assert everything in ([b'a', b'b', b'c'], [b'b', b'c', b'r']) or (everything == [] and 'published' not in steps)
        if 'settled' in steps:
            assert results == [b'r']
        if 'taken' in steps and 'released' not in steps:
            assert queue[b'b'] == 1 or (steps[-1] == 'settled' and queue[b'b'] == 0)     # released, not yet answered
        if 'released' in steps:
            assert queue[b'b'] == 0
        assert queue.get(b'c', 0) == 0
    assert steps == ['open', 'published', 'taken', 'settled', 'released', 'closed']


def wait_for_lines(child: Process, count: int) -> None:
    child.wait_for(lambda: child.output().count('\n') >= count, f'{count} lines')


def test_killed_at_random_moments_under_load(path: Path, start: Callable[..., Process]) -> None:
    """Over and over on one file: all that was kept is there, nothing that was settled comes back."""
    seed = time.time_ns()
    choice = random.Random(seed)
    kept: set[str] = set()
    settling: set[str] = set()
    settled: set[str] = set()
    for _ in range(6):
        child = start('churn', path)
        wait_for_lines(child, choice.randrange(1, 1500))
        child.kill()
        for line in child.output().splitlines(keepends=True):
            word, _, rest = line.rstrip('\n').partition(' ')
            if line.endswith('\n') and word != 'note':
                {'kept': kept, 'settling': settling, 'settled': settled}[word].add(rest.split()[0])
    waiting, results = names(path, 'q'), names(path, 'results')
    assert len(waiting) == len(set(waiting)), seed
    assert len(results) == len(set(results)), seed
    assert not set(waiting) & settled, seed
    assert not set(waiting) & set(results), seed
    assert settled <= set(results) <= settling, seed
    assert kept <= set(waiting) | set(results), seed
    assert len(kept) > 100 and settled


def check_after_full(output: str, path: Path, copy: Path) -> None:
    lines = output.splitlines()
    kept = [line.split()[1] for line in lines if line.startswith('kept')]
    assert len(kept) > 20
    assert lines[-1] == 'closed'
    troubles = [line for line in lines if line.startswith(('full', 'refused'))]
    assert len(troubles) == 2
    assert all(f'{path} cannot be used now: ' in line for line in troubles)
    assert sum('mail is refused' in line for line in lines) == 1
    assert sum('can be written again' in line for line in lines) == 1
    settled = kept[0]
    assert f'settled {settled} 0' in lines
    assert names(copy, 'results') == [settled]
    assert sorted(names(copy, 'q')) == sorted(kept[1:])     # and nothing of what was refused


def test_a_file_that_may_not_grow(path: Path, start: Callable[..., Process]) -> None:
    child = start('full', path)
    assert child.wait(20) == 0, child.output()
    check_after_full(child.output(), path, path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB, which only root can have."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=3m', 'none', folder], check=True)
    yield folder
    subprocess.run(['umount', folder], check=True)


@pytest.mark.parametrize('number', range(int(os.geteuid() == 0)))
def test_a_disk_that_is_full(small_disk: Path, path: Path, start: Callable[..., Process], number: int) -> None:
    ballast = small_disk / 'ballast'
    ballast.write_bytes(bytes(1_000_000))
    child = start('full', small_disk / 'queue.db', ballast)
    assert child.wait(20) == 0, child.output()
    assert 'full' in child.output()
    copied = Path(shutil.copytree(small_disk, path.parent / 'copy'))     # where there is room to look
    check_after_full(child.output(), small_disk / 'queue.db', copied / 'queue.db')


def test_a_database_that_reached_its_size(path: Path) -> None:
    """SQLITE_FULL in the middle of a batch: nothing of the batch happened, and a smaller one still fits."""
    with opened(path) as database:
        publish(database, b'1')
        database._db.execute('PRAGMA max_page_count = 30')
        [taken] = database.apply(Batch(wanted=[Want('q', 1, 100)]), 0)
        with pytest.raises(QueueError, match='database or disk is full'):
            database.apply(Batch([Message('results', b'x' * 600_000)], settled=[taken.deliveries[0].tag]), 0)
        assert [(row.name, row.taken) for row in database.status(0)] == [('q', 1)]
        database.apply(Batch([Message('results', b'x')], settled=[taken.deliveries[0].tag]), 0)
    assert [delivery.body for delivery in contents(path, 'results')] == [b'x']


def test_a_corrupt_page_is_trouble_and_not_a_crash(path: Path) -> None:
    with opened(path) as database:
        publish(database, *[b'x' * 10_000] * 100)
    data = path.read_bytes()
    path.write_bytes(data[:16384 * 40] + os.urandom(len(data) - 16384 * 40))
    with opened(path) as database:
        with pytest.raises(QueueError, match='malformed'):
            database.fetch('q', 1000, 0)
