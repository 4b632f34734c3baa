"""Messages wait per destination; carriers take them there.

A destination is a route with its waiting jobs. A carrier is a task with one connection: it takes the next job, sends
it, and so on; when nothing waits it keeps the connection for IDLE_SECONDS and then says goodbye.

    add(job) ──► idle carrier, if there is one
             ──► else the line; and one more carrier, while the destination and the host allow it

Every job handed in comes out exactly once: `on_result(job, result)`, or `on_return(job)` when we stop before its turn.
An exception that nobody expected is a result too, and is reported once, by the carrier's task.

When no session can be had and no other carrier of the destination has one, the failure is the destination's: all its
jobs get it. When another carrier has one (a server that takes five connections and no sixth), the job goes back to the
line. A reused connection that fails before the server has accepted anything says nothing about the message: it goes
back to the line too, and the carrier connects anew.

When the limit on connections leaves a destination without a carrier, it starves: it stands in a line for the next place
that becomes free, and the others make room. Who has a connection and no job leaves at once, who has jobs after
FAIR_SHARE of them.
"""

from __future__ import annotations

from collections import deque
from typing import Callable

from mqlite.delivery import verdict
from mqlite.delivery.attempt import Dialler, NoSession, connected
from mqlite.delivery.route import Route
from mqlite.loop.reactor import Reactor
from mqlite.loop.sync import Signal
from mqlite.loop.task import Task, Waiter
from mqlite.message.document import Document, NoMime
from mqlite.message.result import Result
from mqlite.queues.contract import Delivery
from mqlite.smtp.client import ClientSession
from mqlite.smtp.dsn import NOTHING, Request
from mqlite.smtp.envelope import Envelope
from mqlite.smtp.reply import ClientFailure
from mqlite.smtp.shares import Share

IDLE_SECONDS = 5.0  # a connection without work is kept for so long
CARRIERS_PER_DESTINATION = 20  # connections to one destination at once, as Postfix
FAIR_SHARE = 20  # messages per connection while a destination starves


class Job:
    """One message on its way. The MIME is taken out of the document: it is held once, and only while it is needed."""

    __slots__ = ('delivery', 'document', 'envelope', 'mime', 'route')

    def __init__(self, delivery: Delivery, document: Document, route: Route, mime_later: bool = False,
                 notices: Request = NOTHING) -> None:
        """DocumentError when the document cannot be sent as it is. `mime_later`: it may do without a MIME for now.
        `notices`: the settings for what its property `dsn` does not say.
        """
        self.delivery = delivery
        self.document = document
        self.route = route
        self.envelope = Envelope(document.envelope, document.recipient, document.notices(notices))
        self.mime = None if mime_later and not document.fields.get('mime') else document.take_mime()


