"""Field values, tables, frames: octets written by hand from the specification, then every way to get them wrong."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from mqlite.amqp.codec import (
    MAX_DEPTH,
    FrameBuffer,
    ProtocolError,
    Reader,
    Timestamp,
    Unencodable,
    encode_frame,
    encode_longstr,
    encode_shortstr,
    encode_table,
)

VALUES: list[tuple[Any, bytes]] = [
    (True,                  b't\1'),
    (False,                 b't\0'),
    (0,                     b'I\0\0\0\0'),
    (-1,                    b'I\xff\xff\xff\xff'),
    (2**31 - 1,             b'I\x7f\xff\xff\xff'),
    (-2**31,                b'I\x80\0\0\0'),
    (2**31,                 b'l\0\0\0\0\x80\0\0\0'),
    (-2**63,                b'l\x80\0\0\0\0\0\0\0'),
    (Timestamp(2**63),      b'T\x80\0\0\0\0\0\0\0'),
    (1.5,                   b'd\x3f\xf8\0\0\0\0\0\0'),
    (float('inf'),          b'd\x7f\xf0\0\0\0\0\0\0'),
    (Decimal('-1.25'),      b'D\2\xff\xff\xff\x83'),
    (Decimal('7'),          b'D\0\0\0\0\7'),
    (Decimal('0.00'),       b'D\2\0\0\0\0'),
    ('',                    b'S\0\0\0\0'),
    ('ü',                   b'S\0\0\0\2\xc3\xbc'),
    ('\udcff',              b'S\0\0\0\1\xff'),
    (b'\0\xff',             b'x\0\0\0\2\0\xff'),
    (None,                  b'V'),
    ([],                    b'A\0\0\0\0'),
    ([None, [True]],        b'A\0\0\0\x08VA\0\0\0\2t\1'),
    ({},                    b'F\0\0\0\0'),
    ({'a': {'b': [None]}},  b'F\0\0\0\x0f\1aF\0\0\0\x08\1bA\0\0\0\1V'),
]
# Types that are read but never written: Python does not remember how wide a number was.
READ_ONLY: list[tuple[Any, bytes]] = [
    (True,          b't\x80'),
    (-128,          b'b\x80'),
    (255,           b'B\xff'),
    (-32768,        b's\x80\0'),
    (65535,         b'u\xff\xff'),
    (2**32 - 1,     b'i\xff\xff\xff\xff'),
    (-2.5,          b'f\xc0\x20\0\0'),
]


def table(octets: bytes) -> bytes:
    """A table whose only field, named k, has the value that these octets are."""
    return encode_longstr(b'\1k' + octets)


def read_table(octets: bytes) -> dict[str, Any]:
    reader = Reader(octets, 0, len(octets))
    fields = reader.table()
    reader.finish()
    return fields


@pytest.mark.parametrize(('value', 'octets'), VALUES)
def test_value_encodes(value: Any, octets: bytes) -> None:
    assert encode_table({'k': value}) == table(octets)


@pytest.mark.parametrize(('value', 'octets'), VALUES + READ_ONLY)
def test_value_decodes(value: Any, octets: bytes) -> None:
    decoded = read_table(table(octets))['k']
    assert (decoded, type(decoded)) == (value, type(value))


@pytest.mark.parametrize(('value', 'octets'), VALUES + READ_ONLY)
def test_value_cut_or_continued_is_a_syntax_error(value: Any, octets: bytes) -> None:
    for wrong in [octets[:size] for size in range(len(octets))] + [octets + b'?']:
        with pytest.raises(ProtocolError) as caught:
            read_table(table(wrong))
        assert caught.value.code == 502
    with pytest.raises(ProtocolError):
        read_table(table(octets) + b'\0')       # behind the table
    with pytest.raises(ProtocolError):
        read_table(table(octets)[:-1])          # the table's own size leads outside


def test_value_inside_a_buffer_does_not_read_its_neighbours() -> None:
    data = b'xx' + table(b'I\0\0\0\1') + b'\xff' * 40
    for end in range(2, 2 + len(table(b'I\0\0\0\1'))):
        with pytest.raises(ProtocolError):
            Reader(data, 2, end).table()


def nested(depth: int, octets: bytes = b'V') -> bytes:
    for _ in range(depth):
        octets = b'A' + encode_longstr(octets)
    return octets


def test_depth_is_bounded_alike_both_ways() -> None:
    deepest = read_table(table(nested(MAX_DEPTH - 1)))
    assert encode_table(deepest) == table(nested(MAX_DEPTH - 1))
    with pytest.raises(ProtocolError):
        read_table(table(nested(MAX_DEPTH)))
    with pytest.raises(Unencodable):
        encode_table({'k': deepest})
    with pytest.raises(ProtocolError):
        read_table(table(nested(20_000)))       # and not a RecursionError


@pytest.mark.parametrize('value', [
    2**63, -2**63 - 1, Timestamp(-1), Timestamp(2**64), Decimal('1E+10'), Decimal('1E-256'), Decimal('2147483648'),
    Decimal('NaN'), Decimal('Infinity'), object(), {1, 2}, (1,), {'k' * 256: 1}, {3: 1}, [object()], '\ud800',
])
def test_values_that_amqp_cannot_carry(value: Any) -> None:
    with pytest.raises(Unencodable):
        encode_table({'k': value})


def test_decimal_with_positive_exponent_keeps_its_value() -> None:
    assert read_table(encode_table({'k': Decimal('-1E+9')})) == {'k': Decimal(-10**9)}


def test_short_string_bound() -> None:
    assert encode_shortstr('é' * 127) == b'\xfe' + 'é'.encode() * 127
    with pytest.raises(Unencodable):
        encode_shortstr('é' * 128)


def test_table_must_be_a_dict() -> None:
    with pytest.raises(Unencodable):
        encode_table([('a', 1)])        # type: ignore[arg-type]


# --- frames -----------------------------------------------------------------------------------------------------------

FRAMES = [
    (8, 0, b'', b'\x08\0\0\0\0\0\0\xce'),
    (1, 1, b'\0\x14\0\x0a\0', b'\1\0\1\0\0\0\5\0\x14\0\x0a\0\xce'),
    (3, 65535, b'\xce\xce', b'\3\xff\xff\0\0\0\2\xce\xce\xce'),
    (2, 258, b'x' * 70000, b'\2\1\2\0\1\x11\x70' + b'x' * 70000 + b'\xce'),
]
STREAM = b''.join(octets for _, _, _, octets in FRAMES)


def cut(buffer: FrameBuffer, data: bytes) -> list[tuple[int, int, bytes]]:
    return [(kind, number, whole[begin:stop]) for kind, number, whole, begin, stop in buffer.feed(data)]


@pytest.mark.parametrize(('kind', 'number', 'payload', 'octets'), FRAMES)
def test_frame_encodes(kind: int, number: int, payload: bytes, octets: bytes) -> None:
    assert encode_frame(kind, number, payload) == octets


@pytest.mark.parametrize('step', [1, 2, 7, 8, 9, 13, 4096, len(STREAM)])
def test_frames_come_out_however_they_were_cut(step: int) -> None:
    buffer = FrameBuffer(131072)
    found = [frame for at in range(0, len(STREAM), step) for frame in cut(buffer, STREAM[at:at + step])]
    assert found == [frame[:3] for frame in FRAMES]


@pytest.mark.parametrize('kept', range(1, 14))
def test_the_start_of_the_next_frame_waits(kept: int) -> None:
    buffer, (_, _, payload, octets) = FrameBuffer(4096), FRAMES[1]
    assert cut(buffer, octets + octets[:kept]) == [(1, 1, payload)] * (1 + kept // 13)
    assert cut(buffer, octets[kept:] if kept < 13 else octets) == [(1, 1, payload)]


@pytest.mark.parametrize(('octets', 'code', 'said'), [
    (b'\1\0\0\0\0\0\1x\xcf',            501, 'does not end with 0xCE'),
    (b'\x08\0\0\0\0\0\0\0',             501, 'does not end with 0xCE'),
    (b'\1\0\0\0\0\x0f\xf9\0',           501, 'a frame of 4089 octets, frame-max is 4096'),
    (b'\1\0\0\xff\xff\xff\xff\0',       501, 'a frame of 4294967295 octets'),
    (b'\0\0\0\0\0\0\0\xce',             501, 'unknown type 0'),
    (b'\4\0\0\0\0\0\0\xce',             501, 'unknown type 4'),
    (b'220 mail.test ESMTP\r\n',        501, 'is not AMQP'),
    (b'HTTP/1.1 400 Bad',               501, 'is not AMQP'),
    (b'AMQP\0\1\0\0',                   540, 'AMQP 0-1-0-0'),
    (b'AMQP\0\0\x08\0',                 540, 'AMQP 0-0-8-0'),
])
def test_what_is_no_frame(octets: bytes, code: int, said: str) -> None:
    for step in (1, len(octets)):
        buffer = FrameBuffer(4096)
        with pytest.raises(ProtocolError, match=said) as caught:
            for at in range(0, len(octets), step):
                cut(buffer, octets[at:at + step])
        assert caught.value.code == code


def test_a_frame_of_exactly_frame_max_is_allowed() -> None:
    assert cut(FrameBuffer(4096), encode_frame(3, 1, b'x' * 4088)) == [(3, 1, b'x' * 4088)]
