"""The table `dns`: addresses for a domain or host that hold in place of what the DNS says.

A domain of a mail address that is listed has no exchangers but itself, at the addresses of its rows; a host that is
listed, an exchanger of another domain say, has these addresses. There are no wildcards.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from mqlite.database.live import Database
from mqlite.database.tables import Row, Usable
from mqlite.dns.message import FormatError, normal_name
from mqlite.dns.resolver import Resolver

Addresses = dict[str, tuple[str, ...]]


def follow_overrides(database: Database, resolver: Resolver) -> None:
    """Let the resolver have what the table says, from now on."""
    def take(found: Addresses) -> None:
        resolver.overrides = found
    database.follow('dns', read_overrides, take)


def read_overrides(rows: Iterable[Row]) -> Usable[Addresses]:
    """Addresses by name, in the order of the rows."""
    found: Addresses = {}
    faults = []
    for row in rows:
        try:
            name, address = normal_name(row.text('domain').strip()), str(ip_address(row.text('ip').strip()))
        except (FormatError, ValueError) as error:
            faults.append(f'row {row.number("id")} of table dns is left out: {error}')
        else:
            found[name] = (*found.get(name, ()), address)
    return Usable(found, faults)
