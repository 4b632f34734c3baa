"""DNS messages on the wire: one question out, one reply in (RFC 1035 section 4; EDNS0 of RFC 6891).

    +--------+----------+--------+-----------+------------+
    | header | question | answer | authority | additional |      counts of the four sections are in the header
    +--------+----------+--------+-----------+------------+

`Parser` owns the bounds: it never reads past its end, never follows a compression pointer forward, and a record's
reader must use up exactly the record's data. A reader is therefore two or three lines without a check in it, and one
row of READERS. Whatever is wrong with the bytes comes out as FormatError, and as nothing else.

Names are text: ASCII in lower case, without the final dot; the root is ''. An octet that is no plain character of a
label is written `\\DDD` (RFC 1035 section 5.1); such names can be read and compared, but not asked for.

Knows nothing of sockets, retries or caches, and does not judge: what a reply means for a question is lookup's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from struct import pack
from typing import Callable, NamedTuple, Union

from mqlite.errors import MqliteError

MAX_NAME = 255  # octets on the wire, length octets included (RFC 1035 section 2.3.4)
MAX_LABEL = 63  # octets (same place)
MAX_STEPS = 255  # labels plus pointers while one name is read: no honest name needs more than 127 labels
MAX_RECORDS = 1000  # in all sections of one reply; 64 KiB over TCP could hold 5,900
UDP_PAYLOAD = 1232  # octets that we say we take over UDP: passes every path unfragmented (DNS flag day 2020)

IN = 1  # the one class


class Type(IntEnum):
    """Record types that mean something here."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    MX = 15
    TXT = 16
    AAAA = 28
    OPT = 41


