"""Messages wait per destination; carriers take them there.

    add ─► resolving ─► destination's line ─► an idle carrier, if there is one
                                         └──► one more carrier, while the destination and the host allow it

A carrier is a task with one connection: it opens it, takes one job after the other, and when nothing is to be done it
keeps the connection for a few seconds and then says goodbye. A job stays in line until a connection is there for it and
the pace allows it, so that nothing but the attempt itself holds it.

Every job handed in comes out exactly once, see Outlet. An exception that nobody expected is a result too, and is
reported once, by the carrier's task.

When no session can be had and no other carrier of the destination has one, the failure is the destination's: all its
jobs get it, and it is left alone for a while. When another carrier has one (a server that takes five connections and no
sixth), the jobs wait for that one. A reused connection that fails before the server has accepted anything says nothing
about the message: it goes back to the line. When it is the local address that cannot be used, the jobs go on to the
next of theirs.

Which destinations get the connections, when there are not enough, is decided in `fairness.py`.
"""

from __future__ import annotations

import random
from functools import partial

from mqlite.delivery import verdict
from mqlite.delivery.attempt import Dialler, NoSession
from mqlite.delivery.carrier import Carrier
from mqlite.delivery.controls import Controls
from mqlite.delivery.destination import Destination
from mqlite.delivery.destinations import Destinations
from mqlite.delivery.explain import Facts, Question, about_destination, about_job
from mqlite.delivery.fairness import Fairness
from mqlite.delivery.gate import Gate
from mqlite.delivery.job import Job
from mqlite.delivery.outlet import Outlet
from mqlite.delivery.resolving import Resolving
from mqlite.delivery.room import Room
from mqlite.delivery.route import Exchangers
from mqlite.loop.reactor import Reactor
from mqlite.loop.sync import Signal
from mqlite.loop.timers import Timer
from mqlite.smtp.shares import Share

EASE_SECONDS = 0.5  # from one look for slow destinations to the next, while room is scarce
UNRESOLVED_SECONDS = 30.0  # for which jobs are put back whose name servers do not answer, while room is scarce


