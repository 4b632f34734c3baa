"""What the operator has set in the database, as it is now: limits, also those after certain answers, pools, pauses,
forced errors, suppressions, names for EHLO.

Every look is into memory. Whoever must act when something changes is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Callable

from mqlite.database.live import Database, Rows
from mqlite.database.tables import Row, Usable
from mqlite.delivery.capacity import Limits
from mqlite.delivery.flood import FloodRules, read_floods
from mqlite.delivery.forced import ForcedError, ForcedErrors, read_errors
from mqlite.delivery.pauses import Pause, Pauses, read_pauses
from mqlite.delivery.route import numeric
from mqlite.delivery.suppressions import Suppressions, read_suppressions
from mqlite.message.document import Document
from mqlite.smtp.grammar import SyntaxFault, check_helo

LIMITS = ('capacity', 'capacity_rules', 'poolips')


class Controls:
    """One per worker; without a database nothing is set."""

    def __init__(self, database: Database | None = None) -> None:
        self.limits = Limits()
        self.pools: dict[str, tuple[str, ...]] = {}  # the addresses of each
        self.floods = FloodRules()
        self.pauses = Pauses()
        self.errors = ForcedErrors()
        self.suppressions = Suppressions()
        self.names: dict[str, str] = {}  # for EHLO, by our address
        self.on_limits: Callable[[], object] = _nobody  # called when the limits have changed
        self.on_floods: Callable[[], object] = _nobody
        self.on_intercepts: Callable[[], object] = _nobody  # pauses, or forced errors
        self._rows: dict[str, Rows] = dict.fromkeys(LIMITS, ())
        if database is not None:
            for table in LIMITS:
                self._follow_limits(database, table)
            database.follow('flood_responses', read_floods, self._take_floods)
            database.follow('paused', read_pauses, self._take_pauses)
            database.follow('errors', read_errors, self._take_errors)
            database.follow('suppressions', read_suppressions, self._take_suppressions)
            database.follow('mtanames', read_names, self._take_names)

    @property
    def intercepts(self) -> bool:
        """Whether anything is on pause, or to fail."""
        return bool(self.pauses.all or self.errors.all)

    def intercept_of(self, document: Document, source: str | None, now: float) -> ForcedError | Pause | None:
        """Why a message is not to be sent; from this local address, if one was chosen."""
        return self.errors.of(document, source, now) or self.pauses.of(document, source, now)

    def intercept_at(self, address: str, source: str | None, now: float) -> ForcedError | Pause | None:
        """Why a server is not to be connected with, from our address if one was chosen."""
        return self.errors.of_address(address, source, now) or self.pauses.of_address(address, source, now)

    def _follow_limits(self, database: Database, table: str) -> None:
        def take(rows: Rows) -> None:
            self._rows[table] = rows
            self.pools = make_pools(self._rows['poolips'])
            self.limits = Limits(self._rows['capacity'], self._rows['capacity_rules'], self.pools)
            self.on_limits()
        database.follow(table, Usable, take)

    def _take_floods(self, floods: FloodRules) -> None:
        self.floods = floods
        self.on_floods()

    def _take_pauses(self, pauses: Pauses) -> None:
        self.pauses = pauses
        self.on_intercepts()

    def _take_errors(self, errors: ForcedErrors) -> None:
        self.errors = errors
        self.on_intercepts()

    def _take_suppressions(self, suppressions: Suppressions) -> None:
        self.suppressions = suppressions

    def _take_names(self, names: dict[str, str]) -> None:
        self.names = names


def decisive(found: Iterable[ForcedError | Pause | None]) -> ForcedError | Pause | None:
    """Of what there is against each of several addresses: a pause, if there is one, since it will end."""
    reasons = [one for one in found if one is not None]
    return next((one for one in reasons if isinstance(one, Pause)), reasons[0] if reasons else None)


def make_pools(rows: Iterable[Row]) -> dict[str, tuple[str, ...]]:
    """The addresses of each pool, in the order of the rows."""
    pools: dict[str, dict[str, None]] = {}
    for row in rows:
        address = numeric(row.text('ip'))
        if address:
            pools.setdefault(row.text('name'), {})[address] = None
    return {name: tuple(addresses) for name, addresses in pools.items()}


def read_names(rows: Iterable[Row]) -> Usable[dict[str, str]]:
    """The table `mtanames`: the name for EHLO from an address of ours. The first row for an address holds."""
    found: dict[str, str] = {}
    faults = []
    for row in rows:
        try:
            check_helo(row.text('name').strip())
            found.setdefault(str(ip_address(row.text('ip').strip())), row.text('name').strip())
        except (SyntaxFault, ValueError) as error:
            faults.append(f'row {row.number("id")} of table mtanames is left out: {error}')
    return Usable(found, faults)


def _nobody() -> None:
    """Nobody wants to know."""
