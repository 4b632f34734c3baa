"""The delivery engine: takes documents off the outbox, has them delivered, and settles each with what it led to.

    consume ─► unusable?   ─► given up, once, with the reason
              condemned?  ─► given up: plugins crash with it (recorder.py)
              expired?    ─► given up
              too early?  ─► put back until its time
              on pause?   ─► put back for a while, unless it is to fail
              forced?     ─► fails as the operator wants it, now or when its local address is known
              suppressed? ─► given up
              otherwise   ─► route ─► schedule ─► result ─► final, or tried again ─► settle

Every delivery is settled or released exactly once. Settling publishes the results (or the retry) before the outbox
loses the message, so that a crash in between repeats an attempt but loses nothing.

A mistake of ours must cost neither the mail nor the peace of the recipient: what was not accepted is put back for
FAULT_SECONDS, what was accepted is settled even if its result cannot be written as it should. Each is reported.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Callable

from mqlite.delivery import notify, report, retry, verdict
from mqlite.delivery.attempt import Dialler
from mqlite.delivery.controls import Controls
from mqlite.delivery.explain import Facts, Question, about_outcome
from mqlite.delivery.job import Job
from mqlite.delivery.notify import NotifyConfig
from mqlite.delivery.pauses import Holds, Pause
from mqlite.delivery.response_rules import ResponseRules
from mqlite.delivery.room import Room
from mqlite.delivery.route import RouteConfig, choose, sources
from mqlite.delivery.schedule import Scheduler
from mqlite.errors import PermanentError
from mqlite.loop.reactor import Reactor
from mqlite.mail_log import MailLog
from mqlite.message.compose import ConversionError
from mqlite.message.document import Document, DocumentError, NoMime
from mqlite.message.identifier import format_moment
from mqlite.message.result import Result
from mqlite.queues.contract import Consumer, Delivery, Message, QueueError, Store
from mqlite.smtp.shares import Share

PREFETCH = 1000  # messages in hand; with RabbitMQ rabbitmq-qos, if that is less
PREFETCH_BYTES = 64 * 1024 * 1024  # of documents in hand
REMEMBERED = 2000  # recipients whose last failure is remembered
FAULT_SECONDS = 600.0  # before a message is looked at again that we made a mistake with; the first retry-interval


@dataclass(frozen=True)
class EngineConfig:
    """What the engine needs to know."""

    outbox: str
    queues: Mapping[str, str]  # results, success, failure, retry -> name of the queue, '' for none
    retry: retry.RetryPolicy
    route: RouteConfig
    share: Share  # of the connections
    mime_later: bool = False  # a document may come without a MIME: a plugin may bring it
    loose: Collection[str] = ()  # addresses of a document whose local part may be anything: envelope, recipient
    notify: NotifyConfig = NotifyConfig('localhost', '')
    prefetch: int = PREFETCH
    controls: Controls = field(default_factory=Controls)
    workers: int = 1  # engines that share the limits of the daemon
    orders: ResponseRules | None = None  # for certain answers of servers


class Engine:
    """One per reactor."""

    def __init__(self, reactor: Reactor, store: Store, dialler: Dialler, config: EngineConfig,
                 log: MailLog | None = None, is_condemned: Callable[[bytes], bool] | None = None) -> None:
        """`log`: of attempts. `is_condemned`: whether mqlite dies of this document, where anything may do that."""
        self._log = log
        self._is_condemned = is_condemned
        self._reactor = reactor
        self._clock = reactor.clock
        self._store = store
        self._config = config
        self._room = Room(config.prefetch, PREFETCH_BYTES)
        self._holds = Holds()
        self._recent: dict[str, tuple[Result, float, float | None]] = {}
        self._hooks = dialler.hooks
        self._scheduler = Scheduler(reactor, dialler, config.share, self, self._room, config.controls, config.workers)
        self._consumer: Consumer | None = None
        self._attempted: list[tuple[Job, Result]] = []  # in this turn

    def start(self) -> None:
        self._consumer = self._store.consume(self._config.outbox, self._room.most, self._room.most_size,
                                            self._on_delivery)

    async def stop(self, seconds: float) -> None:
        """Take nothing new, give back what waits, finish what is being sent, within so many seconds."""
        if self._consumer is not None:
            self._consumer.stop()
        await self._scheduler.stop(seconds)
        self._finish_attempted()

    def _on_delivery(self, delivery: Delivery) -> None:
        now, config = self._clock.time(), self._config
        self._room.took(len(delivery.body))
        try:
            document = _read(delivery, config.loose)
            over = retry.is_over(document, config.retry, now)
            due = 0.0 if over else self._not_before(document, now)
            job = None if due else Job(
                delivery, document, choose(document, config.route),
                sources(document, config.route, config.controls.pools), config.mime_later, config.notify.defaults, now)
            refused = None if job is None else self._refused(job, over, now)
        except DocumentError as error:
            self._refuse(delivery, _marked(_verdict_on(error), delivery), now)
        except Exception as error:
            self._put_back(delivery, now + FAULT_SECONDS)
            self._reactor.report(error, 'while a message was taken from the outbox')
        else:
            if job is None:
                self._put_back(delivery, due)
            elif refused is not None:
                self._finish(job, refused)
            else:
                self._scheduler.add(job)

    def _refuse(self, delivery: Delivery, result: Result, now: float) -> None:
        """Give up a document that cannot be sent as it is."""
        document = report.readable(delivery.body) or Document({})
        if self._log is not None:
            self._write_log(self._log, document, None, result, now)
        try:
            messages = report.unreadable(delivery.body, result, now, self._config.queues)
            messages += notify.about_final(delivery.body, document, result, now, self._config.notify)
        except Exception as error:
            self._put_back(delivery, now + FAULT_SECONDS)
            self._reactor.report(error, 'while a result was made')
        else:
            self._settle(delivery, messages, result)

    def _not_before(self, document: Document, now: float) -> float:
        """When to look at it again, seconds since 1970; 0 when it may go now."""
        if document.not_before > now:
            return document.not_before
        controls = self._config.controls
        found = controls.intercept_of(document, None, now) if controls.pauses else None
        return now + self._holds.next(found, now) if isinstance(found, Pause) else 0.0

    def _refused(self, job: Job, over: bool, now: float) -> Result | None:
        """Why it is given up before anything is tried; None when nothing speaks against it."""
        if self._is_condemned is not None and self._is_condemned(job.delivery.body):
            return verdict.condemned()
        if over:
            return verdict.expired()
        suppressions, errors = self._config.controls.suppressions, self._config.controls.errors
        found = suppressions.of(job.document.recipient) if suppressions else None
        if found is not None:
            return verdict.suppressed(found.code, found.status, found.description)
        error = errors.of(job.document, None, now) if errors.all else None
        return verdict.forced(error) if error is not None else None

    def explain(self, question: Question, most: int) -> Facts:
        """Why it has not left, as far as this engine knows; of messages, at most so many."""
        now, controls = self._clock.time(), self._config.controls
        facts = self._scheduler.explain(question, most)
        facts['in hand'] = {'messages': self._room.count, 'bytes': self._room.size}
        facts['places'] = {'used': self._config.share.used, 'most': self._config.share.most}
        facts['pauses'] = [str(pause) for pause in controls.pauses.touching(question.domain, now)]
        facts['errors'] = [f'{error.answer} ({error})' for error in controls.errors.touching(question.domain, now)]
        found = controls.suppressions.of(question.text)
        if found is not None:
            facts['suppressed'] = f'{found.code} {found.status} {found.description}'
        facts['lately'] = [about_outcome(recipient, *outcome) for recipient, outcome in self._recent.items()
                           if question.is_about(recipient)][-most:]
        return facts

    # where jobs come out, see outlet.py

    def attempted(self, job: Job, result: Result) -> None:
        if self._hooks is not None:
            self._hooks.count(job.route.host, result)
        if not self._attempted:
            self._reactor.call_at_turn_end(self._finish_attempted)
        self._attempted.append((job, result))

    def unreachable(self, job: Job, result: Result, seconds: float) -> None:
        """An attempt that was made a moment ago for others counts for this message too, or it would have to be made
        for every single one; but not if that were its end."""
        now = self._clock.time()
        if result.permanent or retry.next_attempt(job.document, result, self._config.retry, now) is None:
            self._put_back(job.delivery, now + seconds)
        else:
            self._finish(job, verdict.left_alone(result, format_moment(now + seconds)), now + seconds)

    def put_out(self, job: Job, seconds: float) -> None:
        """It waits on the outbox for a while. Whole seconds: many that are due together are taken together."""
        self._put_back(job.delivery, float(math.ceil(self._clock.time() + seconds)))

    def paused(self, job: Job, pause: Pause) -> None:
        now = self._clock.time()
        self._put_back(job.delivery, now + self._holds.next(pause, now))

    def returned(self, job: Job) -> None:
        self._room.gave(job.size)
        self._store.release(job.delivery)

    # settling

    def _finish_attempted(self) -> None:
        """All of one turn, one after the other: a processor does the same thing twice in less time than two things."""
        attempted, self._attempted = self._attempted, []
        for job, result in attempted:
            try:
                self._finish(job, result)
            except Exception as error:  # the others are not to suffer
                self._reactor.report(error, 'while a result was kept')

    def _finish(self, job: Job, result: Result, not_before: float = 0.0) -> None:
        now, config = self._clock.time(), self._config
        result = _marked(result, job.delivery)
        try:
            if config.orders is not None and config.orders.rules and result.result != 'accepted':
                result = config.orders.obey(job.document, result)
            if self._log is not None:
                self._write_log(self._log, job.document, job.mime, result, now)
            due = retry.next_attempt(job.document, result, config.retry, now)
            due = None if due is None else max(due, not_before)
            messages = self._messages(job, result, now, due)
        except Exception as error:
            if result.result == 'accepted':
                self._settle(job.delivery, report.bare(job.delivery.body, result, now, config.queues), result)
            else:
                self._put_back(job.delivery, now + FAULT_SECONDS)
            self._reactor.report(error, 'while a result was made')
        else:
            self._remember(job, result, now, due)
            self._settle(job.delivery, messages, result)

    def _messages(self, job: Job, result: Result, now: float, due: float | None) -> list[Message]:
        """What a result leads to. `due`: when it is tried again, if it is."""
        body, document, config = job.delivery.body, job.document, self._config
        if due is None:
            return [*report.final(body, document, job.mime, result, now, config.queues),
                    *notify.about_final(body, document, result, now, config.notify)]
        return [*report.again(body, document, job.mime, result, now, due, config.outbox, config.queues),
                *notify.about_retry(body, document, result, now, retry.deadline(document, config.retry, now),
                                    config.notify)]

    def _remember(self, job: Job, result: Result, now: float, due: float | None) -> None:
        """For who asks why it has not left: the last failure of a recipient, and when it is tried again, if it is."""
        recent = self._recent
        if result.result != 'accepted':
            recent[job.document.recipient.lower()] = (result, now, due)
            if len(recent) > REMEMBERED:
                del recent[next(iter(recent))]
        elif recent:
            recent.pop(job.document.recipient.lower(), None)

    def _write_log(self, log: MailLog, document: Document, mime: bytes | None, result: Result, now: float) -> None:
        fields = document.fields
        if mime is not None and log.mentions_extracted:
            fields = report.with_extracted(fields, mime)
        try:
            attempt = len(document.attempts) + 1
        except DocumentError:
            attempt = 1
        log.write({'email': fields, 'result': result.fields(now), 'attempt': attempt,
                   'date': format_moment(now), 'time': int(now)})

    def _put_back(self, delivery: Delivery, due: float) -> None:
        self._room.gave(len(delivery.body))
        self._store.settle(delivery, [Message(delivery.queue, delivery.body, delivery.priority, due,
                                               delivery.lost)])

    def _settle(self, delivery: Delivery, messages: list[Message], result: Result) -> None:
        """Settle, with less to publish if the store can never keep these messages."""
        self._room.gave(len(delivery.body))
        kept = self._store.settle(delivery, messages)
        if not kept.done:
            return
        try:
            kept.result()
        except PermanentError as error:
            self._store.settle(delivery, report.bare(delivery.body, result, self._clock.time(), self._config.queues))
            self._reactor.report(error, 'while a result was kept')
        except QueueError:
            pass  # the store is closed, and has given the delivery back


def _verdict_on(error: DocumentError) -> Result:
    if isinstance(error, ConversionError):
        return verdict.not_converted(error.state, str(error))
    return verdict.no_data(str(error)) if isinstance(error, NoMime) else verdict.invalid(str(error))


def _marked(result: Result, delivery: Delivery) -> Result:
    """The result; it says so when the message was taken before by somebody who did not settle it."""
    return replace(result, redelivered=True) if delivery.lost else result


def _read(delivery: Delivery, loose: Collection[str]) -> Document:
    """The document. DocumentError now when a property that is needed only after the attempt has the wrong form."""
    if delivery.fault:
        raise DocumentError(delivery.fault)
    document = Document.decode(delivery.body, loose)
    _ = document.retries, document.priority, document.first_attempt, document.not_before
    return document
