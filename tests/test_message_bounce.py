"""Notifications: one octet by octet; what Python's email package and GNU Mailman's reader of bounces make of others."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from email.message import EmailMessage

import pytest
from flufl.bounce import all_failures

from mqlite.message.bounce import FULL_LIMIT, HEADER_LIMIT, TEXT_LIMIT, Notice, make_notification
from mqlite.smtp.dsn import NOTHING, Request
from tests.support.notification import status_fields

NOW = 1_700_000_000.0
MESSAGE = b'From: a@client.example\r\nSubject: hello\r\nMessage-ID: <1@client.example>\r\n\r\nbody\r\n'
FAILED = Notice('failed', 'a@client.example', 'b@example.org', NOTHING, 'mx.example', '5.1.1', NOW, NOW - 60, NOW - 1,
                None, 'mx.example.org', '550 5.1.1 no such user')
DELAYED = replace(FAILED, action='delayed', status='4.2.1', said='450 4.2.1 later', until=NOW + 3600)
RELAYED = replace(FAILED, action='relayed', status='2.0.0', said='250 2.0.0 kept')

WHOLE = b"""\
From: Mail Delivery System <MAILER-DAEMON@mx.example>
To: <a@client.example>
Subject: Your message was not delivered
Date: Tue, 14 Nov 2023 22:13:20 +0000
Message-ID: <{}@mx.example>
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="=_{}"

--=_{}
Content-Type: text/plain

This is the mail server at mx.example.

Your message could not be delivered to this address. It is not tried any
more.

    b@example.org

The server mx.example.org said:

    550 5.1.1 no such user

The header of your message is attached.

--=_{}
Content-Type: message/delivery-status

Original-Envelope-Id: id 7
Reporting-MTA: dns; mx.example
Arrival-Date: Tue, 14 Nov 2023 22:12:20 +0000

Original-Recipient: rfc822;c@example.org
Final-Recipient: rfc822;b@example.org
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.example.org
Diagnostic-Code: smtp; 550 5.1.1 no such user
Last-Attempt-Date: Tue, 14 Nov 2023 22:13:19 +0000

--=_{}
Content-Type: text/rfc822-headers

From: a@client.example
Subject: hello
Message-ID: <1@client.example>

