"""One destination: who waits for it, who goes there, and whether one more may. Pure: the time is an argument.

A destination is a set of mail exchangers, a port and a local address, not a domain: a thousand domains at one provider
have one line, and share the limits that this provider sets (see route.Place). It is remembered for a while after its
last message, with all that we know of it.

What holds up the next message, in the order in which it is looked at:

    nobody waits | a pause after an answer (flood.py) | the back-off (it cannot be reached) | the pace | every
    connection is busy, and one more is not allowed: the capacity, the window (standing.py), the attempts to connect per
    minute
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mqlite.delivery.capacity import DEFAULT, Capacity
from mqlite.delivery.flood import Flood
from mqlite.delivery.job import Job
from mqlite.delivery.line import Line
from mqlite.delivery.pace import Flow, Pace
from mqlite.delivery.room import HORIZON, LEAST_WAIT, LONGEST_WAIT, SOON, Room
from mqlite.delivery.route import Place
from mqlite.delivery.servers import Paces, Servers
from mqlite.delivery.standing import Backoff, Window

if TYPE_CHECKING:
    from mqlite.delivery.attempt import NoSession
    from mqlite.delivery.carrier import Carrier

UNPROVEN = 2  # connections that are being opened while there is none: enough to learn whether somebody is there
NO_LIMIT = 1 << 30
LONGEST_HELD = 600.0  # seconds


class Destination:
    """See above. `connecting` and `idle` are carriers too, and counted in `carriers`."""

    __slots__ = ('announces', 'backoff', 'capacity', 'carriers', 'connecting', 'connects', 'domain', 'flood', 'flow',
                 'full', 'idle', 'line', 'most', 'names', 'pace', 'paces', 'place', 'served', 'servers', 'tail',
                 'trouble', 'used', 'window')

    def __init__(self, place: Place, now: float, twin: Destination | None = None) -> None:
        """`twin`: one that differs in security or login only. To the servers they are one: their pace is one, too,
        and what follows from an answer."""
        self.place = place
        self.line = Line()
        self.idle: list[Carrier] = []  # with a connection and no job; the last one is the freshest
        self.carriers = 0
        self.connecting = 0  # carriers that have no connection yet
        self.capacity = DEFAULT
        self.most = DEFAULT.connections  # connections that the capacity allows; 0 during a pause after an answer
        self.flood: Flood | None = twin.flood if twin else None
        self.servers: Servers | None = None  # once their addresses have limits
        self.paces: dict[str, Paces] = twin.paces if twin else {}  # of those addresses
        self.full = 0.0  # until then those leave no room for another connection
        self.names: list[str] = twin.names if twin else []  # of its domains, those that have limits of their own
        self.pace: Pace = twin.pace if twin else Pace()  # of messages
        self.connects: Pace = twin.connects if twin else Pace()
        self.served = 0.0  # when its last message went, or was to go
        self.flow = Flow(now)
        self.window = Window()
        self.announces = True  # no server of it has shown that it cannot take the next commands behind a final dot
        self.backoff = Backoff()
        self.trouble: NoSession | None = None  # why it could not be reached the last time
        self.tail = 0.0  # when the last of those comes back that there was no room for
        self.used = now  # when something happened here
        self.domain = ''  # of the last job that lined up

    @property
    def sessions(self) -> int:
        """Connections that are open."""
        return self.carriers - self.connecting

    def load(self, now: float) -> float:
        """How long a job would wait here, compared with other destinations."""
        return math.inf if self.backoff.left(now) or not self.most else len(self.line) + self.carriers - len(self.idle)

    def limit(self, capacity: Capacity, now: float) -> None:
        """The capacity, from now on."""
        self.capacity = capacity
        paused = self.flood is not None and self.flood.pause_left(now)
        self.most = 0 if paused else capacity.connections or NO_LIMIT
        self.pace.limit(capacity.messages, now)
        self.connects.limit(capacity.connects, now)
        if self.servers is None and capacity.per_address:
            self.servers = Servers(self.paces)
        if self.servers is not None:
            self.servers.limit(capacity, now)
            self.full = 0.0

    def held(self, now: float) -> float:
        """Seconds after which to look again at what may not be sent here because of an answer."""
        return min(self.flood.pause_left(now), LONGEST_HELD) if self.flood is not None else 0.0

    def serve(self, now: float) -> None:
        """A message goes."""
        self.served = now
        self.pace.take(now)

    def begin(self, now: float) -> None:
        """The first one in an empty line."""
        self.pace.begin(now)
        self.connects.begin(now)
        self.flow.begin(now)

    def may_connect(self, now: float) -> bool:
        """Whether one more carrier is of use and allowed, as far as this destination is concerned."""
        if self.pace.rate and self.connecting:
            return False  # it will do, or the next one comes when it is needed
        allowed = min(self.most, self.window.size, NO_LIMIT if self.sessions else UNPROVEN)
        return (self.connecting < len(self.line) and self.carriers < allowed
                and (not self.idle or (self.servers is not None and self.next_idle(now) is None))
                and not self.connects.wait(now) and not self.backoff.left(now) and self.full <= now)

    def next_idle(self, now: float) -> Carrier | None:
        """The freshest of those that may have a job, where the addresses of servers have limits."""
        return next((carrier for carrier in reversed(self.idle) if not carrier.held(now)), None)

    def idle_held(self, now: float) -> float:
        """Seconds until one of those that are idle may have a job; 0 when one may, or none is idle."""
        if self.servers is None or not self.idle:
            return 0.0
        return min(carrier.held(now) for carrier in self.idle)

    def look_again(self, now: float) -> float:
        """Seconds after which a message may go that may not go now; 0 when time changes nothing."""
        if not self.line:
            return 0.0
        wait, held = self.pace.wait(now), 0.0 if self.servers is None else self.idle_held(now)
        more = 0.0
        if (not self.idle or held) and not self.connecting and self.carriers < self.most:
            more = max(self.connects.wait(now), self.full - now, 0.0 if self.sessions else self.backoff.left(now))
        return max(wait, min(more or held, held) if held else more)

    # how many may wait here

    def rate(self, now: float) -> float:
        """Messages per second that go here, as far as we can tell."""
        rate = self.flow.rate(now)
        return min(rate, self.pace.rate) if self.pace.rate else rate

    def is_slow(self, now: float) -> bool:
        """Whether more waits than goes soon."""
        return len(self.line) > self.rate(now) * SOON

    def may_wait(self, job: Job, room: Room, now: float) -> bool:
        """Whether one more may wait although room is scarce."""
        line = self.line
        if not line and not self.carriers:
            return True
        count, size = len(line) + 1, line.size + job.size
        rate = self.rate(now)
        return count <= rate * SOON or (count <= min(room.share, rate * HORIZON) and size <= room.size_share)

    def take_surplus(self, room: Room, now: float) -> list[Job]:
        """Take out of the line what may not wait."""
        rate = self.rate(now)
        most = max(rate * SOON, min(room.share, rate * HORIZON), 0 if self.carriers else 1)
        count = size = 0

        def stays(job: Job) -> bool:
            nonlocal count, size
            count, size = count + 1, size + job.size
            return count < most + 1 and (size <= room.size_share or (count == 1 and not self.carriers))
        return self.line.keep(stays)

    def wait_outside(self, room: Room, now: float) -> float:
        """Seconds after which a job is to come back that there is no room for: about when it has its turn, one after
        the other, so that the line does not run dry meanwhile. Of a silent server nobody can tell."""
        paced = 1.0 / self.pace.rate if self.pace.rate else 0.0
        gap = max(paced, self.flow.gap)
        longest = LONGEST_WAIT if paced else room.longest_wait(now)
        if self.flood is not None:  # then it is faster
            longest = min(longest, max(LEAST_WAIT, self.flood.change_in(now)))
        silent = not paced and self.flow.is_silent(now)
        soonest = longest if silent else max(LEAST_WAIT, len(self.line) * gap - HORIZON / 2)
        self.tail = min(max(self.tail + gap, now + soonest), now + longest)
        room.outside.add(self.tail)
        return self.tail - now
