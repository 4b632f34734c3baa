"""What every store of logins is, and the one error that all of them share."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from mqlite.errors import TemporaryError
from mqlite.smtp.sasl import Credentials


class AuthUnavailable(TemporaryError):
    """Nobody can say now whether the credentials are right: 454 for the client, the text for the operator's log."""


class Authenticator(Protocol):
    """A store of logins."""

    @property
    def mechanisms(self) -> Sequence[str]:
        """Those that it can check: what EHLO may offer."""

    def check(self, credentials: Credentials, client: str) -> Coroutine[Any, Any, bool]:
        """Awaitable: whether they are right; `client` is the numeric address that they came from. AuthUnavailable."""

    def stop(self) -> None:
        """End its threads; nothing is checked after this."""
