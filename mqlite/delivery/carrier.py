"""One connection to a destination, and the job that it has in hand.

A carrier is one connection: when the connection is over, so is the carrier. It has no say in which job is next
(`schedule.py` hands them out); here is only what it takes to send one and to wait for one.
"""

from __future__ import annotations

from functools import partial
from typing import Callable

from mqlite.delivery import verdict
from mqlite.delivery.attempt import Dialler, connected
from mqlite.delivery.destination import Destination
from mqlite.delivery.job import Job
from mqlite.delivery.servers import Visit
from mqlite.delivery.signer import MailSigner
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import Task, Waiter
from mqlite.message.document import NoMime
from mqlite.message.result import Result
from mqlite.message.seven_bit import to_seven_bit
from mqlite.smtp.client import ClientSession, Sign
from mqlite.smtp.envelope import Envelope
from mqlite.smtp.reply import ClientFailure


class Carrier:
    """See above."""

    def __init__(self, reactor: Reactor, destination: Destination) -> None:
        self.destination = destination
        self.job: Job | None = None
        self.next: Job | None = None  # which is sent after that; see `attempt`
        self.task: Task[None] | None = None
        self.connecting = True
        self.since = reactor.now()  # when it began to connect, or was given its job
        self.peer = ''  # the address that it is connected with
        self.visit: Visit | None = None  # where the addresses of servers have limits
        self._leaving = False
        self._reactor = reactor
        self._session: ClientSession | None = None
        self._signer: MailSigner | None = None
        self._waiter: Waiter[None] | None = None  # while it is idle

    @property
    def ready(self) -> bool:
        """Another job may follow: as far as we can see now, the server waits for one, and may be given one more."""
        session = self._session
        if session is None or not session.ready or self._leaving or (
                self.visit is not None and self.visit.is_crowded):
            return session is not None and session.begun and session.usable
        most = self.destination.capacity.connection_messages
        return not most or session.messages < most

    async def connect(self, dialler: Dialler) -> None:
        """NoSession."""
        self._signer = dialler.signer
        servers = self.destination.servers
        self.visit = None if servers is None else Visit(servers)
        self._session = await dialler.open(self.destination.place, self.destination.domain, self.visit)
        self.connecting = False
        self.peer = self._session.stream.peer[0]

    async def wait_job(self) -> bool:
        """Be idle, for a while; whether a job was given."""
        if self.visit is not None:
            self.visit.missed()
        waiter = self._waiter = Waiter[None](self._reactor)
        timer = self._reactor.call_later(self.destination.capacity.idle_seconds, self.dismiss)
        self.destination.idle.append(self)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None
            self.dismiss()
        return self.job is not None

    def give(self, job: Job, now: float) -> None:
        """To an idle carrier."""
        self.job = job
        if self.visit is not None:
            self.visit.take(now)
        self.dismiss()

    def held(self, now: float) -> float:
        """Seconds until it may have another job."""
        return 0.0 if self.visit is None else self.visit.message_wait(now)

    def dismiss(self) -> None:
        """An idle carrier has a job now, or is to leave. One that is not idle goes on."""
        if self in self.destination.idle:
            self.destination.idle.remove(self)
        if self._waiter is not None and not self._waiter.done:
            self._waiter.set()

    def leave(self) -> None:
        """Take no more jobs."""
        self._leaving = True
        self.dismiss()

    def cancel(self) -> None:
        """Leave at once, whatever is going on."""
        if self.task is not None:
            self.task.cancel()

    def give_back(self) -> Job:
        """The job in hand, which is then no more in hand."""
        job, self.job = self.job, None
        assert job is not None
        return job

    async def attempt(self, take_next: Callable[[], Job | None]) -> Result | None:
        """Send the job; None when it was not attempted, because a reused connection was gone.

        `take_next` is asked for the job that follows while this one leaves, so that its commands can leave with it.
        """
        session, job = self._session, self.job
        assert session is not None and job is not None
        reused = session.messages > 0
        companion = session.companion
        if companion is not None:
            companion.begin(job.document.fields, job.envelope.sender, job.envelope.recipient, job.delivery.body)
        announces = companion is None and self.destination.announces
        try:
            reply = await session.send(job.envelope, job.mime, self._finish(session, job),
                                       partial(self._ahead, take_next) if announces else None)
        except ClientFailure as failure:
            if reused and failure.state == 'mailfrom' and not session.usable:
                return None
            return verdict.failed(failure, connected(session))
        except NoMime as error:
            return verdict.no_data(str(error))
        finally:
            self.destination.announces = self.destination.announces and session.announces
            if companion is not None:
                companion.finish()
        return verdict.delivered(reply, 'DSN' in session.extensions, connected(session))

    def _finish(self, session: ClientSession, job: Job) -> Sign | None:
        """What the message needs before it goes to this server; None when it goes as it is."""
        sign = None if self._signer is None else self._signer.for_message(job.keys)
        return sign if '8BITMIME' in session.extensions else partial(_in_seven_bits, sign)

    def _ahead(self, take_next: Callable[[], Job | None]) -> tuple[Envelope, bytes] | None:
        """The next message, if it can be announced as it is."""
        assert self._session is not None
        job = self.next = take_next() if self.ready else None
        if job is None or job.mime is None or self._finish(self._session, job) is not None:
            return None
        return job.envelope, job.mime

    async def quit(self) -> None:
        """Say goodbye, if there is a connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.quit()

    def hang_up(self) -> None:
        """End the connection without a word, if there is one: we were told to stop in the middle of something."""
        session, self._session = self._session, None
        if session is not None:
            session.hang_up()
        if self.visit is not None and self.visit.leave():
            self.destination.full = 0.0


async def _in_seven_bits(sign: Sign | None, mime: bytes) -> bytes:
    """The message for a server that takes no other; signed after that."""
    mime = to_seven_bit(mime)
    return mime if sign is None else await sign(mime)
