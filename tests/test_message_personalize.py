"""Personalized messages: which parts are templates, and what values can and cannot do."""

from __future__ import annotations

import email
import email.policy
from typing import Any

import pytest

from mqlite.errors import PermanentError
from mqlite.message.personalize import personalize, personalize_object
from mqlite.message.words import decode_words

VARIABLES: dict[str, Any] = {'envelope': 's@a.example', 'recipient': 'r@b.example', 'name': 'Jo', 'greek': 'λ',
                             'evil': 'x\r\nBcc: z@y', 'comma': 'Doe, J', 'lines': 'a\nb', 'html': '<b>'}


def personal(mime: str) -> bytes:
    return personalize(mime.replace('\n', '\r\n').encode('utf-8', 'surrogateescape'), VARIABLES)


@pytest.mark.parametrize(('field', 'made'), [
    ('Subject: Hi {$name}', b'Subject: Hi Jo'),
    ('subject : Hi\n {$name}', b'subject: Hi Jo'),
    ('Subject: {$greek}', b'Subject: =?utf-8?b?zrs=?='),
    ('Subject: =?utf-8?q?=7B=24name=7D_=CE=BB?=', b'Subject: Jo =?utf-8?b?zrs=?='),
    ('Subject: =?utf-8?b?eyRuYW1lfQ==?=', b'Subject: Jo'),
    ('Subject: {$evil}', b'Subject: x Bcc: z@y'),
    ('Subject: no template', b'Subject: no template'),
    ('Subject: =?utf-8?q?untouched?=', b'Subject: =?utf-8?q?untouched?='),
    ('From: {$name} <i@x.example>', b'From: Jo <i@x.example>'),
    ('From: "{$comma}" <i@x.example>', b'From: "Doe, J" <i@x.example>'),
    ('From: {$comma} <i@x.example>', b'From: "Doe, J" <i@x.example>'),
    ('From: {$html} <i@x.example>', b'From: "<b>" <i@x.example>'),
    ('To: {$greek} <{$recipient}>', b'To: =?utf-8?b?zrs=?= <r@b.example>'),
    ('To: {$recipient}', b'To: r@b.example'),
    ('To: a@x.example, {$name|default:"a, b"} <{$recipient}>, "x, y" <b@x.example>',
     b'To: a@x.example, Jo <r@b.example>, "x, y" <b@x.example>'),
    ('X-Other: {$name}', b'X-Other: {$name}'),
])
def test_fields(field: str, made: bytes) -> None:
    assert personal(f'{field}\nX: y\n\nbody\n') == made + b'\r\nX: y\r\n\r\nbody\r\n'


@pytest.mark.parametrize('field', ['To: <{$evil}>', 'To: {$comma}', 'To: <{$html}@x>'])
def test_a_value_cannot_be_more_than_one_address(field: str) -> None:
    with pytest.raises(PermanentError, match='is no address'):
        personal(f'{field}\n\n')


@pytest.mark.parametrize(('part', 'made'), [
    ('\nHi {$name}{$lines}\n', '\nHi Joa\nb\n'),
    ('Content-Type: text/plain\n\n{$name}', 'Content-Type: text/plain\n\nJo'),
    ('Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{$html} {$html|escape} {$greek}',
     'Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n<b> &lt;b&gt; λ'),
    ('Content-Transfer-Encoding: base64\n\neyRuYW1lfQ==', 'Content-Transfer-Encoding: base64\n\nSm8='),
    ('Content-Transfer-Encoding: quoted-printable\n\n=7B$name} =\n=3D',
     'Content-Transfer-Encoding: quoted-printable\n\nJo =3D'),
    ('Content-Type: text/css\n\n{$name}', None),
    ('Content-Type: text/plain\nContent-Disposition: attachment\n\n{$name}', None),
    ('Content-Type: message/rfc822\n\n\n{$name}', None),
    ('Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nbm8gdGVt\ncGxhdGU=', None),
    ('Content-Type: image/png\n\n\udcff{$name}', None),
])
def test_parts(part: str, made: str | None) -> None:
    """As a message of its own where it has a header, and as a part of another one."""
    frame = 'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b"\n\n--b\n{}\n--b--\n'
    expected = frame.format(part if made is None else made)
    assert personal(frame.format(part)) == expected.replace('\n', '\r\n').encode('utf-8', 'surrogateescape')


def test_both_versions_of_a_text() -> None:
    made = personal('From: a@b\nSubject: {$name}\nMIME-Version: 1.0\n'
                    'Content-Type: multipart/alternative; boundary=b\n\n--b\n\n{$greek} text\n'
                    '--b\nContent-Type: text/html; charset=us-ascii\n\n<p>{$greek}</p>\n--b--\n')
    message = email.message_from_bytes(made, policy=email.policy.default)
    assert message['Subject'] == 'Jo'
    texts = [part.get_content() for part in message.walk() if not part.is_multipart()]
    assert texts == ['λ text', '<p>λ</p>']


def test_a_message_that_had_no_version_gets_one() -> None:
    assert personal('Subject: x\n\n{$greek}\n') == (
        b'Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n'
        b'MIME-Version: 1.0\r\n\r\nzrsNCg==')


@pytest.mark.parametrize(('mime', 'words'), [
    ('Subject: {if}\n\n', 'no tag'),
    ('\n\n{$name', 'line 2'),
    ('Content-Type: text/plain; charset=x\n\n{$name}', "not text in 'x'"),
    ('\n\udcff{$name}', "not text in 'utf-8'"),
    ('Content-Type: text/plain; charset="a\0b"\n\n{$name}', "not text in 'a"),
    ('To: ' + '{' * 3000 + '\n\n', 'To is a template of more than 2048 characters'),
])
def test_what_cannot_be_personalized(mime: str, words: str) -> None:
    with pytest.raises(PermanentError, match=words):
        personal(mime)


@pytest.mark.parametrize(('text', 'plain'), [
    ('x', 'x'), ('=?utf-8?q?a?=  =?utf-8?q?b?= c', 'ab c'), ('=?x?q?a?=', '=?x?q?a?='),
    ('=?utf-8?q?' + 'a' * 10000 + '?=', '=?utf-8?q?' + 'a' * 10000 + '?='), ('=?utf-8?q?=FF?=', '=?utf-8?q?=FF?='),
])
def test_encoded_words(text: str, plain: str) -> None:
    assert decode_words(text) == plain


def test_an_object() -> None:
    value = {'to': {'name': '{$name}', 'address': '{$recipient}'}, 'headers': {'x-{$name}': ['{$name}', 7]},
             'text': 'none', 'attachments': [{'name': '{$name}.txt', 'data': '{$name}'}], 'x': None}
    assert personalize_object(value, VARIABLES) == {
        'to': {'name': 'Jo', 'address': 'r@b.example'}, 'headers': {'x-{$name}': ['Jo', 7]}, 'text': 'none',
        'attachments': [{'name': 'Jo.txt', 'data': '{$name}'}], 'x': None}
