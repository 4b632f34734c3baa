"""Which TLS a connection gets, by the level of security that its messages ask for.

    level          STARTTLS                 when it fails                          the certificate
    optional       no                       -                                      -
    opportunistic  if the server has it     once more in clear, and no TLS with    anybody's (RFC 7435)
                                            this server for BROKEN_SECONDS
    required       yes, or no delivery      tried again later, with TLS            anybody's
    verified       yes, or no delivery      tried again later, with TLS            for the domain, or a host within it

A message in clear is what would have been sent to a server without TLS; where TLS is required, whoever breaks it on the
way gets nothing. That a name system without proofs has named a server proves nothing, so a verified one must show a
certificate for the recipient's own domain (or for the smarthost, when that was named).
"""

from __future__ import annotations

from mqlite.delivery.route import OPPORTUNISTIC, Security
from mqlite.delivery.standing import Lately
from mqlite.loop.clock import Clock
from mqlite.loop.tls import TlsContext

BROKEN_SECONDS = 3600.0  # for which a server whose TLS did not work is spared it
_STRICT = ('required', 'verified')


class Protection:
    """For one reactor."""

    def __init__(self, clock: Clock, anybody: TlsContext, verifying: TlsContext) -> None:
        """The contexts for servers that may be anybody, and for those that must prove who they are."""
        self._clock = clock
        self._anybody = anybody
        self._verifying = verifying
        self._broken = Lately[tuple[str, int]](BROKEN_SECONDS)  # servers

    def context(self, security: Security, server: tuple[str, int]) -> TlsContext | None:
        """For TLS with the server at this address and port; None for a connection in clear."""
        if security.level == 'verified':
            return self._verifying
        spared = security == OPPORTUNISTIC and self._broken.holds(server, self._clock.monotonic())
        return None if security.level == 'optional' or spared else self._anybody

    def note_broken(self, server: tuple[str, int]) -> None:
        self._broken.note(server, self._clock.monotonic())


def is_strict(security: Security) -> bool:
    """Nothing may go in clear."""
    return security.level in _STRICT


def certified_name(security: Security, host: str) -> str:
    """The name to ask the server for, which a certificate that is verified must have."""
    domain = security.domain
    return host if not domain or host == domain or host.endswith('.' + domain) else domain
