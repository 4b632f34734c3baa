"""Fields of a header: folded, encoded, and never more than one."""

from __future__ import annotations

import email
import email.policy

import pytest

from mqlite.message.fields import LINE_LIMIT, FieldError, format_address, make_field


@pytest.mark.parametrize(('name', 'value', 'field'), [
    ('Subject', 'hello', b'Subject: hello\r\n'),
    ('Subject', '', b'Subject: \r\n'),
    ('x-a', '  spaces  inside  ', b'x-a: spaces  inside\r\n'),
    ('Subject', 'a\r\nBcc: x@y', b'Subject: a Bcc: x@y\r\n'),
    ('Subject', 'a\r\n\r\nbody', b'Subject: a  body\r\n'),
    ('Subject', 'a\nb\rc\0d\x0be\x85f', b'Subject: a b c d e f\r\n'),
    ('Subject', 'folded\r\n\tvalue', b'Subject: folded value\r\n'),
    ('Subject', 'Gr\u00fc\u00dfe aus K\u00f6ln',
     b'Subject: =?utf-8?b?R3LDvMOfZSBhdXMgS8O2bG4=?=\r\n'),
    ('Subject', 'one \u00fc two', b'Subject: one =?utf-8?b?w7w=?= two\r\n'),
    ('Subject', '\u00fc =?utf-8?b?w7w=?=', b'Subject: =?utf-8?b?w7wgPT91dGYtOD9iP3c3dz0/PQ==?=\r\n'),
    ('Subject', '=?utf-8?b?w7w=?= stays', b'Subject: =?utf-8?b?w7w=?= stays\r\n'),
    ('Subject', 'lone \udcff', b'Subject: lone =?utf-8?b?Pw==?=\r\n'),
    ('From', 'J\u00f6rg <j@x.example>', b'From: =?utf-8?b?SsO2cmc=?= <j@x.example>\r\n'),
    ('to', 'a@x.example, "M\u00fcller, J" <j@x.example>',
     b'to: a@x.example, =?utf-8?b?TcO8bGxlciwgSg==?= <j@x.example>\r\n'),
    ('To', 'j\u00f6rg@x.example', b'To: j\xc3\xb6rg@x.example\r\n'),
    ('Subject', 'word ' * 20, b'Subject:' + b' word' * 13 + b'\r\n' + b' word' * 7 + b'\r\n'),
    ('Subject', 'x' * 200, b'Subject: ' + b'x' * 200 + b'\r\n'),
    ('Subject', 'a ' + 'x' * 200 + ' b', b'Subject: a\r\n ' + b'x' * 200 + b'\r\n b\r\n'),
])
def test_fields(name: str, value: str, field: bytes) -> None:
    assert make_field(name, value) == field


@pytest.mark.parametrize('name', ['', 'a b', 'a:', 'a\r\nb', 'ü', 'a\0', 'x' * 101, ' '])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(FieldError, match='no name'):
        make_field(name, 'x')


def test_a_word_that_is_too_long() -> None:
    assert len(make_field('A', 'x' * (LINE_LIMIT - 3))) == LINE_LIMIT + 2
    with pytest.raises(FieldError, match='A has a word of more than 998 octets'):
        make_field('A', 'x' * (LINE_LIMIT - 2))


@pytest.mark.parametrize('text', ['\u00fc' + '(' * 5000, '\u00fc' + 'a:' * 5000], ids=['comments', 'groups'])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(FieldError, match='no addresses'):
        make_field('To', text)


READ_AGAIN = ['ü' * 500, 'wört ' * 100, '\U0001f600' * 100, 'x' * 60 + ' ü', 'ü' + ' y' * 300]


@pytest.mark.parametrize('value', READ_AGAIN, ids=range(len(READ_AGAIN)))
def test_what_is_read_again_is_what_was_written(value: str) -> None:
    field = make_field('Subject', value)
    lines = field.split(b'\r\n')
    assert max(map(len, lines)) <= 76
    assert all(len(word) <= 75 for line in lines for word in line.split() if word.startswith(b'=?'))
    assert email.message_from_bytes(field, policy=email.policy.default)['Subject'] == value.strip()


@pytest.mark.parametrize(('name', 'address', 'text'), [
    ('', 'a@b', 'a@b'), ('Jo', 'a@b', 'Jo <a@b>'), ('Jo & Co', 'a@b', 'Jo & Co <a@b>'),
    ('Doe, J.', 'a@b', '"Doe, J." <a@b>'), ('a "b" \\', 'a@b', '"a \\"b\\" \\\\" <a@b>'),
    ('x\r\ny', 'a@b', 'x y <a@b>'), ('ü', 'a@b', '=?utf-8?b?w7w=?= <a@b>'), ('=?x', 'a@b', '=?utf-8?b?PT94?= <a@b>'),
])
def test_addresses(name: str, address: str, text: str) -> None:
    assert format_address(name, address) == text
