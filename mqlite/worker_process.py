"""The life of a worker process: `smtp-threads` workers, each with its loop in a thread of its own, and their plugins.

    plugins loaded ─► mq_initialize ─► every worker opened ─► every worker begins ─► ready
                                                      told to stop: every worker stops ─► mq_cleanup

The first worker has the main thread, which is the only one that sees signals. Plugins are loaded, initialised and
cleaned up once, there; a context each is made and ended in the worker's own thread. What keeps a worker from opening
is told to the supervisor, and ends the process.
"""

from __future__ import annotations

import gc
from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from mqlite.errors import MqliteError
from mqlite.log import Log
from mqlite.loop.connect import ListenSocket
from mqlite.loop.fork import Parent
from mqlite.loop.loop_thread import LoopThread
from mqlite.loop.reactor import HANG_UP, STOP_SIGNALS, Reactor
from mqlite.loop.task import Waiter
from mqlite.plugin.hooks import Hooks
from mqlite.plugin.host import PluginHost, run_in_all
from mqlite.plugin.loader import load_plugins
from mqlite.plugin.objects import Plugin
from mqlite.recorder import Recorder, Seat
from mqlite.settings import Settings
from mqlite.smtp.certificates import Certificates
from mqlite.supervisor import READY, STOP
from mqlite.worker import Portion, Worker

T = TypeVar('T')


class Spawn(Protocol):
    """Runs a coroutine in some loop; the outcome comes to the loop of the main thread."""

    def __call__(self, coroutine: Coroutine[Any, Any, T], name: str = '') -> Waiter[T]: ...


class Post(NamedTuple):
    """Where a worker lives."""

    reactor: Reactor
    spawn: Spawn
    seat: Seat


class Inherited(NamedTuple):
    """What was made before the fork."""

    sockets: Sequence[ListenSocket]
    certificates: Certificates | None
    recorder: Recorder
    seats: Sequence[Seat]  # one for each worker of the process


class WorkerProcess:
    """One process; `run` it once."""

    def __init__(self, settings: Settings, log: Log, parent: Parent, inherited: Inherited) -> None:
        self._settings = settings
        self._log = log
        self._parent = parent
        self._inherited = inherited
        self._seats = inherited.seats
        self._hooks = Hooks(log)
        self._reactor = Reactor(on_error=log.mistake)
        self._stop: Waiter[None] = Waiter(self._reactor)

    def run(self, first: int) -> int:
        """Serve until told to stop; the exit status. `first`: the number of the first worker, never used before."""
        self._reactor.on_signal(STOP, self._signalled)
        for number in (*STOP_SIGNALS[1:], HANG_UP):  # from a terminal they come to all of us; the supervisor knows
            self._reactor.on_signal(number, lambda: None)
        try:
            self._reactor.run(self._live(first))
        except (MqliteError, OSError) as error:
            self._parent.tell(f'{error}\n')
            return 1
        return 0

    def _signalled(self) -> None:
        """More than one may come: from the supervisor, and from what stops all processes of a service."""
        if not self._stop.done:
            self._stop.set()

    async def _live(self, first: int) -> None:
        self._seats[0].take(self._reactor.thread)
        plugins = self._load_plugins()
        run_in_all(plugins, 'mq_initialize', self._seats[0])
        threads = [LoopThread(self._reactor, f'loop {number}', self._log.mistake)
                   for number in range(2, len(self._seats) + 1)]
        posts = [Post(thread.reactor, thread.spawn, seat) for thread, seat in zip(threads, self._seats[1:])]
        posts.insert(0, Post(self._reactor, self._reactor.spawn, self._seats[0]))
        workers = await _all([post.spawn(self._open(post, plugins, first + at)) for at, post in enumerate(posts)])
        await _all([post.spawn(worker.begin()) for post, worker in zip(posts, workers)])
        gc.freeze()  # what is here now stays: the garbage collector need not look through it again and again
        self._parent.tell(READY.decode())
        await self._stop
        for place in self._inherited.sockets:
            place.close()
        await _all([post.spawn(worker.stop()) for post, worker in zip(posts, workers)])
        for thread in threads:
            await thread.stop()
        run_in_all(plugins, 'mq_cleanup', self._seats[0])

    def _load_plugins(self) -> list[Plugin]:
        settings, log = self._settings, self._log
        directory = settings.text('plugin-directory')
        if not directory:
            return []
        plugins = load_plugins(directory, log, int(settings.text('plugin-generation') or 0),
                               settings.text('plugin-shim'), self._seats[0], self._hooks)
        log.info(f'plugins in {directory}: {", ".join(plugin.name for plugin in plugins) or "none"}')
        return plugins

    async def _open(self, post: Post, plugins: Sequence[Plugin], number: int) -> Worker:
        """In the worker's own thread."""
        post.seat.take(post.reactor.thread)
        settings, log, inherited, seat = self._settings, self._log, self._inherited, post.seat
        host = PluginHost(plugins, post.reactor, log, settings.seconds('plugin-timeout'), seat, self._hooks)
        portion = Portion(number, settings.integer('processes') * len(self._seats), seat, inherited.recorder)
        worker = Worker(post.reactor, settings, log, [place.copy() for place in inherited.sockets],
                        host if plugins else None, inherited.certificates, portion)
        await worker.open()
        return worker


async def _all(waiters: Sequence[Waiter[T]]) -> list[T]:
    """The results of all, or the exception of the first that has one."""
    return [await waiter for waiter in waiters]
