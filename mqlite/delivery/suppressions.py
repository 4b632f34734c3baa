"""Who gets nothing: the table `suppressions`. Pure.

A message to a suppressed address, or to an address of a suppressed domain, is given up before anything is tried, with
the code and the text of the row. Letters match in both cases.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mqlite.database.tables import Row, Usable
from mqlite.smtp.envelope import plain_domain

DEFAULT_CODE = 550
KINDS = ('address', 'domain')


@dataclass(frozen=True)
class Suppression:
    """What the result says."""

    code: int
    status: str
    description: str


class Suppressions:
    """All of them."""

    def __init__(self, addresses: dict[str, Suppression] | None = None,
                 domains: dict[str, Suppression] | None = None) -> None:
        self._addresses = addresses or {}
        self._domains = domains or {}

    def __bool__(self) -> bool:
        return bool(self._addresses or self._domains)

    def of(self, recipient: str) -> Suppression | None:
        wanted = plain(recipient)
        return self._addresses.get(wanted) or self._domains.get(wanted.rpartition('@')[2])


def plain(address: str) -> str:
    """An address, or a domain, in the form to compare it in."""
    local, at, domain = address.rpartition('@')
    return local.lower() + at + plain_domain(domain)


def kind_of(value: str) -> str:
    return 'address' if '@' in value else 'domain'


def read_suppressions(rows: Iterable[Row]) -> Usable[Suppressions]:
    """The table. The first row for an address or domain holds."""
    found: dict[str, dict[str, Suppression]] = {kind: {} for kind in KINDS}
    faults = []
    for row in rows:
        value, kind = plain(row.text('value').strip()), row.text('type').strip().lower()
        kind = kind or kind_of(value)
        code = row.number('code', 0) or DEFAULT_CODE
        if kind not in KINDS or not value or not 400 <= code <= 599:
            reason = (f'{kind!r} is no type; there are {", ".join(KINDS)}' if kind not in KINDS
                      else f'{code} is no code for a failure' if value else 'it names nothing')
            faults.append(f'row {row.number("id")} of table suppressions is left out: {reason}')
            continue
        suppression = Suppression(code, row.text('extended').strip(), row.text('description') or 'suppressed')
        found[kind].setdefault(value.rstrip('.') if kind == 'domain' else value, suppression)
    return Usable(Suppressions(found['address'], found['domain']), faults)
