"""The embedded store: the contract of `contract.py` on one SQLite file.

Nothing is written at once. Publishes, settlements and releases of a loop turn are collected and given to the worker
thread as one transaction; while it commits, the next batch grows. So twenty clients that finish together share one
fsync, and a slow disk makes batches larger, not sessions slower one by one.

    publish ─┐                                      ┌─► Waiters set: "kept"
    settle ──┼─► _next: Work ──► thread: commit ────┼─► consumers get deliveries
    release ─┘        ▲                 │ fails     └─► next batch
                      └── settlements ◄─┘   publishes fail: QueueError

When a commit fails (disk full, file locked for too long), publishes fail at once, and for RETRY_SECONDS those that
follow too: a client gets its 451 now rather than after a time-out. They also fail while a commit does not end (a dead
disk, a process that was stopped in the middle of one); what is in it has no outcome yet, and waits. Settlements are
never given up: they stand for mail that was delivered already. A message that SQLite could never take (too large, a
name that is no text) is refused before it joins a batch, where it would fail the others and come back with every
attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Callable, TypeVar

from mqlite.errors import PermanentError
from mqlite.loop.reactor import Reactor
from mqlite.loop.sync import Signal
from mqlite.loop.task import Task, Waiter, sleep
from mqlite.loop.thread import WorkerThread
from mqlite.loop.timers import Timer
from mqlite.queues.contract import Delivery, LargeMessage, Message, Publishable, QueueError, QueueStatus, Seen
from mqlite.queues.sqlite import LARGEST_BODY, LARGEST_PRIORITY, Batch, Database, Taken, Want

T = TypeVar('T')

RETRY_SECONDS = 1.0  # between a failed commit and the next attempt
STUCK_SECONDS = 15.0  # for a commit; SQLite gives up waiting for a lock before
LINGER_SECONDS = 0.01  # for which settlements gather; a crash in this time sends so many messages again
POLL_SECONDS = 1.0  # how often a hungry consumer looks for what other processes have published
LOOKS = 200  # messages read at once for who looks at a queue
RECOVER_POLLS = 10  # every so many looks, messages of dead processes are looked for too


@dataclass
class Work:
    """What the next transaction is to do, with who waits for it."""

    published: list[tuple[Sequence[Publishable], Waiter[None]]] = field(default_factory=list)
    settled: list[tuple[int, Sequence[Message], Waiter[None]]] = field(default_factory=list)
    released: list[Delivery] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.published or self.settled or self.released)

    def batch(self) -> Batch:
        publish: list[Message] = []
        large: list[LargeMessage] = []
        for messages, _ in self.published:
            for message in messages:
                (publish if isinstance(message, Message) else large).append(message)  # type: ignore[arg-type]
        publish += [message for _, messages, _ in self.settled for message in messages]
        return Batch(publish, [tag for tag, _, _ in self.settled], [delivery.tag for delivery in self.released],
                     large=large)

    def waiters(self) -> list[Waiter[None]]:
        return [waiter for _, waiter in self.published] + [waiter for _, _, waiter in self.settled]


class EmbeddedConsumer:
    """What one consumer has in hand, and what it may still take."""

    def __init__(self, store: EmbeddedStore, queue: str, prefetch: int, prefetch_bytes: int,
                 on_delivery: Callable[[Delivery], object]) -> None:
        self.queue = queue
        self.on_delivery = on_delivery
        self.hungry = True  # a look at the queue may give something
        self.stopped = False
        self.timer: Timer | None = None  # for the next message that waits for its time
        self._store = store
        self._count = prefetch
        self._size = prefetch_bytes
        self._least = max(1, prefetch // 4)  # ask for no less than this: one query for many messages

    def want(self) -> Want | None:
        """What to ask for in the next transaction, if anything."""
        if self.hungry and self._count >= self._least and self._size > 0:
            return Want(self.queue, self._count, self._size)
        return None

    def took(self, delivery: Delivery) -> None:
        self._count -= 1
        self._size -= len(delivery.body)

    def gave(self, delivery: Delivery) -> None:
        self._count += 1
        self._size += len(delivery.body)

    def stop(self) -> None:
        self._store.stop_consumer(self)


class EmbeddedStore:
    """See `contract.Store`."""

    def __init__(self, reactor: Reactor, path: str, on_note: Callable[[str], object],
                 poll_seconds: float = POLL_SECONDS, recover_polls: int = RECOVER_POLLS) -> None:
        """`on_note` is told in a line when the file cannot be used, when it can again, and what was recovered."""
        self.trouble: str | None = None
        self._reactor = reactor
        self._on_note = on_note
        self._poll_seconds = poll_seconds
        self._recover_polls = recover_polls
        self._database = Database(path)
        self._thread = WorkerThread(reactor, 'queue')
        self._next = Work()
        self._consumers: list[EmbeddedConsumer] = []
        self._holders: dict[Delivery, EmbeddedConsumer | None] = {}  # what is in our hands, and who has asked for it
        self._scheduled = False  # a batch begins at the end of this turn
        self._lingering: Timer | None = None  # until a batch of settlements begins
        self._running = False  # a batch is in the thread
        self._pause: Timer | None = None  # after a failure
        self._noted = False  # on_note knows of the trouble
        self._idle = Signal(reactor)
        self._closing = self._closed = False
        self._poller: Task[None] | None = None

    async def open(self) -> None:
        try:
            await self._submit(self._database.open)
            await self._recover()
        except BaseException:
            await self.close()
            raise
        self._poller = self._reactor.spawn(self._poll(), 'queue poll')

    async def close(self) -> None:
        self._closing = True
        if self._poller is not None:
            self._poller.cancel()
        for consumer in list(self._consumers):
            consumer.stop()
        if self._pause is not None:
            self._resume()
        self._schedule()
        while self._running or self._scheduled:
            await self._idle.wait()
        if not self._closed:
            done = self._submit(self._database.close)
            self._closed, self.trouble = True, 'the queue is closed'
            self._thread.stop()
            await done

    def publish(self, messages: Sequence[Publishable]) -> Waiter[None]:
        waiter: Waiter[None] = Waiter(self._reactor)
        refusal = _refusal(messages)
        if refusal is not None:
            waiter.fail(refusal)
        elif self.trouble is not None:
            waiter.fail(QueueError(self.trouble))
        else:
            self._next.published.append((messages, waiter))
            self._schedule()
        return waiter

    def settle(self, delivery: Delivery, messages: Sequence[Message]) -> Waiter[None]:
        waiter: Waiter[None] = Waiter(self._reactor)
        refusal = QueueError('the queue is closed') if self._closed else _refusal(messages)
        if refusal is not None:
            waiter.fail(refusal)
        else:
            self._gave(delivery)
            self._next.settled.append((delivery.tag, messages, waiter))
        return waiter

    def release(self, delivery: Delivery) -> None:
        if not self._closed:  # closing has given back everything
            self._gave(delivery)
            self._next.released.append(delivery)

    def consume(self, queue: str, prefetch: int, prefetch_bytes: int,
                on_delivery: Callable[[Delivery], object]) -> EmbeddedConsumer:
        consumer = EmbeddedConsumer(self, queue, prefetch, prefetch_bytes, on_delivery)
        self._consumers.append(consumer)
        self._schedule()
        return consumer

    def stop_consumer(self, consumer: EmbeddedConsumer) -> None:
        consumer.stopped = True
        if consumer in self._consumers:
            self._consumers.remove(consumer)
        if consumer.timer is not None:
            consumer.timer.cancel()

    async def fetch(self, queue: str, count: int, waiting: bool = False) -> list[Delivery]:
        deliveries = await self._submit(self._database.fetch, queue, count, self._reactor.clock.time(), waiting)
        self._holders.update(dict.fromkeys(deliveries))
        return deliveries

    async def purge(self, queue: str) -> int:
        return await self._submit(self._database.purge, queue)

    async def look(self, queue: str, see: Callable[[Seen], object]) -> None:
        """Show every message of the queue, and take none. A broker cannot do that."""
        rows = await self._submit(self._database.look, queue, 0, LOOKS)
        while rows:
            for _, seen in rows:
                see(seen)
            rows = await self._submit(self._database.look, queue, rows[-1][0], LOOKS)

    async def list_queues(self) -> list[QueueStatus]:
        return await self._submit(self._database.status, self._reactor.clock.time())

    def _submit(self, fn: Callable[..., T], *args: object) -> Waiter[T]:
        if self._closed:
            raise QueueError('the queue is closed')
        return self._thread.submit(fn, *args)

    # batches

    def _gave(self, delivery: Delivery) -> None:
        """KeyError when it was settled or released before: its number may be that of another message by now."""
        consumer = self._holders.pop(delivery)
        if consumer is None:
            self._schedule()  # a subcommand waits for it
        else:
            consumer.gave(delivery)
            self._linger()

    def _schedule(self) -> None:
        """Commit at the end of this turn, or after what is running."""
        if not self._scheduled and not self._running and self._pause is None:
            self._scheduled = True
            self._reactor.call_at_turn_end(self._begin)

    def _linger(self) -> None:
        """Commit soon: no client waits for a settlement, and many of them cost hardly more than one."""
        if self._scheduled or self._running or self._pause is not None:
            return  # it goes with the next batch, which comes by itself
        if any(consumer.want() for consumer in self._consumers):
            self._schedule()
        elif self._lingering is None:
            self._lingering = self._reactor.call_later(LINGER_SECONDS, self._schedule)

    def _begin(self) -> None:
        self._scheduled = False
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        work, batch = self._gather()
        hungry = []
        for consumer in self._consumers:
            want = consumer.want()
            if want is not None:
                batch.wanted.append(want)
                hungry.append(consumer)
        if work or hungry:
            self._running = True
            self._reactor.spawn(self._commit(work, batch, hungry), 'queue commit')
        else:
            self._idle.notify()

    def _gather(self) -> tuple[Work, Batch]:
        """What is next, taken out. Who consumes a queue that gets something looks again: nothing else would tell."""
        work, self._next = self._next, Work()
        batch = work.batch()
        changed = {message.queue for part in (batch.publish, batch.large, work.released) for message in part}
        for consumer in self._consumers:
            consumer.hungry = consumer.hungry or consumer.queue in changed
        return work, batch

    async def _commit(self, work: Work, batch: Batch, hungry: list[EmbeddedConsumer]) -> None:
        timer = self._reactor.call_later(STUCK_SECONDS, self._stuck)
        try:
            taken = await self._submit(self._database.apply, batch, self._reactor.clock.time())
        except Exception as error:  # also what nobody expected: a batch that ends in silence would stop the queue
            self._running = False
            self._failed(error, work)
            return
        finally:
            timer.cancel()
        self._running, self.trouble = False, None
        if self._noted and (batch.publish or batch.large or batch.settled):  # else it fits a disk without room for mail
            self._noted = False
            self._on_note('the queue can be written again')
        for waiter in work.waiters():
            waiter.set()
        for consumer, share in zip(hungry, taken):
            self._hand_out(consumer, share)
        if self._next.published or self._closing:
            self._schedule()
        else:
            self._linger()

    def _failed(self, error: Exception, work: Work) -> None:
        """Publishes fail; settlements and releases wait for the next attempt, in front of newer ones."""
        self._next = Work(work.published + self._next.published, work.settled + self._next.settled,
                          work.released + self._next.released)
        self._refuse_all(str(error) if isinstance(error, QueueError) else repr(error),
                         f'{error}; mail is refused for now, trying again every {RETRY_SECONDS:g} s')
        if self._closing:
            self._give_up()
        else:
            self._pause = self._reactor.call_later(RETRY_SECONDS, self._resume)

    def _stuck(self) -> None:
        trouble = f'the queue file has not answered for {STUCK_SECONDS:g} s'
        self._refuse_all(trouble, f'{trouble}: look at its disk, and for stopped processes; mail is refused for now')

    def _refuse_all(self, trouble: str, note: str) -> None:
        """Nothing can be published now."""
        if not self._noted:
            self._noted = True
            self._on_note(note)
        self.trouble = trouble
        refused, self._next.published = self._next.published, []
        for _, waiter in refused:
            waiter.fail(QueueError(trouble))

    def _give_up(self) -> None:
        """We are closing, and the file is of no use: there is no next attempt."""
        work, self._next = self._next, Work()
        if work.settled:
            self._on_note(f'{len(work.settled)} results could not be kept: their messages will be sent again')
        for _, _, waiter in work.settled:
            waiter.fail(QueueError(self.trouble))
        self._idle.notify()

    def _resume(self) -> None:
        """Try again; also with nothing to write, to learn whether the file can be used again."""
        assert self._pause is not None
        self._pause.cancel()
        self._pause, self._running = None, True
        work, batch = self._gather()
        self._reactor.spawn(self._commit(work, batch, []), 'queue commit')

    def _hand_out(self, consumer: EmbeddedConsumer, share: Taken) -> None:
        consumer.hungry = share.more
        for delivery in share.deliveries:
            self._holders[delivery] = consumer
            consumer.took(delivery)
        for delivery in share.deliveries:
            if consumer.stopped:
                self.release(delivery)
                continue
            try:
                consumer.on_delivery(delivery)
            except Exception as error:  # the others are not to suffer
                self._reactor.report(error, f'in the consumer of {consumer.queue}')
        if share.next_due is not None and not consumer.stopped:
            if consumer.timer is not None:
                consumer.timer.cancel()
            delay = max(0.0, share.next_due - self._reactor.clock.time())
            consumer.timer = self._reactor.call_later(delay, self._rouse, consumer)

    def _rouse(self, consumer: EmbeddedConsumer) -> None:
        consumer.hungry = True
        self._schedule()

    # other processes

    async def _poll(self) -> None:
        """Look for what other processes have published, and now and then for processes that have died."""
        seen, count = (0, 0), 0
        while True:
            await sleep(self._reactor, self._poll_seconds)
            count += 1
            try:
                version = await self._submit(self._database.data_version)
                recovered = await self._recover() if count % self._recover_polls == 0 else 0
            except QueueError:
                continue  # the next commit will say so
            clock = self._reactor.clock
            before, seen = seen, (version, round(clock.time() - clock.monotonic()))  # the second: has it been set?
            if seen != before or recovered:
                for consumer in self._consumers:
                    self._rouse(consumer)

    async def _recover(self) -> int:
        recovered = await self._submit(self._database.recover)
        if recovered:
            self._on_note(f'{recovered} messages of a process that has died are on the queue again')
        return recovered


def _refusal(messages: Sequence[Publishable]) -> PermanentError | None:
    """Why these can never be kept; None when nothing speaks against it."""
    for message in messages:
        if isinstance(message, Message) and len(message.body) > LARGEST_BODY:
            return PermanentError(f'a message of more than {LARGEST_BODY} bytes cannot be kept')
        if not (message.queue.isprintable() and abs(message.priority) <= LARGEST_PRIORITY):
            return PermanentError(f'no message can be kept on queue {message.queue!r} with priority {message.priority}')
    return None
