"""The keys of the database: tables `dkim_keys` and `dkim_patterns`.

A pattern is compared with the domain of the address in From, and with the whole address; `sign` is the pattern, `type`
one of the four of `patterns.py` or `global`, which matches everything, `dkim_key` the id of the key that then signs.
`expire` of a key: a signature is valid for so many seconds; 0: for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mqlite.database.live import Database
from mqlite.database.patterns import Match, make_match
from mqlite.database.tables import Row, Usable
from mqlite.dkim.keys import KeyFault
from mqlite.dkim.sign import KeyUse, make_signer
from mqlite.dkim.signature import Signer


class SigningKeys:
    """The keys that sign at this moment."""

    def __init__(self, database: Database) -> None:
        self._keys: dict[int, tuple[Signer, int]] = {}
        self._patterns: list[tuple[Match, int]] = []
        database.follow('dkim_keys', read_keys, self._take_keys)
        database.follow('dkim_patterns', read_patterns, self._take_patterns)

    def __bool__(self) -> bool:
        return bool(self._keys and self._patterns)

    def uses(self, address: str, now: float) -> list[KeyUse]:
        """The keys for mail from this address, each once. `now`: seconds since 1970."""
        domain = address.rpartition('@')[2]
        chosen = {key: self._keys[key] for match, key in self._patterns
                  if key in self._keys and (match(domain) or match(address))}
        return [KeyUse(replace(signer, lifetime_end=int(now) + seconds) if seconds else signer)
                for signer, seconds in chosen.values()]

    def _take_keys(self, keys: dict[int, tuple[Signer, int]]) -> None:
        self._keys = keys

    def _take_patterns(self, patterns: list[tuple[Match, int]]) -> None:
        self._patterns = patterns


def read_keys(rows: Iterable[Row]) -> Usable[dict[int, tuple[Signer, int]]]:
    """By id: who signs, and for how many seconds it is valid."""
    keys, faults = {}, []
    for row in rows:
        try:
            signer = make_signer(row.text('domain'), row.text('selector'), row.text('privatekey'))
        except KeyFault as fault:
            faults.append(f'row {row.number("id")} of table dkim_keys ({row.text("domain")}) is left out: {fault}')
        else:
            keys[row.number('id')] = signer, max(row.number('expire'), 0)
    return Usable(keys, faults)


def read_patterns(rows: Iterable[Row]) -> Usable[list[tuple[Match, int]]]:
    patterns: list[tuple[Match, int]] = []
    faults = []
    for row in rows:
        try:
            kind = row.text('type')
            match = make_match('fnmatch', '*') if kind == 'global' else make_match(kind, row.text('sign'))
        except ValueError as error:
            faults.append(f'row {row.number("id")} of table dkim_patterns is left out: {error}')
        else:
            patterns.append((match, row.number('dkim_key')))
    return Usable(patterns, faults)
