"""THE METHOD TABLE of AMQP 0-9-1 with RabbitMQ's extensions, the content properties, and their codecs.

One row per method: its numbers, name, who may send it, whether content follows, which answers it waits for, its
fields in wire order. Encoding, decoding, the matching of answers and the checks of direction all read these rows. The
few methods that travel once per message have a second, faster form in channel.py; a test proves it equal to this one.

A field is written `name:type`. Types: bit (neighbours share an octet), octet, short, long, longlong, shortstr (str),
longstr (bytes), table (dict). Class tx is left out: publisher confirms do its work, and nothing here uses it.

This file must not know channels, state or order. A method that is not a row, or a payload that is not exactly its
fields, is a ProtocolError. Source: amqp0-9-1.xml; RabbitMQ's extended definition for 10.60 to 10.71, 40.30 to 40.51,
60.120 and class 85.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Any, Callable, NamedTuple

from mqlite.amqp.codec import (
    LONG,
    LONGLONG,
    OCTET,
    SHORT,
    ProtocolError,
    Reader,
    Reply,
    Timestamp,
    encode_longstr,
    encode_shortstr,
    encode_table,
    pack,
)


class Row(NamedTuple):
    """One method. `sender` is 'client', 'broker' or 'both'; `answers` is empty when nothing is waited for."""

    class_id: int
    method_id: int
    name: str
    sender: str
    answers: tuple[str, ...]
    content: bool
    fields: tuple[tuple[str, str], ...]     # (name, type)


def _row(class_id: int, method_id: int, name: str, sender: str, fields: str, answers: str = '',
         content: bool = False) -> Row:
    pairs = tuple((field.partition(':')[0], field.partition(':')[2]) for field in fields.split())
    return Row(class_id, method_id, name, sender, tuple(answers.split()), content, pairs)


# Fields that several methods share, in wire order.
_CLOSE = 'reply_code:short reply_text:shortstr class_id:short method_id:short'
_DELIVERY = 'delivery_tag:longlong redelivered:bit exchange:shortstr routing_key:shortstr'
_EXCHANGE_BIND = ('reserved1:short destination:shortstr source:shortstr routing_key:shortstr nowait:bit '
                  'arguments:table')
_QUEUE = 'reserved1:short queue:shortstr'

METHODS: tuple[Row, ...] = (
    _row(10, 10, 'connection.start', 'broker', 'version_major:octet version_minor:octet server_properties:table '
                 'mechanisms:longstr locales:longstr', 'connection.start-ok'),
    _row(10, 11, 'connection.start-ok', 'client', 'client_properties:table mechanism:shortstr response:longstr '
                 'locale:shortstr'),
    _row(10, 20, 'connection.secure', 'broker', 'challenge:longstr', 'connection.secure-ok'),
    _row(10, 21, 'connection.secure-ok', 'client', 'response:longstr'),
    _row(10, 30, 'connection.tune', 'broker', 'channel_max:short frame_max:long heartbeat:short',
                 'connection.tune-ok'),
    _row(10, 31, 'connection.tune-ok', 'client', 'channel_max:short frame_max:long heartbeat:short'),
    _row(10, 40, 'connection.open', 'client', 'virtual_host:shortstr reserved1:shortstr reserved2:bit',
                 'connection.open-ok'),
    _row(10, 41, 'connection.open-ok', 'broker', 'reserved1:shortstr'),
    _row(10, 50, 'connection.close', 'both', _CLOSE, 'connection.close-ok'),
    _row(10, 51, 'connection.close-ok', 'both', ''),
    _row(10, 60, 'connection.blocked', 'broker', 'reason:shortstr'),
    _row(10, 61, 'connection.unblocked', 'broker', ''),
    _row(10, 70, 'connection.update-secret', 'client', 'new_secret:longstr reason:shortstr',
                 'connection.update-secret-ok'),
    _row(10, 71, 'connection.update-secret-ok', 'broker', ''),

    _row(20, 10, 'channel.open', 'client', 'reserved1:shortstr', 'channel.open-ok'),
    _row(20, 11, 'channel.open-ok', 'broker', 'reserved1:longstr'),
    _row(20, 20, 'channel.flow', 'both', 'active:bit', 'channel.flow-ok'),
    _row(20, 21, 'channel.flow-ok', 'both', 'active:bit'),
    _row(20, 40, 'channel.close', 'both', _CLOSE, 'channel.close-ok'),
    _row(20, 41, 'channel.close-ok', 'both', ''),

    _row(40, 10, 'exchange.declare', 'client', 'reserved1:short exchange:shortstr type:shortstr passive:bit '
                 'durable:bit auto_delete:bit internal:bit nowait:bit arguments:table', 'exchange.declare-ok'),
    _row(40, 11, 'exchange.declare-ok', 'broker', ''),
    _row(40, 20, 'exchange.delete', 'client', 'reserved1:short exchange:shortstr if_unused:bit nowait:bit',
                 'exchange.delete-ok'),
    _row(40, 21, 'exchange.delete-ok', 'broker', ''),
    _row(40, 30, 'exchange.bind', 'client', _EXCHANGE_BIND, 'exchange.bind-ok'),
    _row(40, 31, 'exchange.bind-ok', 'broker', ''),
    _row(40, 40, 'exchange.unbind', 'client', _EXCHANGE_BIND, 'exchange.unbind-ok'),
    _row(40, 51, 'exchange.unbind-ok', 'broker', ''),

    _row(50, 10, 'queue.declare', 'client', _QUEUE + ' passive:bit durable:bit exclusive:bit auto_delete:bit '
                 'nowait:bit arguments:table', 'queue.declare-ok'),
    _row(50, 11, 'queue.declare-ok', 'broker', 'queue:shortstr message_count:long consumer_count:long'),
    _row(50, 20, 'queue.bind', 'client', _QUEUE + ' exchange:shortstr routing_key:shortstr nowait:bit '
                 'arguments:table', 'queue.bind-ok'),
    _row(50, 21, 'queue.bind-ok', 'broker', ''),
    _row(50, 30, 'queue.purge', 'client', _QUEUE + ' nowait:bit', 'queue.purge-ok'),
    _row(50, 31, 'queue.purge-ok', 'broker', 'message_count:long'),
    _row(50, 40, 'queue.delete', 'client', _QUEUE + ' if_unused:bit if_empty:bit nowait:bit', 'queue.delete-ok'),
    _row(50, 41, 'queue.delete-ok', 'broker', 'message_count:long'),
    _row(50, 50, 'queue.unbind', 'client', _QUEUE + ' exchange:shortstr routing_key:shortstr arguments:table',
                 'queue.unbind-ok'),
    _row(50, 51, 'queue.unbind-ok', 'broker', ''),

    _row(60, 10, 'basic.qos', 'client', 'prefetch_size:long prefetch_count:short global_:bit', 'basic.qos-ok'),
    _row(60, 11, 'basic.qos-ok', 'broker', ''),
    _row(60, 20, 'basic.consume', 'client', _QUEUE + ' consumer_tag:shortstr no_local:bit no_ack:bit exclusive:bit '
                 'nowait:bit arguments:table', 'basic.consume-ok'),
    _row(60, 21, 'basic.consume-ok', 'broker', 'consumer_tag:shortstr'),
    _row(60, 30, 'basic.cancel', 'both', 'consumer_tag:shortstr nowait:bit', 'basic.cancel-ok'),
    _row(60, 31, 'basic.cancel-ok', 'both', 'consumer_tag:shortstr'),
    _row(60, 40, 'basic.publish', 'client', 'reserved1:short exchange:shortstr routing_key:shortstr mandatory:bit '
                 'immediate:bit', content=True),
    _row(60, 50, 'basic.return', 'broker', 'reply_code:short reply_text:shortstr exchange:shortstr '
                 'routing_key:shortstr', content=True),
    _row(60, 60, 'basic.deliver', 'broker', 'consumer_tag:shortstr ' + _DELIVERY, content=True),
    _row(60, 70, 'basic.get', 'client', _QUEUE + ' no_ack:bit', 'basic.get-ok basic.get-empty'),
    _row(60, 71, 'basic.get-ok', 'broker', _DELIVERY + ' message_count:long', content=True),
    _row(60, 72, 'basic.get-empty', 'broker', 'reserved1:shortstr'),
    _row(60, 80, 'basic.ack', 'both', 'delivery_tag:longlong multiple:bit'),
    _row(60, 90, 'basic.reject', 'client', 'delivery_tag:longlong requeue:bit'),
    _row(60, 100, 'basic.recover-async', 'client', 'requeue:bit'),
    _row(60, 110, 'basic.recover', 'client', 'requeue:bit', 'basic.recover-ok'),
    _row(60, 111, 'basic.recover-ok', 'broker', ''),
    _row(60, 120, 'basic.nack', 'both', 'delivery_tag:longlong multiple:bit requeue:bit'),

    _row(85, 10, 'confirm.select', 'client', 'nowait:bit', 'confirm.select-ok'),
    _row(85, 11, 'confirm.select-ok', 'broker', ''),
)

BY_NAME: dict[str, Row] = {row.name: row for row in METHODS}
_METHOD_ID = Struct('>HH')
_BY_ID: dict[bytes, Row] = {_METHOD_ID.pack(row.class_id, row.method_id): row for row in METHODS}
METHOD_IDS: dict[str, bytes] = {row.name: octets for octets, row in _BY_ID.items()}

# --- the types of method fields ---------------------------------------------------------------------------------------

# a type: (what a field that is left out goes out as, its decoder, its encoder); bits are handled where they are met.
_TYPES: dict[str, tuple[Any, Callable[[Reader], Any], Callable[[Any], bytes]]] = {
    'octet':     (0,     lambda reader: reader.octet(),              lambda value: pack(OCTET, value)),
    'short':     (0,     lambda reader: reader.number(SHORT),        lambda value: pack(SHORT, value)),
    'long':      (0,     lambda reader: reader.number(LONG),         lambda value: pack(LONG, value)),
    'longlong':  (0,     lambda reader: reader.number(LONGLONG),     lambda value: pack(LONGLONG, value)),
    'timestamp': (0,     lambda reader: Timestamp(reader.number(LONGLONG)), lambda value: pack(LONGLONG, value)),
    'shortstr':  ('',    lambda reader: reader.shortstr(),           encode_shortstr),
    'longstr':   (b'',   lambda reader: reader.long_bytes(),         encode_longstr),
    'table':     ({},    lambda reader: reader.table(),              encode_table),
}


def encode_method(name: str, fields: dict[str, Any]) -> bytes:
    """The payload of a method frame. Fields left out are 0, empty or false; an unknown one is a TypeError."""
    row, left = BY_NAME[name], dict(fields)
    parts: list[bytes] = [METHOD_IDS[name]]
    bits: list[bool] = []
    for field, kind in row.fields:
        if kind == 'bit':
            bits.append(bool(left.pop(field, False)))
            continue
        if bits:
            parts.append(_encode_bits(bits))
            bits = []
        default, _, encode = _TYPES[kind]
        parts.append(encode(left.pop(field, default)))
    if bits:
        parts.append(_encode_bits(bits))
    if left:
        raise TypeError(f'{name} has no field {", ".join(left)}')
    return b''.join(parts)


def _encode_bits(bits: list[bool]) -> bytes:
    """Neighbouring bits fill an octet from its low end; no method has more than eight in a row."""
    return bytes((sum(bit << place for place, bit in enumerate(bits)),))


def find_method(octets: bytes) -> Row:
    """The row for a payload's first four octets; ProtocolError when there is none that a broker may send."""
    row = _BY_ID.get(octets)
    if row is None:
        raise ProtocolError(Reply.NOT_IMPLEMENTED, f'unknown method {octets.hex()} (class and method, hexadecimal)')
    return row


