"""The embedded queue's database file: tables, statements, one transaction per batch. Blocking, no loop.

This file is the only door to `sqlite3` for queues. It runs in a worker thread (see `embedded.py`); a method call is one
job there.

    message   one row per message: queue, priority, due, size, body; the id is the order of arrival
    part      the pieces of a body that came in pieces (`body` is then NULL), in the order of their ids
    claim     one row per message that somebody has taken (owner > 0), or that lost its owner (owner = 0, lost > 0)

A body is written once and never updated: taking and giving back touch only the narrow table `claim`. Two partial
indexes serve the consumer: `ready` by priority and arrival, `waiting` by time.

Durable: WAL with synchronous=FULL, so that a commit has been fsynced when it returns; a batch is one transaction and
one fsync. Several processes may use one file. A process is an owner: it holds a lock on a file of its own beside the
database, which the kernel releases when the process ends in any way; whoever finds an owner's file unlocked gives that
owner's messages back. All files are made for their owner only (0600): mail is private.

Who wants to write waits for its turn at a lock on one more file: the kernel wakes it when the one before has committed,
where SQLite would look again after 1, 2, 5, ... 100 ms. With two busy processes that is half of their time.

Limits: a body of at most 1 GB (SQLite's own); no network file systems; open it after a fork, never before.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Callable, TypeVar

from mqlite.errors import ConfigError, TemporaryError
from mqlite.queues import statements
from mqlite.queues.contract import Delivery, LargeMessage, Message, QueueError, QueueStatus, Seen

T = TypeVar('T')

LARGEST_BODY = 999_000_000  # bytes; SQLite's limit for a blob is 10^9
LARGEST_PRIORITY = 2**31  # either way: what SQLite takes, with room to spare
_BUSY_SECONDS = 10.0  # how long we wait for another process's transaction
_PASSING = ('locked', 'is full', 'disk I/O', 'No space left')  # in the text of an error: it may be well again later
_WAL_ATTEMPTS = 20
_PAGE_SIZE = 16384  # bytes: a usual message fits a page; measured a quarter cheaper than 4096
_CHECKPOINT_PAGES = 1000  # 16 MB of WAL before it is written back to the file
_ROWS = 64  # rows per statement: a batch is few steps, and each step costs the thread one wait for Python's lock

@dataclass(frozen=True)
class Want:
    """A consumer's wish: up to `count` messages of about `size` bytes together. `waiting`: whose time has not come."""

    queue: str
    count: int
    size: int
    waiting: bool = False


@dataclass
class Batch:
    """What one transaction does, in this order."""

    publish: list[Message] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    wanted: list[Want] = field(default_factory=list)
    large: list[LargeMessage] = field(default_factory=list)  # published behind the others


@dataclass
class Taken:
    """The answer to a Want. `more`: asking again at once may give more; if not, `next_due`: when to ask again."""

    deliveries: list[Delivery]
    more: bool
    next_due: float | None


