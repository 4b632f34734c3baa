"""AMQP for tests: what a broker would send, built from the method table, and captured sessions with a real one.

The captures in tests/data/amqp are sessions with RabbitMQ 3.10.8, recorded by a proxy. A file is a row of segments in
the order of the dialogue: '>' (from the client) or '<' (from the broker), size (4 octets), octets.

    session.bin     this client: every method that it and the broker have for each other, frame-max 4096
    challenge.bin   a login by challenge and response, ended by the broker with connection.close
    pika.bin        another client (pika 1.4.4), for octets that our encoder did not make
"""

from __future__ import annotations

from struct import pack, unpack_from
from typing import Any

from mqlite.amqp.channel import Channel
from mqlite.amqp.codec import FRAME_BODY, FRAME_HEADER, FRAME_METHOD, FrameBuffer, encode_frame
from mqlite.amqp.connection import Connection
from mqlite.amqp.events import Event
from mqlite.amqp.methods import NO_PROPERTIES, Properties, decode_method, encode_method, encode_properties
from mqlite.amqp.uri import Address
from tests.support.process import ROOT

CAPTURES = ('session', 'challenge', 'pika')
PROTOCOL_HEADER = b'AMQP\x00\x00\x09\x01'


def captured(name: str) -> tuple[bytes, bytes]:
    """All octets of a captured session: from the client (without the protocol header), from the broker."""
    data, at, sides = (ROOT / f'tests/data/amqp/{name}.bin').read_bytes(), 0, {b'>': b'', b'<': b''}
    while at < len(data):
        size, = unpack_from('>I', data, at + 1)
        sides[data[at:at + 1]] += data[at + 5:at + 5 + size]
        at += 5 + size
    assert sides[b'>'].startswith(PROTOCOL_HEADER)
    return sides[b'>'][len(PROTOCOL_HEADER):], sides[b'<']


def frames(stream: bytes, frame_max: int = 131072) -> list[tuple[int, int, bytes]]:
    """(kind, channel, payload) of each frame in a stream that must end with a whole one."""
    buffer = FrameBuffer(frame_max)
    found = [(kind, number, data[begin:stop]) for kind, number, data, begin, stop in buffer.feed(stream)]
    assert sum(len(payload) + 8 for _, _, payload in found) == len(stream)
    return found


def methods(stream: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Names and fields of the method frames in a stream."""
    decoded = [decode_method(payload, 0, len(payload)) for kind, _, payload in frames(stream) if kind == FRAME_METHOD]
    return [(row.name, fields) for row, fields in decoded]


def method(number: int, name: str, **fields: Any) -> bytes:
    return encode_frame(FRAME_METHOD, number, encode_method(name, fields))


def header(number: int, size: int, properties: Properties = NO_PROPERTIES) -> bytes:
    return encode_frame(FRAME_HEADER, number, pack('>HHQ', 60, 0, size) + encode_properties(properties))


def content(number: int, *parts: bytes, properties: Properties = NO_PROPERTIES) -> bytes:
    """A header, and one body frame for each part."""
    bodies = b''.join(encode_frame(FRAME_BODY, number, part) for part in parts)
    return header(number, sum(map(len, parts)), properties) + bodies


START = method(0, 'connection.start', version_major=0, version_minor=9, mechanisms=b'AMQPLAIN PLAIN',
               locales=b'en_US', server_properties={'product': 'RabbitMQ'})


def tune(channel_max: int = 2047, frame_max: int = 131072, heartbeat: int = 60) -> bytes:
    return method(0, 'connection.tune', channel_max=channel_max, frame_max=frame_max, heartbeat=heartbeat)


def opened(max_body: int = 1 << 20, frame_max: int = 131072, **address: Any) -> Connection:
    """A connection that is ready, with nothing left to send."""
    connection = Connection(Address(**address), max_body=max_body)
    connection.receive(START + tune(frame_max=frame_max) + method(0, 'connection.open-ok'))
    connection.data_to_send()
    return connection


def with_channel(**options: Any) -> tuple[Connection, Channel]:
    """A ready connection with channel 1 open, and nothing left to send."""
    connection = opened(**options)
    channel = connection.open_channel()
    connection.receive(method(1, 'channel.open-ok'))
    connection.data_to_send()
    return connection, channel


def confirming() -> tuple[Connection, Channel]:
    """The same, in confirm mode."""
    connection, channel = with_channel()
    channel.request('confirm.select')
    connection.receive(method(1, 'confirm.select-ok'))
    connection.data_to_send()
    return connection, channel


def byte_by_byte(connection: Connection, stream: bytes) -> list[Event]:
    return [event for at in range(len(stream)) for event in connection.receive(stream[at:at + 1])]
