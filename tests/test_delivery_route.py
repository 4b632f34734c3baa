"""Which servers a message goes to."""

from __future__ import annotations

from typing import Any

import pytest

from mqlite.delivery.route import Exchangers, Place, Route, RouteConfig, Security, choose, ranked, sources
from mqlite.dns.message import MX
from mqlite.message.document import Document, DocumentError
from mqlite.smtp.sasl_client import Login

PLAIN = RouteConfig(None, None, ())
RELAY = Route('relay.example', 26, True, Login('us', 'secret'))
HOST = RouteConfig(None, RELAY, ())
SINK = RouteConfig(Route('sink.example', 27, True), RELAY, ())
LOGIN = {'smarthost': {'hostname': 'own', 'username': 'u', 'password': 4711}}
OWN = {'smarthost': {'hostname': 'own.example', 'port': 28}}


@pytest.mark.parametrize(('fields', 'config', 'route'), [
    ({},                                      PLAIN, Route('b.example', 25, False)),
    ({'recipient': 'r@B.Example'},            PLAIN, Route('b.example', 25, False)),
    ({'recipient': 'r@[192.0.2.1]'},          PLAIN, Route('[192.0.2.1]', 25, False)),
    ({'recipient': '"a@b"@c.example'},        PLAIN, Route('c.example', 25, False)),
    ({},                                      HOST,  RELAY),
    (OWN,                                     PLAIN, Route('own.example', 28, True)),
    (OWN,                                     HOST,  Route('own.example', 28, True)),
    ({'smarthost': {'hostname': 'own'}},      HOST,  Route('own', 25, True)),
    ({},                                      SINK,  Route('sink.example', 27, True)),
    (OWN,                                     SINK,  Route('sink.example', 27, True)),
    ({'smarthost': None},                     HOST,  RELAY),
    (LOGIN,                                   HOST,  Route('own', 25, True, Login('u', '4711'))),
    ({'smarthost': {'hostname': 'own', 'username': '', 'password': 'p'}}, HOST, Route('own', 25, True)),
    ({'requiretls': True},                    HOST,  RELAY._replace(security=Security('verified', 'relay.example'))),
    ({'requiretls': True, **OWN},             PLAIN,
     Route('own.example', 28, True, None, Security('verified', 'own.example'))),
    ({'security': 'verified'},                PLAIN,
     Route('b.example', 25, False, None, Security('verified', 'b.example'))),
    ({'security': 'required'},                PLAIN, Route('b.example', 25, False, None, Security('required'))),
    ({'security': 'opportunistic'},           HOST,  RELAY),
    ({'security': None},                      HOST,  RELAY),
])
def test_the_destination(fields: dict[str, Any], config: RouteConfig, route: Route) -> None:
    assert choose(Document({'recipient': 'r@b.example', **fields}), config) == route


@pytest.mark.parametrize(('ips', 'default', 'found'), [
    (None, (), None),
    (None, ('192.0.2.9',), ('192.0.2.9',)),
    (['192.0.2.1', '2001:DB8::1'], ('192.0.2.9',), ('192.0.2.1', '2001:db8::1')),
    ([], ('192.0.2.9',), ()),
    (['mail.example', '192.0.2.1', '', '192.0.2.1\0', '1.2.3'], ('192.0.2.9',), ('192.0.2.1',)),
    (['localhost'], (), ()),
    (['fe80::1%\0'], (), ('fe80::1',)),
    ('192.0.2.1', ('192.0.2.9',), ('192.0.2.9',)),
    (['192.0.2.1', '192.0.2.2', '192.0.2.1'], (), ('192.0.2.1', '192.0.2.2')),
])
def test_the_addresses_to_send_from(ips: object, default: tuple[str, ...], found: tuple[str, ...] | None) -> None:
    """An array that names none of our addresses fails the delivery later; what is no array counts as left out."""
    document = Document({'recipient': 'r@b.example', 'ips': ips})
    assert sources(document, RouteConfig(None, None, default), {}) == found


@pytest.mark.parametrize('fields', [
    {'recipient': None}, {'recipient': 'r'}, {'recipient': 'r@b.example\r\nDATA'}, {'recipient': ['r@b.example']},
    {'recipient': 'r@[300.1.1.1]'}, {'ips': [1]}, {'ips': ['192.0.2.1'], 'pool': 5},
    {'smarthost': 'x'}, {'smarthost': {}}, {'smarthost': {'hostname': 5}},
    {'smarthost': {'hostname': 'x', 'port': 65536}}, {'smarthost': {'hostname': 'x', 'port': 'smtp'}},
    {'requiretls': True}, {'smarthost': {'hostname': 'x', 'username': []}},
    {'smarthost': {'hostname': 'x', 'username': 'y', 'password': {}}},
])
def test_what_has_the_wrong_form(fields: dict[str, Any]) -> None:
    document = Document({'recipient': 'r@b.example', **fields})
    with pytest.raises(DocumentError):
        choose(document, PLAIN), sources(document, PLAIN, {})


@pytest.mark.parametrize(('found', 'exchangers'), [
    ([MX(10, 'a')],                                 (('a',),)),
    ([MX(10, 'b'), MX(10, 'a'), MX(20, 'c')],       (('a', 'b'), ('c',))),
    ([MX(5, 'c'), MX(1, 'a'), MX(1, 'b')],          (('a', 'b'), ('c',))),
    ([MX(20, 'a'), MX(10, 'a'), MX(20, 'b')],       (('a',), ('b',))),
    ([],                                            ()),
])
def test_the_exchangers_of_a_domain(found: list[MX], exchangers: Exchangers) -> None:
    """Domains at one provider give the same, in whatever order and with whatever numbers they name its servers."""
    assert ranked(found) == ranked(reversed(found)) == exchangers


def test_its_name() -> None:
    assert str(Place((('mx.example',),), 25, None)) == 'mx.example port 25'
    assert str(Place((('a', 'b'), ('c',)), 26, '192.0.2.1')) == 'a and 2 more port 26 from 192.0.2.1'
    assert 'secret' not in repr(Place((('a',),), 25, None, Login('us', 'secret')))
