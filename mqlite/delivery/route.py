"""Which servers a message goes to.

    smtp-sink-address set          that one server, for everything (a trial run)
    the document's `smarthost`     that server
    smarthost set                  that server
    otherwise                      the recipient domain's mail exchangers, or the literal's address

A Route is what a message asks for; a Place is what that turns out to be, once the exchangers of the domain are known:
messages of one Place wait together and share connections. Finding the servers' numeric addresses is asked of the
resolver when a connection is opened, not before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Callable, NamedTuple

from mqlite.dns.message import MX
from mqlite.message.document import Document, DocumentError
from mqlite.smtp.sasl_client import Login

SMTP_PORT = 25

Exchangers = tuple[tuple[str, ...], ...]  # the best ones first; those of one preference together, by name


class Security(NamedTuple):
    """How the connection must be protected; the levels are in `protection.py`."""

    level: str
    domain: str = ''  # verified: whose server it must be


OPPORTUNISTIC = Security('opportunistic')


class Route(NamedTuple):
    """What a message asks for. `fixed`: `host` is the server; otherwise it is a domain whose exchangers are asked for.
    """

    host: str
    port: int
    fixed: bool
    login: Login | None = None  # who we are to the server
    security: Security = OPPORTUNISTIC

    def place(self, exchangers: Exchangers) -> Place:
        """The destination of this route, from any of our addresses."""
        return Place(exchangers, self.port, None, self.login, self.security)


class Place(NamedTuple):
    """A destination."""

    exchangers: Exchangers
    port: int
    source: str | None  # local address to send from; None: the kernel chooses
    login: Login | None = None  # of the route
    security: Security = OPPORTUNISTIC  # of the route

    @property
    def bare(self) -> Place:
        """What the servers see of it."""
        return self._replace(login=None, security=OPPORTUNISTIC)

    def __str__(self) -> str:
        names = [host for group in self.exchangers for host in group]
        more = f' and {len(names) - 1} more' if len(names) > 1 else ''
        return f'{names[0]}{more} port {self.port}' + (f' from {self.source}' if self.source else '')


@dataclass(frozen=True)
class RouteConfig:
    """The settings that decide routes."""

    sink: Route | None
    smarthost: Route | None
    sources: tuple[str, ...]  # for documents that name none; empty: the kernel chooses
    is_mappable: Callable[[str], bool] | None = None  # whether what is received on an address is sent from it, too


def choose(document: Document, config: RouteConfig) -> Route:
    """The route of a document. DocumentError when what it asks for has the wrong form."""
    route = _choose(document, config)
    level = document.security
    if level == OPPORTUNISTIC.level:
        return route
    return route._replace(security=Security(level, route.host if level == 'verified' else ''))


def _choose(document: Document, config: RouteConfig) -> Route:
    own = document.smarthost
    if config.sink is not None:
        return config.sink
    if own is not None:
        return Route(own.hostname, own.port, True, own.login)
    if config.smarthost is not None:
        return config.smarthost
    if document.requires_tls:
        raise DocumentError('"requiretls": the name system does not prove which servers take mail for a domain (RFC '
                            '8689 4.2.1); such a message can go to a smarthost only')
    return Route(document.domain, SMTP_PORT, False)


def sources(document: Document, config: RouteConfig, pools: Mapping[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """The local addresses that a document may be sent from; None: the kernel chooses. DocumentError.

    `ips` of the document; its `pool`; the address that it was received on, if that is mappable; smtp-default-ips.
    """
    ips, pool = document.ips, document.pool  # the pool, too: pauses ask for it when nobody can be told that it is wrong
    if ips is not None:
        # What is no address is passed over: no local address can be called that.
        return tuple(dict.fromkeys(address for address in map(numeric, ips) if address))
    if pool:
        return pools.get(pool, ())
    if config.is_mappable is not None:
        address = numeric(document.received_on)
        if address and config.is_mappable(address):
            return (address,)
    return config.sources or None


def ranked(found: Iterable[MX]) -> Exchangers:
    """The exchangers of a domain, whatever numbers it gives them: 1 and 5 are the same as 10 and 20."""
    best: dict[str, int] = {}
    for mx in found:
        best[mx.host] = min(mx.preference, best.get(mx.host, mx.preference))
    groups: dict[int, list[str]] = {}
    for host, preference in best.items():
        groups.setdefault(preference, []).append(host)
    return tuple(tuple(sorted(hosts)) for _, hosts in sorted(groups.items()))


def numeric(text: str) -> str:
    """The address that the text is, in its usual form; '' when it is none."""
    try:
        return str(ip_address(text.strip().strip('[]').partition('%')[0]))  # a zone can be any text, and a NUL in it
    except ValueError:
        return ''
