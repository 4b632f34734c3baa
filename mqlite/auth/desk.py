"""Where clients of the server log in: the brake, the store, the plugins, and the verdict.

    brake ─► store ─► plugins ─► 235, or 535, 454, 421
      └───────────────────────► 421

What the store says is what plugins find in MQ_authenticated, and what they leave there is the verdict: one may let in
whom the store does not know, another keep out whom it does. Without a store they are the only judges. A store that
cannot say is a no that is temporary. CRAM-MD5 shows no password, so it is not on offer where plugins judge.

Without TLS, passwords are taken from this host only, unless the operator has decided otherwise. While the brake is on,
neither store nor plugin is asked.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Callable

from mqlite.auth.contract import Authenticator, AuthUnavailable
from mqlite.auth.guesses import SESSION_FAILURES, Guesses
from mqlite.auth.local import new_challenge
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import sleep
from mqlite.smtp.clients import ClientRule, Network
from mqlite.smtp.reply import reply
from mqlite.smtp.sasl import Credentials, Password
from mqlite.smtp.session import Objection, Session

STEP = 'mq_smtp_in_authenticate'
_PASSWORDS = ('PLAIN', 'LOGIN')
_LOOPBACK = (ipaddress.ip_network('127.0.0.0/8'), ipaddress.ip_network('::1/128'))


class LoginDesk:
    """All logins of one worker."""

    def __init__(self, reactor: Reactor, hostname: str, store: Authenticator | None, plugins_judge: bool = False,
                 on_note: Callable[[str], object] = id, clear: bool = False,
                 networks: Sequence[Network] | None = None) -> None:
        """`plugins_judge`: they have a say. `clear`: without TLS from everywhere. `networks`: of those that may log in;
        None for all.
        """
        self._reactor = reactor
        self._hostname = hostname
        self._store = store
        self._guesses = Guesses()
        self._on_note = on_note
        self._takes_clear = None if clear else ClientRule(_LOOPBACK)
        self._may_log_in = None if networks is None else ClientRule(networks)
        self._mechanisms = _PASSWORDS if plugins_judge or store is None else tuple(store.mechanisms)

    def mechanisms(self, client: str, secure: bool) -> Sequence[str]:
        if not secure and self._takes_clear is not None and not self._takes_clear(client):
            return ()
        return self._mechanisms if self._may_log_in is None or self._may_log_in(client) else ()

    def new_challenge(self) -> bytes:
        return new_challenge(self._hostname)

    def stop(self) -> None:
        if self._store is not None:
            self._store.stop()

    async def judge(self, session: Session, credentials: Credentials) -> bytes:
        """The reply. After a 235 the session has a user."""
        login = credentials.login
        if await self._brake(session.client, login):
            session.ended = True
            return reply('too-many-logins')
        session.authenticated = False
        with self._guesses.looking_at(session.client):
            trouble = await self._ask_store(session, credentials)
            objection = await _ask_plugins(session, credentials)
        if objection is not None:
            session.authenticated = False
        if session.authenticated:
            session.user = login
            self._guesses.succeeded(session.client, login, self._reactor.now())
            return reply('auth-ok')
        if objection is None and trouble:
            return reply('auth-unavailable')
        return self._refuse(session, credentials, objection)

    async def _brake(self, client: str, login: str) -> bool:
        """Wait as long as it takes; whether the client is to be sent away. Others may have failed meanwhile."""
        waited = 0.0
        while True:
            delay = self._guesses.delay(client, login, self._reactor.now())
            if delay is None or delay <= waited:
                return delay is None
            await sleep(self._reactor, delay - waited)
            waited = delay

    async def _ask_store(self, session: Session, credentials: Credentials) -> bool:
        """Whether it cannot say; else what it says is in the session."""
        if self._store is None:
            return False
        try:
            session.authenticated = await self._store.check(credentials, session.client)
        except AuthUnavailable as error:
            self._on_note(f'smtp-auth: a login from {session.client} cannot be checked: {error}')
            return True
        return False

    def _refuse(self, session: Session, credentials: Credentials, objection: Objection | None) -> bytes:
        """Wrong, or not wanted by a plugin. A temporary refusal is no guess that has failed."""
        if objection is not None and objection.answer[:1] == b'4':
            return session.refused(objection)
        self._on_note(f'{session.client}: login refused ({credentials.mechanism})')
        self._guesses.failed(session.client, credentials.login, self._reactor.now())
        session.failed_logins += 1
        if session.failed_logins >= SESSION_FAILURES:
            session.ended = True
            return reply('too-many-logins')
        return session.refused(objection) if objection is not None else session.failed(reply('auth-failed'))


async def _ask_plugins(session: Session, credentials: Credentials) -> Objection | None:
    asker = session.asker
    if asker is None or STEP not in asker.steps or not isinstance(credentials, Password):
        return None
    return await asker.ask(STEP, credentials.login, credentials.password)
