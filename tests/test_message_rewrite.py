"""The property `headers`: what becomes of the header, and that nothing else can come in with it."""

from __future__ import annotations

from typing import Any

import pytest

from mqlite.message.fields import FieldError
from mqlite.message.rewrite import change_header

HEADER = b'From: a@b\r\nX-A: 1\r\n 2\r\nSubject: s\r\nx-a: 3\r\n'


@pytest.mark.parametrize(('changes', 'header'), [
    ({}, HEADER),
    ({'remove': 'subject'}, b'From: a@b\r\nX-A: 1\r\n 2\r\nx-a: 3\r\n'),
    ({'remove': ['x-A', 'FROM', 'nothing']}, b'Subject: s\r\n'),
    ({'remove': None, 'prepend': None}, HEADER),
    ({'prepend': {'x-b': 'v', 'x-c': ['1', '2']}}, b'x-b: v\r\nx-c: 1\r\nx-c: 2\r\n' + HEADER),
    ({'append': {'x-b': 'v'}}, HEADER + b'x-b: v\r\n'),
    ({'add': {'x-b': ['v', 7, 1.5]}}, HEADER + b'x-b: v\r\nx-b: 7\r\nx-b: 1.5\r\n'),
    ({'append': {'x-b': '1'}, 'add': {'x-b': '2'}}, HEADER + b'x-b: 1\r\nx-b: 2\r\n'),
    ({'replace': {'x-A': 'new'}}, b'From: a@b\r\nx-A: new\r\nSubject: s\r\n'),
    ({'replace': {'x-a': ['1', '2']}}, b'From: a@b\r\nx-a: 1\r\nx-a: 2\r\nSubject: s\r\n'),
    ({'replace': {'x-b': 'v'}}, HEADER + b'x-b: v\r\n'),
    ({'update': {'subject': 'new', 'x-b': 'v'}}, b'From: a@b\r\nX-A: 1\r\n 2\r\nsubject: new\r\nx-a: 3\r\n'),
    ({'update': {'x-a': []}}, b'From: a@b\r\nSubject: s\r\n'),
    ({'remove': 'x-a', 'append': {'x-a': 'new'}}, b'From: a@b\r\nSubject: s\r\nx-a: new\r\n'),
    ({'replace': {'from': 'J\u00f6 <j@b>'}}, b'from: =?utf-8?b?SsO2?= <j@b>\r\n' + HEADER[11:]),
    ({'append': {'x': 'a\r\nBcc: c@d\r\n\r\nbody'}}, HEADER + b'x: a Bcc: c@d  body\r\n'),
])
def test_changes(changes: Any, header: bytes) -> None:
    assert change_header(HEADER + b'\r\nbody\r\n', changes) == header + b'\r\nbody\r\n'


def test_messages_without_a_header_or_a_body() -> None:
    assert change_header(b'\r\nbody', {'append': {'a': 'b'}}) == b'a: b\r\n\r\nbody'
    assert change_header(b'a: b\r\n', {'append': {'c': 'd'}}) == b'a: b\r\nc: d\r\n\r\n'
    assert change_header(b'a: b\r\n', {'remove': 'a'}) == b'\r\n'


@pytest.mark.parametrize(('changes', 'words'), [
    (5, '"headers" must be an object'),
    ({'rename': {}}, "'rename', which is none of"),
    ({'remove': 5}, '"headers.remove" must be'),
    ({'remove': [5]}, '"headers.remove" must be'),
    ({'append': ['x']}, '"headers.append" must be an object'),
    ({'append': {'x': None}}, "the value of 'x' in \"headers\" must be a text"),
    ({'append': {'x': True}}, 'must be a text'),
    ({'append': {'x': {}}}, 'must be a text'),
    ({'append': {'x:y': 'z'}}, 'no name of a header field'),
    ({'replace': {'x\r\ny': 'z'}}, 'no name of a header field'),
    ({'append': {'x': 'y' * 1000}}, '998 octets'),
])
def test_what_cannot_be_done(changes: Any, words: str) -> None:
    with pytest.raises(FieldError, match=words):
        change_header(HEADER + b'\r\n', changes)
