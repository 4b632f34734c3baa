"""Which outcomes lead to a notification, for whom, and what its codes are."""

from __future__ import annotations

import json
import re
import smtplib
from typing import Any, Callable

import pytest

from mqlite.delivery import notify
from mqlite.delivery.notify import DELAY_SECONDS, NotifyConfig
from mqlite.delivery.verdict import cannot_bind, expired, invalid, no_data, not_connected, unresolved
from mqlite.message.document import Document
from mqlite.message.identifier import format_moment
from mqlite.message.result import Connected, Result
from mqlite.queues.contract import Message
from mqlite.smtp.dsn import Request
from tests.support.daemon import Daemon
from tests.support.notification import status_fields
from tests.support.process import HOST
from tests.support.sink import CapturingSink

NOW = 1_700_000_000.0
CONFIG = NotifyConfig('me.example', 'dsn')
LINK = Connected('mx.example', '192.0.2.1', '192.0.2.2', 1, 0, 0)
GOOD = Result('message', 'accepted', code=250, status='2.0.0', description='kept', dsn=False, connected=LINK)
TOLD = Result('message', 'accepted', code=250, status='2.0.0', description='kept', dsn=True, connected=LINK)
BAD = Result('rcptto', 'error', True, 550, '5.1.1', 'no such user', connected=LINK)
LATER = Result('rcptto', 'error', False, 450, '4.2.1', 'later', connected=LINK)


def made(**fields: Any) -> tuple[bytes, Document]:
    body = json.dumps({'envelope': 's@a.example', 'recipient': 'r@b.example', 'mime': 'Subject: x\n\nhello',
                       **fields}).encode()
    document = Document.decode(body)
    document.fields.pop('mime', None)
    return body, document


def final(result: Result, config: NotifyConfig = CONFIG, **fields: Any) -> list[Message]:
    return notify.about_final(*made(**fields), result, NOW, config)


def told(messages: list[Message]) -> dict[str, str]:
    """What the one notification says of the recipient."""
    [message] = messages
    document = json.loads(message.body)
    assert (document['envelope'], document['recipient']) == ('', 's@a.example')
    return status_fields(document['mime'].encode('utf-8', 'surrogateescape'))[1]


@pytest.mark.parametrize(('asked', 'default', 'failed', 'relayed'), [
    (None, (), 1, 0),
    ({}, (), 1, 0),
    ({'ret': 'FULL'}, (), 1, 0),
    ({'notify': 'NEVER'}, (), 0, 0),
    ({'notify': 'failure'}, (), 1, 0),
    ({'notify': 'SUCCESS'}, (), 0, 1),
    ({'notify': 'SUCCESS, DELAY,FAILURE'}, (), 1, 1),
    ({'notify': ['SUCCESS', 'DELAY']}, (), 0, 1),
    ({'notify': 'DELAY'}, (), 0, 0),
    (None, ('NEVER',), 0, 0),
    (None, ('SUCCESS',), 0, 1),
    ({'notify': 'FAILURE'}, ('NEVER',), 1, 0),
    ({'notify': 5}, (), 0, 0),
    ('FAILURE', (), 0, 0),
])
def test_who_is_told(asked: Any, default: tuple[str, ...], failed: int, relayed: int) -> None:
    config = NotifyConfig('me.example', 'dsn', Request(default))
    fields = {} if asked is None else {'dsn': asked}
    assert len(final(BAD, config, **fields)) == failed
    assert len(final(LATER, config, **fields)) == failed
    assert len(final(GOOD, config, **fields)) == relayed
    assert final(TOLD, config, **fields) == []


@pytest.mark.parametrize(('fields', 'shown'), [
    ({}, 'Subject: x'), ({'dsn': {'ret': 'FULL'}}, 'hello'), ({'requiretls': True}, ''),
    ({'requiretls': True, 'dsn': {'ret': 'FULL'}}, '')])
def test_what_demands_tls_does_not_come_back(fields: dict[str, Any], shown: str) -> None:
    [message] = final(BAD, **fields)
    mime = json.loads(message.body)['mime']
    assert told([message])['Final-Recipient'] == 'rfc822;r@b.example'
    assert shown in mime if shown else 'Subject: x' not in mime and 'hello' not in mime and 'attached' not in mime


