"""amqp:// addresses: the examples of RabbitMQ's specification, MailerQ's lists, and every way to get one wrong."""

from __future__ import annotations

from typing import Any

import pytest

from mqlite.amqp.uri import Address, parse_addresses
from mqlite.errors import ConfigError

EXAMPLES: list[tuple[str, dict[str, Any]]] = [
    # appendix A of the specification
    ('amqp://user:pass@host:10000/vhost', {'user': 'user', 'password': 'pass', 'host': 'host', 'port': 10000,
                                           'vhost': 'vhost'}),
    ('amqp://user%61:%61pass@ho%61st:10000/v%2fhost', {'user': 'usera', 'password': 'apass', 'host': 'hoast',
                                                       'port': 10000, 'vhost': 'v/host'}),
    ('amqp://',                             {}),
    ('amqp://:@/',                          {'user': '', 'password': ''}),
    ('amqp://user@',                        {'user': 'user', 'password': ''}),
    ('amqp://user:pass@',                   {'user': 'user', 'password': 'pass'}),
    ('amqp://host',                         {'host': 'host'}),
    ('amqp://:10000',                       {'port': 10000}),
    ('amqp:///vhost',                       {'vhost': 'vhost'}),
    ('amqp://host/',                        {'host': 'host'}),
    ('amqp://host/%2f',                     {'host': 'host', 'vhost': '/'}),
    ('amqp://host/%2F%2fmail',              {'host': 'host', 'vhost': '//mail'}),
    ('amqp://[::1]',                        {'host': '::1'}),
    # MailerQ's default and its forms
    ('amqp://guest:guest@localhost/',       {}),
    ('  amqp://guest:guest@localhost/  ',   {}),
    ('AMQPS://host',                        {'host': 'host', 'tls': True, 'port': 5671}),
    # hosts
    ('amqps://[2001:db8::1]:5000/a',        {'host': '2001:db8::1', 'port': 5000, 'tls': True, 'vhost': 'a'}),
    ('amqp://[fe80::1%25eth0]',             {'host': 'fe80::1%eth0'}),
    ('amqp://host:',                        {'host': 'host'}),
    ('amqp://host?heartbeat=0',             {'host': 'host', 'heartbeat': 0}),
    # escapes
    ('amqp://u%40x:p%3A%2F%3f%25%C3%A9@host', {'user': 'u@x', 'password': 'p:/?%é', 'host': 'host'}),
    ('amqp://u:a:b@host',                   {'user': 'u', 'password': 'a:b', 'host': 'host'}),
    ('amqp://u:a,b;c@host',                 {'user': 'u', 'password': 'a,b;c', 'host': 'host'}),
    ('amqp://u:a+b@host/c+d',               {'user': 'u', 'password': 'a+b', 'host': 'host', 'vhost': 'c+d'}),
    # parameters
    ('amqp://h/v?heartbeat=5&connection_timeout=10000&channel_max=100&frame_max=8192',
     {'host': 'h', 'vhost': 'v', 'heartbeat': 5, 'connect_timeout': 10.0, 'channel_max': 100, 'frame_max': 8192}),
    ('amqp://h?auth_mechanism=external',    {'host': 'h', 'mechanisms': ('EXTERNAL',)}),
    ('amqp://h?auth_mechanism=AMQPLAIN&auth_mechanism=plain', {'host': 'h', 'mechanisms': ('AMQPLAIN', 'PLAIN')}),
    ('amqps://h?cacertfile=/a%20b/ca.pem&certfile=c.pem&keyfile=k.pem&verify=verify_peer&server_name_indication=n',
     {'host': 'h', 'tls': True, 'port': 5671, 'cacertfile': '/a b/ca.pem', 'certfile': 'c.pem', 'keyfile': 'k.pem',
      'verify': True, 'server_name': 'n'}),
    ('amqps://h?verify=verify_none',        {'host': 'h', 'tls': True, 'port': 5671, 'verify': False}),
    ('amqp://h/v?',                         {'host': 'h', 'vhost': 'v'}),
]


@pytest.mark.parametrize(('text', 'fields'), EXAMPLES)
def test_one_address(text: str, fields: dict[str, Any]) -> None:
    assert parse_addresses(text) == [Address()._replace(**fields)]


