"""Which servers a message goes to.

    smtp-sink-address set          that one server, for everything (a trial run)
    the document's `smarthost`     that server
    smarthost set                  that server
    otherwise                      the recipient domain's mail exchangers, or the literal's address

A Route names the destination: messages of one route wait together and share connections. Finding the servers' numeric
addresses is asked of the resolver when a connection is opened, not before.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from mqlite.dns.resolver import Resolver
from mqlite.message.document import Document

SMTP_PORT = 25
_EXCHANGERS = 10  # tried per attempt; more is a zone that wastes our time


@dataclass(frozen=True)
class Route:
    """A destination. `fixed`: `host` is the server; otherwise it is a domain whose exchangers are asked for."""

    host: str
    port: int
    fixed: bool
    sources: tuple[str, ...] | None  # local addresses to send from; None: the kernel chooses

    def __str__(self) -> str:
        return f'{self.host} port {self.port}' if self.fixed else self.host


@dataclass(frozen=True)
class RouteConfig:
    """The settings that decide routes."""

    sink: tuple[str, int] | None
    smarthost: tuple[str, int] | None
    sources: tuple[str, ...]  # for documents without `ips`; empty: the kernel chooses


def choose(document: Document, config: RouteConfig) -> Route:
    """The route of a document. DocumentError when what it asks for has the wrong form."""
    ips = document.ips
    sources = (config.sources or None) if ips is None else _numeric(ips)
    own = document.smarthost
    if config.sink is not None:
        return Route(config.sink[0], config.sink[1], True, sources)
    if own is not None:
        return Route(own.hostname, own.port, True, sources)
    if config.smarthost is not None:
        return Route(config.smarthost[0], config.smarthost[1], True, sources)
    return Route(document.domain, SMTP_PORT, False, sources)


def _numeric(ips: list[str]) -> tuple[str, ...]:
    """Without what is no address: no local address can be called that, and binding to a name would look it up."""
    found = []
    for text in ips:
        with suppress(ValueError):
            found.append(str(ip_address(text.partition('%')[0])))  # a zone can be any text, and a NUL in it
    return tuple(found)


async def find_hosts(route: Route, resolver: Resolver) -> list[str]:
    """The servers of a route, in the order in which to try them. DnsPermanent or DnsTemporary when there is none."""
    if route.fixed:
        return [route.host]
    return [exchanger.host for exchanger in await resolver.mail_exchangers(route.host)][:_EXCHANGERS]