@pytest.mark.parametrize('envelope', [None, ''])
def test_the_null_sender_is_told_nothing(envelope: object) -> None:
    asked = {'notify': 'SUCCESS,FAILURE,DELAY'}
    assert final(BAD, envelope=envelope, dsn=asked) == final(GOOD, envelope=envelope, dsn=asked) == []


@pytest.mark.parametrize('fields', [{'envelope': 'nonsense'}, {'envelope': 5}, {'recipient': None}, {'recipient': 'x'}])
def test_there_is_nobody_to_tell(fields: dict[str, Any]) -> None:
    assert final(invalid('x'), **fields) == []


@pytest.mark.parametrize(('configured', 'queues', 'name'), [
    ('dsn', None, 'dsn'), ('dsn', {}, 'dsn'), ('dsn', {'dsn': 'own'}, 'own'), ('dsn', {'dsn': None}, ''),
    ('dsn', {'dsn': ''}, ''), ('dsn', {'results': None}, 'dsn'), ('', None, ''), ('', {'dsn': 'own'}, 'own'),
])
def test_the_queue(configured: str, queues: Any, name: str) -> None:
    messages = final(BAD, NotifyConfig('me.example', configured), queues=queues)
    assert [message.queue for message in messages] == ([name] if name else [])
    assert [message.due for message in messages] == ([0.0] if name else [])


def test_what_is_told_of_a_failure() -> None:
    assert told(final(BAD, dsn={'orcpt': 'rfc822;first@b.example'})) == {
        'Original-Recipient': 'rfc822;first@b.example', 'Final-Recipient': 'rfc822;r@b.example', 'Action': 'failed',
        'Status': '5.1.1', 'Remote-MTA': 'dns; mx.example', 'Diagnostic-Code': 'smtp; 550 5.1.1 no such user',
        'Last-Attempt-Date': 'Tue, 14 Nov 2023 22:13:20 +0000'}


def test_what_is_told_of_a_success() -> None:
    entry = told(final(GOOD, dsn={'notify': 'SUCCESS'}))
    assert (entry['Action'], entry['Status'], entry['Diagnostic-Code']) == ('relayed', '2.0.0', 'smtp; 250 2.0.0 kept')


@pytest.mark.parametrize(('result', 'attempts', 'status', 'diagnostic'), [
    (Result('rcptto', 'error', True, 550, '', 'no'),      [], '5.0.0', 'smtp; 550 no'),
    (Result('rcptto', 'error', True, 550, '4.1.1', 'no'), [], '4.1.1', 'smtp; 550 4.1.1 no'),
    (Result('rcptto', 'error', True, 550, '2.1.1', 'no'), [], '5.0.0', 'smtp; 550 2.1.1 no'),
    (Result('rcptto', 'error', True, 550, '5.x', 'no'),   [], '5.0.0', 'smtp; 550 5.x no'),
    (Result('rcptto', 'error', False, 450, '', 'no'),     [], '4.0.0', 'smtp; 450 no'),
    (Result('data', 'invalid', False, 250, '', 'ok'),     [], '4.0.0', 'smtp; 250 ok'),
    (Result('data', 'invalid', description='nonsense'),   [], '4.5.0', 'x-mqlite; nonsense'),
    (Result('message', 'lost', description='gone'),       [], '4.4.2', 'x-mqlite; gone'),
    (Result('message', 'timeout'),                        [], '4.4.2', None),
    (unresolved(True, 'no domain'),                       [], '5.1.2', 'x-mqlite; no domain'),
    (unresolved(False, 'silence'),                        [], '4.4.3', 'x-mqlite; silence'),
    (not_connected('mx', True, 'silence'),                [], '4.4.1', 'x-mqlite; mx: silence'),
    (cannot_bind('not ours', True),                       [], '5.3.5', 'x-mqlite; not ours'),
    (invalid('"retries" is nonsense'),                    [], '5.5.4', 'x-mqlite; "retries" is nonsense'),
    (no_data('no mime'),                                  [], '5.0.0', 'x-mqlite; no mime'),
    (expired(), [], '4.4.7', 'x-mqlite; the message was not delivered in the time or the attempts that it had'),
    (expired(), [{'state': 'dns', 'result': 'error'}, {'code': 450, 'status': '4.2.2', 'description': 'full'}], '4.2.2',
     'smtp; 450 4.2.2 full'),
    (expired(), [{'state': 'connect', 'result': 'timeout', 'description': 'silence'}], '4.4.1', 'x-mqlite; silence'),
    (expired(), [{'code': 'x', 'status': 5, 'description': [], 'state': {}, 'result': None, 'time': 7}], '4.0.0', None),
])
def test_the_status_of_a_failure(result: Result, attempts: list[Any], status: str, diagnostic: str | None) -> None:
    entry = told(final(result, results=attempts))
    assert (entry['Action'], entry['Status'], entry.get('Diagnostic-Code')) == ('failed', status, diagnostic)


