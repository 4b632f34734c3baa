"""The line of one destination: who waits, and who is next. Pure.

    priority 5   tag a: job job job        the highest priority goes first; within it the tags take turns,
                 tag b: job                and within a tag the first in is the first out
    priority 0   tag a: job job

So one big mailing does not hold up the mail of somebody else to the same servers. A message with several tags counts
for the first one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Callable

from mqlite.delivery.job import Job

Level = OrderedDict[str, 'deque[Job]']  # tag -> its jobs; the first tag has its turn


class Line:
    """Jobs that wait."""

    def __init__(self) -> None:
        self.size = 0  # bytes
        self._count = 0
        self._levels: dict[int, Level] = {}

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Job]:
        """All of them, in no order that means anything."""
        return (job for level in self._levels.values() for jobs in level.values() for job in jobs)

    def add(self, job: Job) -> None:
        self._jobs(job).append(job)
        self._count += 1
        self.size += job.size

    def put_first(self, job: Job) -> None:
        """It has had its turn and did not go: it is the next of its priority."""
        self._jobs(job).appendleft(job)
        self._levels[job.priority].move_to_end(job.tag, last=False)
        self._count += 1
        self.size += job.size

    def next(self) -> Job:
        """Take the next one off; the line must not be empty."""
        priority = max(self._levels) if len(self._levels) > 1 else next(iter(self._levels))
        level = self._levels[priority]
        tag = next(iter(level))
        jobs = level[tag]
        job = jobs.popleft()
        if jobs:
            level.move_to_end(tag)
        else:
            del level[tag]
            if not level:
                del self._levels[priority]
        self._count -= 1
        self.size -= job.size
        return job

    def take_all(self) -> list[Job]:
        """Take off all of them, in the order of the line."""
        return self.keep(lambda job: False)

    def keep(self, wanted: Callable[[Job], bool]) -> list[Job]:
        """Take off all but the wanted ones, asked in the order of the line; those, in that order."""
        removed: list[Job] = []
        kept: list[Job] = []
        for _ in range(self._count):
            job = self.next()
            (kept if wanted(job) else removed).append(job)
        for job in kept:
            self.add(job)
        return removed

    def _jobs(self, job: Job) -> deque[Job]:
        level = self._levels.get(job.priority)
        if level is None:
            level = self._levels[job.priority] = OrderedDict()
        jobs = level.get(job.tag)
        if jobs is None:
            jobs = level[job.tag] = deque()
        return jobs
