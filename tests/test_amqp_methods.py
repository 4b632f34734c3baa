"""THE METHOD TABLE: each row both ways, against hand-written octets, and against sessions with a real broker."""

from __future__ import annotations

from typing import Any

import pytest

from mqlite.amqp.codec import (
    FRAME_HEADER,
    FRAME_METHOD,
    FrameBuffer,
    ProtocolError,
    Timestamp,
    Unencodable,
    encode_frame,
)
from mqlite.amqp.methods import (
    BY_NAME,
    METHODS,
    PROPERTY_TYPES,
    Properties,
    Row,
    decode_method,
    decode_properties,
    encode_method,
    encode_properties,
)
from tests.support.amqp import CAPTURES, captured, frames

# Two sets of values for each field type; bits alternate, so that neighbours differ.
SAMPLES: dict[str, tuple[Any, Any]] = {
    'octet': (0, 255), 'short': (1, 65535), 'long': (2, 2**32 - 1), 'longlong': (3, 2**64 - 1),
    'shortstr': ('', 'ü' * 127),
    'longstr': (b'', b'\0\xff' * 300), 'table': ({}, {'a': [1, None, {'b': 'c'}]}),
}


def sample(row: Row, which: int) -> dict[str, Any]:
    return {name: bool((place + which) % 2) if kind == 'bit' else SAMPLES[kind][which]
            for place, (name, kind) in enumerate(row.fields)}


@pytest.mark.parametrize('which', [0, 1])
@pytest.mark.parametrize('row', METHODS, ids=lambda row: row.name)
def test_every_method_round_trips(row: Row, which: int) -> None:
    fields = sample(row, which)
    payload = encode_method(row.name, fields)
    assert decode_method(payload, 0, len(payload)) == (row, fields)
    assert decode_method(b'..' + payload + b'\xff' * 9, 2, 2 + len(payload)) == (row, fields)
    stream, buffer = encode_frame(FRAME_METHOD, 1, payload), FrameBuffer(131072)
    found = [frame for at in range(len(stream)) for frame in buffer.feed(stream[at:at + 1])]
    assert [decode_method(data, begin, stop) for _, _, data, begin, stop in found] == [(row, fields)]


@pytest.mark.parametrize('row', METHODS, ids=lambda row: row.name)
def test_every_method_cut_or_continued_is_a_syntax_error(row: Row) -> None:
    payload = encode_method(row.name, sample(row, 0))
    for stop in range(4, len(payload)):
        with pytest.raises(ProtocolError) as caught:
            decode_method(payload, 0, stop)
        assert caught.value.code == 502
    with pytest.raises(ProtocolError):
        decode_method(payload + b'\0', 0, len(payload) + 1)


GOLDEN = [      # from the specification's grammar, by hand
    ('connection.tune', b'\0\x0a\0\x1e\7\xff\0\2\0\0\0\x3c',
     {'channel_max': 2047, 'frame_max': 131072, 'heartbeat': 60}),
    ('connection.close', b'\0\x0a\0\x32\1\x40\4down\0\0\0\0',
     {'reply_code': 320, 'reply_text': 'down', 'class_id': 0, 'method_id': 0}),
    ('connection.blocked', b'\0\x0a\0\x3c\3low', {'reason': 'low'}),
    ('queue.declare', b'\0\x32\0\x0a\0\0\1q\x12\0\0\0\0',
     {'reserved1': 0, 'queue': 'q', 'passive': False, 'durable': True, 'exclusive': False, 'auto_delete': False,
      'nowait': True, 'arguments': {}}),
    ('basic.publish', b'\0\x3c\0\x28\0\0\0\6outbox\1',
     {'reserved1': 0, 'exchange': '', 'routing_key': 'outbox', 'mandatory': True, 'immediate': False}),
    ('basic.deliver', b'\0\x3c\0\x3c\1c\0\0\0\0\0\0\0\7\1\0\1q',
     {'consumer_tag': 'c', 'delivery_tag': 7, 'redelivered': True, 'exchange': '', 'routing_key': 'q'}),
    ('basic.nack', b'\0\x3c\0\x78\0\0\0\0\0\0\0\7\2', {'delivery_tag': 7, 'multiple': False, 'requeue': True}),
]


@pytest.mark.parametrize(('name', 'payload', 'fields'), GOLDEN, ids=[row[0] for row in GOLDEN])
def test_golden_octets(name: str, payload: bytes, fields: dict[str, Any]) -> None:
    assert encode_method(name, fields) == payload
    assert decode_method(payload, 0, len(payload)) == (BY_NAME[name], fields)


def test_the_table_agrees_with_itself() -> None:
    assert len(BY_NAME) == len(METHODS) == len({(row.class_id, row.method_id) for row in METHODS})
    for row in METHODS:
        assert row.sender in ('client', 'broker', 'both')
        for answer in row.answers:      # an answer comes from the other side and asks for nothing itself
            assert BY_NAME[answer].answers == ()
            assert 'both' in (row.sender, BY_NAME[answer].sender) or row.sender != BY_NAME[answer].sender
        assert row.name.endswith(('-ok', '-empty')) == any(row.name in other.answers for other in METHODS)


def test_unknown_method_and_unknown_field() -> None:
    for payload in (b'', b'\0', b'\0\x3c\0', b'\0\x3c\0\x29', b'\0\x5a\0\x0a'):     # the last is tx.select
        with pytest.raises(ProtocolError) as caught:
            decode_method(payload, 0, len(payload))
        assert caught.value.code == 540
    with pytest.raises(TypeError, match='queue.purge has no field if_empty'):
        encode_method('queue.purge', {'queue': 'q', 'if_empty': True})


