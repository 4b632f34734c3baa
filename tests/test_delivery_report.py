"""The messages that an attempt leads to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mqlite.delivery import report
from mqlite.message.document import Document
from mqlite.message.result import Result
from mqlite.queues.contract import Message

NOW = 1_700_000_000.0
MOMENT = '2023-11-14 22:13:20'
QUEUES = {'results': 'res', 'success': 'suc', 'failure': 'fai', 'retry': 'ret'}
GOOD, BAD, LATER = Result('message', 'accepted'), Result('rcptto', 'error', True), Result('rcptto', 'lost')
FIELDS = {'recipient': 'r@b.example', 'mime': 'Subject: ä\udcff\n\nx', 'custom': {'a': [1, None, 'ü']}}


def made(**more: Any) -> tuple[bytes, Document]:
    """A document as the engine has it: the MIME taken out."""
    body = json.dumps({**FIELDS, **more}).encode()
    document = Document.decode(body)
    document.take_mime()
    return body, document


def by_queue(messages: list[Message]) -> dict[str, dict[str, Any]]:
    assert len({message.queue for message in messages}) == len(messages)
    return {message.queue: json.loads(message.body) for message in messages}


@pytest.mark.parametrize(('result', 'queues', 'names'), [
    (GOOD, {}, ['res', 'suc']),
    (BAD, {}, ['res', 'fai']),
    (LATER, {}, ['res', 'fai']),
    (GOOD, {'success': None}, ['res']),
    (GOOD, {'success': ''}, ['res']),
    (GOOD, {'results': None, 'success': None, 'failure': 'x'}, []),
    (GOOD, {'results': 'a', 'success': 'b'}, ['a', 'b']),
    (BAD, {'results': 'a', 'failure': 'b'}, ['a', 'b']),
    (BAD, {'success': 'a', 'retry': 'b'}, ['res', 'fai']),
    (BAD, {'results': 5, 'failure': ['x']}, ['res', 'fai']),
])
def test_the_queues_of_a_final_result(result: Result, queues: dict[str, Any], names: list[str]) -> None:
    messages = report.final(*made(queues=queues), None, result, NOW, QUEUES)
    assert [(message.queue, message.due) for message in messages] == [(name, 0.0) for name in names]


def test_queues_that_are_not_configured() -> None:
    none = dict.fromkeys(QUEUES, '')
    assert report.final(*made(), None, GOOD, NOW, none) == []
    assert [message.queue for message in report.final(*made(queues={'results': 'a'}), None, BAD, NOW, none)] == ['a']
    assert [message.queue for message in report.again(*made(), None, LATER, NOW, NOW + 5, 'out', none)] == ['out']


@pytest.mark.parametrize('keep', [True, False, None, 0, 1])
def test_a_final_result(keep: object) -> None:
    messages = report.final(*made(keepmime=keep, results=[{'state': 'dns'}]), None, BAD, NOW, QUEUES)
    expected = {**FIELDS, 'keepmime': keep,
                'results': [{'state': 'dns'}, {'state': 'rcptto', 'result': 'error', 'time': MOMENT}]}
    if not keep:
        del expected['mime']
    assert by_queue(messages) == {'res': expected, 'fai': expected}


@pytest.mark.parametrize('keep', [True, False])
def test_again(keep: bool) -> None:
    body, document = made(keepmime=keep, priority=5, nextattempt={'time': '2000-01-01 00:00:00', 'x': 1})
    messages = report.again(body, document, None, LATER, NOW, NOW + 600.7, 'out', QUEUES)
    assert [(message.queue, message.priority, message.due) for message in messages] == [
        ('out', 5, NOW + 600.7), ('ret', 0, 0.0)]
    whole = {**FIELDS, 'keepmime': keep, 'priority': 5, 'nextattempt': {'time': '2023-11-14 22:23:20', 'x': 1},
             'results': [{'state': 'rcptto', 'result': 'lost', 'time': MOMENT}]}
    told = dict(whole)
    if not keep:
        del told['mime']
    assert by_queue(messages) == {'out': whole, 'ret': told}


@pytest.mark.parametrize(('body', 'fields'), [
    (b'{"mime": 1, "recipient": 5}', {'recipient': 5}),
    (b'{"mime": 1, "keepmime": true}', {'mime': 1, 'keepmime': True}),
    (b'{"results": "x"}', {}),
    (b'not \xff json', {'invalid': 'not \ufffd json'}),
    (b'[]', {'invalid': '[]'}),
    (b'x' * 70000, {'invalid': 'x' * 65536}),
    (b'', {'invalid': ''}),
])
def test_unreadable(body: bytes, fields: dict[str, Any]) -> None:
    expected = {**fields, 'results': [{'state': 'rcptto', 'result': 'error', 'time': MOMENT}]}
    assert by_queue(report.unreadable(body, BAD, NOW, QUEUES)) == {'res': expected, 'fai': expected}


def test_unreadable_keeps_earlier_results_and_the_documents_queues() -> None:
    body = b'{"results": [1, {"a": 2}], "queues": {"results": null, "failure": "mine"}}'
    [message] = report.unreadable(body, BAD, NOW, QUEUES)
    assert message.queue == 'mine' and json.loads(message.body)['results'][:2] == [1, {'a': 2}]


@pytest.mark.parametrize(('result', 'names'), [(GOOD, ['res', 'suc']), (BAD, ['res', 'fai']), (LATER, ['res', 'fai'])])
def test_bare(result: Result, names: list[str]) -> None:
    messages = report.bare(b'{"queues": {"results": "a"}}' + b' ' * 70000, result, NOW, QUEUES)
    assert [message.queue for message in messages] == names
    assert len(json.loads(messages[0].body)['invalid']) == 65536
    assert json.loads(messages[0].body)['results'] == [result.fields(NOW)]


def test_what_is_extracted() -> None:
    """For readers of results, not for the next attempt."""
    body, document = made()
    outbox, retry = report.again(body, document, b'Subject: hello\r\n\r\nx', LATER, NOW, NOW + 5, 'out', QUEUES)
    assert 'extracted' not in json.loads(outbox.body)
    assert json.loads(retry.body)['extracted']['subject'] == 'hello'
    [result, _] = report.final(body, document, b'Subject: hello\r\n\r\nx', GOOD, NOW, QUEUES)
    assert json.loads(result.body)['extracted']['recipient'] == {'domain': 'b.example', 'local': 'r'}
