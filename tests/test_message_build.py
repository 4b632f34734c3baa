"""A message from the property `mime` as an object: what Python's email package reads in it, and what is refused."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from typing import Any

import pytest

from mqlite.errors import PermanentError
from mqlite.message.build import build_message

NOW = 1_700_000_000.5


def built(**parts: Any) -> EmailMessage:
    octets = build_message(parts, NOW, 'a.example')
    assert octets.count(b'\n') == octets.count(b'\r') == octets.count(b'\r\n')
    assert octets.isascii()
    assert max(map(len, octets.split(b'\r\n'))) <= 998
    found = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert [part.defects for part in found.walk() if part.defects] == []
    return found


def test_a_whole_message() -> None:
    octets = build_message({
        'from': {'name': 'John Doe', 'address': 's@a.example'}, 'to': 'r@b.example', 'subject': 'Example email',
        'text': 'Hello,\nyou.\n', 'headers': {'x-a': 'b'}}, NOW, 'a.example')
    name = octets[octets.index(b'Message-ID: <') + 13:][:32]
    assert octets == (
        b'From: John Doe <s@a.example>\r\nTo: r@b.example\r\nSubject: Example email\r\n'
        b'Date: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <' + name + b'@a.example>\r\nx-a: b\r\n'
        b'MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\n'
        b'Hello,\r\nyou.\r\n')


def test_the_same_object_gives_the_same_message() -> None:
    parts = {'text': 'x', 'html': 'y', 'attachments': [{'data': 'eA=='}]}
    octets = build_message(parts, NOW, 'a.example')
    assert octets == build_message(dict(reversed(list(parts.items()))), NOW + 0.4, 'a.example')
    assert octets != build_message(parts, NOW + 1, 'a.example')
    assert octets != build_message({**parts, 'text': 'z'}, NOW, 'a.example')


@pytest.mark.parametrize(('value', 'field'), [
    ('a@b.example', 'a@b.example'),
    ('Jo <a@b.example>', 'Jo <a@b.example>'),
    ({'address': 'a@b.example'}, 'a@b.example'),
    ({'name': 'Jörg, J.', 'address': 'a@b.example'}, '"Jörg, J." <a@b.example>'),
    (['a@b.example', {'name': 'X', 'address': 'c@b.example'}], 'a@b.example, X <c@b.example>'),
    ({'name': 'a\r\nBcc: x@y', 'address': 'a@b.example'}, '"a Bcc: x@y" <a@b.example>'),
])
def test_addresses(value: Any, field: str) -> None:
    found = built(to=value, cc=value)
    assert (str(found['To']), str(found['Cc'])) == (field, field)
    assert found['Bcc'] is None


def test_reply_to_and_bcc() -> None:
    found = built(**{'from': 'a@b.example', 'replyTo': {'name': 'R', 'address': 'r@b.example'}, 'bcc': 'x@y.example'})
    assert (found['Reply-To'], found['Bcc']) == ('R <r@b.example>', None)


@pytest.mark.parametrize(('parts', 'types'), [
    ({}, ['text/plain']),
    ({'text': 'a'}, ['text/plain']),
    ({'html': 'a'}, ['text/html']),
    ({'content': 'a'}, ['text/html']),
    ({'text': 'a', 'html': 'b'}, ['multipart/alternative', 'text/plain', 'text/html']),
    ({'text': 'a', 'attachments': []}, ['text/plain']),
    ({'text': 'a', 'attachments': [{'data': 'eA=='}]}, ['multipart/mixed', 'text/plain', 'application/octet-stream']),
    ({'text': 'a', 'html': 'b', 'attachments': [{'data': 'eA==', 'type': 'a/b'}] * 2},
     ['multipart/mixed', 'multipart/alternative', 'text/plain', 'text/html', 'a/b', 'a/b']),
])
def test_the_parts(parts: dict[str, Any], types: list[str]) -> None:
    assert [part.get_content_type() for part in built(**parts).walk()] == types


@pytest.mark.parametrize('text', [
    'plain\n', 'grün\n', 'слово ' * 100, 'x' * 2000, '.\n..\nFrom x\n', 'a\r\nb\rc\n', ''])
def test_texts(text: str) -> None:
    found = built(text=text, html=text)
    expected = text.replace('\r\n', '\n').replace('\r', '\n')
    for part in [part for part in found.walk() if not part.is_multipart()] if text else []:
        assert part.get_content().replace('\r\n', '\n').rstrip('\n') == expected.rstrip('\n')


def test_attachments() -> None:
    found = built(attachments=[
        {'data': 'VGhp\ncyBp cw==', 'name': 'test.txt', 'type': 'text/plain; charset=utf-8'},
        {'data': '', 'name': '../../etc/pa"ss\r\nwd'},
        {'data': 'eA==', 'name': 'bücher 1.pdf', 'type': 'application/pdf', 'url': 'http://unused.example/'},
        {'data': 'eA==', 'type': 'message/rfc822'},
        {'data': 'eA=='},
    ])
    seen = [(part.get_content_type(), part.get_filename(), part.get_payload(decode=True))
            for part in list(found.iter_attachments())]
    assert seen == [
        ('text/plain', 'test.txt', b'This is'), ('application/octet-stream', 'pa"sswd', b''),
        ('application/pdf', 'bücher 1.pdf', b'x'), ('application/octet-stream', None, b'x'),
        ('application/octet-stream', None, b'x')]


def test_own_fields() -> None:
    date = 'Wed, 01 Jan 2020 00:00:00 +0000'
    found = built(headers={'Date': date, 'message-ID': '<1@x>', 'x-a': ['1', 2], 'Subject': 'a\r\nBcc: b'})
    assert (found.get_all('date'), found.get_all('message-id')) == ([date], ['<1@x>'])
    assert (found.get_all('x-a'), found['subject'], found['bcc']) == (['1', '2'], 'a Bcc: b', None)


def test_text_that_has_the_boundary_of_another_message() -> None:
    first = build_message({'text': 'a', 'html': 'b'}, NOW, 'a.example')
    boundary = first[first.index(b'boundary="') + 10:].split(b'"', 1)[0].decode()
    found = built(text=f'--{boundary}--\r\nContent-Type: x/y', html='b')
    assert [part.get_content_type() for part in found.walk()] == ['multipart/alternative', 'text/plain', 'text/html']


@pytest.mark.parametrize(('parts', 'words'), [
    ({'content': {'blocks': []}}, '"mime.content" must be HTML as a text'),
    ({'dkim': {'domain': 'x'}}, '"dkim" belongs beside "mime"'),
    ({'text': 5}, '"mime.text" must be a text'),
    ({'subject': ['x']}, '"mime.subject" must be a text'),
    ({'from': ['a@b', 'c@d']}, '"mime.from" must be one address'),
    ({'from': 5}, '"mime.from" must be an address'),
    ({'to': [{'name': 'x'}]}, '"mime.to" must be an address'),
    ({'to': {'address': 'a@b> <c@d'}}, '"mime.to" must be an address'),
    ({'headers': []}, '"mime.headers" must be an object'),
    ({'headers': {'x': {}}}, "the value of 'x' must be a text"),
    ({'headers': {'a b': 'c'}}, 'no name of a header field'),
    ({'attachments': {'x': 1}}, '"mime.attachments" must be an array'),
    ({'attachments': ['x']}, 'must be an array of objects'),
    ({'attachments': [{'url': 'http://x/'}]}, 'only attachments with "data"'),
    ({'attachments': [{'name': 'x'}]}, 'must be texts'),
    ({'attachments': [{'data': 'x'}]}, 'not base64'),
    ({'attachments': [{'data': 'ü'}]}, 'not base64'),
    ({'attachments': [{'data': 'eA==', 'type': 'x'}]}, 'is no type'),
    ({'attachments': [{'data': 'eA==', 'type': 'a/b\r\nX: y'}]}, 'is no type'),
])
def test_what_is_refused(parts: dict[str, Any], words: str) -> None:
    with pytest.raises(PermanentError, match=words):
        build_message(parts, NOW, 'a.example')
