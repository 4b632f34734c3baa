"""Where the jobs of a scheduler come out: each of them once. Pure."""

from __future__ import annotations

from typing import Protocol

from mqlite.delivery.job import Job
from mqlite.delivery.pauses import Pause
from mqlite.message.result import Result


class Outlet(Protocol):
    """What becomes of a job."""

    def attempted(self, job: Job, result: Result) -> None:
        """An attempt was made, or the servers of the job are not known."""

    def unreachable(self, job: Job, result: Result, seconds: float) -> None:
        """Its destination could not be reached a moment ago, with this result, and is left alone for so long."""

    def put_out(self, job: Job, seconds: float) -> None:
        """There is no room for it here for about so long."""

    def paused(self, job: Job, pause: Pause) -> None:
        """The operator does not want it to go now."""

    def returned(self, job: Job) -> None:
        """We stop before its turn."""
