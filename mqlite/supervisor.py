"""The supervisor: keeps worker processes running, and starts a new one when one dies. It knows nothing of mail.

    forked ─► ready ─► ... ─► ended      told to stop: done
                                         by itself, with status 0: a new one at once
                                         otherwise: named in the log, and a new one after a pause
           ─► could not start            before all were ready for the first time: everything ends, ConfigError

The process is small and idle, and touches nothing that could fail: no plugin, no queue, no client. It holds the
sockets that listen, so that clients who have not been accepted wait for the next worker. When it dies itself, its
workers end at once (loop/fork.py).

Stop: SIGTERM or SIGINT. Workers are told by us, and only once, whatever signals they get from elsewhere: what manages
services may signal all processes of one. A second signal kills them. One that has not stopped after KILL_SECONDS is
killed, and the plugin that holds it up is named.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any, Callable

from mqlite.errors import ConfigError
from mqlite.log import Log
from mqlite.loop.fork import KILL, Child, Forks, Parent, describe_end
from mqlite.loop.reactor import STOP_SIGNALS, Reactor
from mqlite.loop.task import Cancelled, Task, sleep
from mqlite.recorder import DEATHS, NO_DIGEST, Note, Recorder, Seat, culprits, frames, in_foreign_thread

READY = b'ready\n'  # what a worker tells when it serves; anything else is why it cannot, or what Python says at a crash
KILL_SECONDS = 80.0  # systemd kills after 90, without saying what was in the way
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0  # seconds before a new worker is started in place of one that did not last
STEADY_SECONDS = 30.0  # one that has lasted for so long was well
STOP = STOP_SIGNALS[0]

Work = Callable[[Parent, int, int], int]


class Supervisor:
    """Keeps `count` workers. On the reactor of the main thread."""

    def __init__(self, reactor: Reactor, log: Log, count: int, work: Work, recorder: Recorder,
                 on_running: Callable[[], object]) -> None:
        """`work(parent, number, serial)` is the life of a worker: one of 0 to count - 1 that is never the number of two
        at once, and one that is never used again. `on_running` is called once, when all have become ready."""
        self._reactor = reactor
        self._log = log
        self._count = count
        self._work = work
        self._recorder = recorder
        self._on_running = on_running
        self._forks = Forks(reactor)
        self._children: dict[int, Child] = {}
        self._ready: set[int] = set()
        self._pausing: set[Task[Any]] = set()
        self._serial = 0
        self._running = self._stopping = self._failed = False
        self._refusal = ''

    async def run(self) -> int:
        """Until we are told to stop and all have ended; the exit status. ConfigError when a worker cannot start."""
        for task in [self._reactor.spawn(self._keep(number), f'worker {number + 1}') for number in range(self._count)]:
            await task
        if self._refusal:
            raise ConfigError(self._refusal)
        return 1 if self._failed else 0

    def stop(self) -> None:
        if self._stopping:
            self._log.warning('second signal: ending at once')
            self._tell_all(KILL)
            os._exit(1)
        self._stopping = True
        self._tell_all(STOP)
        for task in self._pausing:
            task.cancel()
        self._reactor.call_later(KILL_SECONDS, self._kill_all)

    def _tell_all(self, signal: int) -> None:
        for child in self._children.values():
            child.signal(signal)

    def _kill_all(self) -> None:
        for number, child in self._children.items():
            notes = [note for seat in self._seats(number) if (note := seat.read())]
            self._log.critical(f'{_name(number, child)} has not stopped within {KILL_SECONDS:g} s{_during(notes)}: '
                               f'killed')
            child.signal(KILL)

    async def _keep(self, number: int) -> None:
        """Keep one worker running."""
        failures = 0
        while not self._stopping:
            begun = self._reactor.now()
            try:
                child = self._children[number] = self._forks.fork(self._life_of(number), self._heard(number))
            except OSError as error:
                well = False
                self._log.critical(f'worker {number + 1} cannot be started: {error.strerror}')
            else:
                status = await child.ended
                del self._children[number]
                well = status == 0
                self._judge(number, child, status)
            if not self._stopping:
                failures = 0 if well or self._reactor.now() - begun > STEADY_SECONDS else failures
                seconds = pause_after(failures)
                failures += not well
                self._log.info(f'a new worker {number + 1} is started {f"in {seconds:g} s" if seconds else "now"}')
                await self._pause(seconds)

    def _life_of(self, number: int) -> Callable[[Parent], int]:
        self._serial += 1
        serial = self._serial
        return lambda parent: self._work(parent, number, serial)

    def _heard(self, number: int) -> Callable[[Child], None]:
        def heard(child: Child) -> None:
            if not child.said.startswith(READY):
                return
            self._ready.add(number)
            if self._stopping:
                child.signal(STOP)  # it may not have minded signals yet when it was told
            elif len(self._ready) == self._count and not self._running:
                self._running = True
                self._on_running()
        return heard

    async def _pause(self, seconds: float) -> None:
        """Until the time is over, or we are told to stop."""
        task: Any = self._reactor.current
        self._pausing.add(task)
        try:
            with contextlib.suppress(Cancelled):
                await sleep(self._reactor, seconds)
        finally:
            self._pausing.remove(task)

    def _judge(self, number: int, child: Child, status: int) -> None:
        """A worker has ended: say so, and who is to blame. That is counted before anything is said: another worker may
        have the message by then, and looks whether it may touch it."""
        name, said = _name(number, child), child.said.decode('utf-8', 'replace')
        notes = culprits(said, [note for seat in self._seats(number) if (note := seat.read())])
        for seat in self._seats(number):
            seat.leave_for_good()
        if status == 0:
            if not self._stopping:
                self._log.info(f'{name} was told to stop, but not by us')
            return
        if self._stopping and os.WIFSIGNALED(status) and os.WTERMSIG(status) == STOP:
            return  # it had no handler yet, and nothing to finish
        deaths = [(note, self._recorder.blame(note.message)) for note in notes if note.message != NO_DIGEST]
        self._failed = self._failed or self._stopping
        if os.WIFEXITED(status) and said and not child.said.startswith(READY):
            self._refuse(name, said.rstrip('\n'))
            return
        where = ' in a thread that a plugin has made' if in_foreign_thread(said) else _during(notes)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == KILL and not self._stopping:
            where += '; that is what the kernel does when memory runs out'
        self._log.critical(f'{name} was ended by {describe_end(status)}{where}')
        if os.WIFEXITED(status) or frames(said):
            self._log.info(f'{name}: {frames(said) or said[len(READY):]}')
        for note, count in deaths:
            self._log.warning(f'a message has ended {count} workers in {note.call}'
                              f'{": it is given up" if count >= DEATHS else ""}')

    def _refuse(self, name: str, reason: str) -> None:
        """It could not start: the operator's fault, who waits for it at the first start."""
        if self._running:
            self._log.critical(f'{name} could not start: {reason}')
        elif not self._refusal:
            self._refusal = reason
            if not self._stopping:
                self.stop()

    def _seats(self, number: int) -> Sequence[Seat]:
        each = len(self._recorder.seats) // self._count
        return self._recorder.seats[number * each:(number + 1) * each]


def pause_after(failures: int) -> float:
    """Seconds before the next start, after so many in a row and the one that has just failed: 0, then doubling."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 20)) if failures else 0.0


def _name(number: int, child: Child) -> str:
    return f'worker {number + 1} (process {child.pid})'


def _during(notes: Sequence[Note]) -> str:
    return ' in ' + ' or '.join(note.call for note in notes) if notes else ''
