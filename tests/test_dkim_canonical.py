"""The canonical forms, by table; the first rows are the examples of RFC 6376 sections 3.4.4 and 3.4.5."""

from __future__ import annotations

import pytest

from mqlite.dkim.canonical import canonical_body, canonical_field, split_message


@pytest.mark.parametrize(('raw', 'simple', 'relaxed'), [
    (b'A: X\r\n',                     b'A: X\r\n',                     b'a:X\r\n'),
    (b'B : Y\t\r\n\tZ  \r\n',         b'B : Y\t\r\n\tZ  \r\n',         b'b:Y Z\r\n'),
    (b'Subject:\r\n  two\r\n lines\r\n', b'Subject:\r\n  two\r\n lines\r\n', b'subject:two lines\r\n'),
    (b'Empty:\r\n',                   b'Empty:\r\n',                   b'empty:\r\n'),
    (b'Spaces: \t \r\n',              b'Spaces: \t \r\n',              b'spaces:\r\n'),
    (b'URL: a:b: c\r\n',              b'URL: a:b: c\r\n',              b'url:a:b: c\r\n'),
    (b'Bytes: \xff\x00 \r\n',         b'Bytes: \xff\x00 \r\n',         b'bytes:\xff\x00\r\n'),
])
def test_a_field(raw: bytes, simple: bytes, relaxed: bytes) -> None:
    assert (canonical_field(raw, 'simple'), canonical_field(raw, 'relaxed')) == (simple, relaxed)


@pytest.mark.parametrize(('body', 'simple', 'relaxed'), [
    (b' C \r\nD \t E\r\n\r\n\r\n', b' C \r\nD \t E\r\n', b' C\r\nD E\r\n'),
    (b'',                          b'\r\n',              b''),
    (b'\r\n',                      b'\r\n',              b''),
    (b'\r\n\r\n\r\n',              b'\r\n',              b''),
    (b' \t\r\n\r\n',               b' \t\r\n',           b''),
    (b'a',                         b'a\r\n',             b'a\r\n'),
    (b'a \t',                      b'a \t\r\n',          b'a\r\n'),
    (b'a\r\n',                     b'a\r\n',             b'a\r\n'),
    (b'a\r\n\r\nb\r\n',            b'a\r\n\r\nb\r\n',    b'a\r\n\r\nb\r\n'),
    (b'a\tb\r\n',                  b'a\tb\r\n',          b'a b\r\n'),
    (b'a \r\n \r\n\t\r\n',         b'a \r\n \r\n\t\r\n', b'a\r\n'),
    (b'\xff \x00\r\n',             b'\xff \x00\r\n',     b'\xff \x00\r\n'),
])
def test_a_body(body: bytes, simple: bytes, relaxed: bytes) -> None:
    assert (canonical_body(body, 'simple'), canonical_body(body, 'relaxed')) == (simple, relaxed)


@pytest.mark.parametrize(('mime', 'names', 'body'), [
    (b'A: 1\r\nB: 2\r\n 3\r\n\r\nbody\r\n', ['a', 'b'], b'body\r\n'),
    (b'A: 1\r\n',                           ['a'],      b''),
    (b'A: 1\r\n\r\n',                       ['a'],      b''),
    (b'\r\nbody\r\n',                       [],         b'body\r\n'),
    (b'',                                   [],         b''),
    (b'A : 1\r\n\r\n\r\nx',                 ['a'],      b'\r\nx'),
])
def test_a_message_is_split(mime: bytes, names: list[str], body: bytes) -> None:
    fields, rest = split_message(mime)
    assert ([field.name for field in fields], rest) == (names, body)


def test_no_octet_of_a_header_is_lost() -> None:
    header = b'A: 1\r\nB: 2\r\n\t3\r\n 4\r\nno colon\r\nC:\r\n'
    assert b''.join(field.raw for field in split_message(header)[0]) == header