class Database:
    """One connection of one process."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)  # the same for every process, or each would think the others dead
        self._owner = 0
        self._undo = contextlib.ExitStack()

    def open(self) -> None:
        """Open or create the file; ConfigError when it is not ours or cannot be used, TemporaryError when it can be
        later (locked, no space); then nothing stays open. Not QueueError: nobody goes on trying.
        """
        with contextlib.ExitStack() as undo:
            try:
                self._connect(undo)
                self._create_or_check()
                self._become_owner(undo)
            except (sqlite3.Error, OSError) as error:
                if any(text in str(error) for text in _PASSING):
                    raise TemporaryError(f'the queue file {self.path} cannot be used now: {error}') from error
                raise ConfigError(f'cannot use the queue file {self.path}: {error}; '
                                  f'check queue-address, the folder and its permissions') from error
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Give back what this process still holds, and close. Idempotent."""
        if self._owner:
            with contextlib.suppress(QueueError):  # our lock is about to go: the next process gives it back
                self._transaction(self._give_back, self._owner, 0)
                if not self._read('SELECT id FROM owner LIMIT 1', {}):
                    self._turn.remove()
        self._owner = 0
        self._undo.close()

    def apply(self, batch: Batch, now: float) -> list[Taken]:
        """One transaction, one fsync. QueueError when it could not be committed: then nothing of it happened.

        An empty batch writes as well: it is how the caller learns whether the file can be written again.
        """
        with self._turn:
            return self._apply_now(batch, now)

    def _apply_now(self, batch: Batch, now: float) -> list[Taken]:
        if len(batch.publish) <= _ROWS and not (batch.large or batch.settled or batch.released or batch.wanted):
            try:
                if batch.publish:
                    self._insert(batch.publish)  # one statement is a transaction of its own
                else:
                    self._db.execute('UPDATE owner SET id = id WHERE id = ?', (self._owner,))
            except sqlite3.Error as error:
                raise self._trouble(error) from error
            return []
        return self._in_transaction(self._apply, batch, now)

    def fetch(self, queue: str, count: int, now: float, waiting: bool = False) -> list[Delivery]:
        """Take up to `count` messages that are due, or that are not."""
        return self.apply(Batch(wanted=[Want(queue, count, LARGEST_BODY, waiting)]), now)[0].deliveries

    def purge(self, queue: str) -> int:
        """Delete what nobody has taken."""
        count = 0
        for statement in statements.PURGE:
            deleted = statements.PURGED_ROWS
            while deleted == statements.PURGED_ROWS:
                deleted = self._transaction(self._purge, statement, queue)
                count += deleted
        return count

    def status(self, now: float) -> list[QueueStatus]:
        return [QueueStatus(*row) for row in self._read(statements.STATUS, {'now': now})]

    def look(self, queue: str, after: int, count: int) -> list[tuple[int, Seen]]:
        """Up to `count` messages behind that number, each with its own; nothing is taken."""
        rows = self._read(statements.LOOK, (queue, after, count))
        return [(number, Seen(due, priority, bool(taken), body)) for number, due, priority, taken, body in rows]

    def data_version(self) -> int:
        """Changes whenever another process has committed."""
        return int(self._read('PRAGMA data_version', {})[0][0])

    def recover(self) -> int:
        """Give back the messages of owners that have died; how many messages that were."""
        dead = [owner for owner, in self._read('SELECT id FROM owner WHERE id <> :own', {'own': self._owner})
                if self._is_dead(owner)]
        return sum(self._transaction(self._give_back, owner, 1) for owner in dead)

    # inside a transaction

    def _apply(self, batch: Batch, now: float) -> list[Taken]:
        self._insert(batch.publish)
        for message in batch.large:
            self._insert_pieces(message)
        for ids in _slices(batch.settled):
            marks = _marks(len(ids))
            self._db.execute(f'DELETE FROM message WHERE id IN {marks}', ids)
            self._db.execute(f'DELETE FROM claim WHERE id IN {marks}', ids)
        for ids in _slices(batch.released):
            marks = _marks(len(ids))
            self._db.execute(f'DELETE FROM claim WHERE id IN {marks} AND lost = 0', ids)
            self._db.execute(f'UPDATE claim SET owner = 0 WHERE id IN {marks}', ids)
        return [self._take(want, now) for want in batch.wanted]

    def _insert(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.lost:
                number = self._db.execute(f'{statements.INSERT} (?,?,?,?,?)', _row(message)).lastrowid
                self._db.execute('INSERT INTO claim VALUES (?,0,?)', (number, message.lost))
        for rows in _slices([message for message in messages if not message.lost]):
            values = ','.join(['(?,?,?,?,?)'] * len(rows))
            parameters = [value for message in rows for value in _row(message)]
            self._db.execute(f'{statements.INSERT} {values}', parameters)

    def _insert_pieces(self, message: LargeMessage) -> None:
        """SQLite copies a body twice on its way; pieces are small."""
        row = (message.queue, message.priority, max(0.0, message.due))
        number = self._db.execute('INSERT INTO message (queue, priority, due, size) VALUES (?,?,?,0)', row).lastrowid
        size = 0
        for piece in message.pieces:
            size += len(piece)
            self._db.execute('INSERT INTO part (message, body) VALUES (?,?)', (number, piece))
        self._db.execute('UPDATE message SET size = ? WHERE id = ?', (size, number))

    def _take(self, want: Want, now: float) -> Taken:
        """Half of the room is for messages whose time has come, so that neither they nor fresh ones starve."""
        if want.waiting:
            found = [row[0] for row in self._db.execute(statements.WAITING, (want.queue, now, want.count))]
            return Taken([one for part in _slices(found) for one in self._claim(want.queue, part)], False, None)
        half = (want.count + 1) // 2
        rows = self._db.execute(statements.DUE, (want.queue, now, half)).fetchall()
        more = len(rows) == half
        rows += self._db.execute(statements.READY, (want.queue, want.count - len(rows))).fetchall()
        more = more or len(rows) == want.count
        chosen, room = [], want.size
        for number, size in rows:
            if room <= 0:
                more = True
                break
            chosen.append(number)
            room -= size
        deliveries: list[Delivery] = []
        for ids in _slices(chosen):
            deliveries += self._claim(want.queue, ids)
        next_due = None if more else self._db.execute(statements.NEXT_DUE, (want.queue,)).fetchone()
        return Taken(deliveries, more, next_due and next_due[0])

    def _claim(self, queue: str, ids: Sequence[int]) -> list[Delivery]:
        values = ','.join([f'(?,{self._owner},0)'] * len(ids))
        self._db.execute(f'INSERT INTO claim VALUES {values} '
                         f'ON CONFLICT (id) DO UPDATE SET owner = excluded.owner', ids)
        rows = {row[0]: list(row) for row in self._db.execute(
            f'SELECT m.id, m.body, m.priority, c.lost FROM message m JOIN claim c ON c.id = m.id '
            f'WHERE m.id IN {_marks(len(ids))}', ids)}
        for row in rows.values():
            if row[1] is None:
                row[1] = self._joined(row[0])
        return [Delivery(queue, *rows[number]) for number in ids]

    def _joined(self, message: int) -> bytes:
        body = BytesIO()
        for piece, in self._db.execute('SELECT body FROM part WHERE message = ? ORDER BY id', (message,)):
            body.write(piece)
        return body.getvalue()

    def _give_back(self, owner: int, died: int) -> int:
        """Free the messages of an owner and forget the owner. `died`: 1 counts them as lost once more."""
        count = self._db.execute('UPDATE claim SET owner = 0, lost = lost + ? WHERE owner = ?',
                                 (died, owner)).rowcount
        self._db.execute('DELETE FROM claim WHERE owner = 0 AND lost = 0')
        self._db.execute('DELETE FROM owner WHERE id = ?', (owner,))
        return count

    def _purge(self, statement: str, queue: str) -> int:
        count = self._db.execute(statement, (queue,)).rowcount
        self._db.execute('DELETE FROM claim WHERE owner = 0 AND id NOT IN (SELECT id FROM message)')
        return count

    # owners and the file

    def _connect(self, undo: contextlib.ExitStack) -> None:
        with contextlib.suppress(FileExistsError):  # one that exists keeps its mode; SQLite's other files follow it
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        undo.callback(self._db.close)
        self._db.execute(f'PRAGMA page_size = {_PAGE_SIZE}')
        self._db.execute('PRAGMA synchronous = FULL')
        self._db.execute(f'PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}')
        self._db.execute('PRAGMA secure_delete = OFF')  # Debian has it on: it writes each page that becomes free
        self._db.execute('PRAGMA temp_store = MEMORY')  # or what a statement may have to undo goes through /var/tmp

    def _create_or_check(self) -> None:
        self._db.execute('BEGIN')  # one look at all three: another process may be creating it
        application, = self._db.execute('PRAGMA application_id').fetchone()
        version, = self._db.execute('PRAGMA user_version').fetchone()
        tables, = self._db.execute('SELECT count(*) FROM sqlite_master').fetchone()
        self._db.execute('COMMIT')
        if application == statements.APPLICATION_ID:
            if version != statements.SCHEMA_VERSION:
                raise ConfigError(f'the queue file {self.path} was made by another version of mqlite (schema '
                                  f'{version}, this one has {statements.SCHEMA_VERSION}); empty it with that one first')
        elif tables or application or version:
            raise ConfigError(f'{self.path} is a database of another program; let queue-address name another file')
        else:
            self._create()
        self._enter_wal()  # not before: another program's file is left as it is

    def _create(self) -> None:
        self._db.execute('BEGIN EXCLUSIVE')
        if not self._db.execute('SELECT count(*) FROM sqlite_master').fetchone()[0]:
            for statement in statements.SCHEMA.split(';\n'):
                self._db.execute(statement)
        self._db.execute('COMMIT')

    def _enter_wal(self) -> None:
        """Of several processes that start at once one makes the change, and it does not wait for the others: it fails,
        whatever the time-out. A transaction waits."""
        for _ in range(_WAL_ATTEMPTS - 1):
            with contextlib.suppress(sqlite3.OperationalError):
                self._db.execute('PRAGMA journal_mode = WAL')
                return
            self._db.execute('BEGIN EXCLUSIVE')
            self._db.execute('COMMIT')
        self._db.execute('PRAGMA journal_mode = WAL')

    def _become_owner(self, undo: contextlib.ExitStack) -> None:
        """Take a number, and lock its file before the transaction that makes the number known."""
        self._turn = Turn(f'{self.path}-turn', self.path)
        undo.callback(self._turn.close)
        self._db.execute('BEGIN IMMEDIATE')
        owner = self._db.execute('INSERT INTO owner DEFAULT VALUES').lastrowid or 0
        lock = os.open(self._owner_file(owner), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        undo.callback(self._unlock, owner, lock)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _let_owner_use(lock, os.stat(self.path))
        self._db.execute('COMMIT')
        self._owner = owner

    def _unlock(self, owner: int, lock: int) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._owner_file(owner))
        os.close(lock)

    def _owner_file(self, owner: int) -> str:
        return f'{self.path}-owner{owner}'

    def _is_dead(self, owner: int) -> bool:
        try:
            lock = os.open(self._owner_file(owner), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError:
            return False  # out of descriptors, another user's file: in doubt it lives
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(self._owner_file(owner))
            return True
        except OSError:
            return False
        finally:
            os.close(lock)

    def _transaction(self, work: Callable[..., T], *args: object) -> T:
        with self._turn:
            return self._in_transaction(work, *args)

    def _in_transaction(self, work: Callable[..., T], *args: object) -> T:
        try:
            self._db.execute('BEGIN IMMEDIATE')
            try:
                result = work(*args)
                self._db.execute('COMMIT')
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute('ROLLBACK')
                raise
            return result
        except sqlite3.Error as error:
            raise self._trouble(error) from error

    def _read(self, statement: str, parameters: dict[str, object] | tuple[object, ...]) -> list[Any]:
        try:
            return self._db.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._trouble(error) from error

    def _trouble(self, error: Exception) -> QueueError:
        return QueueError(f'the queue file {self.path} cannot be used now: {error}')


class Turn:
    """A place in the line of those that want to write; whoever ends gives up its place.

    It saves time, and that is all: SQLite has locks of its own, which are enough where this one cannot be had.
    """

    def __init__(self, path: str, database: str) -> None:
        """Whoever may use the database may use this, too."""
        self._path = path
        self._lock = -1
        with contextlib.suppress(OSError):
            file = os.stat(database)
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.fchmod(self._lock, stat.S_IMODE(file.st_mode))
            _let_owner_use(self._lock, file)

    def __enter__(self) -> None:
        if self._lock >= 0:
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def __exit__(self, *_error: object) -> None:
        if self._lock >= 0:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def remove(self) -> None:
        """Nobody else uses the database."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)


def _let_owner_use(descriptor: int, file: os.stat_result) -> None:
    """`queue publish` by root: the daemon's user must be able to tell whether it lives, and when it has written."""
    if os.geteuid() == 0:
        os.fchown(descriptor, file.st_uid, file.st_gid)


def _row(message: Message) -> tuple[object, ...]:
    """As statements.INSERT wants it."""
    return message.queue, message.priority, max(0.0, message.due), len(message.body), message.body


def _slices(rows: Sequence[T]) -> Iterable[Sequence[T]]:
    for at in range(0, len(rows), _ROWS):
        yield rows[at:at + _ROWS]


def _marks(count: int) -> str:
    return '(' + ','.join('?' * count) + ')'
