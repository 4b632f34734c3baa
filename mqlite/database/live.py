"""The database as the daemon sees it: a copy in memory, kept up to date. Look-ups never wait.

    file ──► worker thread: read, make indexes ──► rows and indexes in memory
              ▲ every LOOK_SECONDS: has the file been changed?   every database-ttl: read it in any case

As in MailerQ everything is copied at start and every `database-ttl` seconds. Between that, a look that costs a few
system calls finds out whether somebody has changed the file, so that a command is obeyed within seconds. Whoever needs
a table follows it: an index is made of its rows (a set of addresses, say), in the thread, and handed over; again only
when the rows have changed. Until then nothing of the old index changes under its user.

When the file cannot be read, what was read before holds, and the log says so, once, and again when it can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, TypeVar

from mqlite.database.file import Content, DatabaseFile
from mqlite.database.tables import Row, Usable
from mqlite.errors import MqliteError
from mqlite.log import Log
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import Task, sleep
from mqlite.loop.thread import WorkerThread

LOOK_SECONDS = 1.0  # between two looks whether the file has changed
T = TypeVar('T')
Rows = tuple[Row, ...]


@dataclass(frozen=True)
class Follower:
    """Somebody who wants to know about a table."""

    table: str
    make: Callable[[Rows], Usable[Any]]  # in the thread: pure
    take: Callable[[Any], object]  # in the loop


class Database:
    """All tables of one file, for one reactor."""

    def __init__(self, reactor: Reactor, file: DatabaseFile, ttl: float, log: Log) -> None:
        """Reads the opened file, blocking; MqliteError when that cannot be done. It is not kept up to date before
        `start`. `ttl`: seconds."""
        self._reactor = reactor
        self._file = file
        self._ttl = ttl
        self._log = log
        self._followers: list[Follower] = []
        self._faults: tuple[str, ...] = ()
        self._trouble = False
        self._thread: WorkerThread | None = None
        self._task: Task[None] | None = None
        self._content = file.read()
        self._note_faults()

    def rows(self, table: str) -> Rows:
        """The rows by id, as they are now."""
        return self._content.rows[table]

    def follow(self, table: str, make: Callable[[Rows], Usable[T]], take: Callable[[T], object]) -> None:
        """Hand `take` what `make` makes of the rows, now and whenever they have changed; rows that it could not use are
        named in the log. `make` runs in a thread."""
        follower = Follower(table, make, take)
        self._followers.append(follower)
        self._hand_over(follower, make(self.rows(table)))

    def start(self) -> None:
        """Keep up to date from now on."""
        self._thread = WorkerThread(self._reactor, 'database')
        self._task = self._reactor.spawn(self._keep_up(self._thread), 'database')

    async def stop(self) -> None:
        """Close the file. The rows stay."""
        if self._task is not None and self._thread is not None:
            self._task.cancel()
            await self._thread.submit(self._file.close)
            self._thread.stop()

    async def _keep_up(self, thread: WorkerThread) -> None:
        clock = self._reactor.clock
        last_read = clock.monotonic()
        while True:
            await sleep(self._reactor, min(LOOK_SECONDS, self._ttl))
            if_changed = clock.monotonic() - last_read < self._ttl
            try:
                content = await thread.submit(_look, self._file, self._content, if_changed)
            except MqliteError as error:
                if not self._trouble:
                    self._log.warning(f'{error}; what was read before holds')
                self._trouble = True
                continue
            if self._trouble:
                self._log.info(f'the database {self._file.path} can be used again')
            self._trouble = False
            if content is not None:
                last_read = clock.monotonic()
                await self._take(thread, content)

    async def _take(self, thread: WorkerThread, content: Content) -> None:
        followers = tuple(self._followers)
        made = await thread.submit(_make, followers, self._content, content)
        self._content = content
        self._note_faults()
        for follower, index in made:
            self._log.info(f'table {follower.table} has changed: {len(content.rows[follower.table])} rows')
            self._hand_over(follower, index)

    def _hand_over(self, follower: Follower, made: Usable[Any]) -> None:
        for fault in made.faults:
            self._log.warning(fault)
        follower.take(made.items)

    def _note_faults(self) -> None:
        for fault in self._content.faults:
            if fault not in self._faults:
                self._log.warning(fault)
        self._faults = self._content.faults


def _look(file: DatabaseFile, known: Content, if_changed: bool) -> Content | None:
    """In the thread: what the file holds; None when it has not been changed and nobody wants it anyway."""
    if if_changed and file.mark() == known.mark:
        return None
    return file.read()


def _make(followers: tuple[Follower, ...], old: Content, new: Content) -> list[tuple[Follower, Usable[Any]]]:
    """In the thread: new indexes for those whose table has changed."""
    return [(follower, follower.make(new.rows[follower.table])) for follower in followers
            if new.rows[follower.table] != old.rows[follower.table]]
