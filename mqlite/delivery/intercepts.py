"""Which deliveries the operator steps in on: the selections of the tables `paused` and `errors`. Pure.

Every column that is not empty must fit; a row without anything is about everything. `*` is empty, too.

    localip    our address             known when a message lines up; only where we choose the address
    pool       the message's `pool`    known at once
    target     a domain                known at once
               an address of a server  known when a connection is made: that address is passed over
    tag        one of the `tags`       known at once
    expire     until then (seconds since 1970); 0 for ever

A row that names an address of a server and a tag or a pool cannot be kept to, since a connection serves messages of all
tags.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mqlite.database.tables import Row
from mqlite.delivery.route import numeric
from mqlite.message.document import Document
from mqlite.smtp.envelope import plain_domain

ANY = '*'


@dataclass(frozen=True)
class Intercept:
    """The selection of one row. `domain` and `address` are its target."""

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

    def is_on(self, now: float) -> bool:
        return not self.expire or self.expire > now

    def fits(self, domain: str, pool: str, tags: Collection[str], now: float) -> bool:
        """Whether a message is selected, as far as that does not depend on addresses."""
        return ((not self.domain or self.domain == domain) and (not self.pool or self.pool == pool)
                and (not self.tag or self.tag in tags) and self.is_on(now))


Kind = TypeVar('Kind', bound=Intercept)


class Intercepts(Generic[Kind]):
    """All of one table. Of those that fit the first one holds."""

    def __init__(self, intercepts: Iterable[Kind] = ()) -> None:
        self.all = tuple(intercepts)
        self._messages = [one for one in self.all if not one.source and not one.address]
        self._sources = [one for one in self.all if one.source and not one.address]
        self._addresses = [one for one in self.all if one.address]

    def __bool__(self) -> bool:
        return bool(self.all)

    def touching(self, domain: str, now: float) -> list[Kind]:
        """Those that are about mail to a domain, or may be: some of it."""
        return [one for one in self.all if one.is_on(now) and one.domain in ('', plain_domain(domain))]

    def of(self, document: Document, source: str | None, now: float) -> Kind | None:
        """What selects a message; from this local address, if one was chosen."""
        domain, pool, tags = document.domain, document.pool, document.tags
        found = self.of_message(domain, pool, tags, now)
        return found or (self.of_source(source, domain, pool, tags, now) if source else None)

    def of_message(self, domain: str, pool: str, tags: Collection[str], now: float) -> Kind | None:
        """What selects it whatever address it is sent from."""
        return next((one for one in self._messages if one.fits(domain, pool, tags, now)), None)

    def of_source(self, source: str, domain: str, pool: str, tags: Collection[str], now: float) -> Kind | None:
        """What selects it from this local address."""
        return next((one for one in self._sources if one.source == source and one.fits(domain, pool, tags, now)), None)

    def of_address(self, address: str, source: str | None, now: float) -> Kind | None:
        """What selects a connection to a server, from our address if one was chosen."""
        return next((one for one in self._addresses if one.address == address
                     and (not one.source or one.source == source) and one.is_on(now)), None)


def read_selection(row: Row) -> dict[str, Any]:
    """The fields of an Intercept. ValueError when the row selects what cannot be told apart."""
    source, pool, target = (_named(row.text(column)) for column in ('localip', 'pool', 'target'))
    target = plain_domain(target.rstrip('.'))
    address, tag = numeric(target), row.text('tag')
    if address and (tag or pool):
        raise ValueError('the address of a server cannot be told apart by tag or pool; name domains')
    return {'source': numeric(source) or source, 'pool': pool, 'domain': '' if address else target, 'address': address,
            'tag': tag, 'expire': float(row.number('expire', 0))}


def _named(text: str) -> str:
    text = text.strip()
    return '' if text == ANY else text