def check_from_broker(row: Row) -> None:
    if row.sender == 'client':
        raise ProtocolError(Reply.COMMAND_INVALID, f'{row.name}, which only a client may send')


def decode_method(data: bytes, begin: int, stop: int) -> tuple[Row, dict[str, Any]]:
    """The row and the fields of a method frame's payload, `data[begin:stop]`. Bits that no field uses are ignored."""
    row = find_method(data[begin:min(begin + 4, stop)])
    reader = Reader(data, begin + 4, stop)
    fields: dict[str, Any] = {}
    bits, place = 0, 0
    for field, kind in row.fields:
        if kind != 'bit':
            fields[field], place = _TYPES[kind][1](reader), 0
            continue
        if place == 0:
            bits = reader.octet()
        fields[field], place = bool(bits >> place & 1), place + 1
    reader.finish()
    return row, fields


# --- content properties -----------------------------------------------------------------------------------------------

class Properties(NamedTuple):
    """The properties of class basic in wire order; None is absent. The first has flag bit 15, the last bit 2."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: dict[str, Any] | None = None
    delivery_mode: int | None = None         # 2 is persistent
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None            # milliseconds, in digits
    message_id: str | None = None
    timestamp: int | None = None             # seconds since 1970
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None


# The wire types of the fields of Properties, in their order.
PROPERTY_TYPES = ('shortstr', 'shortstr', 'table', 'octet', 'octet', 'shortstr', 'shortstr', 'shortstr', 'shortstr',
                  'timestamp', 'shortstr', 'shortstr', 'shortstr', 'shortstr')
NO_PROPERTIES = Properties()
_HEADERS_FLAG = 0x20            # of the first octet of the flags: headers is the third property
_CACHED_OCTETS = 256            # longer property blocks are not worth the memory


def encode_properties(properties: Properties) -> bytes:
    """Flags and values, as they stand in a content header. Blocks without headers are kept: most are alike."""
    if properties.headers is None:
        return _encode_kept(properties)
    return _encode_properties(properties)


def _encode_properties(properties: Properties) -> bytes:
    flags, parts = 0, [b'']
    for place, value in enumerate(properties):
        if value is not None:
            flags |= 1 << 15 - place
            parts.append(_TYPES[PROPERTY_TYPES[place]][2](value))
    parts[0] = SHORT.pack(flags)
    return b''.join(parts)


_encode_kept = lru_cache(maxsize=256)(_encode_properties)


def decode_properties(block: bytes) -> Properties:
    """The reverse. A block with headers is decoded anew each time: its dict belongs to one message."""
    if len(block) > _CACHED_OCTETS or block and block[0] & _HEADERS_FLAG:
        return _decode_properties(block)
    return _decode_kept(block)


def _decode_properties(block: bytes) -> Properties:
    reader = Reader(block, 0, len(block))
    flags = reader.number(SHORT)
    if flags & 3:
        raise ProtocolError(Reply.SYNTAX_ERROR, f'content property flags {flags:#06x} with bits that class basic lacks')
    values = [_TYPES[kind][1](reader) if flags >> 15 - place & 1 else None for place, kind in enumerate(PROPERTY_TYPES)]
    reader.finish()
    return Properties(*values)


_decode_kept = lru_cache(maxsize=256)(_decode_properties)
