"""The octets of AMQP 0-9-1: numbers, strings, tables and frames, both ways.

    frame:  kind (1 octet)  channel (2)  size (4)  payload (size octets)  frame-end 0xCE

All numbers are big-endian. Tables carry a type octet per value: these are the types of RabbitMQ's errata, not those
of the specification's grammar, where brokers never agreed with it ('s' is a signed short, not a short string; 'l' is
signed).

This file must not know methods, channels or who is talking. Bounds: a frame is at most `frame_max` octets, a table
lies in one frame and is nested at most MAX_DEPTH deep, every length is checked against what encloses it. Whatever the
octets are, decoding gives a value or `ProtocolError`; whatever the value is, encoding gives octets or `Unencodable`.

Strings that are not UTF-8 survive: their octets become lone surrogates (PEP 383) and go out as they came in.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from struct import Struct
from struct import error as StructError
from typing import Any, Callable

from mqlite.errors import MqliteError, PermanentError

FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT = 1, 2, 3, 8
FRAME_END = 0xCE
FRAME_OVERHEAD = 8          # seven octets before the payload, one behind it; frame-max counts them
MAX_DEPTH = 32              # RabbitMQ's own deepest table is x-death: an array of tables


class Reply:
    """The reply codes that this client closes with (amqp0-9-1.xml, constants)."""

    PRECONDITION_FAILED = 406
    FRAME_ERROR = 501           # frames that cannot be cut out of the stream, or are not what their kind says
    SYNTAX_ERROR = 502          # fields that do not decode
    COMMAND_INVALID = 503       # a method that has no place here
    CHANNEL_ERROR = 504         # a channel that is not open
    UNEXPECTED_FRAME = 505      # content out of order
    NOT_ALLOWED = 530
    NOT_IMPLEMENTED = 540


class ProtocolError(MqliteError):
    """The broker's fault: octets that AMQP 0-9-1 does not allow here. `code` is the reply code to close with."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Unencodable(PermanentError):
    """Our caller's fault: a value that AMQP cannot carry, such as a queue name of more than 255 octets."""


class Timestamp(int):
    """Seconds since 1970-01-01 UTC, unsigned, 64 bits: an int that remembers to be encoded as type 'T'."""


# --- decoding ---------------------------------------------------------------------------------------------------------

OCTET, SHORT, LONG, LONGLONG = Struct('>B'), Struct('>H'), Struct('>I'), Struct('>Q')


class Reader:
    """A place in `data` that never passes `end`. Reading past it is a ProtocolError 502, as is every bad value."""

    __slots__ = ('data', 'at', 'end')

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end

    def take(self, size: int) -> bytes:
        start, self.at = self.at, self.at + size
        if self.at > self.end:
            raise ProtocolError(Reply.SYNTAX_ERROR, f'a field of {size} octets where {self.end - start} are left')
        return self.data[start:self.at]

    def number(self, layout: Struct) -> Any:
        return layout.unpack(self.take(layout.size))[0]

    def octet(self) -> int:
        return self.take(1)[0]

    def short_bytes(self) -> bytes:
        return self.take(self.octet())

    def long_bytes(self) -> bytes:
        return self.take(self.number(LONG))

    def shortstr(self) -> str:
        return self.short_bytes().decode('utf-8', 'surrogateescape')

    def inner(self) -> Reader:
        """A reader of the next long string's octets; this one goes on behind them."""
        size = self.number(LONG)
        start = self.at
        self.take(size)
        return Reader(self.data, start, self.at)

    def table(self, depth: int = 0) -> dict[str, Any]:
        fields, inner = {}, self.inner()
        while inner.at < inner.end:
            name = inner.shortstr()
            fields[name] = inner.value(depth)
        return fields

    def array(self, depth: int) -> list[Any]:
        values, inner = [], self.inner()
        while inner.at < inner.end:
            values.append(inner.value(depth))
        return values

    def value(self, depth: int) -> Any:
        """One field value with its type octet."""
        if depth >= MAX_DEPTH:
            raise ProtocolError(Reply.SYNTAX_ERROR, f'tables nested more than {MAX_DEPTH} deep')
        kind = self.take(1)
        decode = _DECODERS.get(kind)
        if decode is None:
            raise ProtocolError(Reply.SYNTAX_ERROR, f'a field value of unknown type {kind!r}')
        return decode(self, depth + 1)

    def finish(self) -> None:
        if self.at != self.end:
            raise ProtocolError(Reply.SYNTAX_ERROR, f'{self.end - self.at} octets too many in a frame')


