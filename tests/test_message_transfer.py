"""Transfer encodings and character sets: what a part says is undone, and done again."""

from __future__ import annotations

import email
import random

import pytest

from mqlite.message.mime import Entity
from mqlite.message.transfer import (
    TransferError,
    encode_base64,
    encode_printable,
    encode_shorter,
    fits_seven_bit,
    set_text,
    text_of,
)


def part(header: str, body: bytes) -> Entity:
    return Entity(header.replace('\n', '\r\n').encode() + b'\r\n' + body)


@pytest.mark.parametrize(('header', 'body', 'text'), [
    ('', b'plain', 'plain'),
    ('', b'a\r\nb\r\n', 'a\nb\n'),
    ('', 'ü'.encode(), 'ü'),
    ('Content-Type: text/plain; charset=iso-8859-1\n', b'\xfc', 'ü'),
    ('Content-Type: text/plain; charset="Windows-1252"\n', b'\x80', '€'),
    ('Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n', b'w7\r\nw=\r\n', 'ü'),
    ('Content-Transfer-Encoding: Quoted-Printable\n', b'=C3=BC=\r\n x=20\r\n', 'ü x \n'),
    ('Content-Transfer-Encoding: 8bit\n', 'ü'.encode(), 'ü'),
])
def test_the_text_of_a_part(header: str, body: bytes, text: str) -> None:
    assert text_of(part(header, body)) == text


@pytest.mark.parametrize(('header', 'body', 'words'), [
    ('', b'\xff', "not text in 'utf-8'"),
    ('Content-Type: text/plain; charset=ascii\n', b'\xc3', "not text in 'ascii'"),
    ('Content-Type: text/plain; charset=klingon\n', b'x', "not text in 'klingon'"),
    ('Content-Type: text/plain; charset=hex\n', b'61', "not text in 'hex'"),
    ('Content-Transfer-Encoding: base64\n', b'x', 'not base64'),
    ('Content-Transfer-Encoding: uuencode\n', b'x', "the transfer encoding 'uuencode'"),
])
def test_a_part_that_is_not_what_it_says(header: str, body: bytes, words: str) -> None:
    with pytest.raises(TransferError, match=words):
        text_of(part(header, body))


@pytest.mark.parametrize(('header', 'text', 'octets'), [
    ('', 'a\nb\r\nc\rd', b'\r\na\r\nb\r\nc\r\nd'),
    ('', 'ü', b'Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nw7w='),
    ('Content-Type: text/html; charset=iso-8859-1; x=y\nContent-Transfer-Encoding: 8bit\n', 'ü',
     b'Content-Type: text/html; charset=iso-8859-1; x=y\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xfc'),
    ('Content-Type: text/html; charset=iso-8859-1; x=y\nContent-Transfer-Encoding: 8bit\n', '€',
     b'Content-Type: text/html; x=y; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xe2\x82\xac'),
    ('Content-Transfer-Encoding: base64\n', 'a\n', b'Content-Transfer-Encoding: base64\r\n\r\nYQ0K'),
    ('Content-Transfer-Encoding: quoted-printable\n', 'a=\n',
     b'Content-Transfer-Encoding: quoted-printable\r\n\r\na=3D\r\n'),
])
def test_another_text(header: str, text: str, octets: bytes) -> None:
    entity = part(header, b'old')
    set_text(entity, text)
    assert entity.octets() == octets


def test_a_line_that_is_too_long_is_encoded() -> None:
    for encoding in ('7bit', '8bit'):
        entity = part(f'Content-Transfer-Encoding: {encoding}\n', b'old')
        set_text(entity, 'x' * 999)
        assert entity.contents.encoding == 'quoted-printable'
        assert max(map(len, entity.body.split(b'\r\n'))) <= 76
        assert text_of(entity) == 'x' * 999


@pytest.mark.parametrize(('octets', 'fits'), [
    (b'', True), (b'x' * 998 + b'\r\n' + b'y' * 998, True), (b'x' * 999, False), (b'a\0', False), (b'\x80', False)])
def test_what_fits_in_seven_bits(octets: bytes, fits: bool) -> None:
    assert fits_seven_bit(octets) is fits


def test_encodings_are_undone_by_python() -> None:
    dice = random.Random(3)
    for _ in range(300):
        octets = b''.join(dice.choice([b'\r\n', b' ', b'\t', b'.', b'=', b'a', b'\xff', b'word ', b'x' * 80, b'From '])
                          for _ in range(dice.randint(0, 30)))
        for encoding, body in (('base64', encode_base64(octets)), ('quoted-printable', encode_printable(octets)),
                               encode_shorter(octets)):
            assert fits_seven_bit(body)
            assert max(map(len, body.split(b'\r\n'))) <= 76
            message = email.message_from_bytes(f'Content-Transfer-Encoding: {encoding}\r\n\r\n'.encode() + body)
            assert message.get_payload(decode=True) == octets


def test_the_shorter_encoding() -> None:
    assert encode_shorter(b'plain text with one \xc3\xbc')[0] == 'quoted-printable'
    assert encode_shorter('одно слово'.encode())[0] == 'base64'
