"""What the operator orders, kept to by the engine: pauses, errors, limits, floods and patterns of responses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mqlite.delivery.capacity import Limits
from mqlite.delivery.controls import Controls
from mqlite.delivery.flood import read_floods
from mqlite.delivery.forced import read_errors
from mqlite.delivery.pauses import SHORTEST_HOLD, read_pauses
from mqlite.delivery.route import Place
from mqlite.queues.contract import Message
from mqlite.smtp.client import ClientSession
from tests.support import engine
from tests.support.database import execute, insert, make_database
from tests.support.database import row as database_row
from tests.support.engine import SECOND, Make
from tests.support.exchanger import SILENCE, Exchanger
from tests.support.process import HOST

bench, make = engine.bench, engine.make  # fixtures


def test_the_address_of_a_server_on_pause(make: Make) -> None:
    """Another server of the domain is used; where there is none, its messages wait on the outbox."""
    controls = Controls()
    controls.pauses = read_pauses([database_row('paused', target=HOST)]).items
    bench = make(controls=controls)
    second = Exchanger(bench.reactor, address=SECOND, port=bench.exchanger.port)
    bench.publish(recipient='r@two.example')
    bench.publish(recipient='r@one.example')
    bench.run(5)
    assert bench.exchanger.commands == [] and second.recipients == ['r@two.example']
    assert bench.counts() == {'outbox': 1, 'results': 1, 'success': 1}
    controls.pauses = read_pauses([]).items
    bench.run(SHORTEST_HOLD)
    assert bench.exchanger.recipients == ['r@one.example']
    controls.pauses = read_pauses([database_row('paused', target=HOST)]).items
    controls.on_intercepts()
    bench.publish(recipient='r@one.example')
    bench.run(2)
    assert len(bench.exchanger.messages) == 1 and bench.exchanger.open == 0, 'connections are not used any more'
    second.close()


def test_what_may_have_been_sent_is_marked_also_after_a_pause(make: Make) -> None:
    controls = Controls()
    controls.pauses = read_pauses([database_row('paused')]).items
    bench = make(controls=controls)
    body = json.dumps({'recipient': 'r@one.example', 'mime': 'x'}).encode()
    bench.store.publish([Message('outbox', body, lost=1)])
    bench.run(5)
    assert bench.counts() == {'outbox': 1}
    controls.pauses = read_pauses([]).items
    bench.run(SHORTEST_HOLD)
    assert bench.last('result', 'redelivered') == ('accepted', True)


def test_the_address_of_a_server_that_is_to_fail(make: Make) -> None:
    """Another server of the domain is used; where there is none, its messages fail, all of them at once. A local
    address that may not go there is no reason for another one not to."""
    controls = Controls()
    controls.errors = read_errors([database_row('errors', target=HOST, code=554, extended='5.7.1')]).items
    bench = make(controls=controls)
    second = Exchanger(bench.reactor, address=SECOND, port=bench.exchanger.port)
    for recipient in ('r@two.example', 'r@one.example', 's@one.example'):
        bench.publish(recipient=recipient)
    bench.run(5)
    bench.publish(recipient='t@one.example')
    bench.run(1)
    assert bench.exchanger.commands == [] and second.recipients == ['r@two.example']
    assert bench.counts() == {'results': 4, 'success': 1, 'failure': 3}
    last = [document['results'][-1] for document in bench.take('failure')]
    assert {(entry['state'], entry['code'], entry['status']) for entry in last} == {('process', 554, '5.7.1')}
    controls.errors = read_errors([database_row('errors', target=HOST, localip='127.0.0.4')]).items
    bench.publish(recipient='r@one.example', ips=['127.0.0.4', '127.0.0.5'])
    bench.publish(recipient='s@one.example', ips=['127.0.0.4'])
    bench.run(5)
    assert bench.exchanger.recipients == ['r@one.example'] and bench.counts() == {
        'results': 6, 'success': 2, 'failure': 1}
    controls.errors = read_errors([database_row('errors', target=HOST)]).items
    controls.on_intercepts()
    bench.run(2)
    assert bench.exchanger.open == 0, 'connections are not used any more'
    second.close()


@pytest.mark.parametrize(('domain', 'at_second'), [('equal.example', 1), ('two.example', 0)])
def test_the_limits_of_the_address_of_a_server(make: Make, domain: str, at_second: int) -> None:
    """Equal servers share. One of a worse preference gets nothing because the better one may not have more, but when
    that is down it does."""
    controls = Controls()
    controls.limits = Limits([database_row('capacity', ip_maxconnections=1)])
    bench = make(controls=controls)
    second = Exchanger(bench.reactor, address=SECOND, port=bench.exchanger.port)
    for exchanger in (bench.exchanger, second):
        exchanger.script['RCPT'] = [SILENCE]
    for number in range(4):
        bench.publish(recipient=f'{number}@{domain}')
    bench.run(10)
    assert (bench.exchanger.open, second.open) == (1, at_second)
    bench.run(1000)
    assert (bench.exchanger.most_open, second.most_open) == (1, at_second)
    assert len(bench.exchanger.messages + second.messages) == 4
    bench.exchanger.refuse_connections()
    second.script.clear()
    bench.publish(recipient=f'4@{domain}')
    bench.run(5)
    assert second.recipients[-1] == f'4@{domain}'
    second.close()


def test_an_attempt_that_was_made_counts(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two equal servers is down, and the other one has had its messages of the minute."""
    controls = Controls()
    controls.limits = Limits([database_row('capacity', domain_maxconnects=1, ip_maxmessages=20)])
    bench = make(controls=controls)
    bench.exchanger.refuse_connections()
    second, tried = Exchanger(bench.reactor, address=SECOND, port=bench.exchanger.port), []
    open_at = bench.dialler._open_at

    async def note(place: Place, domain: str, host: str, address: str) -> ClientSession:
        tried.append(address)
        return await open_at(place, domain, host, address)

    monkeypatch.setattr(bench.dialler, '_open_at', note)
    for number in range(100):
        bench.publish(recipient=f'{number}@equal.example')
    bench.run(240)
    assert 1 < len(tried) <= 6 and 5 < len(second.recipients) <= 81
    second.close()