def _number(layout: str) -> Callable[[Reader, int], Any]:
    struct = Struct(layout)
    return lambda reader, depth: reader.number(struct)


def _decode_decimal(reader: Reader, depth: int) -> Decimal:
    """Scale octet, then a signed long: the grammar says unsigned, but RabbitMQ's clients send it signed."""
    scale, value = reader.octet(), reader.number(_SIGNED_LONG)
    return Decimal((int(value < 0), tuple(map(int, str(abs(value)))), -scale))


_SIGNED_LONG = Struct('>i')

# THE FIELD TYPES: one row each. Python's numbers do not remember their width, so several types decode to int.
_DECODERS: dict[bytes, Callable[[Reader, int], Any]] = {
    b't': lambda reader, depth: reader.octet() != 0,
    b'b': _number('>b'),
    b'B': _number('>B'),
    b's': _number('>h'),
    b'u': _number('>H'),
    b'I': _number('>i'),
    b'i': _number('>I'),
    b'l': _number('>q'),
    b'f': _number('>f'),
    b'd': _number('>d'),
    b'D': _decode_decimal,
    b'S': lambda reader, depth: reader.long_bytes().decode('utf-8', 'surrogateescape'),
    b'x': lambda reader, depth: reader.long_bytes(),
    b'T': lambda reader, depth: Timestamp(reader.number(LONGLONG)),
    b'A': lambda reader, depth: reader.array(depth),
    b'F': lambda reader, depth: reader.table(depth),
    b'V': lambda reader, depth: None,
}


# --- encoding ---------------------------------------------------------------------------------------------------------

def pack(layout: Struct, value: Any) -> bytes:
    try:
        return layout.pack(value)
    except StructError as error:
        raise Unencodable(f'{value!r} does not fit an AMQP number: {error}') from error


def octets(text: Any) -> bytes:
    """The octets of a string: UTF-8, with octets that came in as lone surrogates going out unchanged."""
    if isinstance(text, (bytes, bytearray)):
        return bytes(text)
    if not isinstance(text, str):
        raise Unencodable(f'{type(text).__name__} where AMQP has a string')
    try:
        return text.encode('utf-8', 'surrogateescape')
    except UnicodeEncodeError as error:
        raise Unencodable(f'a string that has no UTF-8 form: {error}') from error


def encode_shortstr(text: Any) -> bytes:
    data = octets(text)
    if len(data) > 255:
        raise Unencodable(f'a name of {len(data)} octets: AMQP allows 255 for queues, exchanges, keys and tags')
    return bytes((len(data),)) + data


def encode_longstr(data: Any) -> bytes:
    raw = octets(data)
    return pack(LONG, len(raw)) + raw


def encode_table(fields: dict[str, Any], depth: int = 0) -> bytes:
    if not isinstance(fields, dict):
        raise Unencodable(f'{type(fields).__name__} where AMQP has a table')
    return encode_longstr(b''.join(encode_shortstr(k) + _encode_value(v, depth) for k, v in fields.items()))


def _encode_array(values: list[Any], depth: int) -> bytes:
    return encode_longstr(b''.join(_encode_value(value, depth) for value in values))


def _encode_int(value: int, depth: int) -> bytes:
    """The narrowest of 'I' and 'l': every broker reads both, and x-arguments accept either."""
    if -0x80000000 <= value < 0x80000000:
        return b'I' + pack(_SIGNED_LONG, value)
    return b'l' + pack(_SIGNED_LONGLONG, value)


def _encode_decimal(value: Decimal, depth: int) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or not -255 <= exponent <= 9:
        raise Unencodable(f'{value!r} does not fit an AMQP decimal')
    number = int(''.join(map(str, digits))) * 10 ** max(exponent, 0) * (-1 if sign else 1)
    return b'D' + bytes((max(-exponent, 0),)) + pack(_SIGNED_LONG, number)


