"""All destinations of one scheduler: found by place, given their limits, and forgotten when nobody uses them.

Destinations that differ only in security or login are twins: they have lines and connections of their own, but their
servers see one client. So the limits per minute are for both together, who has waited longest goes first, and what a
server has answered to one holds for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Callable

from mqlite.delivery.aliases import Aliases
from mqlite.delivery.attempt import Dialler
from mqlite.delivery.controls import Controls
from mqlite.delivery.destination import Destination
from mqlite.delivery.flood import Flood
from mqlite.delivery.route import Exchangers, Place
from mqlite.loop.reactor import Reactor
from mqlite.loop.timers import Timer
from mqlite.message.result import Result

KEPT_SECONDS = 3600.0  # a destination is remembered for so long after it was used
SWEEP_SECONDS = 60.0  # how often we look which ones to forget


class Destinations:
    """One per scheduler."""

    def __init__(self, reactor: Reactor, dialler: Dialler, controls: Controls, workers: int,
                 on_limit: Callable[[Destination, float], object]) -> None:
        """`on_limit(destination, now)`: told of a destination that has other limits now."""
        self._reactor = reactor
        self._controls = controls
        self._workers = workers
        self._on_limit = on_limit
        self._aliases = Aliases(reactor, dialler, self._alias_found)
        self._all: dict[Place, Destination] = {}
        self._twins: dict[Place, list[Destination]] = {}  # by what they have in common
        self._sweep: Timer | None = None
        self._floods: dict[Place, Timer] = {}  # when what follows from an answer ends, by what twins have in common
        self._turn = 0  # which of several local addresses is next
        controls.on_limits = self._limits_changed
        controls.on_floods = self._floods_changed
        self._limits_changed()

    def __iter__(self) -> Iterator[Destination]:
        return iter(self._all.values())

    def stop(self) -> None:
        """End what runs in the background."""
        self._aliases.stop()
        self._controls = Controls()
        for timer in (*self._floods.values(), self._sweep):
            if timer is not None:
                timer.cancel()

    def get(self, place: Place, now: float) -> Destination:
        destination = self._all.get(place)
        if destination is None:
            twins = self._twins.setdefault(place.bare, [])
            destination = self._all[place] = Destination(place, now, twins[0] if twins else None)
            twins.append(destination)
            self._limit(destination, now)
            if self._sweep is None:
                self._sweep = self._reactor.call_later(SWEEP_SECONDS, self._forget)
        return destination

    def twins(self, destination: Destination) -> list[Destination]:
        """It and its twins, whose last message went first."""
        twins = self._twins[destination.place.bare]
        return sorted(twins, key=attrgetter('served')) if len(twins) > 1 else twins

    def of_exchangers(self, exchangers: Exchangers | None) -> dict[Destination, None]:
        """From all local addresses."""
        return {one: None for one in self._all.values() if one.place.exchangers == exchangers}

    def use(self, destination: Destination, domain: str, now: float) -> None:
        """There is mail to this domain for it."""
        destination.used, destination.domain = now, domain
        if domain in self._controls.limits.domains and domain not in destination.names:
            destination.names.append(domain)
            for twin in self.twins(destination):
                self._limit(twin, now)

    def choose_source(self, sources: tuple[str, ...], place: Place, now: float) -> Place:
        """The place from one of several local addresses: the one with the shortest line, and in turn among equals."""
        if len(sources) == 1:
            return place._replace(source=sources[0])
        self._turn += 1
        first = self._turn % len(sources)

        def load(place: Place) -> float:
            destination = self._all.get(place)
            return 0.0 if destination is None else destination.load(now)
        return min((place._replace(source=source) for source in sources[first:] + sources[:first]), key=load)

    # limits

    def _limit(self, destination: Destination, now: float) -> None:
        place = destination.place
        names = [*destination.names, *self._aliases.names(place.exchangers),
                 *(host for group in place.exchangers for host in group)]
        capacity = self._controls.limits.find(place.source, names)
        if destination.flood is not None:
            capacity = destination.flood.over(capacity)
        destination.limit(capacity.part(self._workers), now)

    def _limits_changed(self) -> None:
        domains = self._controls.limits.domains
        self._aliases.follow(domains)
        for destination in self._all.values():
            destination.names[:] = [name for name in destination.names if name in domains]
        self._limit_again(self._all.values())

    def _alias_found(self, exchangers: Exchangers) -> None:
        self._limit_again(one for one in self._all.values() if one.place.exchangers == exchangers)

    def _limit_again(self, destinations: Iterable[Destination]) -> None:
        now = self._reactor.now()
        for destination in list(destinations):
            self._limit(destination, now)
            destination.tail = 0.0
            self._on_limit(destination, now)

    # limits for a while

    def note_answer(self, destination: Destination, result: Result) -> None:
        """What its server has answered may change its limits."""
        rule = self._controls.floods.of(result)
        if rule is not None:
            flood = destination.flood or Flood()
            flood.begin(rule, self._reactor.now())
            self._follow_flood(destination.place.bare, flood)

    def _follow_flood(self, bare: Place, flood: Flood) -> None:
        """The limits of this moment, until they change again."""
        timer = self._floods.pop(bare, None)
        if timer is not None:
            timer.cancel()
        now = self._reactor.now()
        seconds = flood.change_in(now)
        if seconds:
            self._floods[bare] = self._reactor.call_at(now + seconds, self._follow_flood, bare, flood)
        for twin in self._twins[bare]:
            twin.flood = flood if seconds else None
        self._limit_again(self._twins[bare])

    def _floods_changed(self) -> None:
        for bare in list(self._floods):
            flood = self._twins[bare][0].flood
            if flood is not None:
                flood.keep(self._controls.floods)
                self._follow_flood(bare, flood)

    # forgetting

    def _forget(self) -> None:
        """Destinations that were not used for long are as good as new ones."""
        self._sweep = None
        before = self._reactor.now() - KEPT_SECONDS
        for destination in [one for one in self._all.values() if one.used <= before]:
            if not destination.line and not destination.carriers and destination.flood is None:
                del self._all[destination.place]
                twins = self._twins[destination.place.bare]
                twins.remove(destination)
                if not twins:
                    del self._twins[destination.place.bare]
        if self._all:
            self._sweep = self._reactor.call_later(SWEEP_SECONDS, self._forget)
