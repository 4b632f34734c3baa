"""From the setting to the store, and what all stores but the simplest have in common: bounds, and errors in words.

At most AT_ONCE logins are checked at a time, the others wait in the order in which they came; SECONDS is for both, the
waiting and the check. Whatever goes wrong is AuthUnavailable with the store's name in front, never with credentials.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from typing import Protocol

from mqlite.auth.contract import Authenticator, AuthUnavailable
from mqlite.auth.local import HardcodedLogins, HashedLogins, system_logins
from mqlite.auth.network import HttpLogins, LdapLogins, RadiusLogins
from mqlite.auth.program import ProgramLogins
from mqlite.auth.setting import File, Hardcoded, Http, Ldap, Program, Radius, Setting, Users, parse_setting
from mqlite.dns.resolver import Resolver
from mqlite.errors import MqliteError
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import Waiter, timeout
from mqlite.smtp.sasl import Credentials, Password

AT_ONCE = 16
SECONDS = 30.0


class PasswordStore(Protocol):
    """A store that can check passwords and nothing else."""

    def check(self, password: Password, client: str) -> Awaitable[bool]:
        """Whether it is right. Any MqliteError or OSError when nobody can say."""

    def stop(self) -> None:
        """As Authenticator.stop."""


class GuardedLogins:
    """A store with its bounds."""

    mechanisms = ('PLAIN', 'LOGIN')

    def __init__(self, reactor: Reactor, name: str, store: PasswordStore) -> None:
        self._reactor = reactor
        self._name = name
        self._store = store
        self._busy = 0
        self._queue: deque[Waiter[None]] = deque()

    async def check(self, credentials: Credentials, client: str) -> bool:
        if not isinstance(credentials, Password):
            return False
        try:
            with timeout(self._reactor, SECONDS, f'no verdict within {SECONDS:g} s'):
                await self._enter()
                try:
                    return await self._store.check(credentials, client)
                finally:
                    self._leave()
        except OSError as error:
            raise AuthUnavailable(f'{self._name}: {error.strerror or type(error).__name__}') from error
        except MqliteError as error:
            raise AuthUnavailable(f'{self._name}: {error}') from error

    def stop(self) -> None:
        self._store.stop()

    async def _enter(self) -> None:
        """Wait for a turn. Who leaves hands its own on, so nobody who comes later is earlier."""
        if self._busy < AT_ONCE:
            self._busy += 1
            return
        waiter: Waiter[None] = Waiter(self._reactor)
        self._queue.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done:
                self._leave()  # the turn came together with the end of our time
            else:
                self._queue.remove(waiter)
            raise

    def _leave(self) -> None:
        if self._queue:
            self._queue.popleft().set()
        else:
            self._busy -= 1


def open_authenticator(reactor: Reactor, resolver: Resolver, setting: str) -> Authenticator:
    """The store that the text of `smtp-auth` names. ConfigError without the setting's name, and without its text."""
    parsed = parse_setting(setting)
    if isinstance(parsed, Hardcoded):
        return HardcodedLogins(parsed.passwords)
    name, store = _open_store(reactor, resolver, parsed)
    return GuardedLogins(reactor, name, store)


def _open_store(reactor: Reactor, resolver: Resolver, setting: Setting) -> tuple[str, PasswordStore]:
    """The store, and how it is called in a log."""
    if isinstance(setting, File):
        return setting.path, HashedLogins(reactor, setting.path)
    if isinstance(setting, Users):
        return 'accounts of this host', system_logins(reactor, setting.names)
    if isinstance(setting, Program):
        return setting.path, ProgramLogins(reactor, setting.path, SECONDS)
    if isinstance(setting, Ldap):
        return f'LDAP server {setting.host} port {setting.port}', LdapLogins(reactor, resolver, setting)
    if isinstance(setting, Radius):
        return f'RADIUS server {setting.host} port {setting.port}', RadiusLogins(reactor, resolver, setting)
    assert isinstance(setting, Http)
    return f'HTTP server {setting.host} port {setting.port}', HttpLogins(reactor, resolver, setting)