@pytest.mark.parametrize(('text', 'places'), [
    ('amqp://u:p@host1;host2;host3/v',                      [('host1', 5672), ('host2', 5672), ('host3', 5672)]),
    ('amqp://u:p@host1,host2:7,[::1]:8/v',                  [('host1', 5672), ('host2', 7), ('::1', 8)]),
    ('amqp://u:p@host1 ; host2/v',                          [('host1', 5672), ('host2', 5672)]),
    ('amqp://u:p@host1/v,amqp://u:p@host2/v , amqp://u:p@host3/v', [('host1', 5672), ('host2', 5672), ('host3', 5672)]),
    ('amqp://u:p@host1/v;amqp://u:p@host2;host3/v',         [('host1', 5672), ('host2', 5672), ('host3', 5672)]),
])
def test_several(text: str, places: list[tuple[str, int]]) -> None:
    assert parse_addresses(text) == [Address(host, port, user='u', password='p', vhost='v') for host, port in places]


def test_parameters_count_for_their_own_address() -> None:
    first, second = parse_addresses('amqp://a?heartbeat=5,amqps://b/v?verify=verify_none')
    assert (first.host, first.heartbeat, second.heartbeat, second.verify) == ('a', 5, None, False)


SECRET = 's3cret'


@pytest.mark.parametrize(('text', 'said'), [
    ('',                                        'must look like'),
    ('s3cret',                                  'must look like'),
    ('u:s3cret@host',                           'must look like'),
    ('http://u:s3cret@host',                    'must look like'),
    ('amqp:/u:s3cret@host',                     'must look like'),
    ('amqp://u:s3cret@host#s3cret',             'must look like'),
    ('amqp://u:s3cret@host/a/b',                'must be written %2f'),
    ('amqp://u:s3cret@host//',                  'must be written %2f'),
    ('amqp://u:/s3cret@host',                   'percent-encoded'),
    ('amqp://u:s3cret?x@host',                  'percent-encoded'),
    ('amqp://u:a/s3cret@host',                  'percent-encoded'),
    ('amqp://u:a@s3cret@host',                  '%40'),
    ('amqp://u:s3cret%@host',                   'must be written %25'),
    ('amqp://u:s3cret%4@host',                  'must be written %25'),
    ('amqp://u:s3cret%ff@host',                 'not UTF-8'),
    ('amqp://u:s3cret%00@host',                 '%00'),
    ('amqp://u:s3cret@host:0',                  'from 1 to 65535'),
    ('amqp://u:s3cret@host:65536',              'from 1 to 65535'),
    ('amqp://u:s3cret@host:123456',             'a host must look like'),
    ('amqp://u:s3cret@host:http',               'a host must look like'),
    ('amqp://u:s3cret@::1',                     'a host must look like'),
    ('amqp://u:s3cret@[::1',                    'a host must look like'),
    ('amqp://u:s3cret@[host]',                  'a host must look like'),
    ('amqp://u:s3cret@a b',                     'a host must look like'),
    ('amqp://u:s3cret@a;;b',                    'an empty name'),
    ('amqp://u:s3cret@a,',                      'an empty name'),
    ('amqp://u:s3cret@h/' + 'v' * 256,          'longer than 255'),
    ('amqp://u:s3cret@h?s3cret=1',              'there are only'),
    ('amqp://u:s3cret@h?heartbeat=1&',          'there are only'),
    ('amqp://u:s3cret@h?heartbeat=s3cret',      'heartbeat takes a whole number from 0 to 65535'),
    ('amqp://u:s3cret@h?heartbeat=65536',       'heartbeat takes'),
    ('amqp://u:s3cret@h?heartbeat=-1',          'heartbeat takes'),
    ('amqp://u:s3cret@h?heartbeat=\u0661',      'heartbeat takes'),
    ('amqp://u:s3cret@h?connection_timeout=0',  'connection_timeout takes'),
    ('amqp://u:s3cret@h?frame_max=4095',        'frame_max takes'),
    ('amqp://u:s3cret@h?auth_mechanism=s3cret', 'auth_mechanism takes plain, amqplain, external'),
    ('amqp://u:s3cret@h?verify=verify_peer',    'only for amqps://'),
    ('amqps://u:s3cret@h?verify=yes',           'verify takes verify_peer or verify_none'),
    ('amqps://u:s3cret@h?cacertfile=',          'cacertfile takes a value'),
    ('amqps://u:s3cret@h?cacertfile=%zz',       'must be written %25'),
    ('amqp://ok,amqp://u:s3cret@h:x',           'AMQP address 2:'),
])
def test_bad_addresses_are_explained_without_the_password(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_addresses(text)
    message = str(caught.value)
    assert said in message and SECRET not in message and message.startswith('AMQP address ')
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


@pytest.mark.parametrize(('address', 'shown'), [
    (Address(password=SECRET),                                  'amqp://guest@localhost:5672/%2f'),
    (Address('::1', 7, True, 'u', SECRET, 'mail'),              'amqps://u@[::1]:7/mail'),
])
def test_an_address_shows_no_password(address: Address, shown: str) -> None:
    assert str(address) == repr(address) == f'{address}' == shown
