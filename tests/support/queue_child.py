"""What the tests of the embedded queue run in processes of their own, to be killed: `python -m … COMMAND PATH [WORD]`.

Each prints one line for each promise that it was given, at once and unbuffered: what is printed must be true after
whatever happens next.
"""

from __future__ import annotations

import os
import resource
import sqlite3
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Callable

from mqlite.errors import MqliteError
from mqlite.loop.reactor import Reactor
from mqlite.loop.sync import Signal
from mqlite.queues import embedded
from mqlite.queues.contract import Delivery, Message, QueueError
from mqlite.queues.embedded import EmbeddedStore
from mqlite.queues.sqlite import Batch, Database, Want


def say(text: str) -> None:
    os.write(1, text.encode() + b'\n')


class Child:
    """An open store on a reactor of its own."""

    def __init__(self, path: str) -> None:
        self.reactor = Reactor()
        self.store = EmbeddedStore(self.reactor, path, lambda text: say('note ' + text), 0.05, 2)
        self.progress = Signal(self.reactor)
        self._number = 0

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        async def main() -> None:
            await self.store.open()
            await work
            await self.store.close()
        self.reactor.run(main())

    async def publish(self, count: int, size: int = 20) -> None:
        """Print `kept NAME` for each message once all are kept."""
        names = [f'{os.getpid()}-{self._number + n}' for n in range(count)]
        self._number += count
        await self.store.publish([Message('q', name.encode().ljust(size)) for name in names])
        say('\n'.join('kept ' + name for name in names))

    def consume(self, prefetch: int, on_delivery: Callable[[Delivery], object]) -> None:
        self.store.consume('q', prefetch, 10_000_000, on_delivery)

    async def settle(self, delivery: Delivery) -> None:
        """Print `settling NAME`, and `settled NAME LOST` once that is kept."""
        name = delivery.body.decode().strip()
        say('settling ' + name)
        await self.store.settle(delivery, [Message('results', name.encode())])
        say(f'settled {name} {delivery.lost}')
        self.progress.notify()


def churn(path: str) -> None:
    """Publish and settle until killed."""
    child = Child(path)

    def on_delivery(delivery: Delivery) -> None:
        child.reactor.spawn(child.settle(delivery))

    async def publisher(count: int) -> None:
        while True:
            await child.publish(count)

    async def main() -> None:
        child.consume(20, on_delivery)
        for count in (1, 2, 100):
            child.reactor.spawn(publisher(count))
        while True:
            await child.progress.wait()

    child.run(main())


def consume(path: str) -> None:
    """Settle whatever comes until killed."""
    child = Child(path)

    async def main() -> None:
        child.consume(50, lambda delivery: child.reactor.spawn(child.settle(delivery)))
        while True:
            await child.progress.wait()

    child.run(main())


def hold(path: str) -> None:
    """Take 100 messages, print them, and sit on them until killed."""
    child = Child(path)

    async def main() -> None:
        child.consume(100, lambda delivery: say('holding ' + delivery.body.decode()))
        await child.progress.wait()

    child.run(main())


def lock(path: str) -> None:
    """Keep everybody else from writing until killed."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute('BEGIN EXCLUSIVE')
    say('locked')
    sys.stdin.read()
    Reactor().run(Signal(Reactor()).wait())     # for ever


def full(path: str, ballast: str = '') -> None:
    """Publish until the disk is full, settle, make room, publish again. Room: a ballast file goes, or a limit does."""
    embedded.RETRY_SECONDS = 0.05
    child = Child(path)

    async def main() -> None:
        await child.publish(1)
        [delivery] = await child.store.fetch('q', 1)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        if not ballast:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
        try:
            for _ in range(1000):
                await child.publish(2, 50_000)
        except QueueError as error:
            say(f'full {error}')
        settled = child.reactor.spawn(child.settle(delivery))
        try:
            await child.publish(1, 3_000_000)
        except QueueError as error:
            say(f'refused {error}')
        if ballast:
            os.unlink(ballast)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await settled
        await child.publish(2, 50_000)
        say('closed')

    child.run(main())


def statements(folder: str) -> None:
    """For n = 1, 2, 3 …: in a fork, do a little of everything on n.db and die before the n-th statement; log to n.log.

    Prints the last n, for which nobody had to die.
    """
    connect = sqlite3.connect
    number, status = 0, 1
    while status:
        number += 1
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(f'{folder}/{number}.log', os.O_WRONLY | os.O_CREAT), 1)
            left = [number]

            def count(_statement: str, left: list[int] = left) -> None:
                left[0] -= 1
                if left[0] == 0:
                    os._exit(9)

            def traced(*args: Any, **options: Any) -> sqlite3.Connection:
                connection: sqlite3.Connection = connect(*args, **options)
                connection.set_trace_callback(count)
                return connection

            sqlite3.connect = traced    # type: ignore[assignment]
            _a_little_of_everything(Database(f'{folder}/{number}.db'))
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
    say(f'ended {number}')


def _a_little_of_everything(database: Database) -> None:
    database.open()
    say('open')
    database.apply(Batch(publish=[Message('q', body) for body in (b'a', b'b', b'c')]), 0)
    say('published')
    [taken] = database.apply(Batch(wanted=[Want('q', 2, 100)]), 0)
    say('taken')
    a, b = taken.deliveries
    database.apply(Batch([Message('results', b'r')], settled=[a.tag]), 0)
    say('settled')
    database.apply(Batch(released=[b.tag]), 0)
    say('released')
    database.close()
    say('closed')


COMMANDS: dict[str, Callable[..., None]] = {
    'churn': churn, 'consume': consume, 'hold': hold, 'lock': lock, 'full': full, 'statements': statements}

if __name__ == '__main__':
    try:
        COMMANDS[sys.argv[1]](*sys.argv[2:])
    except MqliteError as error:
        sys.exit(f'{Path(__file__).name}: {error}')
