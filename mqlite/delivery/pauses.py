"""What is on pause, and who gets nothing: the tables `paused` and `suppressions`. Pure.

A row of `paused` holds up what it selects: every column that is not empty must fit.

    localip    our address             known when a message lines up; only where we choose the address
    pool       the message's `pool`    known at once
    target     a domain                known at once
               an address of a server  known when a connection is made: that address is passed over
    tag        one of the `tags`       known at once
    expire     until then (seconds since 1970); 0 for ever

A row that names an address of a server and a tag or a pool cannot be kept to, since a connection serves messages of all
tags, and is left out. A row without anything holds up everything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from mqlite.database.tables import Row, Usable
from mqlite.delivery.room import Outside
from mqlite.delivery.route import numeric

SHORTEST_HOLD, LONGEST_HOLD = 10.0, 600.0  # seconds after which a message on pause is looked at again
HOLDS_PER_SECOND = 50  # looked at again, at most: a backlog of 30,000 has the longest hold


@dataclass(frozen=True)
class Pause:
    """A row of `paused`. `target` is a domain or an address."""

    source: str = ''
    pool: str = ''
    domain: str = ''
    address: str = ''
    tag: str = ''
    expire: float = 0.0

    def __str__(self) -> str:
        named = (('domain', self.domain), ('ip', self.address), ('mta', self.source), ('pool', self.pool),
                 ('tag', self.tag))
        return ' '.join(f'{name} {value}' for name, value in named if value) or 'everything'


class Pauses:
    """All that is on pause."""

    def __init__(self, pauses: Iterable[Pause] = ()) -> None:
        self.all = tuple(pauses)
        self._messages = [pause for pause in self.all if not pause.source and not pause.address]
        self._sources = [pause for pause in self.all if pause.source and not pause.address]
        self._addresses = [pause for pause in self.all if pause.address]

    def __bool__(self) -> bool:
        return bool(self.all)

    def touching(self, domain: str, now: float) -> list[Pause]:
        """Those that hold up mail to a domain, or may: some of it."""
        return [pause for pause in self.all if _is_on(pause, now) and pause.domain in ('', domain)]

    def of_message(self, domain: str, pool: str, tags: Collection[str], now: float) -> Pause | None:
        """What holds it up whatever address it is sent from."""
        return next((pause for pause in self._messages if _holds(pause, domain, pool, tags, now)), None)

    def of_source(self, source: str, domain: str, pool: str, tags: Collection[str], now: float) -> Pause | None:
        """What holds it up from this local address."""
        return next((pause for pause in self._sources
                     if pause.source == source and _holds(pause, domain, pool, tags, now)), None)

    def of_address(self, address: str, source: str | None, now: float) -> Pause | None:
        """What holds up a connection to a server, from our address if one was chosen."""
        return next((pause for pause in self._addresses if pause.address == address
                     and (not pause.source or pause.source == source) and _is_on(pause, now)), None)


def _holds(pause: Pause, domain: str, pool: str, tags: Collection[str], now: float) -> bool:
    return ((not pause.domain or pause.domain == domain) and (not pause.pool or pause.pool == pool)
            and (not pause.tag or pause.tag in tags) and _is_on(pause, now))


def _is_on(pause: Pause, now: float) -> bool:
    return not pause.expire or pause.expire > now


class Holds:
    """When messages on pause are looked at again: soon while there are few, seldom while there are many."""

    def __init__(self) -> None:
        self._outside = Outside()

    def next(self, pause: Pause, now: float) -> float:
        """Seconds, for one more."""
        seconds = min(max(SHORTEST_HOLD, self._outside.count(now) / HOLDS_PER_SECOND), LONGEST_HOLD)
        if pause.expire:
            seconds = min(seconds, max(1.0, pause.expire - now))
        self._outside.add(now + seconds)
        return seconds


def read_pauses(rows: Iterable[Row]) -> Usable[Pauses]:
    """The table `paused`."""
    pauses, faults = [], []
    for row in rows:
        target = row.text('target').strip().lower().rstrip('.')
        address = numeric(target)
        pause = Pause(numeric(row.text('localip')) or row.text('localip').strip(), row.text('pool').strip(),
                      '' if address else target, address, row.text('tag'), float(row.number('expire', 0)))
        if address and (pause.tag or pause.pool):
            faults.append(f'row {row.number("id")} of table paused is left out: the address of a server cannot be '
                          f'paused for one tag or pool only; name domains')
        else:
            pauses.append(pause)
    return Usable(Pauses(pauses), faults)
