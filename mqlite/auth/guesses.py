"""The brake on guessing passwords: failed logins counted, the delay that follows, the cut-off. Pure.

    count of failures (of the client's network, or of the login; the larger one)
        below 0.5     1     2     3     4     5     6 …
    delay before the next password is looked at, in seconds
        0             1     2     4     8     16    30        for a login under attack at most LOGIN_DELAY

A count halves every HALF_LIFE seconds. A client whose network has CUT_OFF failures is sent away with 421 until enough
has decayed: at that point it has one guess in about 80 seconds. Nothing that succeeds takes back a failure, or a
guesser with one account of his own could start afresh whenever he likes.

A login is never cut off, or anybody could lock out anybody; and who has logged in with it from the same network before
does not wait for what others try. Clients are counted by address, in IPv6 by /64, which is what one customer gets.

The delay comes before the password is looked at, and the count may have grown meanwhile: ask again after waiting. What
is being looked at counts as failed for others in the network, or a hundred sessions that wait together would guess
together; of a network that has not failed, AT_ONCE are looked at freely.
Limits: ENTRIES counts of each kind, the one that was touched longest ago gives way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from mqlite.smtp.clients import network_of

HALF_LIFE = 600.0  # seconds
CUT_OFF = 10.0  # failures of one network
LONGEST_DELAY = 30.0  # seconds; clients wait five minutes for a reply at most (RFC 5321 4.5.3.2)
LOGIN_DELAY = 8.0  # seconds
AT_ONCE = 10  # logins of one network: a mail server logs in on several connections when it begins
SESSION_FAILURES = 3  # failed logins in one session, then 421: for the server, which knows its sessions
ENTRIES = 10000
_NOTHING = 0.5  # a failure that has decayed so far
_LOGIN_SIZE = 128  # characters of a login that tell it from others


Key = TypeVar('Key', bound=Hashable)
_Counts = dict[Key, tuple[float, float]]  # count, and the moment when it was that


class Guesses:
    """All failures that one worker has seen. `now` is a monotonic clock's, in seconds."""

    def __init__(self) -> None:
        self._clients: _Counts[str] = {}
        self._logins: _Counts[str] = {}
        self._known: _Counts[tuple[str, str]] = {}
        self._looked_at: Counter[str] = Counter()

    def delay(self, client: str, login: str, now: float) -> float | None:
        """Seconds to wait before this login is looked at; None: do not look at it, send the client away."""
        network, name = network_of(client), _name(login)
        count, looked_at = _count(self._clients, network, now), self._looked_at[network]
        count += looked_at if count >= _NOTHING else max(0, looked_at - AT_ONCE + 1)
        if count >= CUT_OFF:
            return None
        stranger = (network, name) not in self._known
        tried = _delay(_count(self._logins, name, now), LOGIN_DELAY) if stranger else 0.0
        return max(_delay(count, LONGEST_DELAY), tried)

    @contextmanager
    def looking_at(self, client: str) -> Iterator[None]:
        """While the password is looked at."""
        network = network_of(client)
        self._looked_at[network] += 1
        try:
            yield
        finally:
            self._looked_at[network] -= 1
            if not self._looked_at[network]:
                del self._looked_at[network]

    def failed(self, client: str, login: str, now: float) -> None:
        """The credentials were wrong. What could not be checked is no failure."""
        _add(self._clients, network_of(client), now)
        _add(self._logins, _name(login), now)

    def succeeded(self, client: str, login: str, now: float) -> None:
        _add(self._known, (network_of(client), _name(login)), now)


def _count(counts: _Counts[Key], key: Key, now: float) -> float:
    count, when = counts.get(key, (0.0, now))
    return float(count * 0.5 ** ((now - when) / HALF_LIFE))


def _add(counts: _Counts[Key], key: Key, now: float) -> None:
    """The key becomes the youngest; the oldest goes when there are too many."""
    count = _count(counts, key, now) + 1
    counts.pop(key, None)
    counts[key] = (count, now)
    if len(counts) > ENTRIES:
        del counts[next(iter(counts))]


def _delay(count: float, longest: float) -> float:
    return 0.0 if count < _NOTHING else min(2 ** (count - 1), longest)


def _name(login: str) -> str:
    """Many stores do not tell upper from lower case: other spellings are guesses at the same login."""
    return login.casefold()[:_LOGIN_SIZE]
