"""The watch over the spool directory: looks, takes what is ready, publishes it, and clears it away.

    every LOOK_SECONDS, in a thread: scan ──► for each that is ready: take, read ──► claim ──► publish ──► remove

The directory is looked at, not watched: inotify is not in the standard library, does not work on network file systems,
and its queue overflows. A look costs a call for each file; a directory with very many is looked at less often, so that
looking takes a tenth of the time at most. While the queue is in trouble nothing is taken.

A file is removed when the queue has confirmed all of its messages. A crash before that leaves it where it is, or
claimed; who finds it claimed sends it again, with `"again": true` in the property `spool`: that, and nothing else, may
be a duplicate. Limits: `open_files` at once, and about BYTES_IN_HAND of them.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Callable, TypeVar

from mqlite.errors import PermanentError
from mqlite.log import Log
from mqlite.loop.reactor import Reactor
from mqlite.loop.sync import Signal
from mqlite.loop.task import Task, Waiter, sleep
from mqlite.loop.thread import WorkerThread
from mqlite.message.headers import Trace
from mqlite.queues.contract import QueueError, Store
from mqlite.receive import Receiver
from mqlite.smtp.session import Address
from mqlite.spool.directory import Candidate, SpoolDirectory, Taken
from mqlite.spool.message import Submission, read_submission

LOOK_SECONDS = 1.0  # between two looks
LOOK_SHARE = 10  # times as long as the last look took, at least
PAUSE_SECONDS = 5.0  # after the queue or the disk has failed
BYTES_IN_HAND = 64 << 20  # one file is taken whatever its size
T = TypeVar('T')


@dataclass(frozen=True)
class WatchConfig:
    """What the watch needs to know."""

    extract: bool  # x-mq-* headers count
    open_files: int
    threads: int


class SpoolWatch:
    """One directory, watched by one reactor."""

    def __init__(self, reactor: Reactor, directory: SpoolDirectory, receiver: Receiver, store: Store,
                 config: WatchConfig, is_local: Callable[[str], bool], log: Log) -> None:
        self._reactor = reactor
        self._directory = directory
        self._receiver = receiver
        self._store = store
        self._config = config
        self._is_local = is_local
        self._log = log
        self._in_hand: dict[str, Task[None]] = {}
        self._bytes = 0
        self._ended = Signal(reactor)
        self._trouble = False
        self._paused_until = 0.0
        self._task: Task[None] | None = None
        self._threads = [WorkerThread(reactor, 'spool') for _ in range(config.threads)]
        self._turns = cycle(self._threads)

    def start(self) -> None:
        self._task = self._reactor.spawn(self._watch(), 'spool')

    async def stop(self, seconds: float) -> None:
        """Take no more files; those in hand are finished, for at most `seconds`, and left as they are then."""
        if self._task is not None:
            self._task.cancel()
        timer = self._reactor.call_later(seconds, self._give_up)
        while self._in_hand:
            await self._ended.wait()
        timer.cancel()
        for thread in self._threads:
            await thread.submit(int)  # what was given to it before is done
            thread.stop()
        self._directory.close()

    def _give_up(self) -> None:
        for task in list(self._in_hand.values()):
            task.cancel()

    async def _watch(self) -> None:
        clock = self._reactor.clock
        while True:
            begun = clock.monotonic()
            if self._store.trouble is None and begun >= self._paused_until:
                await self._look(begun, clock.time())
            spent = clock.monotonic() - begun
            await sleep(self._reactor, max(LOOK_SECONDS, LOOK_SHARE * spent))

    async def _look(self, now: float, wall: float) -> None:
        """Take everything that is ready at this moment."""
        try:
            ready, complaints = await self._ask(self._directory.scan, now, wall, frozenset(self._in_hand))
        except OSError as error:
            self._pause(f'the spool directory cannot be used: {error.strerror}')
            return
        for complaint in complaints:
            self._complain(complaint)
        if not ready:
            self._resume()
        for candidate in ready:
            await self._wait_for_room(candidate.mark.size)
            if self._store.trouble is not None or now < self._paused_until:
                break
            self._bytes += candidate.mark.size
            self._in_hand[candidate.entry] = self._reactor.spawn(self._handle(candidate), 'spool file')

    async def _wait_for_room(self, size: int) -> None:
        while self._in_hand and (len(self._in_hand) >= self._config.open_files
                                 or self._bytes + size > BYTES_IN_HAND):
            await self._ended.wait()

    async def _handle(self, candidate: Candidate) -> None:
        """One file, from its place in the directory to the queue."""
        loaded = None
        try:
            loaded = await self._ask(_load, self._directory, candidate, self._config.extract)
            if loaded is not None:
                await self._publish(*loaded)
        except QueueError as error:
            self._pause(f'the queue does not take spool files: {error}')
        except OSError as error:
            self._pause(f'spool file {candidate.name} cannot be used now: {error.strerror}')
        except PermanentError as error:
            entry = loaded[0].entry if loaded is not None else candidate.entry
            self._complain(await self._ask(self._directory.set_aside, Candidate(entry, candidate.mark), str(error)))
        finally:
            if loaded is not None:
                loaded[0].file.close()
            self._bytes -= candidate.mark.size
            del self._in_hand[candidate.entry]
            self._ended.notify()

    async def _publish(self, taken: Taken, submission: Submission) -> None:
        """Keep a message for each recipient, and clear the file away."""
        candidate = taken.candidate
        spool = {'directory': self._directory.config.path, 'file': candidate.name, 'user': taken.owner,
                 'size': candidate.mark.size}
        if candidate.again:
            spool['again'] = True
        addresses = [Address(recipient, self._is_local(recipient)) for recipient in submission.recipients]
        messages = self._receiver.prepare(submission.sender, addresses, submission.data, Trace('', '', 'local'),
                                          {'spool': spool}, trusted=True, extracts=self._config.extract)
        await self._receiver.keep(messages)
        self._complain(await self._ask(self._directory.finish, taken))
        self._resume()

    def _ask(self, fn: Callable[..., T], *args: Any) -> Waiter[T]:
        """In one of the threads, each in its turn."""
        return next(self._turns).submit(fn, *args)

    def _complain(self, complaint: str) -> None:
        if complaint:
            self._log.warning(complaint)

    def _pause(self, trouble: str) -> None:
        """Nothing is taken for a while. Said once, until something works again."""
        self._paused_until = self._reactor.clock.monotonic() + PAUSE_SECONDS
        if not self._trouble:
            self._log.warning(f'{trouble}; tried again every {PAUSE_SECONDS:.0f} seconds')
        self._trouble = True

    def _resume(self) -> None:
        if self._trouble:
            self._log.info('spool files are taken again')
        self._trouble = False


def _load(directory: SpoolDirectory, candidate: Candidate, extract: bool) -> tuple[Taken, Submission] | None:
    """In a thread: the file, ours, and what it says; None when it is in other hands. PermanentError: it cannot be sent.
    """
    taken = directory.take(candidate)
    if taken is None:
        return None
    with contextlib.ExitStack() as undo:
        undo.callback(taken.file.close)
        submission = read_submission(taken.content, extract)
        taken.content = b''  # the submission has what is needed of it
        if not directory.claim(taken):
            return None
        undo.pop_all()
    return taken, submission
