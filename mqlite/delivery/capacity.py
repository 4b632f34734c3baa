"""How much a destination may be given: the tables `capacity` and `capacity_rules`. Pure.

    capacity         localip, domain   limits            one row: these limits, from this address to this domain
    capacity_rules   capacity          localip, domain   further addresses and domains for the limits of that row, or
                                       pool, domain      all addresses of a pool

An empty address or domain is any; but a row of `capacity` that names neither and has rules is meant for those only. The
most specific row wins, and only that one: address and domain, then domain, then
address, then neither; an address of its own comes before the pool it is in. Of equals the first one holds. In a row, 0
is no limit, and -1 is the default below.

A domain here stands for all domains with the same mail exchangers; the name of an exchanger is taken as well. The
columns `domain_…` are limits of a destination, `ip_…` those of one address of its servers, `connection_…` those of one
connection. All of them are for one address of ours, whether the row names it or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mqlite.database.tables import Row
from mqlite.smtp.envelope import plain_domain


class Capacity(NamedTuple):
    """Limits of one destination; 0 is no limit."""

    connections: int = 20  # at once, as Postfix (default_destination_concurrency_limit)
    connection_messages: int = 0  # over one connection
    messages: float = 0.0  # per minute
    connects: float = 0.0  # attempts to connect, per minute
    idle_seconds: float = 5.0  # a connection without work is kept for so long
    address_connections: int = 0  # at once, to one address of its servers
    address_messages: float = 0.0  # per minute, to one address
    address_connects: float = 0.0  # attempts per minute, to one address

    @property
    def per_address(self) -> bool:
        """Whether the addresses of its servers have limits."""
        return bool(self.address_connections or self.address_messages or self.address_connects)

    def part(self, workers: int) -> Capacity:
        """What one of so many workers may do, so that all together do no more; but one connection each."""
        if workers == 1:
            return self
        def some(connections: int) -> int:
            return max(1, connections // workers) if connections else 0
        return self._replace(connections=some(self.connections), messages=self.messages / workers,
                             connects=self.connects / workers, address_connections=some(self.address_connections),
                             address_messages=self.address_messages / workers,
                             address_connects=self.address_connects / workers)


DEFAULT = Capacity()
LONGEST_IDLE = 300.0  # seconds; servers end a connection that is silent for so long (RFC 5321 4.5.3.2.7)


class Limits:
    """The capacities of all destinations. `domains`: those that have one of their own."""

    def __init__(self, rows: Sequence[Row] = (), rules: Iterable[Row] = (),
                 pools: Mapping[str, Iterable[str]] | None = None) -> None:
        """`pools`: the addresses of each."""
        self._found: dict[tuple[str, str], Capacity] = {}
        capacities = {row.number('id'): make_capacity(row) for row in rows}
        rules = [rule for rule in rules if rule.number('capacity') in capacities]
        ruled = {rule.number('capacity') for rule in rules}
        for row in rows:
            if row.text('localip') or row.text('domain') or row.number('id') not in ruled:
                self._add(row.text('localip'), row.text('domain'), capacities[row.number('id')])
        for rule in sorted(rules, key=lambda rule: bool(rule.text('pool'))):
            addresses = (pools or {}).get(rule.text('pool'), ()) if rule.text('pool') else (rule.text('localip'),)
            for address in addresses:
                self._add(address, rule.text('domain'), capacities[rule.number('capacity')])
        self.domains = frozenset(domain for _, domain in self._found if domain)

    def __bool__(self) -> bool:
        return bool(self._found)

    def find(self, source: str | None, names: Iterable[str]) -> Capacity:
        """`names`: domains and exchangers of the destination; `source`: its local address, if one was chosen."""
        if not self._found:
            return DEFAULT
        named = [name for name in names if name in self.domains]
        keys = [*((source or '', name) for name in named), *(('', name) for name in named), (source or '', ''),
                ('', '')]
        return next((self._found[key] for key in keys if key in self._found), DEFAULT)

    def _add(self, source: str, domain: str, capacity: Capacity) -> None:
        self._found.setdefault((source.strip().lower(), plain_domain(domain.strip().rstrip('.'))), capacity)


def make_capacity(row: Row, default: Capacity = DEFAULT) -> Capacity:
    """The limits in a row of `capacity`, or of another table with these columns. `default`: in place of -1."""
    def limit(column: str, usual: float) -> float:
        value = row.number(column)
        return usual if value < 0 else value

    idle = limit('connection_maxidletime', default.idle_seconds * 1000) / 1000
    return Capacity(int(limit('domain_maxconnections', default.connections)),
                    int(limit('connection_maxmessages', default.connection_messages)),
                    limit('domain_maxmessages', default.messages), limit('domain_maxconnects', default.connects),
                    min(idle or LONGEST_IDLE, LONGEST_IDLE),
                    int(limit('ip_maxconnections', default.address_connections)),
                    limit('ip_maxmessages', default.address_messages),
                    limit('ip_maxconnects', default.address_connects))