HOUR = 3600


@pytest.mark.parametrize(('earlier', 'tells'), [
    ([], False),                                    # this is the first attempt
    ([0.1], False),
    ([3.99, 0.1], False),
    ([4.0, 0.1], True),                             # first and last attempt before this one, hours ago
    ([9.0, 5.1], True),
    ([9.0, 5.0], False),                            # the one before was after four hours: it has told
    ([9.0, 1.0], False),
    ([24.0], True),
])
def test_a_delay_is_told_once(earlier: list[float], tells: bool) -> None:
    results = [{'time': format_moment(NOW - hours * HOUR)} for hours in earlier]
    messages = notify.about_retry(*made(results=results, dsn={'notify': 'DELAY'}), LATER, NOW, NOW + HOUR, CONFIG)
    assert bool(messages) is tells
    if tells:
        entry = told(messages)
        assert (entry['Action'], entry['Status']) == ('delayed', '4.2.1')
        assert entry['Will-Retry-Until'] == 'Tue, 14 Nov 2023 23:13:20 +0000'


def test_a_delay_is_told_to_who_asked() -> None:
    results = [{'time': format_moment(NOW - DELAY_SECONDS)}]
    for fields, config in (({}, CONFIG), ({'dsn': {'notify': 'FAILURE'}}, CONFIG), ({'envelope': ''}, CONFIG),
                           ({'dsn': {'notify': 'DELAY'}}, NotifyConfig('me.example', ''))):
        assert notify.about_retry(*made(results=results, **fields), LATER, NOW, NOW + HOUR, config) == []


def test_the_document_of_a_notification() -> None:
    [message] = final(BAD, received='2023-11-14 22:00:00', dsn={'ret': 'FULL', 'envid': 'my id'}, tags=['x'],
                      mime='Subject: ä\udcff\n\nx')
    document = json.loads(message.body)
    assert set(document) == {'envelope', 'recipient', 'mime'}
    assert 'Original-Envelope-Id: my id\r\n' in document['mime']
    assert 'Arrival-Date: Tue, 14 Nov 2023 22:00:00 +0000\r\n' in document['mime']
    assert document['mime'].count('Subject: ä\udcff\r\n\r\nx\r\n') == 1
    assert Document.decode(message.body).take_mime().endswith(b'--\r\n')


def test_the_document_of_a_notification_in_utf8() -> None:
    [message] = final(BAD, recipient='jörg@b.example')
    assert json.loads(message.body)['smtputf8'] is True
    assert Document.decode(message.body).utf8


def test_a_document_without_a_message() -> None:
    [message] = final(no_data('no mime'), mime=None)
    assert not re.search('rfc822-headers', json.loads(message.body)['mime'])


def test_by_the_daemon(start_daemon: Callable[..., Daemon], sink: CapturingSink) -> None:
    """Mail that comes in over SMTP and is refused by the next server comes back as a notification."""
    sink.script['RCPT'] = [b'550 5.1.1 nobody here']
    daemon = start_daemon(smtp_sink_address=HOST, smtp_sink_port=sink.port, rabbitmq_dsn='outbox',
                          hostname='mx.example')
    with smtplib.SMTP(HOST, daemon.port, timeout=10) as client:
        client.sendmail('a@example.org', ['b@example.org'], 'Subject: x\n\nhello\n')
    transaction = sink.wait_for(2)[-1]
    assert transaction.mail.startswith(b'MAIL FROM:<> ')
    assert transaction.recipients == [b'RCPT TO:<a@example.org>']
    about_message, about_recipient = status_fields(transaction.message)
    assert set(about_message) == {'Reporting-MTA', 'Arrival-Date'}
    assert about_recipient['Diagnostic-Code'] == 'smtp; 550 5.1.1 nobody here'