_SIGNED_LONGLONG, _DOUBLE = Struct('>q'), Struct('>d')

# Which type a Python value goes out as. By exact class: bool is an int, and a Timestamp too.
_ENCODERS: dict[type, Callable[[Any, int], bytes]] = {
    bool:       lambda value, depth: b't\1' if value else b't\0',
    int:        _encode_int,
    Timestamp:  lambda value, depth: b'T' + pack(LONGLONG, value),
    float:      lambda value, depth: b'd' + pack(_DOUBLE, value),
    Decimal:    _encode_decimal,
    str:        lambda value, depth: b'S' + encode_longstr(value),
    bytes:      lambda value, depth: b'x' + encode_longstr(value),
    list:       lambda value, depth: b'A' + _encode_array(value, depth),
    dict:       lambda value, depth: b'F' + encode_table(value, depth),
    type(None): lambda value, depth: b'V',
}


def _encode_value(value: Any, depth: int) -> bytes:
    encode = _ENCODERS.get(type(value))
    if encode is None:
        raise Unencodable(f'{type(value).__name__} has no AMQP field type')
    if depth >= MAX_DEPTH:
        raise Unencodable(f'tables nested more than {MAX_DEPTH} deep')
    return encode(value, depth + 1)


# --- frames -----------------------------------------------------------------------------------------------------------

FRAME_HEAD = Struct('>BHI')
_KINDS = frozenset((FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT))


def encode_frame(kind: int, channel: int, payload: bytes) -> bytes:
    return b'%b%b\xce' % (FRAME_HEAD.pack(kind, channel, len(payload)), payload)


HEARTBEAT = encode_frame(FRAME_HEARTBEAT, 0, b'')

Frame = tuple[int, int, bytes, int, int]        # kind, channel, data, first octet of the payload, octet behind it


class FrameBuffer:
    """Cuts the broker's stream into frames, however it was cut into packets.

    Every octet is looked at once and copied at most twice before its frame is handed out: an incomplete frame waits in
    `_rest`, and nothing is tried again before it can be complete. What waits is less than `frame_max` octets and one
    packet.
    """

    def __init__(self, frame_max: int) -> None:
        self.frame_max = frame_max
        self._rest = bytearray()
        self._need = FRAME_OVERHEAD

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete now, as places in a buffer. Raises ProtocolError; nothing follows that."""
        rest = self._rest
        if rest:
            if len(rest) + len(data) < self._need:
                rest += data
                return
            data = b''.join((rest, data))
            rest.clear()
        at, end, unpack = 0, len(data), FRAME_HEAD.unpack_from
        self._need = FRAME_OVERHEAD
        while end - at >= FRAME_OVERHEAD:
            kind, channel, size = unpack(data, at)
            if kind not in _KINDS or size > self.frame_max - FRAME_OVERHEAD:
                raise _bad_frame(data[at:at + 8], kind, size, self.frame_max)
            stop = at + 7 + size
            if stop >= end:
                self._need = FRAME_OVERHEAD + size
                break
            if data[stop] != FRAME_END:
                raise ProtocolError(Reply.FRAME_ERROR, f'a frame of {size} octets does not end with 0xCE')
            yield kind, channel, data, at + 7, stop
            at = stop + 1
        rest += data[at:]


def _bad_frame(head: bytes, kind: int, size: int, frame_max: int) -> ProtocolError:
    if head.startswith(b'AMQP'):        # specification 4.2.2: a server that wants another version says which
        return ProtocolError(Reply.NOT_IMPLEMENTED, 'the broker does not speak AMQP 0-9-1: it answers with the '
                             'protocol header of AMQP ' + '-'.join(map(str, head[4:])))
    if kind not in _KINDS:
        return ProtocolError(Reply.FRAME_ERROR, f'a frame of unknown type {kind}: {head!r} is not AMQP 0-9-1')
    return ProtocolError(Reply.FRAME_ERROR, f'a frame of {size} octets, frame-max is {frame_max}')