class Destination:
    """Where jobs with one route wait."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.waiting: deque[Job] = deque()
        self.idle: list[Waiter[bool]] = []  # carriers with a connection and no job; the last one is the freshest
        self.carriers = 0
        self.sessions = 0  # carriers that have a connection

    def wake_idle(self, job_waits: bool = True) -> bool:
        """Tell an idle carrier that a job waits, or that none will come; False when no carrier is idle."""
        while self.idle:
            waiter = self.idle.pop()
            if not waiter.done:
                waiter.set(job_waits)
                return True
        return False


class Scheduler:
    """All destinations of one reactor."""

    def __init__(self, reactor: Reactor, dialler: Dialler, share: Share, on_result: Callable[[Job, Result], object],
                 on_return: Callable[[Job], object]) -> None:
        """`share`: the connections that may be open at once, to all destinations together."""
        self._reactor = reactor
        self._dialler = dialler
        self._share = share
        share.on_room = self._use_room
        self._on_result = on_result
        self._on_return = on_return
        self._destinations: dict[Route, Destination] = {}
        self._tasks: set[Task[None]] = set()
        self._ended = Signal(reactor)
        self._starving: dict[Destination, None] = {}  # without a carrier because of the limit, the longest one first
        self._stopping = False

    def add(self, job: Job) -> None:
        """Take the job to its destination, now or when it is its turn."""
        if self._stopping:
            self._on_return(job)
            return
        destination = self._destinations.get(job.route)
        if destination is None:
            destination = self._destinations[job.route] = Destination(job.route)
        destination.waiting.append(job)
        if not destination.wake_idle():
            self._staff(destination)

    async def stop(self, seconds: float) -> None:
        """Return what waits, let the carriers finish the message they are sending, at most for so long."""
        self._stopping = True
        for destination in self._destinations.values():
            while destination.waiting:
                self._on_return(destination.waiting.popleft())
            while destination.wake_idle(job_waits=False):
                pass
        timer = self._reactor.call_later(seconds, self._cancel_all)
        while self._tasks:
            await self._ended.wait()
        timer.cancel()

    def _cancel_all(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    def _staff(self, destination: Destination) -> None:
        """One more carrier, if it is useful and allowed."""
        if not destination.waiting or destination.carriers >= CARRIERS_PER_DESTINATION or self._stopping:
            return
        if self._share.full:
            if not destination.carriers and destination not in self._starving:
                self._starving[destination] = None
                self._make_room()
            return
        destination.carriers += 1
        self._share.take()
        self._tasks.add(self._reactor.spawn(self._carry(destination), f'carrier to {destination.route}'))

    def _make_room(self) -> None:
        """Let one idle carrier go, if there is one."""
        for destination in self._destinations.values():
            if destination.wake_idle(job_waits=False):
                return

    async def _carry(self, destination: Destination) -> None:
        """The life of a carrier."""
        task = self._reactor.current
        carrier = Carrier(self._reactor, self._dialler, destination)
        try:
            await self._work(carrier)
            await carrier.quit()
        except Exception:
            if carrier.job is not None:
                self._on_result(carrier.give_back(), verdict.internal_fault())
            raise
        finally:
            if carrier.job is not None:
                self._on_return(carrier.give_back())
            carrier.hang_up()
            destination.carriers -= 1
            self._tasks.discard(task)  # type: ignore[arg-type]
            self._share.give_back()
            self._ended.notify()
            self._after(destination)

    async def _work(self, carrier: Carrier) -> None:
        """Take one job after the other, until there is nothing to do or others are to have the place."""
        done = 0
        while not self._stopping:
            if self._starving and (done >= FAIR_SHARE or not carrier.destination.waiting):
                return
            job = await carrier.next_job()
            if job is None:
                return
            try:
                result = await carrier.attempt(job)
            except NoSession as refusal:
                self._refused(carrier, refusal.result)
                return
            carrier.give_back()
            done += 1
            if result is None:
                self._line_up(job)
            else:
                self._on_result(job, result)

    def _line_up(self, job: Job) -> None:
        """Put a job that was not attempted in front of the others."""
        if self._stopping:
            self._on_return(job)
            return
        destination = self._destinations[job.route]
        destination.waiting.appendleft(job)
        destination.wake_idle()

    def _refused(self, carrier: Carrier, result: Result) -> None:
        destination, job = carrier.destination, carrier.give_back()
        if destination.sessions:
            self._line_up(job)
            return
        self._on_result(job, result)
        while destination.waiting:
            self._on_result(destination.waiting.popleft(), result)

    def _after(self, destination: Destination) -> None:
        """A carrier has ended: somebody else may use its place."""
        if not destination.carriers:
            if destination.waiting:
                self._starving[destination] = None  # behind those that wait longer
            else:
                del self._destinations[destination.route]
        self._use_room()

    def _use_room(self) -> None:
        """Who has starved for longest gets a carrier."""
        while self._starving and not self._share.full:
            longest = next(iter(self._starving))
            del self._starving[longest]
            self._staff(longest)


class Carrier:
    """One connection to a destination, and the job that it has in hand."""

    def __init__(self, reactor: Reactor, dialler: Dialler, destination: Destination) -> None:
        self.destination = destination
        self.job: Job | None = None
        self._reactor = reactor
        self._dialler = dialler
        self._session: ClientSession | None = None

    async def next_job(self) -> Job | None:
        """The next one in line; with a connection, wait a while for one to come. None: there is nothing to do."""
        waiting = self.destination.waiting
        while not waiting:
            if self._session is None or not self._session.ready or not await self._wait_idle():
                break
        self.job = waiting.popleft() if waiting else None
        return self.job

    async def _wait_idle(self) -> bool:
        """Whether a job has come. Look again whether it is still there."""
        idle, waiter = self.destination.idle, Waiter[bool](self._reactor)
        timer = self._reactor.call_later(IDLE_SECONDS, _give_up, waiter)
        idle.append(waiter)
        try:
            return await waiter
        finally:
            timer.cancel()
            if waiter in idle:
                idle.remove(waiter)

    def give_back(self) -> Job:
        """The job in hand, which is then no more in hand."""
        job, self.job = self.job, None
        assert job is not None
        return job

    async def attempt(self, job: Job) -> Result | None:
        """Send the job; None when it was not attempted, because a reused connection was gone. NoSession."""
        session = await self._connected()
        reused = session.messages > 0
        companion = session.companion
        if companion is not None:
            companion.begin(job.document.fields, job.envelope.sender, job.envelope.recipient)
        try:
            reply = await session.send(job.envelope, job.mime)
        except ClientFailure as failure:
            if reused and failure.state == 'mailfrom' and not session.usable:
                return None
            return verdict.failed(failure, connected(session))
        except NoMime as error:
            return verdict.no_data(str(error))
        finally:
            if companion is not None:
                companion.finish()
        return verdict.delivered(reply, 'DSN' in session.extensions, connected(session))

    async def quit(self) -> None:
        """Say goodbye, if there is a connection."""
        session, self._session = self._session, None
        if session is not None:
            self.destination.sessions -= 1
            await session.quit()

    def hang_up(self) -> None:
        """End the connection without a word, if there is one: we were told to stop in the middle of something."""
        session, self._session = self._session, None
        if session is not None:
            self.destination.sessions -= 1
            session.hang_up()

    async def _connected(self) -> ClientSession:
        session = self._session
        if session is not None and session.ready:
            return session
        await self.quit()
        session = self._session = await self._dialler.open(self.destination.route)
        self.destination.sessions += 1
        return session


def _give_up(waiter: Waiter[bool]) -> None:
    """The time to be idle is over, unless a job has come in this very turn."""
    if not waiter.done:
        waiter.set(False)