class Rcode(IntEnum):
    """Reply codes (RFC 1035 section 4.1.1, RFC 6891 section 9)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


# Header flags. A reply has the first bit set and, in the next four, the opcode of a standard query.
_REPLY_AND_OPCODE, _REPLY, _TRUNCATED, _RECURSION_DESIRED = 0xF800, 0x8000, 0x0200, 0x0100

# Plain in a label: printable ASCII but for the dot, which separates, and the backslash, which escapes.
_PLAIN = frozenset(range(0x21, 0x7F)) - {ord('.'), ord('\\')}
_LABEL = re.compile(rf'[!-\-/-\[\]-~]{{1,{MAX_LABEL}}}')

# The characters that IDNA 2003 (the stdlib's codec) and IDNA 2008 (the registries) turn into different names.
_DISPUTED = re.compile('[\u00df\u03c2\u200c\u200d]')


class FormatError(MqliteError):
    """The bytes are no DNS message, or the text is no domain name."""


class MX(NamedTuple):
    """A mail exchanger; the lowest preference is tried first (RFC 5321 section 5.1)."""

    preference: int
    host: str


class SOA(NamedTuple):
    """What a start of authority says about absence: how long it may be remembered (RFC 2308 section 5)."""

    primary: str
    minimum: int  # seconds


Data = Union[str, bytes, int, MX, SOA]


class Question(NamedTuple):
    name: str
    type: int

    def __str__(self) -> str:
        return f'{self.name or "."} {Type(self.type).name if self.type in READERS else self.type}'


class Record(NamedTuple):
    name: str
    type: int
    ttl: int  # seconds
    data: Data


@dataclass(frozen=True)
class Message:
    """A reply. When `truncated`, the record sections were not looked at and are empty."""

    id: int
    is_reply: bool
    truncated: bool
    rcode: int  # with the upper bits that EDNS adds
    questions: tuple[Question, ...]
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()


# names


def normal_name(text: str) -> str:
    """A domain name as people write it, in the form used here; U-labels become A-labels. FormatError when it is none.

    The stdlib's IDNA is that of 2003. Where the registries' IDNA 2008 gives another name, mail would reach a stranger:
    such names are refused, to be written in their xn-- form.
    """
    name = text[:-1] if text.endswith('.') else text
    if not name.isascii():
        name = _a_labels(name)
    name = name.lower()
    if not name:
        raise FormatError('the domain name is empty')
    encode_name(name)
    return name


def _a_labels(name: str) -> str:
    if len(name) > MAX_NAME:  # before the codec, whose time is quadratic in the length
        raise FormatError(f'the domain name is longer than {MAX_NAME} octets')
    disputed = _DISPUTED.search(name)
    if disputed:
        raise FormatError(f'{name!r} has U+{ord(disputed[0]):04X}, which registries and this program encode '
                          'differently: write the name in its xn-- form')
    try:
        return name.encode('idna').decode('ascii')
    except UnicodeError as error:
        raise FormatError(f'{name!r} is not an internationalized domain name: {error}') from error


def encode_name(name: str) -> bytes:
    """A name on the wire, uncompressed. FormatError when it cannot be one."""
    wire = bytearray()
    for label in name.split('.') if name else ():
        if not _LABEL.fullmatch(label):
            raise FormatError(f'{name[:MAX_NAME]!r} is not a domain name: its label {label[:MAX_NAME]!r} is empty, '
                              f'longer than {MAX_LABEL} or has a character that no host name has')
        wire.append(len(label))
        wire += label.lower().encode('ascii')
    wire.append(0)
    if len(wire) > MAX_NAME:
        raise FormatError(f'{name[:MAX_NAME]!r}... is longer than {MAX_NAME} octets')
    return bytes(wire)


def _label_text(label: bytes) -> str:
    return ''.join(chr(octet) if octet in _PLAIN else f'\\{octet:03d}' for octet in label.lower())


# what we send


def build_query(query_id: int, question: Question, edns: bool) -> bytes:
    """One question with recursion desired, and with an OPT record when `edns`."""
    header = pack('>6H', query_id, _RECURSION_DESIRED, 1, 0, 0, int(edns))
    opt = pack('>BHHIH', 0, Type.OPT, UDP_PAYLOAD, 0, 0) if edns else b''
    return header + encode_name(question.name) + pack('>HH', question.type, IN) + opt


def frame(message: bytes) -> bytes:
    """A message as TCP carries it: after its length (RFC 1035 section 4.2.2)."""
    return pack('>H', len(message)) + message


def split_frame(data: bytes) -> tuple[bytes | None, bytes]:
    """The first message of a TCP stream and what follows it; None and the same data while it is not complete."""
    end = 2 + int.from_bytes(data[:2], 'big')
    return (None, data) if len(data) < 2 or len(data) < end else (data[2:end], data[end:])


# what we get


class Parser:
    """A cursor over the bytes of one message that cannot leave them."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._end = len(data)

    @property
    def left(self) -> int:
        return self._end - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise FormatError(f'the message ends early, at octet {self._end}')
        self._at += size
        return self._data[self._at - size:self._at]

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), 'big')

    def u32(self) -> int:
        return int.from_bytes(self.take(4), 'big')

    @contextmanager
    def within(self, size: int) -> Iterator[None]:
        """Let the block read the next `size` octets, all of them and no others."""
        if size > self.left:
            raise FormatError('a record claims more octets than the message has')
        outer, self._end = self._end, self._at + size
        yield
        if self.left:
            raise FormatError('a record has octets to spare')
        self._end = outer

    def name(self) -> str:
        """A name, compressed or not (RFC 1035 section 4.1.4). Each pointer must lead further back than the last."""
        labels: list[str] = []
        octets, earliest, resume = 1, self._at, -1
        for _ in range(MAX_STEPS):
            size = self.u8()
            if size >= 0xC0:
                target = (size & 0x3F) << 8 | self.u8()
                resume = self._at if resume < 0 else resume
                if target >= earliest:
                    raise FormatError('a compression pointer does not lead back')
                self._at = earliest = target
            elif size > MAX_LABEL:
                raise FormatError(f'{size >> 6} is no kind of label')
            elif size:
                labels.append(_label_text(self.take(size)))
                octets += 1 + size
            else:
                break
            if octets > MAX_NAME:
                raise FormatError(f'a name is longer than {MAX_NAME} octets')
        else:
            raise FormatError(f'a name takes more than {MAX_STEPS} steps to read')
        self._at = self._at if resume < 0 else resume
        return '.'.join(labels)


