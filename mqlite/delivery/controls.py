"""What the operator has set in the database, as it is now: limits and pools.

Every look is into memory. Whoever must act when something changes is told.
"""

from __future__ import annotations

from typing import Callable

from mqlite.database.live import Database, Rows
from mqlite.database.tables import Row
from mqlite.delivery.capacity import Limits

TABLES = ('capacity', 'capacity_rules', 'poolips')


class Controls:
    """One per worker; without a database nothing is set."""

    def __init__(self, database: Database | None = None) -> None:
        self.limits = Limits()
        self.pools: dict[str, tuple[str, ...]] = {}  # the addresses of each
        self.on_limits: Callable[[], object] | None = None  # called when the limits have changed
        self._rows: dict[str, Rows] = dict.fromkeys(TABLES, ())
        if database is not None:
            for table in TABLES:
                self._follow(database, table)

    def _follow(self, database: Database, table: str) -> None:
        def take(rows: Rows) -> None:
            self._rows[table] = rows
            self._make()
        database.follow(table, tuple, take)

    def _make(self) -> None:
        self.pools = make_pools(self._rows['poolips'])
        self.limits = Limits(self._rows['capacity'], self._rows['capacity_rules'], self.pools)
        if self.on_limits is not None:
            self.on_limits()


def make_pools(rows: tuple[Row, ...]) -> dict[str, tuple[str, ...]]:
    """The addresses of each pool, in the order of the rows."""
    pools: dict[str, list[str]] = {}
    for row in rows:
        pools.setdefault(row.text('name'), []).append(row.text('ip').strip().lower())
    return {name: tuple(dict.fromkeys(addresses)) for name, addresses in pools.items()}
