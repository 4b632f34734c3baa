"""Where pauses and forced errors stop a job on its way. Pure: the time is an argument, in seconds since 1970.

A job comes by when it lines up, when something has changed while it waits, and when its commands have left already. Who
may not go on is put out here: see Outlet.
"""

from __future__ import annotations

from mqlite.delivery import verdict
from mqlite.delivery.controls import Controls, decisive
from mqlite.delivery.job import Job
from mqlite.delivery.outlet import Outlet
from mqlite.delivery.pauses import Pause


class Gate:
    """Of one scheduler."""

    def __init__(self, controls: Controls, outlet: Outlet) -> None:
        self._controls = controls
        self._outlet = outlet

    def open_sources(self, job: Job, now: float) -> tuple[str, ...]:
        """The local addresses that the job may be sent from now. When that is none, it is on pause if one of them is,
        and else it fails."""
        sources = job.sources or ()
        if not self._controls.intercepts:
            return sources
        found = [self._controls.intercept_of(job.document, source, now) for source in sources]
        allowed = tuple(source for source, one in zip(sources, found) if one is None)
        reason = None if allowed else decisive(found)
        if isinstance(reason, Pause):
            self._outlet.paused(job, reason)
        elif reason is not None:
            self._outlet.attempted(job, verdict.forced(reason))
        return allowed

    def may_wait(self, source: str | None, now: float, job: Job) -> bool:
        """Whether it may wait to be sent from this local address. What is to fail comes again at once: it may be only
        from this address that it may not go."""
        found = self._controls.intercept_of(job.document, source, now) if self._controls.intercepts else None
        if isinstance(found, Pause):
            self._outlet.paused(job, found)
        elif found is not None:
            self._outlet.put_out(job, 0.0)
        return found is None

    def is_open(self, job: Job, peer: str, source: str | None, now: float) -> bool:
        """Whether it may go to this address of a server, from this local one."""
        controls = self._controls
        return not controls.intercepts or (controls.intercept_of(job.document, source, now) is None
                                           and controls.intercept_at(peer, source, now) is None)
