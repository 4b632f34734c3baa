"""Whether a message is tried again, and when. Pure: the time is an argument, in seconds since 1970."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mqlite.message.document import Document
from mqlite.message.result import Result


@dataclass(frozen=True)
class RetryPolicy:
    """The defaults for documents that say nothing of their own."""

    intervals: Sequence[int]  # seconds between attempts; the last one repeats
    max_attempts: int  # 0 for no limit
    max_seconds: float  # after the first attempt


def deadline(document: Document, policy: RetryPolicy, now: float) -> float:
    """When to give up: what the document says, or so long after its first attempt."""
    own = document.deadline
    if own is not None:
        return own
    first = document.first_attempt
    return (now if first is None else first) + policy.max_seconds


def next_attempt(document: Document, result: Result, policy: RetryPolicy, now: float) -> float | None:
    """When to try again after this result; None when the result is final.

    Not later than the deadline: a message whose last interval would pass it gets one more attempt at that moment's
    look, which then reports that its time is up.
    """
    if result.result == 'accepted' or result.permanent:
        return None
    attempts = len(document.attempts) + 1  # this one included
    own_limit = document.max_attempts
    limit = policy.max_attempts if own_limit is None else own_limit
    if limit and attempts >= limit:
        return None
    intervals = document.retries or policy.intervals
    seconds = intervals[min(attempts, len(intervals)) - 1]
    return min(now + seconds, max(deadline(document, policy, now), now))
