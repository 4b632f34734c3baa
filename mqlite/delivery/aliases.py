"""Which domains of the table `capacity` have which exchangers, so that their limits hold for every domain there.

The limits for example.com are those of its provider: another domain with the same exchangers has the same line, and so
the same limits, also when no mail to example.com ever came by. The domains of the table are looked up one after the
other when the table has changed, and again every LOOK_SECONDS.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Callable

from mqlite.delivery import route
from mqlite.delivery.attempt import Dialler, NoSession
from mqlite.delivery.route import Exchangers, Route
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import Task, sleep

LOOK_SECONDS = 600.0


class Aliases:
    """One per scheduler."""

    def __init__(self, reactor: Reactor, dialler: Dialler, on_found: Callable[[Exchangers], object]) -> None:
        """`on_found`: told of exchangers that have got another name."""
        self._reactor = reactor
        self._dialler = dialler
        self._on_found = on_found
        self._names: dict[Exchangers, list[str]] = {}
        self._task: Task[None] | None = None

    def names(self, exchangers: Exchangers) -> Sequence[str]:
        """The domains of the table that have these exchangers."""
        return self._names.get(exchangers, ())

    def follow(self, domains: Iterable[str]) -> None:
        """From now on, these."""
        self.stop()
        self._names.clear()
        if domains:
            self._task = self._reactor.spawn(self._look(sorted(domains)), 'exchangers of limited domains')

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _look(self, domains: Sequence[str]) -> None:
        while True:
            for domain in domains:
                try:
                    found = await self._dialler.exchangers(Route(domain, route.SMTP_PORT, False), for_mail=False)
                except NoSession:
                    continue
                names = self._names.setdefault(found, [])
                if domain not in names:
                    names.append(domain)
                    self._on_found(found)
            await sleep(self._reactor, LOOK_SECONDS)
