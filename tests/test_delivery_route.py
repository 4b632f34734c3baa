"""Which servers a message goes to."""

from __future__ import annotations

from typing import Any

import pytest

from mqlite.delivery.route import Route, RouteConfig, choose, find_hosts
from mqlite.dns.message import MX
from mqlite.loop.clock import VirtualClock
from mqlite.loop.reactor import Reactor
from mqlite.message.document import Document, DocumentError

PLAIN = RouteConfig(None, None, ())
HOST = RouteConfig(None, ('relay.example', 26), ())
SINK = RouteConfig(('sink.example', 27), ('relay.example', 26), ())
OWN = {'smarthost': {'hostname': 'own.example', 'port': 28}}


@pytest.mark.parametrize(('fields', 'config', 'route'), [
    ({},                                      PLAIN, Route('b.example', 25, False, None)),
    ({'recipient': 'r@B.Example'},            PLAIN, Route('b.example', 25, False, None)),
    ({'recipient': 'r@[192.0.2.1]'},          PLAIN, Route('[192.0.2.1]', 25, False, None)),
    ({'recipient': '"a@b"@c.example'},        PLAIN, Route('c.example', 25, False, None)),
    ({},                                      HOST,  Route('relay.example', 26, True, None)),
    (OWN,                                     PLAIN, Route('own.example', 28, True, None)),
    (OWN,                                     HOST,  Route('own.example', 28, True, None)),
    ({'smarthost': {'hostname': 'own'}},      HOST,  Route('own', 25, True, None)),
    ({},                                      SINK,  Route('sink.example', 27, True, None)),
    (OWN,                                     SINK,  Route('sink.example', 27, True, None)),
    ({'smarthost': None},                     HOST,  Route('relay.example', 26, True, None)),
])
def test_the_destination(fields: dict[str, Any], config: RouteConfig, route: Route) -> None:
    assert choose(Document({'recipient': 'r@b.example', **fields}), config) == route


@pytest.mark.parametrize(('ips', 'default', 'sources'), [
    (None, (), None),
    (None, ('192.0.2.9',), ('192.0.2.9',)),
    (['192.0.2.1', '2001:DB8::1'], ('192.0.2.9',), ('192.0.2.1', '2001:db8::1')),
    ([], ('192.0.2.9',), ()),
    (['mail.example', '192.0.2.1', '', '192.0.2.1\0', '1.2.3'], ('192.0.2.9',), ('192.0.2.1',)),
    (['localhost'], (), ()),
    (['fe80::1%\0'], (), ('fe80::1',)),
    ('192.0.2.1', ('192.0.2.9',), ('192.0.2.9',)),
])
def test_the_addresses_to_send_from(ips: object, default: tuple[str, ...], sources: tuple[str, ...] | None) -> None:
    """An array that names none of our addresses fails the delivery later; what is no array counts as left out."""
    document = Document({'recipient': 'r@b.example', 'ips': ips})
    assert choose(document, RouteConfig(None, None, default)).sources == sources


@pytest.mark.parametrize('fields', [
    {'recipient': None}, {'recipient': 'r'}, {'recipient': 'r@b.example\r\nDATA'}, {'recipient': ['r@b.example']},
    {'recipient': 'r@[300.1.1.1]'}, {'ips': [1]}, {'smarthost': 'x'}, {'smarthost': {}}, {'smarthost': {'hostname': 5}},
    {'smarthost': {'hostname': 'x', 'port': 65536}}, {'smarthost': {'hostname': 'x', 'port': 'smtp'}},
])
def test_what_has_the_wrong_form(fields: dict[str, Any]) -> None:
    with pytest.raises(DocumentError):
        choose(Document({'recipient': 'r@b.example', **fields}), PLAIN)


class Names:
    async def mail_exchangers(self, domain: str) -> list[MX]:
        return [MX(number, f'mx{number}.{domain}') for number in range(12)]


@pytest.mark.parametrize(('route', 'hosts'), [
    (Route('relay.example', 26, True, None), ['relay.example']),
    (Route('b.example', 25, False, None), [f'mx{number}.b.example' for number in range(10)]),
])
def test_the_servers_to_try(route: Route, hosts: list[str]) -> None:
    reactor = Reactor(VirtualClock())
    assert reactor.run(find_hosts(route, Names())) == hosts  # type: ignore[arg-type]
    reactor.close()


def test_its_name() -> None:
    assert str(Route('b.example', 25, False, None)) == 'b.example'
    assert str(Route('relay.example', 26, True, None)) == 'relay.example port 26'
