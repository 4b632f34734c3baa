"""When the engine tries again and when it gives up: intervals, attempts, delivery times."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import engine
from tests.support.engine import Bench, Make, in_seconds, parse
from tests.support.exchanger import DROP, SILENCE

bench, make = engine.bench, engine.make  # fixtures


@pytest.mark.parametrize(('fields', 'moments'), [
    ({},                              [0, 600, 1200, 3000, 4800, 8400, 12000, 19200, 26400]),
    ({'retries': [5, 10]},            [0, 5, 15, 25, 35, 45, 55, 65, 75]),
    ({'retries': ['60']},             [0, 60, 120, 180, 240, 300, 360, 420, 480]),
])
def test_retries(bench: Bench, fields: dict[str, Any], moments: list[int]) -> None:
    bench.exchanger.script['RCPT'] = [b'450 4.2.1 greylisted'] * 8
    begin = bench.clock.time()
    bench.publish(fields, custom='kept')
    bench.run(27000)
    document = bench.final()
    assert bench.moments(document, begin) == moments
    assert [entry['result'] for entry in document['results']] == ['error'] * 8 + ['accepted']
    assert document['results'][0]['code'] == 450 and document['custom'] == 'kept'
    retried = bench.take('retry')
    assert [len(told['results']) for told in retried] == list(range(1, 9))
    assert [parse(told['nextattempt']['time']) - begin for told in retried] == moments[1:]
    assert not any('mime' in told for told in retried)
    assert bench.counts() == {'success': 1} and bench.errors == []
    assert bench.exchanger.messages[0][2] == b'Subject: x\r\n\r\n\xc3\xbc\r\n'


@pytest.mark.parametrize(('settings', 'fields', 'attempts'), [
    ({}, {'maxattempts': 3}, 3), ({}, {'maxattempts': '1'}, 1), ({'max_attempts': 2}, {}, 2),
    ({'max_attempts': 2}, {'maxattempts': 4}, 4)])
def test_maxattempts(make: Make, settings: dict[str, Any], fields: dict[str, Any], attempts: int) -> None:
    bench = make(**settings)
    bench.exchanger.script['CONNECT'] = b'421 busy'
    bench.publish(fields)
    bench.run(100_000)
    document = bench.final()
    assert [(entry['state'], entry['code']) for entry in document['results']] == [('intro', 421)] * attempts
    assert bench.counts() == {'failure': 1, **({'retry': attempts - 1} if attempts > 1 else {})}


def test_a_document_whose_attempts_are_used_up_is_not_tried(bench: Bench) -> None:
    bench.publish(maxattempts=2, results=[{'time': in_seconds(bench, -10)}, {}])
    bench.run()
    assert bench.last('state', 'result') == ('process', 'timeout')
    assert bench.exchanger.commands == []


@pytest.mark.parametrize(('seconds', 'moments'), [
    (1000, [0, 600, 1000]), (1200, [0, 600, 1200]), (1201, [0, 600, 1200, 1201]), (100, [0, 100])])
def test_maxdelivertime_between_attempts(bench: Bench, seconds: int, moments: list[int]) -> None:
    """Given up at that moment, not at the next attempt's; and with the reason."""
    bench.exchanger.script['.'] = DROP
    begin = bench.clock.time()
    bench.publish(maxdelivertime=in_seconds(bench, seconds))
    bench.run(seconds + 1)
    document = bench.final()
    assert bench.moments(document, begin) == moments
    states = [(entry['state'], entry['result']) for entry in document['results']]
    assert states == [('message', 'lost')] * (len(moments) - 1) + [('process', 'timeout')]
    assert bench.counts() == {'failure': 1, 'retry': len(moments) - 1}


def test_maxdelivertime_in_the_past(bench: Bench) -> None:
    bench.publish(maxdelivertime=in_seconds(bench, -1), nextattempt={'time': in_seconds(bench, 500)}, due=0.0)
    bench.run()
    assert bench.last('state', 'result') == ('process', 'timeout')
    assert bench.exchanger.commands == []


def test_maxdelivertime_during_an_attempt(bench: Bench) -> None:
    bench.exchanger.script['DATA'] = SILENCE
    begin = bench.clock.time()
    bench.publish(maxdelivertime=in_seconds(bench, 60))
    bench.run(400)
    assert bench.moments(bench.final(), begin) == [120, 120]


def test_the_configured_delivery_time(bench: Bench) -> None:
    bench.exchanger.script['MAIL'] = b'451 later'
    begin = bench.clock.time()
    bench.publish()
    bench.run(86399)
    assert 'results' not in bench.counts()
    bench.run(2)
    moments = bench.moments(bench.final(), begin)
    assert moments == [0, 600, 1200, 3000, 4800, 8400, *range(12000, 86400, 7200), 86400]


@pytest.mark.parametrize('due', [None, 0.0])
def test_nextattempt(bench: Bench, due: float | None) -> None:
    """Whether the publisher knows of due times or not."""
    bench.publish(nextattempt={'time': in_seconds(bench, 5000)}, due=due)
    bench.run(4999)
    assert bench.exchanger.commands == [] and bench.counts() == {'outbox': 1}
    bench.run(1.5)
    assert bench.last('result') == ('accepted',)


@pytest.mark.parametrize('nextattempt', [None, {}, {'time': None}, {'time': '2001-01-01 00:00:00'}])
def test_nextattempt_that_holds_nothing_up(bench: Bench, nextattempt: object) -> None:
    bench.publish(nextattempt=nextattempt)
    bench.run()
    assert bench.last('result') == ('accepted',)
