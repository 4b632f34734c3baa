"""Whether a message is tried again, and when. Pure: the time is an argument, in seconds since 1970."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mqlite.message.document import Document
from mqlite.message.result import Result

_LEAST_SECONDS = 1  # between attempts: a document that asks for none would keep us and the server busy


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


def is_over(document: Document, policy: RetryPolicy, now: float) -> bool:
    """Whether there is no time or no attempt left for a document that was just picked up."""
    limit = _limit(document, policy)
    return deadline(document, policy, now) <= now or 0 < limit <= len(document.attempts)


def next_attempt(document: Document, result: Result, policy: RetryPolicy, now: float) -> float | None:
    """When to try again after this result; None when the result is final.

    Not later than the deadline: a message whose last interval would pass it gets one more attempt at that moment's
    look, which then reports that its time is up.
    """
    if result.result == 'accepted' or result.permanent:
        return None
    attempts = len(document.attempts) + 1  # this one included
    if 0 < _limit(document, policy) <= attempts:
        return None
    intervals = document.retries or policy.intervals
    seconds = result.wait or max(intervals[min(attempts, len(intervals)) - 1], _LEAST_SECONDS)
    return min(now + seconds, max(deadline(document, policy, now), now))


def _limit(document: Document, policy: RetryPolicy) -> int:
    """Attempts; 0 for no limit."""
    own = document.max_attempts
    return policy.max_attempts if own is None else own