--=_{}--
"""


def parsed(notice: Notice, message: bytes = MESSAGE) -> EmailMessage:
    made = make_notification(notice, message)
    assert made.count(b'\n') == made.count(b'\r') == made.count(b'\r\n')
    assert max(map(len, made.split(b'\r\n'))) <= 998
    found = email.message_from_bytes(made, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert [part.defects for part in found.walk() if part.defects] == []
    return found


def test_a_whole_notification() -> None:
    made = make_notification(replace(FAILED, request=Request((), '', 'id 7', 'rfc822;c@example.org')), MESSAGE)
    name = made[made.index(b'<', made.index(b'Message-ID')) + 1:][:32]
    assert made == WHOLE.replace(b'{}', name).replace(b'\n', b'\r\n')
    assert make_notification(FAILED, MESSAGE) == make_notification(FAILED, MESSAGE)
    assert make_notification(FAILED, MESSAGE + b'x\r\n') == make_notification(FAILED, MESSAGE)
    assert make_notification(FAILED, b'x' + MESSAGE) != make_notification(FAILED, MESSAGE)


@pytest.mark.parametrize(('notice', 'temporary', 'permanent'), [
    (FAILED, set(), {b'b@example.org'}),
    (replace(FAILED, status='4.4.1', said='', server=''), set(), {b'b@example.org'}),
    (replace(FAILED, request=Request((), 'FULL', 'x', 'c@example.org')), set(), {b'c@example.org', b'b@example.org'}),
    (DELAYED, {b'b@example.org'}, set()),
    (RELAYED, set(), set()),
])
def test_what_mailman_reads(notice: Notice, temporary: set[bytes], permanent: set[bytes]) -> None:
    found, certain = all_failures(email.message_from_bytes(make_notification(notice, MESSAGE)))
    assert set(found) | set(certain) <= temporary | permanent
    assert bool(found) == bool(temporary)
    assert bool(certain) == bool(permanent)


@pytest.mark.parametrize('notice', [FAILED, DELAYED, RELAYED])
def test_what_python_reads(notice: Notice) -> None:
    found = parsed(notice)
    assert found.get_content_type() == 'multipart/report'
    assert found.get_param('report-type') == 'delivery-status'
    assert (found['To'], found['Auto-Submitted']) == ('a@client.example', 'auto-replied')
    assert [part.get_content_type() for part in found.iter_parts()] == [
        'text/plain', 'message/delivery-status', 'text/rfc822-headers']
    about_message, about_recipient = status_fields(make_notification(notice, MESSAGE))
    assert about_message == {'Reporting-MTA': 'dns; mx.example', 'Arrival-Date': 'Tue, 14 Nov 2023 22:12:20 +0000'}
    assert about_recipient.pop('Will-Retry-Until', None) == (
        'Tue, 14 Nov 2023 23:13:20 +0000' if notice is DELAYED else None)
    assert about_recipient == {
        'Final-Recipient': 'rfc822;b@example.org', 'Action': notice.action, 'Status': notice.status,
        'Remote-MTA': 'dns; mx.example.org', 'Diagnostic-Code': f'smtp; {notice.said}',
        'Last-Attempt-Date': 'Tue, 14 Nov 2023 22:13:19 +0000'}
    text = found.get_payload(0).get_content()  # type: ignore[union-attr]
    assert 'b@example.org' in text
    assert notice.said in text
    assert ('It is tried until' in text) is (notice is DELAYED)


def test_little_is_known() -> None:
    about_message, about_recipient = status_fields(make_notification(replace(
        FAILED, arrived=None, attempted=None, server='', said='', by_smtp=False), b''))
    assert about_message == {'Reporting-MTA': 'dns; mx.example'}
    assert about_recipient == {'Final-Recipient': 'rfc822;b@example.org', 'Action': 'failed', 'Status': '5.1.1'}
    assert len(parsed(FAILED, b'').get_payload()) == len(parsed(FAILED, b'\r\nno header').get_payload()) == 2


def test_what_is_not_said_by_a_server() -> None:
    made = make_notification(replace(FAILED, server='', said='no such domain', by_smtp=False), MESSAGE)
    assert status_fields(made)[1]['Diagnostic-Code'] == 'x-mqlite; no such domain'
    assert b'The reason:\r\n\r\n    no such domain\r\n' in made


@pytest.mark.parametrize(('action', 'ret', 'message', 'kind', 'octets'), [
    ('failed',  'FULL', MESSAGE, 'message/rfc822', MESSAGE),
    ('failed',  'HDRS', MESSAGE, 'text/rfc822-headers', MESSAGE[:-8]),
    ('failed',  '',     MESSAGE, 'text/rfc822-headers', MESSAGE[:-8]),
    ('delayed', 'FULL', MESSAGE, 'text/rfc822-headers', MESSAGE[:-8]),
    ('relayed', 'FULL', MESSAGE, 'text/rfc822-headers', MESSAGE[:-8]),
    ('failed',  'FULL', b'A: b\r\n\r\n' + b'x' * (FULL_LIMIT - 8), 'message/rfc822', None),
    ('failed',  'FULL', b'A: b\r\n\r\n' + b'x' * (FULL_LIMIT - 7), 'text/rfc822-headers', b'A: b\r\n'),
    ('failed',  'HDRS', b'A: b\r\n' * HEADER_LIMIT, 'text/rfc822-headers', b'A: b\r\n' * (HEADER_LIMIT // 6)),
    ('failed',  'FULL', b'\xff: \xc3\xbc\r\n\r\n\xff\r\n', 'message/rfc822', b'\xff: \xc3\xbc\r\n\r\n\xff\r\n'),
])
def test_what_goes_back(action: str, ret: str, message: bytes, kind: str, octets: bytes | None) -> None:
    made = make_notification(replace(FAILED, action=action, request=Request((), ret)), message)
    boundary = made[made.index(b'boundary="') + 10:].split(b'"', 1)[0]
    header, body = made.split(b'\r\n--' + boundary)[3].split(b'\r\n\r\n', 1)
    assert header.startswith(f'\r\nContent-Type: {kind}'.encode())
    assert body == (message if octets is None else octets)
    assert (b'Content-Transfer-Encoding: 8bit' in header) is not body.isascii()
    assert (b'Content-Transfer-Encoding: 8bit' in made[:made.index(b'\r\n\r\n')]) is not body.isascii()


@pytest.mark.parametrize('said', [
    '550 a\r\nAction: delivered\r\n\r\nX: y', '550 \x00\x1b[2J', '550 ' + 'x' * 5000, '550 ' + 'x ' * 5000,
    '550 ü\udcff', '550 --=_x--', '550 (((', '550 =?utf-8?q?x?=',
])
def test_hostile_replies_stay_in_their_place(said: str) -> None:
    notice = replace(FAILED, said=said, server='evil\r\nAction: x')
    found = parsed(notice)
    _, about_recipient = status_fields(make_notification(notice, MESSAGE))
    assert set(about_recipient) == {'Final-Recipient', 'Action', 'Status', 'Remote-MTA', 'Diagnostic-Code',
                                    'Last-Attempt-Date'}
    assert about_recipient['Action'] == 'failed'
    assert len(about_recipient['Diagnostic-Code']) < TEXT_LIMIT + 50
    assert about_recipient['Remote-MTA'] == 'dns; evil\\x0d\\x0aAction: x'
    text = found.get_payload(0).get_content()  # type: ignore[union-attr]
    assert text.isascii() and '\x1b' not in text


def test_a_message_that_has_the_boundary_of_another_one() -> None:
    first = make_notification(FAILED, MESSAGE)
    boundary = first[first.index(b'boundary="') + 10:].split(b'"', 1)[0]
    message = b'A: b\r\n\r\n--' + boundary + b'--\r\nContent-Type: x\r\n'
    found = parsed(replace(FAILED, request=Request((), 'FULL')), message)
    assert len(found.get_payload()) == 3
    assert found.get_payload(2).get_content_type() == 'message/rfc822'  # type: ignore[union-attr]


def test_addresses_that_are_not_ascii() -> None:
    """RFC 6533: other types of parts, of addresses, and raw UTF-8 in them."""
    request = Request((), 'FULL', '', 'ü@x.example')
    made = make_notification(replace(FAILED, recipient='jörg@exämple.org', request=request), MESSAGE)
    assert b'\r\nContent-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n' in made
    assert 'Original-Recipient: utf-8;ü@x.example\r\nFinal-Recipient: utf-8;jörg@exämple.org\r\n'.encode() in made
    assert b'\r\nContent-Type: message/global\r\n' in made
    assert b'\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n' in made
    headers = make_notification(replace(FAILED, sender='ü@x.example'), MESSAGE)
    assert 'To: ü@x.example\r\n'.encode() in headers
    assert b'\r\nContent-Type: message/global-headers\r\n' in headers
