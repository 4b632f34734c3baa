"""From a document to the message that is sent: what is done, in which order, and what `force` does."""

from __future__ import annotations

from typing import Any

import pytest

from mqlite.message.compose import ConversionError, check_later, compose
from mqlite.message.document import Document, DocumentError, NoMime

NOW = 1_700_000_000.0


def document(**fields: Any) -> Document:
    return Document({'envelope': 's@a.example', 'recipient': 'r@b.example', 'mime': 'Subject: {$x}\n\n{$recipient}\n',
                     **fields})


@pytest.mark.parametrize(('fields', 'octets'), [
    ({}, b'Subject: {$x}\r\n\r\n{$recipient}\r\n'),
    ({'data': None, 'headers': None, 'inlinecss': False}, b'Subject: {$x}\r\n\r\n{$recipient}\r\n'),
    ({'data': {'x': 'y'}}, b'Subject: y\r\n\r\nr@b.example\r\n'),
    ({'data': {}}, b'Subject: \r\n\r\nr@b.example\r\n'),
    ({'data': {'recipient': 'own'}}, b'Subject: \r\n\r\nown\r\n'),
    ({'inlinecss': True, 'data': {'x': 'y'}, 'mime': 'Content-Type: text/html\n\n<style>p{ a:b }</style><p>{$x}'},
     b'Content-Type: text/html\r\nMIME-Version: 1.0\r\n\r\n<p style="a: b">y\r\n'),
    ({'headers': {'update': {'subject': '{$x}!'}}}, b'subject: {$x}!\r\n\r\n{$recipient}\r\n'),
    ({'data': {'x': 'y'}, 'headers': {'update': {'subject': '{$x}!'}}}, b'subject: {$x}!\r\n\r\nr@b.example\r\n'),
])
def test_what_is_done(fields: dict[str, Any], octets: bytes) -> None:
    made = document(**fields)
    assert compose(made, NOW) == octets
    assert 'mime' not in made.fields
    assert all(made.fields[name] == fields[name] for name in fields if name != 'mime')


@pytest.mark.parametrize('lines', ['a\n.\r\nb', 'a\r.\nb', '\r\n.\r\nMAIL FROM:<x@y>', '\u0a0d\u0a2e\u0d0a'])
@pytest.mark.parametrize('header', [
    '', 'Content-Type: text/plain; charset=utf-16le\nContent-Transfer-Encoding: binary\n'])
def test_lines_end_with_crlf_whatever_is_put_in(lines: str, header: str) -> None:
    """Or else a value could end the message, and go on with commands."""
    text = '{$x}'.encode('utf-16le' if header else 'ascii').decode('ascii')
    made = compose(document(mime=f'{header}\n{text}', data={'x': lines}), NOW)
    assert made.count(b'\n') == made.count(b'\r') == made.count(b'\r\n')
    assert made.endswith(b'\r\n')


def test_the_last_line_is_ended() -> None:
    mime = 'Content-Transfer-Encoding: base64\n\neyRuYW1lfQ==\n'
    assert compose(document(mime=mime, data={'name': 'Jo'}), NOW).endswith(b'\r\n\r\nSm8=\r\n')


def test_an_object() -> None:
    made = document(mime={'from': 'i@x.example', 'to': '{$name} <{$recipient}>', 'text': 'Hi {$name}'},
                    data={'name': 'Jo'}, headers={'append': {'x-a': 'b'}, 'remove': 'message-id'})
    assert compose(made, NOW) == (
        b'From: i@x.example\r\nTo: Jo <r@b.example>\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\nMIME-Version: 1.0\r\n'
        b'Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\nx-a: b\r\n\r\nHi Jo\r\n')


def test_later_attempts_keep_the_date() -> None:
    results = [{'time': '2023-11-14 22:00:00'}]
    mime = compose(document(mime={'to': 'a@b'}, results=results), NOW)
    assert b'\r\nDate: Tue, 14 Nov 2023 22:00:00 +0000\r\n' in mime


def test_the_domain_of_the_message_id() -> None:
    assert b'@a.example>\r\n' in compose(document(mime={'text': 'x'}), NOW)
    assert b'@b.example>\r\n' in compose(document(mime={'text': 'x'}, envelope=''), NOW)


@pytest.mark.parametrize(('fields', 'state', 'forced'), [
    ({'data': []}, 'personalize', b'Subject: {$x}\r\n\r\n{$recipient}\r\n'),
    ({'mime': '\n{if}'}, 'personalize', b'\r\n{if}\r\n'),
    ({'headers': 5}, 'rewrite', b'Subject: 1\r\n\r\nr@b.example\r\n'),
    ({'mime': {'content': {}}}, 'responsive', None),
    ({'mime': {'text': '{/if}'}}, 'personalize', b'{/if}\r\n'),
])
def test_what_cannot_be_done(fields: dict[str, Any], state: str, forced: bytes | None) -> None:
    fields = {'data': {'x': 1}, **fields}
    with pytest.raises(ConversionError) as error:
        compose(document(**fields), NOW)
    assert error.value.state == state
    made = document(force=True, **fields)
    if forced is None:
        with pytest.raises(ConversionError):
            compose(made, NOW)
    else:
        assert compose(made, NOW).endswith(forced)


def test_no_message() -> None:
    for name in ('data', 'headers', 'other'):
        with pytest.raises(NoMime):
            compose(document(**{'mime': None, name: {}}), NOW)
    with pytest.raises(DocumentError, match='must be a string'):
        compose(document(mime=5, data={}), NOW)


def test_a_message_that_a_plugin_brings() -> None:
    check_later(document(mime=None))
    check_later(document(mime=None, headers={'x': 1}, force=True))
    with pytest.raises(ConversionError, match='"headers" cannot be done'):
        check_later(document(mime=None, headers={'x': 1}))
