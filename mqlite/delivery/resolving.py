"""Where jobs wait until the servers of their domain are known.

    add ─► known? ─► at once
              └────► wait with the others of the domain ─► MX lookup ─► found  ─► on_found for each of them
                                                                  └──► failed ─► on_failed for each of them

A domain whose name servers do not answer holds up its own messages and nobody else's. At most `dns-capacity` lookups
are under way at once; the resolver sees to that. What was found is remembered for REMEMBERED_SECONDS, so that a message
to a busy domain costs one look into a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable

from mqlite.delivery import verdict
from mqlite.delivery.attempt import Dialler, NoSession
from mqlite.delivery.job import Job
from mqlite.delivery.route import Exchangers, Route
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import Task
from mqlite.message.result import Result
from mqlite.smtp.envelope import plain_domain

STUCK_SECONDS = 2.0  # a lookup that takes longer holds room that others could use
REMEMBERED_SECONDS = 30.0  # less than the least time to live of the resolver's cache (dns-min-ttl 60)
_MOST = 10000  # routes remembered


class Resolving:
    """One per scheduler."""

    def __init__(self, reactor: Reactor, dialler: Dialler, on_found: Callable[[Job, Exchangers], object],
                 on_failed: Callable[[Job, Result], object]) -> None:
        self._reactor = reactor
        self._dialler = dialler
        self._on_found = on_found
        self._on_failed = on_failed
        self._known: dict[Route, tuple[Exchangers, float]] = {}  # with the moment until which it holds
        self._waiting: dict[Route, list[Job]] = {}
        self._since: dict[Route, float] = {}  # when the lookup began
        self._tasks: dict[Route, Task[None]] = {}

    def add(self, job: Job) -> None:
        """Hand the job on when its servers are known, which may be at once."""
        route = job.route
        known = self._known.get(route)
        if known is not None and known[1] > self._reactor.now():
            self._on_found(job, known[0])
        elif route.fixed:
            self._on_found(job, self._remember(route, ((route.host,),)))
        elif route in self._waiting:
            self._waiting[route].append(job)
        else:
            self._waiting[route], self._since[route] = [job], self._reactor.now()
            self._tasks[route] = self._reactor.spawn(self._find(route), f'exchangers of {route.host}')

    def __iter__(self) -> Iterator[Job]:
        """All that wait."""
        return (job for jobs in self._waiting.values() for job in jobs)

    def known(self, domain: str) -> Exchangers | None:
        """The servers of a domain, if there was mail for it lately."""
        host = plain_domain(domain)
        return next((found for route, (found, _) in self._known.items() if route.host == host), None)

    def stop(self) -> list[Job]:
        """Ask no more; the jobs that wait."""
        waiting, self._waiting = self._waiting, {}
        for task in self._tasks.values():
            task.cancel()
        return [job for jobs in waiting.values() for job in jobs]

    def take_stuck(self, now: float) -> list[Job]:
        """The jobs whose lookups take long. The lookups go on, for those who come later."""
        stuck: list[Job] = []
        for route, since in self._since.items():
            if now - since >= STUCK_SECONDS and route in self._waiting:
                stuck += self._waiting[route]
                self._waiting[route] = []
        return stuck

    def keep(self, wanted: Callable[[Job], bool]) -> None:
        """Forget the jobs that are not to wait here any more; who says so has them."""
        for route, jobs in self._waiting.items():
            self._waiting[route] = [job for job in jobs if wanted(job)]

    async def _find(self, route: Route) -> None:
        exchangers: Exchangers = ()
        failure = verdict.internal_fault()
        try:
            exchangers = self._remember(route, await self._dialler.exchangers(route))
        except NoSession as refusal:
            failure = refusal.result
        finally:
            del self._tasks[route], self._since[route]
            for job in self._waiting.pop(route, ()):
                if exchangers:
                    self._on_found(job, exchangers)
                else:
                    self._on_failed(job, failure)

    def _remember(self, route: Route, exchangers: Exchangers) -> Exchangers:
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[route] = (exchangers, self._reactor.now() + REMEMBERED_SECONDS)
        return exchangers