@pytest.mark.parametrize(('name', 'fields'), [
    ('basic.qos', {'prefetch_count': 65536}), ('basic.ack', {'delivery_tag': -1}), ('queue.declare', {'queue': 7}),
    ('queue.declare', {'queue': 'q' * 256}), ('queue.declare', {'arguments': {'a': object()}}),
    ('basic.qos', {'prefetch_count': '1'}),
])
def test_fields_that_do_not_fit(name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(Unencodable):
        encode_method(name, fields)


# --- captured sessions ------------------------------------------------------------------------------------------------

# RabbitMQ never sends these, or never makes a client send them; the tests above cover them.
NOT_CAPTURED = {
    ('broker', 'channel.flow'), ('client', 'channel.flow-ok'),          # it throttles by TCP instead
    ('client', 'basic.cancel-ok'),                                      # its own cancel has nowait
}


@pytest.mark.parametrize('name', CAPTURES)
@pytest.mark.parametrize('side', [0, 1])
def test_captured_octets_round_trip(name: str, side: int) -> None:
    stream, rebuilt = captured(name)[side], []
    for kind, number, payload in frames(stream):
        if kind == FRAME_METHOD:
            row, fields = decode_method(payload, 0, len(payload))
            payload = encode_method(row.name, fields)
        elif kind == FRAME_HEADER:
            payload = payload[:12] + encode_properties(decode_properties(payload[12:]))
        rebuilt.append(encode_frame(kind, number, payload))
    assert b''.join(rebuilt) == stream


@pytest.mark.parametrize('name', CAPTURES)
@pytest.mark.parametrize('side', [0, 1])
def test_captured_octets_byte_by_byte_with_bytes_to_spare(name: str, side: int) -> None:
    stream, buffer = captured(name)[side], FrameBuffer(131072)
    spare = stream + stream[:7]
    found = [(kind, number, data[begin:stop]) for at in range(len(spare))
             for kind, number, data, begin, stop in buffer.feed(spare[at:at + 1])]
    assert found == frames(stream)


def test_captured_sessions_hold_every_method_in_both_directions() -> None:
    seen = set()
    for name in CAPTURES:
        for sender, stream in zip(('client', 'broker'), captured(name)):
            for kind, _, payload in frames(stream):
                if kind == FRAME_METHOD:
                    seen.add((sender, decode_method(payload, 0, len(payload))[0].name))
    wanted = {(sender, row.name) for row in METHODS for sender in ('client', 'broker')
              if row.sender in (sender, 'both')}
    assert wanted - seen == NOT_CAPTURED
    assert not seen - wanted


# --- properties -------------------------------------------------------------------------------------------------------

ALL = Properties('application/json', 'gzip', {'x-a': 1}, 2, 9, 'corr', 'reply', '60000', 'id', 1700000000, 'type',
                 'user', 'app', 'cluster')
PROPERTIES = [
    (Properties(), b'\0\0'),
    (Properties(content_type='a', delivery_mode=2), b'\x90\0\1a\2'),
    (Properties(headers={}), b'\x20\0\0\0\0\0'),
    (Properties(priority=0, cluster_id=''), b'\x08\4\0\0'),
    (Properties(timestamp=1), b'\0\x40\0\0\0\0\0\0\0\1'),
    (Properties(content_type='x' * 255, message_id='y' * 255), b'\x80\x80\xff' + b'x' * 255 + b'\xff' + b'y' * 255),
]


def test_each_property_has_a_type() -> None:
    assert len(PROPERTY_TYPES) == len(Properties._fields) == 14


@pytest.mark.parametrize(('properties', 'octets'), PROPERTIES)
def test_properties(properties: Properties, octets: bytes) -> None:
    assert encode_properties(properties) == octets
    assert decode_properties(octets) == properties
    for wrong in [octets[:size] for size in range(len(octets))] + [octets + b'\0']:
        with pytest.raises(ProtocolError) as caught:
            decode_properties(wrong)
        assert caught.value.code == 502


@pytest.mark.parametrize('place', range(14))
def test_each_property_alone_and_all_without_it(place: int) -> None:
    name, value = Properties._fields[place], ALL[place]
    changed: tuple[dict[str, Any], dict[str, Any]] = ({name: value}, {name: None})
    alone, without = Properties(**changed[0]), ALL._replace(**changed[1])
    for properties in (alone, without, ALL):
        assert decode_properties(encode_properties(properties)) == properties
    assert encode_properties(alone)[:2] == (1 << 15 - place).to_bytes(2, 'big')


def test_timestamp_stays_a_timestamp() -> None:
    assert isinstance(decode_properties(encode_properties(ALL)).timestamp, Timestamp)


def test_headers_belong_to_one_message() -> None:
    octets = encode_properties(Properties(headers={'a': 1}))
    first, second = decode_properties(octets), decode_properties(octets)
    assert first == second and first.headers is not second.headers


@pytest.mark.parametrize('octets', [b'\0\1', b'\0\2', b'\xff\xff'])
def test_flags_beyond_the_fourteen(octets: bytes) -> None:
    with pytest.raises(ProtocolError, match='flags'):
        decode_properties(octets)


def test_a_property_of_the_wrong_type() -> None:
    with pytest.raises(Unencodable):
        encode_properties(Properties(delivery_mode=256))
    with pytest.raises(Unencodable):
        encode_properties(Properties(message_id='x' * 256))