def _read_a(wire: Parser) -> Data:
    return str(IPv4Address(wire.take(4)))


def _read_aaaa(wire: Parser) -> Data:
    return str(IPv6Address(wire.take(16)))


def _read_mx(wire: Parser) -> Data:
    return MX(wire.u16(), wire.name())


def _read_soa(wire: Parser) -> Data:
    primary, _responsible = wire.name(), wire.name()
    wire.take(16)  # serial, refresh, retry, expire: between nameservers
    return SOA(primary, wire.u32())


def _read_txt(wire: Parser) -> Data:
    """The strings joined, as SPF and DKIM want them (RFC 7208 section 3.3, RFC 6376 section 3.6.2.2)."""
    strings = []
    while wire.left:
        strings.append(wire.take(wire.u8()))
    return b''.join(strings)


def _read_name(wire: Parser) -> Data:
    return wire.name()


def _read_opaque(wire: Parser) -> Data:
    return wire.take(wire.left)


READERS: dict[int, Callable[[Parser], Data]] = {
    Type.A:     _read_a,     # text '192.0.2.1'
    Type.NS:    _read_name,  # text
    Type.CNAME: _read_name,  # text
    Type.SOA:   _read_soa,   # SOA
    Type.PTR:   _read_name,  # text
    Type.MX:    _read_mx,    # MX
    Type.TXT:   _read_txt,   # bytes
    Type.AAAA:  _read_aaaa,  # text '2001:db8::1'
}


def parse_message(data: bytes) -> Message:
    """A whole message. FormatError unless every octet of it has its place.

    Of a truncated message only the head counts (RFC 2181 section 9), and it may be cut anywhere behind its question.
    """
    wire = Parser(data)
    message_id, flags = wire.u16(), wire.u16()
    counts = [wire.u16() for _ in range(4)]
    if sum(counts) > MAX_RECORDS:
        raise FormatError(f'the message claims {sum(counts)} records, more than {MAX_RECORDS}')
    questions = tuple(_read_question(wire) for _ in range(counts[0]))
    rcode, is_reply, truncated = flags & 0x000F, flags & _REPLY_AND_OPCODE == _REPLY, bool(flags & _TRUNCATED)
    if truncated:
        return Message(message_id, is_reply, True, rcode, questions)
    answers, authority, additional = [_read_section(wire, count) for count in counts[1:]]
    if wire.left:
        raise FormatError(f'{wire.left} octets follow the message')
    rcode |= next((record.ttl >> 24 for record in additional if record.type == Type.OPT), 0) << 4
    return Message(message_id, is_reply, False, rcode, questions, answers, authority)


def _read_question(wire: Parser) -> Question:
    name, kind, record_class = wire.name(), wire.u16(), wire.u16()
    if record_class != IN:
        raise FormatError(f'the question is of class {record_class}, not IN')
    return Question(name, kind)


def _read_section(wire: Parser, count: int) -> tuple[Record, ...]:
    records = [_read_record(wire) for _ in range(count)]
    return tuple(record for record in records if record is not None)


def _read_record(wire: Parser) -> Record | None:
    """None for a record of another class. OPT uses the fields for other things: its class is a size, and the upper
    octet of its TTL extends the reply code (RFC 6891 section 6.1.3). Elsewhere a TTL with the top bit set means 0
    (RFC 2181 section 8)."""
    name, kind, record_class, ttl, size = wire.name(), wire.u16(), wire.u16(), wire.u32(), wire.u16()
    reader = READERS.get(kind, _read_opaque) if record_class == IN else _read_opaque
    with wire.within(size):
        data = reader(wire)
    if kind == Type.OPT:
        return Record(name, kind, ttl, data)
    return Record(name, kind, ttl if ttl < 1 << 31 else 0, data) if record_class == IN else None
