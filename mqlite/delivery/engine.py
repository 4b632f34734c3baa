"""The delivery engine: takes documents off the outbox, has them delivered, and settles each with what it led to.

    consume ─► too early? ─► put back until its time
              expired?   ─► given up
              unusable?  ─► given up, once, with the reason
              otherwise  ─► route ─► schedule ─► result ─► final, or tried again ─► settle

Every delivery is settled or released exactly once. Settling publishes the results (or the retry) before the outbox
loses the message, so that a crash in between repeats an attempt but loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mqlite.delivery import report, retry, verdict
from mqlite.delivery.attempt import Dialler
from mqlite.delivery.route import RouteConfig, choose
from mqlite.delivery.schedule import Job, Scheduler
from mqlite.loop.reactor import Reactor
from mqlite.message.document import Document, DocumentError
from mqlite.message.result import Result
from mqlite.queues.contract import Consumer, Delivery, Message, Store

PREFETCH = 1000  # messages in hand
PREFETCH_BYTES = 64 * 1024 * 1024  # of documents in hand


@dataclass(frozen=True)
class EngineConfig:
    """What the engine needs to know."""

    outbox: str
    queues: Mapping[str, str]  # results, success, failure, retry -> name of the queue, '' for none
    retry: retry.RetryPolicy
    route: RouteConfig
    connections: int  # outgoing, at once; 0 for no limit


class Engine:
    """One per reactor."""

    def __init__(self, reactor: Reactor, store: Store, dialler: Dialler, config: EngineConfig) -> None:
        self._clock = reactor.clock
        self._store = store
        self._config = config
        self._scheduler = Scheduler(reactor, dialler, config.connections, self._on_result, self._on_return)
        self._consumer: Consumer | None = None

    def start(self) -> None:
        self._consumer = self._store.consume(self._config.outbox, PREFETCH, PREFETCH_BYTES, self._on_delivery)

    async def stop(self, seconds: float) -> None:
        """Take nothing new, give back what waits, finish what is being sent, within so many seconds."""
        if self._consumer is not None:
            self._consumer.stop()
        await self._scheduler.stop(seconds)

    def _on_delivery(self, delivery: Delivery) -> None:
        now, config = self._clock.time(), self._config
        try:
            document = Document.decode(delivery.body)
            if document.not_before > now:
                self._store.settle(delivery, [Message(delivery.queue, delivery.body, delivery.priority,
                                                      document.not_before)])
            elif retry.deadline(document, config.retry, now) <= now:
                self._finish(delivery, document, verdict.expired())
            else:
                _check(document)
                self._scheduler.add(Job(delivery, document, choose(document, config.route)))
        except DocumentError as error:
            self._store.settle(delivery, report.unreadable(delivery.body, verdict.invalid(str(error)), now,
                                                           config.queues))

    def _on_result(self, job: Job, result: Result) -> None:
        now, config = self._clock.time(), self._config
        due = retry.next_attempt(job.document, result, config.retry, now)
        if due is None:
            self._finish(job.delivery, job.document, result)
        else:
            self._store.settle(job.delivery, report.again(job.delivery.body, job.document, result, now, due,
                                                          config.outbox, config.queues))

    def _finish(self, delivery: Delivery, document: Document, result: Result) -> None:
        self._store.settle(delivery, report.final(delivery.body, document, result, self._clock.time(),
                                                  self._config.queues))

    def _on_return(self, job: Job) -> None:
        self._store.release(job.delivery)


def _check(document: Document) -> None:
    """DocumentError when a property that is needed only after the attempt has the wrong form: better before it."""
    _ = document.max_attempts, document.retries, document.priority
