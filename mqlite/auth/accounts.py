"""Files of logins and hashed passwords: that of `file://`, and shadow(5) for `users://`. Pure.

    login:hash[:anything else]        one line each; empty lines and those with # at the beginning do not count

shadow(5) has the day on which an account expires as the eighth field; a file with fewer fields says nothing of it. A
hash that is empty or begins with `*` or `!` is locked: nobody logs in with it, with no password either. A login that
comes twice counts the first time, as for getpwnam(3). The file is the operator's: its size is not bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable

from mqlite.auth.crypt import Hash, UnknownHash, parse_hash
from mqlite.errors import ConfigError

_EXPIRES = 7  # the field, counted from 0
_DAY = 86400


@dataclass(frozen=True)
class Account:
    """One login. Without a hash it is locked; with one that cannot be checked, nobody can say."""

    hash: Hash | UnknownHash | None
    expires: float | None = None  # seconds since 1970


class Accounts:
    """All logins of one file."""

    def __init__(self, accounts: dict[str, Account]) -> None:
        self._accounts = accounts
        self._any_hash = next((account.hash for account in accounts.values() if isinstance(account.hash, Hash)), None)

    def matches(self, login: str, password: bytes, now: float) -> bool:
        """Slow. A login that there is not takes as long as one that there is: nobody learns which there are.
        UnknownHash for one whose hash cannot be checked."""
        account = self._accounts.get(login, Account(None))
        if isinstance(account.hash, UnknownHash):
            raise UnknownHash(str(account.hash))
        checked = account.hash or self._any_hash
        right = checked is not None and checked.matches(password)
        return right and account.hash is not None and (account.expires is None or now < account.expires)

    def check_hashes(self) -> None:
        """UnknownHash when there is one that cannot be checked."""
        for account in self._accounts.values():
            if isinstance(account.hash, UnknownHash):
                raise UnknownHash(str(account.hash))


def parse_accounts(text: str, wanted: Callable[[str], object] = bool) -> Accounts:
    """The logins for which `wanted` is true. ConfigError names the line that makes no sense, without its contents."""
    accounts: dict[str, Account] = {}
    for number, line in enumerate(text.split('\n'), 1):
        if not line.strip() or line.startswith('#'):
            continue
        login, colon, rest = line.rstrip('\r').partition(':')
        if not colon or not login:
            raise ConfigError(f'line {number} is not login:hash')
        if wanted(login) and login not in accounts:
            accounts[login] = _account(rest.split(':'), number)
    return Accounts(accounts)


def _account(fields: list[str], number: int) -> Account:
    expires = fields[_EXPIRES - 1] if len(fields) >= _EXPIRES else ''
    return Account(_hash(fields[0].strip(), number),
                   int(expires) * _DAY if re.fullmatch('[0-9]{1,9}', expires) else None)


def _hash(text: str, number: int) -> Hash | UnknownHash | None:
    if not text or text[0] in '*!':
        return None
    try:
        return parse_hash(text)
    except UnknownHash as error:
        return UnknownHash(f'line {number}: {error}')


def name_patterns(names: tuple[str, ...]) -> Callable[[str], object]:
    """Whether a login is one of the names, in which `*` stands for any text."""
    pattern = '|'.join(re.escape(name).replace(r'\*', '.*') for name in names)
    return re.compile(pattern, re.DOTALL).fullmatch
