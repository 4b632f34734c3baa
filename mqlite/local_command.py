"""`mqlite.pyz local ...`: the addresses that mail is received for, in the table `locals` of the database.

The daemon need not run; one that runs sees a change within seconds. Root acts as the user that the daemon runs as, so
that what is created belongs to it.
"""

from __future__ import annotations

import sys

from mqlite.database.locals import LocalAddresses
from mqlite.database.patterns import make_match
from mqlite.errors import ConfigError
from mqlite.parts import database_file
from mqlite.settings import Settings


def add(settings: Settings, address: str, kind: str = '') -> int:
    """Add an address or pattern. Without a type, one with a `*` is a wildcard. ConfigError for what can match none."""
    kind = kind or _usual_kind(address)
    try:
        make_match(kind, address)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if kind == 'exact' and not all(address.rpartition('@')[::2]):
        raise ConfigError(f'{address} is no address; for a whole domain write *@{address.lstrip("@") or "example.org"}')
    with database_file(settings) as file:
        if not file.add('locals', {'address': address, 'type': kind}):
            print(f'{address} is there already', file=sys.stderr)
    return 0


def remove(settings: Settings, address: str, kind: str = '') -> int:
    """Remove it, whatever its type unless one is given. Status 1 when it was not there."""
    with database_file(settings) as file:
        if file.remove('locals', {'address': address, **({'type': kind} if kind else {})}):
            return 0
        others = LocalAddresses(file.read().rows['locals'])
    print(f'{address} is not there{"; a pattern matches it" if address in others else ""}', file=sys.stderr)
    return 1


def list_addresses(settings: Settings) -> int:
    """A line for each: its type, and the address or pattern."""
    with database_file(settings) as file:
        for row in file.read().rows['locals']:
            print(f'{row.text("type") or "exact":<8} {row.text("address")}')
    return 0


def _usual_kind(address: str) -> str:
    return 'fnmatch' if '*' in address else 'exact'
