"""The stores of this host: logins in the setting, a file of hashes, the accounts of the system.

A file is read at start, so that a mistake in it is told then, and again whenever it has changed; it is read and hashes
are computed in a thread, because both may take their time. A mistake made later keeps everybody out until it is mended,
and each attempt says so in the log; a single hash that cannot be checked keeps out only its owner.

`users://` reads shadow(5), which takes root or the group `shadow`. PAM is not asked: it has no interface that does not
block, and Python has none at all.
"""

from __future__ import annotations

import os
import secrets
from typing import Callable

from mqlite.auth.accounts import Accounts, name_patterns, parse_accounts
from mqlite.errors import ConfigError
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import Waiter
from mqlite.loop.thread import WorkerThread
from mqlite.smtp.sasl import MECHANISMS, Credentials, Password

SHADOW = '/etc/shadow'


def new_challenge(hostname: str) -> bytes:
    """For CRAM-MD5: has not been there before and cannot be foretold (RFC 2195 section 2)."""
    return f'<{secrets.token_hex(16)}@{hostname}>'.encode('ascii', 'replace')


class HardcodedLogins:
    """Passwords in clear: the one store that can check CRAM-MD5."""

    mechanisms = MECHANISMS

    def __init__(self, passwords: dict[str, bytes]) -> None:
        self._passwords = passwords
        self._decoy = secrets.token_bytes(16)  # so that a login that there is not takes as long as one that there is

    async def check(self, credentials: Credentials, client: str) -> bool:
        secret = self._passwords.get(credentials.login)
        return credentials.matches(secret or self._decoy) and secret is not None

    def stop(self) -> None:
        """It has nothing to end."""


class HashedLogins:
    """A file of login:hash lines."""

    def __init__(self, reactor: Reactor, path: str, wanted: Callable[[str], object] = bool) -> None:
        """ConfigError when the file cannot be read, or makes no sense, or has a hash that cannot be checked."""
        self._reactor = reactor
        self._path = path
        self._wanted = wanted
        self._seen: tuple[int, int, int] | None = None
        self._accounts = Accounts({})
        try:
            self._current().check_hashes()
        except ConfigError as error:
            raise ConfigError(f'{path}: {error}') from None
        self._thread = WorkerThread(reactor, 'logins')

    def check(self, password: Password, client: str) -> Waiter[bool]:
        return self._thread.submit(self._matches, password, self._reactor.clock.time())

    def stop(self) -> None:
        self._thread.stop()

    def _matches(self, password: Password, now: float) -> bool:
        return self._current().matches(password.login, password.password, now)

    def _current(self) -> Accounts:
        """What the file says now. ConfigError."""
        try:
            status = os.stat(self._path)
            seen = status.st_mtime_ns, status.st_size, status.st_ino
            if seen != self._seen:
                with open(self._path, encoding='utf-8', errors='surrogateescape') as file:
                    self._accounts = parse_accounts(file.read(), self._wanted)
                self._seen = seen
        except OSError as error:
            raise ConfigError(f'it cannot be read: {error.strerror}') from None
        return self._accounts


def system_logins(reactor: Reactor, names: tuple[str, ...], path: str = SHADOW) -> HashedLogins:
    """The accounts of this host with these names. ConfigError, as for HashedLogins."""
    return HashedLogins(reactor, path, name_patterns(names))
