"""What is known already, and until when: answers, and absence as well (RFC 2308).

Times to live are raised to the operator's minimum (`dns-min-ttl`), because some domains publish 0 and would be asked
for with every message; absence without a SOA record, which names no time, gets the minimum too. They are cut at
MAX_TTL, and absence at MAX_NEGATIVE_TTL. A failure is kept for its own few seconds, whatever the minimum.

Bounded by weight: an outcome counts one, and each of its records one. The least recently used goes first.

Pure: the time is an argument, in seconds of any clock that does not jump back.
"""

from __future__ import annotations

from collections import OrderedDict

from mqlite.dns.lookup import Answer, Failed, Outcome
from mqlite.dns.message import Question

MAX_TTL = 86400  # seconds, as unbound does (cache-max-ttl): an hour would ask too often, RFC 8767's week is long
MAX_NEGATIVE_TTL = 10800  # seconds: "one to three hours have been found to work well" (RFC 2308 section 5)
CAPACITY = 50_000  # weight; about 10 MB


class Cache:
    """Outcomes by question."""

    def __init__(self, min_ttl: float, capacity: int = CAPACITY) -> None:
        self._min_ttl = min_ttl
        self._capacity = capacity
        self._weight = 0
        self._entries: OrderedDict[Question, tuple[float, Outcome]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, question: Question, now: float) -> Outcome | None:
        entry = self._entries.get(question)
        if entry is None:
            return None
        expires, outcome = entry
        if now >= expires:
            self._remove(question)
            return None
        self._entries.move_to_end(question)
        return outcome

    def lifetime(self, question: Question, now: float) -> float:
        """Seconds for which the outcome still holds; 0 when there is none."""
        return max(0.0, self._entries[question][0] - now) if question in self._entries else 0.0

    def put(self, question: Question, outcome: Outcome, now: float) -> None:
        if question in self._entries:
            self._remove(question)
        self._entries[question] = (now + self._seconds(outcome), outcome)
        self._weight += _weight(outcome)
        while self._weight > self._capacity:
            self._remove(next(iter(self._entries)))

    def _seconds(self, outcome: Outcome) -> float:
        if isinstance(outcome, Failed):
            return outcome.ttl
        longest = MAX_TTL if isinstance(outcome, Answer) else MAX_NEGATIVE_TTL
        return max(self._min_ttl, min(outcome.ttl, longest))

    def _remove(self, question: Question) -> None:
        _expires, outcome = self._entries.pop(question)
        self._weight -= _weight(outcome)


def _weight(outcome: Outcome) -> int:
    return 1 + (len(outcome.records) if isinstance(outcome, Answer) else 0)