def test_a_flood_response(make: Make) -> None:
    """In the conversation, and in place of a greeting."""
    controls = Controls()
    rows = [database_row('flood_responses', pattern='^4.. 4[.]7[.]0 ', type='regex', pause=60)]
    controls.floods = read_floods(rows).items
    bench = make(controls=controls)
    begin = bench.clock.time()
    bench.exchanger.script['RCPT'] = [b'450 4.7.0 rate limited']
    bench.publish(recipient='r@one.example')
    bench.run(5)
    bench.publish(recipient='s@one.example')
    bench.run(50)
    assert len(bench.exchanger.clients) == 1 and bench.exchanger.open == 0 and bench.exchanger.messages == []
    bench.run(10)
    assert bench.moments(bench.final(), begin)[0] in (60, 61)
    bench.exchanger.script['CONNECT'] = [b'421 4.7.0 too many']
    bench.run(6)  # until the connection is not kept any more
    bench.publish(recipient='t@one.example')
    bench.run(5)
    bench.publish(recipient='u@one.example')
    bench.run(50)
    assert len(bench.exchanger.clients) == 3 and bench.exchanger.recipients == ['s@one.example']
    bench.run(10)
    assert bench.exchanger.recipients == ['s@one.example', 'u@one.example']


def test_an_answer_that_is_to_be_taken_otherwise(make: Make, tmp_path: Path) -> None:
    """A 550 that means no more than 450: tried again when the rule says so, and from another address."""
    path = str(tmp_path / 'database.db')
    make_database(path).close()
    orders = [('retry', '', 90), ('setresult', 'class', 'reputation'), ('setip', '', SECOND)]
    execute(path, insert('response_patterns', id=1, pattern='reputation', type='substr', domain='one.example'),
            *(insert('response_actions', id=number, action=kind, property=name, value=value)
              for number, (kind, name, value) in enumerate(orders, 1)),
            *(insert('response_patterns_actions', response_pattern=1, response_action=number) for number in (1, 2, 3)))
    bench = make(orders=path)
    bench.exchanger.script['RCPT'] = [b'550 5.7.1 bad reputation']
    begin = bench.clock.time()
    bench.publish()
    bench.run(100)
    document = bench.final()
    first, last = document['results']
    assert bench.moments(document, begin) == [0, 90]
    assert (first['class'], first['code'], 'class' in last, last['result']) == ('reputation', 550, False, 'accepted')
    assert document['ips'] == [SECOND] and last['from'] == SECOND