class Scheduler:
    """All destinations of one reactor."""

    def __init__(self, reactor: Reactor, dialler: Dialler, share: Share, outlet: Outlet, room: Room,
                 controls: Controls, workers: int = 1) -> None:
        """`share`: the connections that may be open at once, to all destinations together. `room`: for what is in
        hand; the outlet counts. `workers`: that share the limits of `controls`."""
        self._reactor = reactor
        self._dialler = dialler
        self._fairness = Fairness(share)
        share.on_room = self._use_room
        self._outlet = outlet
        self._room = room
        self._resolving = Resolving(reactor, dialler, self._found, outlet.attempted)
        self._controls = controls
        self._gate = Gate(controls, outlet)
        controls.on_intercepts = self._intercepts_changed
        self._destinations = Destinations(reactor, dialler, controls, workers, self._limit_changed)
        self._timers: dict[Destination, Timer] = {}  # when a destination is to be looked at again
        self._carriers: dict[Carrier, None] = {}
        self._idle: dict[Carrier, None] = {}  # of all destinations, the longest idle first
        self._easing: Timer | None = None  # while room is scarce
        self._ended = Signal(reactor)
        self._stopping = False

    def add(self, job: Job) -> None:
        """Take the job to its destination, now or when it is its turn."""
        if self._stopping:
            self._outlet.returned(job)
            return
        if self._easing is None and self._room.pressed:
            self._easing = self._reactor.call_later(0.0, self._ease)
        self._resolving.add(job)

    def explain(self, question: Question, most: int) -> Facts:
        """What is known about it; of messages, at most so many."""
        now, found = self._reactor.now(), self._destinations.of_exchangers(self._resolving.known(question.domain))
        jobs = [about_job(job, 'its servers are looked up') for job in self._resolving if question.fits(job.document)]
        opening: dict[Destination, float] = {}  # since when the first of them is being opened
        for carrier in self._carriers:
            destination = carrier.destination
            if carrier.connecting:
                opening.setdefault(destination, carrier.since)
            for job in (carrier.job, carrier.next):
                if job is not None and question.fits(job.document):
                    jobs.append(about_job(job, 'it is being sent', to=carrier.peer,
                                          seconds=round(now - carrier.since, 1), servers=str(destination.place)))
                    found[destination] = None
        for destination in self._destinations:
            for job in destination.line:
                if question.fits(job.document):
                    jobs.append(about_job(job, 'it waits for a connection', servers=str(destination.place)))
                    found[destination] = None
        return {'messages': jobs[:most], 'count': len(jobs), 'destinations': [
            about_destination(one, now, opening.get(one, now), self._fairness.waits(one))
            for one in found]}

    async def stop(self, seconds: float) -> None:
        """Return what waits, let the carriers finish the message they are sending, at most for so long."""
        self._stopping = True
        self._destinations.stop()
        for job in self._resolving.stop():
            self._outlet.returned(job)
        for destination in self._destinations:
            for job in destination.line.take_all():
                self._outlet.returned(job)
        for timer in (*self._timers.values(), self._easing):
            if timer is not None:
                timer.cancel()
        for carrier in list(self._carriers):
            if carrier.connecting:
                carrier.cancel()
            else:
                carrier.dismiss()
        limit = self._reactor.call_later(seconds, self._cancel_all)
        while self._carriers:
            await self._ended.wait()
        limit.cancel()

    def _cancel_all(self) -> None:
        for carrier in list(self._carriers):
            carrier.cancel()

    # lining up

    def _found(self, job: Job, exchangers: Exchangers) -> None:
        """The servers of a job are known: line up for them, from one of its local addresses that can be used."""
        now, place = self._reactor.now(), job.route.place(exchangers)
        while job.sources != ():
            if job.sources is not None:
                free = self._gate.open_sources(job, self._reactor.clock.time())
                if not free:
                    return
                place = self._destinations.choose_source(free, place, now)
            destination = self._destinations.get(place, now)
            seconds = destination.backoff.left(now) if destination.backoff.failures else 0.0
            trouble = destination.trouble
            if not seconds or destination.carriers or trouble is None or not destination.most:
                self._line_up(job, destination, now)
                return
            if not (trouble.local and job.pass_on(place.source, trouble.result)):
                self._outlet.unreachable(job, trouble.result, seconds)
                return
        self._outlet.attempted(job, job.refusal or verdict.no_usable_address())

    def _line_up(self, job: Job, destination: Destination, now: float) -> None:
        self._destinations.use(destination, job.route.host, now)
        if not destination.most:
            self._outlet.put_out(job, destination.held(now))
            return
        if self._room.pressed and not destination.may_wait(job, self._room, now):
            self._outlet.put_out(job, destination.wait_outside(self._room, now))
            return
        if not destination.line:
            destination.begin(now)
        destination.line.add(job)
        if destination.idle or destination.carriers < destination.most:  # else those who are busy come for it
            self._attend(destination, now)

    def _line_up_again(self, job: Job, destination: Destination) -> None:
        """A job that was not attempted stands in front of the others."""
        if self._stopping:
            self._outlet.returned(job)
        elif not destination.most:
            self._outlet.put_out(job, destination.held(self._reactor.now()))
        elif self._gate.may_wait(destination.place.source, self._reactor.clock.time(), job):
            destination.line.put_first(job)
            destination.pace.give_back()

    def _ease(self) -> None:
        """Room is scarce: what waits for slow destinations, or for name servers, is to wait outside."""
        self._easing, now = None, self._reactor.now()
        if not self._room.pressed:
            return
        slow = [destination for destination in self._destinations if destination.is_slow(now)]
        self._room.divide(len(slow))
        for destination in slow:
            for job in destination.take_surplus(self._room, now):
                self._outlet.put_out(job, destination.wait_outside(self._room, now))
        for job in self._resolving.take_stuck(now):
            self._outlet.put_out(job, UNRESOLVED_SECONDS)
        self._easing = self._reactor.call_later(EASE_SECONDS, self._ease)

    def _intercepts_changed(self) -> None:
        """What is on pause or to fail now does not wait here any more, nor is anything sent over connections that are.
        """
        now = self._reactor.clock.time()
        self._resolving.keep(partial(self._gate.may_wait, None, now))
        for destination in self._destinations:
            destination.line.keep(partial(self._gate.may_wait, destination.place.source, now))
        for carrier in list(self._carriers):
            if self._controls.intercept_at(carrier.peer, carrier.destination.place.source, now) is not None:
                carrier.leave()

    def _limit_changed(self, destination: Destination, now: float) -> None:
        timer = self._timers.pop(destination, None)
        if timer is not None:
            timer.cancel()
        if not destination.most:  # for a while: what waits comes back then
            for job in destination.line.take_all():
                self._outlet.put_out(job, destination.held(now))
            for carrier in list(destination.idle):
                carrier.dismiss()
        if destination.servers is not None:
            for carrier in self._carriers:
                if carrier.destination is destination and carrier.visit is None:
                    carrier.leave()
        self._attend(destination, now)

    # handing out

    def _attend(self, destination: Destination, now: float) -> None:
        """Whatever may go now goes, to idle carriers or to one more; else look again when it may."""
        line, pace, idle = destination.line, destination.pace, destination.idle
        while line and idle and not pace.wait(now):
            carrier = idle[-1] if destination.servers is None else destination.next_idle(now)
            if carrier is None:
                break
            if carrier.ready:
                destination.serve(now)
                carrier.give(line.next(), now)
            else:
                carrier.dismiss()
        if line:
            if (not idle or destination.servers is not None) and not pace.wait(now):
                self._staff(destination, now)
            self._look_again(destination, now)

    def _look_again(self, destination: Destination, now: float, held: float = 0.0) -> None:
        """`held`: seconds until a carrier that becomes idle may have another job."""
        wait = destination.look_again(now)
        if held and destination.line:
            wait = min(wait or held, held)
        if not wait:
            return
        timer = self._timers.get(destination)
        if timer is None or timer.when > now + wait:
            if timer is not None:
                timer.cancel()
            self._timers[destination] = self._reactor.call_at(now + wait, self._looked_at, destination)

    def _looked_at(self, destination: Destination) -> None:
        del self._timers[destination]
        for twin in self._destinations.twins(destination):
            self._attend(twin, self._reactor.now())

    def _staff(self, destination: Destination, now: float) -> None:
        """More carriers, as many as are useful and allowed."""
        while destination.may_connect(now) and not self._stopping:
            if self._fairness.full:
                if self._fairness.want(destination):
                    self._make_room()
                return
            destination.connects.take(now)
            self._fairness.took(destination)
            destination.connecting += 1
            carrier = Carrier(self._reactor, destination)
            self._carriers[carrier] = None
            carrier.task = self._reactor.spawn(self._carry(carrier), f'carrier to {destination.place}')

    def _make_room(self) -> None:
        """Let one idle carrier go, the longest idle of those that are to give way."""
        for carrier in self._idle:
            if self._fairness.gives_way(carrier.destination):
                carrier.dismiss()
                return

    def _after(self, destination: Destination) -> None:
        """A carrier has ended: somebody else may use its place."""
        now = self._reactor.now()
        destination.used = now
        self._use_room()
        self._attend(destination, now)

    def _use_room(self) -> None:
        """There is room for more connections, perhaps."""
        first = self._fairness.next()
        while first is not None:
            self._attend(first, self._reactor.now())
            first = self._fairness.next()

    # carriers

    async def _carry(self, carrier: Carrier) -> None:
        """The life of a carrier."""
        destination = carrier.destination
        try:
            if await self._connect(carrier):
                await self._work(carrier)
                await carrier.quit()
        except Exception:
            if carrier.job is not None:
                self._outlet.attempted(carrier.give_back(), verdict.internal_fault())
            raise
        finally:
            if carrier.job is not None:
                self._outlet.returned(carrier.give_back())
            if carrier.next is not None:
                self._line_up_again(carrier.next, destination)
            carrier.hang_up()
            del self._carriers[carrier]
            self._fairness.gave(destination)
            self._ended.notify()
            if not self._stopping:
                self._after(destination)

    async def _connect(self, carrier: Carrier) -> bool:
        """Whether there is a connection."""
        destination, refusal = carrier.destination, NoSession(verdict.internal_fault())
        if not destination.sessions:
            destination.flow.begin(self._reactor.now())
        try:
            await carrier.connect(self._dialler)
        except NoSession as error:
            refusal = error
        finally:
            destination.connecting -= 1
            if not carrier.connecting:
                destination.backoff.succeeded()
                if destination.sessions == 1:
                    destination.flow.begin(self._reactor.now())
            elif not self._stopping:
                self._refused(destination, refusal)
                self._destinations.note_answer(destination, refusal.result)
        return not carrier.connecting

    def _refused(self, destination: Destination, refusal: NoSession) -> None:
        """A connection did not come about. The carrier that tried still counts as one."""
        now, sessions = self._reactor.now(), destination.sessions - 1
        if refusal.pause is not None and not sessions:
            for job in destination.line.take_all():
                self._outlet.paused(job, refusal.pause)
            return
        if refusal.held:
            destination.full = now + refusal.held
            if not refusal.tried:
                destination.connects.give_back()
            return
        if sessions:
            destination.window.refused(now, sessions)
            return
        if not refusal.forced:
            destination.window.failed()
        if refusal.forced or not destination.connecting:  # forced: the others would be told the same, without end
            unknown = refusal.result.state == 'dns' and refusal.result.permanent  # an answer, not a failure
            if not (refusal.forced or unknown):
                destination.backoff.failed(now, random.random())
                destination.trouble = refusal
            for job in destination.line.take_all():
                if refusal.local and job.pass_on(destination.place.source, refusal.result):
                    self._found(job, destination.place.exchangers)
                else:
                    self._outlet.attempted(job, refusal.result)

    async def _work(self, carrier: Carrier) -> None:
        """Take one job after the other, until there is nothing to do or others are to have the place."""
        destination, reactor = carrier.destination, self._reactor
        line, flow, window, visit = destination.line, destination.flow, destination.window, carrier.visit
        take_next = partial(self._take_next, destination)
        done, began = 0, reactor.now()
        now = began
        while carrier.ready:
            if carrier.next is not None:
                if not destination.most or not self._gate.is_open(carrier.next, carrier.peer, destination.place.source,
                                                                  reactor.clock.time()):
                    return  # the server has its commands: only hanging up takes them back
                carrier.job, carrier.next = carrier.next, None
            elif self._stopping or destination.carriers > destination.most or self._fairness.had_enough(
                    destination, done, now - began):
                return
            elif line and not destination.pace.wait(now) and (visit is None or not visit.message_wait(now)):
                destination.serve(now)
                if visit is not None:
                    visit.take(now)
                carrier.job = line.next()
            elif not await self._wait_job(carrier):
                now = reactor.now()
                if line and not destination.pace.wait(now) and not carrier.held(now):
                    continue  # it has come in this very turn
                return
            job, carrier.since = carrier.job, now
            assert job is not None
            if not done:
                self._attend(destination, now)  # somebody is there: more connections may be of use
            result = await carrier.attempt(take_next)
            carrier.job = None
            now = reactor.now()
            if result is None:
                if visit is not None:
                    visit.give_back()
                self._line_up_again(job, destination)
                return
            done += 1
            flow.passed(now)
            if result.result != 'accepted':
                self._destinations.note_answer(destination, result)
            if window.size < destination.most and result.result != 'lost':
                window.answered(now, destination.most)
                self._attend(destination, now)
            self._outlet.attempted(job, result)

    def _take_next(self, destination: Destination) -> Job | None:
        """For a carrier whose job is leaving. It cannot be somebody else's then, so that one must be left for each of
        the others: who waits behind a message that the server is slow to take would have waited in any case."""
        line = destination.line
        if len(line) < destination.carriers or destination.pace.rate or self._fairness.contended or self._stopping:
            return None
        if destination.servers is not None or destination.carriers > destination.most:
            return None
        return line.next()

    async def _wait_job(self, carrier: Carrier) -> bool:
        """Be idle until a job is given; False when it is time to leave."""
        now = self._reactor.now()
        self._look_again(carrier.destination, now, 0.0 if carrier.visit is None else carrier.held(now))
        self._idle[carrier] = None
        try:
            return await carrier.wait_job()
        finally:
            del self._idle[carrier]
