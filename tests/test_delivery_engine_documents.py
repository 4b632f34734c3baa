"""Documents that the engine cannot send, and what it makes of those that it must convert first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.support import engine
from tests.support.engine import Bench

bench, make = engine.bench, engine.make  # fixtures
POISON: Sequence[tuple[Any, str]] = [
    (b'', 'JSON'), (b'{', 'JSON'), (b'\xff\xfe', 'JSON'), (b'[]', 'object'), (b'5', 'object'), (b'null', 'object'),
    (b'{"recipient": NaN}', 'JSON'), (b'{"x": 1e999}', 'JSON'), (b'[' * 100_000, 'JSON'),
    (b'{"a":' * 5000 + b'1' + b'}' * 5000, ''), (b'{"x": %s}' % (b'9' * 10_000), 'JSON'),
    ({'recipient': None}, 'recipient'), ({'recipient': 'nobody'}, 'recipient'), ({'recipient': 7}, 'recipient'),
    ({'recipient': ['r@one.example']}, 'recipient'), ({'recipient': 'r@one.example>\r\nDATA'}, 'recipient'),
    ({'recipient': 'r\0@one.example'}, 'recipient'), ({'recipient': 'r@' + 'x' * 300}, 'recipient'),
    ({'envelope': 'x'}, 'envelope'), ({'envelope': False}, 'envelope'), ({'envelope': {'a': 1}}, 'envelope'),
    ({'mime': None}, 'mime'), ({'mime': ''}, 'mime'), ({'mime': 5}, 'mime'), ({'mime': ['x']}, 'mime'),
    ({'mime': '\ud800'}, 'mime'),
    ({'nextattempt': 'x'}, 'nextattempt'), ({'nextattempt': {'time': 5}}, 'nextattempt'),
    ({'nextattempt': {'time': '2030-01-01'}}, 'nextattempt'), ({'nextattempt': []}, 'nextattempt'),
    ({'maxdelivertime': 5}, 'maxdelivertime'), ({'maxdelivertime': '2030-13-01 00:00:00'}, 'maxdelivertime'),
    ({'maxattempts': -1}, 'maxattempts'), ({'maxattempts': 1.5}, 'maxattempts'), ({'maxattempts': '²'}, 'maxattempts'),
    ({'maxattempts': True}, 'maxattempts'), ({'maxattempts': 10 ** 30}, 'maxattempts'),
    ({'retries': 5}, 'retries'), ({'retries': []}, 'retries'), ({'retries': [None]}, 'retries'),
    ({'priority': 'high'}, 'priority'), ({'ips': [5]}, 'ips'), ({'smarthost': 5}, 'smarthost'),
    ({'smarthost': {'hostname': 'x', 'port': -1}}, 'smarthost'),
    ({'results': 'x'}, 'results'), ({'results': [5]}, 'results'), ({'results': [{}]}, 'results'),
    ({'results': 'x', 'maxdelivertime': '2099-01-01 00:00:00'}, 'results'),
    ({'dkim': {'domain': 'x'}}, 'dkim'), ({'security': 'much', 'force': True}, 'security'),
    ({'smarthost': {'hostname': 'x', 'username': ['y']}}, 'smarthost'),
]


@pytest.mark.parametrize(('fields', 'words'), POISON, ids=[str(row[0])[:50] for row in POISON])
def test_poison(bench: Bench, fields: Any, words: str) -> None:
    """To the results and failure queues, once, with the reason; nothing is sent."""
    bench.publish(fields)
    bench.run(100_000)
    assert bench.counts() == {'results': 1, 'failure': 1} and bench.errors == []
    document = bench.final()
    assert document == bench.final('failure')
    last = document['results'][-1]
    no_data = isinstance(fields, dict) and fields.get('mime', 'x') in (None, '')
    assert (last['state'], last['result']) == (('storage', 'error') if no_data else ('process', 'invalid'))
    assert words in last['description']
    assert document.get('recipient') == fields.get('recipient', 'r@one.example') if isinstance(fields, dict) \
        else 'invalid' in document
    assert bench.exchanger.commands == []


@pytest.mark.parametrize(('fields', 'state', 'words'), [
    ({'data': 5}, 'personalize', '"data" must be an object'),
    ({'data': {}, 'mime': 'Subject: {if}\n\n'}, 'personalize', 'line 1: {if}... is no tag'),
    ({'headers': {'remove': 5}}, 'rewrite', '"headers.remove" must be a name or an array of names'),
    ({'mime': {'content': {'blocks': []}}}, 'responsive', '"mime.content" must be HTML as a text'),
    ({'mime': {'text': '{1/0}'}, 'data': {}}, 'personalize', 'division by zero'),
])
def test_what_cannot_be_converted(bench: Bench, fields: Any, state: str, words: str) -> None:
    bench.publish(fields)
    bench.run()
    entry = bench.final()['results'][-1]
    assert (entry['state'], entry['result']) == (state, 'error')
    assert words in entry['description']
    assert bench.exchanger.commands == []


def test_conversions(bench: Bench) -> None:
    """Each attempt makes the message anew, and what comes back is the document as it was."""
    bench.exchanger.script['RCPT'] = [b'450 4.2.1 later']
    asked: dict[str, Any] = {'data': {'name': 'Jo'}, 'headers': {'append': {'x-a': 'b'}}}
    bench.publish(mime='Subject: Hi {$name}\n\nto {$recipient}', retries=[60], keepmime=True, **asked)
    bench.run(61)
    assert [message for _, _, message in bench.exchanger.messages] == [
        b'Subject: Hi Jo\r\nx-a: b\r\n\r\nto r@one.example\r\n']
    document = bench.final()
    assert {name: document[name] for name in asked} == asked
    assert document['mime'] == 'Subject: Hi {$name}\n\nto {$recipient}'


def test_poison_does_not_stop_the_others(bench: Bench) -> None:
    for fields in [row[0] for row in POISON] + [{}]:
        bench.publish(fields)
    bench.run()
    assert bench.exchanger.recipients == ['r@one.example'] and bench.counts()['failure'] == len(POISON)


def test_a_body_that_the_store_could_not_read(bench: Bench) -> None:
    bench.run_until(bench.engine.stop(0))
    bench.publish()
    [delivery] = bench.run_until(bench.store.fetch('outbox', 1))
    delivery.fault = 'the gzip data is broken'
    bench.engine._on_delivery(delivery)
    bench.run()
    assert bench.last('state', 'result', 'description') == ('process', 'invalid', 'the gzip data is broken')


def test_what_cannot_be_converted_is_sent_when_forced(bench: Bench) -> None:
    bench.publish(data=5, headers=[], dkim={'domain': 'x'}, inlinecss=True, security='optional', force=True)
    bench.run()
    assert bench.counts() == {'results': 1, 'success': 1}


def test_a_server_that_takes_seven_bits_only(bench: Bench) -> None:
    bench.exchanger.extensions.remove(b'8BITMIME')
    bench.publish(mime='Subject: x\n\ngrün und mehr\n', keepmime=True)
    bench.run()
    assert bench.exchanger.messages == [(
        b'MAIL FROM:<s@a.example>', [b'RCPT TO:<r@one.example>'],
        b'Subject: x\r\nContent-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\n\r\n'
        b'gr=C3=BCn und mehr\r\n')]
    assert bench.final()['mime'] == 'Subject: x\n\ngrün und mehr\n'
