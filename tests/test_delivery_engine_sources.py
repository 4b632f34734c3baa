"""From which local address the engine delivers, and under which name."""

from __future__ import annotations

from typing import Any

import pytest

from mqlite.delivery.controls import Controls, read_names
from mqlite.loop import connect
from tests.support import engine
from tests.support.database import row as database_row
from tests.support.engine import Bench, Make
from tests.support.exchanger import DROP, Exchanger
from tests.support.process import HOST

bench, make = engine.bench, engine.make  # fixtures


@pytest.mark.parametrize(('ips', 'state', 'result', 'sources'), [
    (['127.0.0.4'],                             'message', 'accepted', {'127.0.0.4'}),
    (['127.0.0.4', '127.0.0.5'],                'message', 'accepted', {'127.0.0.4', '127.0.0.5'}),
    (['192.0.2.77', '127.0.0.4', '::1'],        'message', 'accepted', {'127.0.0.4'}),
    (['localhost', '127.0.0.4'],                'message', 'accepted', {'127.0.0.4'}),
    ('not an array',                            'message', 'accepted', {'127.0.0.6'}),
    (None,                                      'message', 'accepted', {'127.0.0.6'}),
    (['192.0.2.77', '192.0.2.78'],              'bind',    'error',    {None}),
    ([],                                        'bind',    'error',    {None}),
    (['localhost'],                             'bind',    'error',    {None}),
    (['::1'],                                   'process', 'error',    {None}),
])
def test_ips(make: Make, ips: object, state: str, result: str, sources: set[str | None]) -> None:
    """They take turns, those that are not ours are passed over, and when none is left the delivery has failed."""
    bench = make(sources=('127.0.0.6',))
    bench.exchanger.script['.'] = b'250 kept' + DROP  # so that each message has a connection of its own
    for _ in range(4):
        bench.publish(ips=ips)
        bench.run()
    entries = [document['results'][-1] for document in bench.take('results')]
    assert [(entry['state'], entry['result']) for entry in entries] == [(state, result)] * 4
    assert {entry.get('from') for entry in entries} == sources


@pytest.mark.parametrize(('fields', 'state', 'source'), [
    ({'pool': 'news'},                                               'message', '127.0.0.4'),
    ({'pool': 'news', 'ips': ['127.0.0.5']},                         'message', '127.0.0.5'),
    ({'pool': 'unknown'},                                            'bind',    None),
    ({'pool': 5},                                                    'process', None),
    ({'connection': {'local-ip': '127.0.0.7'}},                      'message', '127.0.0.7'),
    ({'connection': {'local-ip': '127.0.0.8'}},                      'message', '127.0.0.6'),
    ({'connection': {'local-ip': '127.0.0.7'}, 'pool': 'news'},      'message', '127.0.0.4'),
    ({'connection': {'local-ip': 'x'}},                              'message', '127.0.0.6'),
    ({'connection': 7},                                              'message', '127.0.0.6'),
])
def test_pools_and_addresses_that_mail_came_in_on(make: Make, fields: dict[str, Any], state: str,
                                                  source: str | None) -> None:
    controls = Controls()
    controls.pools = {'news': ('127.0.0.4',)}
    bench = make(sources=('127.0.0.6',), controls=controls, is_mappable=lambda address: address == '127.0.0.7')
    bench.publish(fields)
    bench.run()
    assert bench.last('state', 'from') == (state, source)


def test_the_name_of_a_local_address(make: Make) -> None:
    controls = Controls()
    controls.names = read_names([database_row('mtanames', ip='127.0.0.4', name='four.example'),
                                 database_row('mtanames', ip='127.0.0.5', name='no name\r\nQUIT')]).items
    bench = make(controls=controls)
    for address in ('127.0.0.4', '127.0.0.5'):
        bench.publish(ips=[address])
        bench.run()
    assert [line for line in bench.exchanger.commands if line.startswith(b'EHLO')] == [
        b'EHLO four.example', b'EHLO me.example']


def test_the_other_family_is_not_held_against_a_server(bench: Bench) -> None:
    bench.publish(recipient='r@six.example', ips=['127.0.0.4'])
    bench.run()
    assert bench.last('state', 'from', 'to') == ('message', '127.0.0.4', HOST)


@pytest.mark.parametrize('ips', [['127.0.0.4'], ['127.0.0.4', '127.0.0.5']])
def test_a_family_that_the_name_system_hides_is_no_verdict(bench: Bench, ips: list[str]) -> None:
    bench.publish(recipient='r@hidden.example', ips=ips)
    bench.run(20.0)
    entry = bench.final('retry')['results'][-1]
    assert (entry['state'], entry['result']) == ('dns', 'timeout') and 'SERVFAIL' in entry['description']
    assert bench.counts() == {'outbox': 1}


def test_no_free_port_is_no_verdict(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local address that is ours, but cannot be used now."""
    listener = Exchanger(bench.reactor, address='127.0.0.4', port=bench.exchanger.port)

    def bind(sock: Any, source: str) -> None:
        try:
            sock.bind((source, listener.port))  # in use
        except OSError as error:
            raise connect.CannotBind('cannot send') from error

    monkeypatch.setattr(connect, '_bind', bind)
    bench.publish(ips=['127.0.0.4'])
    bench.run()
    listener.close()
    assert bench.final('retry')['results'][-1]['state'] == 'bind' and bench.counts() == {'outbox': 1}
