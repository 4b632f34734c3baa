"""Local addresses, the table `locals`: mail to them is accepted from anybody and has a queue of its own.

Most rows are whole addresses or `*@domain`, which are looked up in sets however many there are; only what is left of
patterns is tried one by one. Letters match in both cases. A domain in other letters is found in its ASCII form too.
"""

from __future__ import annotations

from collections.abc import Iterable

from mqlite.database.live import Database
from mqlite.database.patterns import WILDCARDS, Match, make_match
from mqlite.database.tables import Row, Usable


class LocalAddresses:
    """The addresses of the rows. `faults`: a line for each row that cannot be used."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.faults: list[str] = []
        self._addresses: set[str] = set()
        self._domains: set[str] = set()
        self._matches: list[Match] = []
        for row in rows:
            try:
                self._add(row.text('type'), row.text('address').strip())
            except ValueError as error:
                self.faults.append(f'row {row.number("id")} of table locals is left out: {error}')

    def __contains__(self, address: str) -> bool:
        wanted = address.lower()
        return (wanted in self._addresses or wanted.rpartition('@')[2] in self._domains
                or any(match(wanted) for match in self._matches))

    def _add(self, kind: str, address: str) -> None:
        """ValueError for a pattern that is none."""
        if kind in ('', 'exact'):
            self._addresses.update(_spellings(address))
        elif kind == 'fnmatch' and address.startswith('*@') and not WILDCARDS & set(address[1:]):
            self._domains.update(name[2:] for name in _spellings(address))
        elif address:
            self._matches.append(make_match(kind, address))


class Locals:
    """Whether an address is local at this moment."""

    def __init__(self, database: Database) -> None:
        self._addresses = LocalAddresses(())
        database.follow('locals', _read, self._take)

    def __call__(self, address: str) -> bool:
        return address in self._addresses

    def _take(self, addresses: LocalAddresses) -> None:
        self._addresses = addresses


def _read(rows: Iterable[Row]) -> Usable[LocalAddresses]:
    addresses = LocalAddresses(rows)
    return Usable(addresses, addresses.faults)


def _spellings(address: str) -> Iterable[str]:
    """As it is, and with its domain as DNS and servers without SMTPUTF8 write it (RFC 5890)."""
    local, _, domain = address.lower().rpartition('@')
    yield f'{local}@{domain}'
    if not domain.isascii():
        try:
            yield f'{local}@{domain.encode("idna").decode("ascii")}'
        except UnicodeError:
            pass  # not a domain: only its own spelling is found
