"""The parts of a message: found as RFC 2046 has them, and every octet comes back."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mqlite.message.mime import DEPTH, PARTS, Contents, Entity, field_name, read_contents, split_fields

TYPE = b'Content-Type: multipart/mixed; boundary=b\r\n\r\n'
INNER = TYPE.replace(b'=b', b'=c')


def tree(entity: Entity) -> Any:
    """The bodies of the leaves, within each other as the parts are."""
    return entity.body if entity.is_leaf else [tree(part) for part in entity.inner()]


@pytest.mark.parametrize(('octets', 'expected'), [
    (b'', b''),
    (b'\r\n', b''),
    (b'Subject: x\r\n', b''),
    (b'Subject: x\r\n\r\nbody\r\n', b'body\r\n'),
    (b'\r\nbody', b'body'),
    (TYPE + b'--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\n', [b'one', b'two']),
    (TYPE + b'preamble\r\n--b\r\n\r\none\r\n--b--\r\nepilogue\r\n--b\r\nx', [b'one']),
    (TYPE + b'--b\r\n\r\none\r\n\r\n--b--', [b'one\r\n']),
    (TYPE + b'--b \t\r\n\r\none\r\n--b--\t\r\n', [b'one']),
    (TYPE + b'--b\r\n\r\none', [b'one']),
    (TYPE + b'--b\r\n--b\r\n\r\n--b--\r\n', [b'', b'']),
    (TYPE + b'--b\r\n\r\n--b--\r\n', [b'']),
    (TYPE + b'--bb\r\n\r\nx\r\n --b\r\n\r\n--b-\r\n', b'--bb\r\n\r\nx\r\n --b\r\n\r\n--b-\r\n'),
    (TYPE + b'--b--\r\n', b'--b--\r\n'),
    (TYPE + b'nothing', b'nothing'),
    (b'Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\nx', b'--b\r\n\r\nx'),
    (b'Content-Type: multipart/mixed; boundary="a.*"\r\n\r\n--a.*\r\n\r\nx\r\n--aaa\r\n--a.*--', [b'x\r\n--aaa']),
    (TYPE + b'--b\r\n' + INNER + b'--c\r\n\r\nx\r\n--c--\r\n--b\r\n\r\ny\r\n--b--', [[b'x'], b'y']),
    (TYPE + b'--b\r\n' + INNER + b'--c\r\n\r\nx\r\n--b\r\n\r\ny\r\n--b--', [[b'x'], b'y']),
    (b'Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\ny', [b'y']),
    (b'Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nSubject: x\r\n\r\ny',
     b'Subject: x\r\n\r\ny'),
    (b'Content-Transfer-Encoding: base64\r\n' + TYPE + b'--b\r\n\r\nx', b'--b\r\n\r\nx'),
])
def test_parts(octets: bytes, expected: Any) -> None:
    entity = Entity(octets)
    assert tree(entity) == expected
    assert entity.octets() == octets


def test_random_messages_come_back() -> None:
    dice = random.Random(7)
    pieces = [b'--b\r\n', b'--b--\r\n', b'--c\r\n', b'\r\n', b'x', TYPE, INNER, b'A: b\r\n', b'--b',
              b'Content-Type: message/rfc822\r\n\r\n', b'\r\n\r\n', b'--', b'\n']
    for _ in range(3000):
        octets = TYPE + b''.join(dice.choice(pieces) for _ in range(dice.randint(0, 15)))
        assert Entity(octets).octets() == octets


def test_limits() -> None:
    deep = b'Content-Type: message/rfc822\r\n\r\n' * 1000 + b'\r\nx'
    entity, levels = Entity(deep), 0
    while not entity.is_leaf:
        entity, levels = next(entity.inner()), levels + 1
    assert levels == DEPTH
    assert Entity(deep).octets() == deep
    wide = TYPE + b'--b\r\n\r\nx\r\n' * (PARTS + 50)
    assert len(list(Entity(wide).inner())) == PARTS
    assert Entity(wide).octets() == wide


@pytest.mark.parametrize(('header', 'contents'), [
    (b'', Contents('', '', '', '', '', '')),
    (b'content-type : Text/HTML ; Charset="UTF-8"\r\n', Contents('text/html', '', 'utf-8', '', '', '')),
    (b'Content-Type: a/b; name=x.txt\r\nContent-Transfer-Encoding: BASE64 \r\nContent-Disposition: Attachment\r\n',
     Contents('a/b', '', '', 'x.txt', 'base64', 'attachment')),
    (b"Content-Disposition: inline;\r\n filename*0*=utf-8''%C3%A4;\r\n filename*1=b\r\n",
     Contents('', '', '', 'äb', '', 'inline')),
    (b'X: y\r\n Content-Type: a/b\r\nContent-Type: c/d\r\nContent-Type: e/f\r\n', Contents('c/d', '', '', '', '', '')),
])
def test_contents(header: bytes, contents: Contents) -> None:
    assert read_contents(header) == contents


@pytest.mark.parametrize(('header', 'fields'), [
    (b'', []), (b'A: b\r\n', [b'A: b\r\n']), (b'A: b\r\n c\r\nD: e\r\n', [b'A: b\r\n c\r\n', b'D: e\r\n']),
    (b'A: b', [b'A: b']), (b' a\r\nB: c', [b' a\r\n', b'B: c']),
])
def test_fields(header: bytes, fields: list[bytes]) -> None:
    assert split_fields(header) == fields
    assert b''.join(split_fields(header)) == header


@pytest.mark.parametrize(('field', 'name'), [
    (b'Subject: x\r\n', 'subject'), (b'X-\xff \t:y', 'x-ÿ'), (b'no field', ''), (b'', '')])
def test_names(field: bytes, name: str) -> None:
    assert field_name(field) == name


def test_setting_a_field() -> None:
    entity = Entity(b'A: 1\r\nb: 2\r\n 3\r\nA: 4\r\n\r\nx')
    entity.set_field('a', b'A: 5\r\n')
    entity.set_field('content-type', b'Content-Type: x/y\r\n')
    assert entity.octets() == b'A: 5\r\nb: 2\r\n 3\r\nContent-Type: x/y\r\n\r\nx'
    assert entity.contents.type == 'x/y'
