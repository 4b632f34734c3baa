"""The DNS wire format: every reply whole, cut at every octet, with octets to spare, and damaged."""

from __future__ import annotations

import random
import time
from struct import pack

import pytest

from mqlite.dns.message import (
    MAX_RECORDS,
    MX,
    SOA,
    FormatError,
    Message,
    Parser,
    Question,
    Record,
    Type,
    build_query,
    encode_name,
    frame,
    normal_name,
    parse_message,
    split_frame,
)
from tests.support import dns

HEAD = bytes.fromhex('1234 8180 0001 0001 0000 0000')
ASKED = b'\7example\3com\0'  # at octet 12
MX_ASKED = ASKED + b'\0\x0f\0\1'

OPT_WITH_BADVERS = b'\0' + pack('>HHIH', 41, 1232, 0x01008000, 4) + b'\0\x0a\0\0'

REPLIES = [
    ('MX, its owner and host compressed',
     HEAD + MX_ASKED + b'\xc0\x0c\0\x0f\0\1\0\0\x0e\x10\0\x08' + b'\0\x0a' + b'\3mx1\xc0\x0c',
     Message(0x1234, True, False, 0, (Question('example.com', 15),),
             (Record('example.com', 15, 3600, MX(10, 'mx1.example.com')),))),
    ('a pointer to a pointer',
     bytes.fromhex('1234 8180 0001 0002 0000 0000') + MX_ASKED
     + b'\xc0\x0c\0\5\0\1\0\0\0\1\0\2\xc0\x0c' + b'\xc0\x29\0\1\0\1\0\0\0\2\0\4\xc0\0\2\1',
     Message(0x1234, True, False, 0, (Question('example.com', 15),),
             (Record('example.com', 5, 1, 'example.com'), Record('example.com', 1, 2, '192.0.2.1')))),
    ('null MX (RFC 7505)',
     dns.reply(1, 'example.com', 'MX', dns.mx('example.com', 0, '')),
     Message(1, True, False, 0, (Question('example.com', 15),), (Record('example.com', 15, 300, MX(0, '')),))),
    ('names in lower case, other octets escaped',
     dns.reply(1, 'EXAMPLE.com', 'PTR', dns.record('Example.COM', 'PTR', 5, b'\5a.B\0\xff\0')),
     Message(1, True, False, 0, (Question('example.com', 12),),
             (Record('example.com', 12, 5, 'a\\046b\\000\\255'),))),
    ('AAAA, and a TTL with the top bit',
     dns.reply(1, 'example.com', 'AAAA', dns.address('example.com', '2001:db8::1', ttl=1 << 31)),
     Message(1, True, False, 0, (Question('example.com', 28),), (Record('example.com', 28, 0, '2001:db8::1'),))),
    ('TXT of two strings',
     dns.reply(1, 'example.com', 'TXT', dns.record('example.com', 'TXT', 9, b'\3v=s\0\4pf1 ')),
     Message(1, True, False, 0, (Question('example.com', 16),), (Record('example.com', 16, 9, b'v=spf1 '),))),
    ('TXT without strings',
     dns.reply(1, 'example.com', 'TXT', dns.record('example.com', 'TXT', 9, b'')),
     Message(1, True, False, 0, (Question('example.com', 16),), (Record('example.com', 16, 9, b''),))),
    ('NXDOMAIN with SOA, and EDNS',
     dns.reply(1, 'a.example', 'A', rcode=3, authority=[dns.soa('example', 900, 60)],
               additional=[b'\0' + pack('>HHIH', 41, 1232, 0x8000, 0)]),
     Message(1, True, False, 3, (Question('a.example', 1),), (),
             (Record('example', 6, 900, SOA('ns.example', 60)),))),
    ('BADVERS: half of the code is in the OPT record',
     dns.reply(1, 'a.example', 'A', additional=[OPT_WITH_BADVERS]),
     Message(1, True, False, 16, (Question('a.example', 1),))),
    ('records of other classes are passed over, other types are opaque',
     dns.reply(1, 'a.example', 'A', dns.record('a.example', 'A', 5, b'x', record_class=3),
               b'\0' + pack('>HHIH', 999, 1, 7, 3) + b'abc'),
     Message(1, True, False, 0, (Question('a.example', 1),), (Record('', 999, 7, b'abc'),))),
    ('another opcode is no reply to us',
     dns.reply(1, 'a.example', 'A', flags=0xA000),
     Message(1, False, False, 0, (Question('a.example', 1),))),
    ('no question',
     dns.reply(1, 'a.example', 'A', rcode=1, question=False),
     Message(1, True, False, 1, ())),
]
WIRES = [pytest.param(wire, message, id=name) for name, wire, message in REPLIES]


@pytest.mark.parametrize(('wire', 'message'), WIRES)
def test_whole(wire: bytes, message: Message) -> None:
    assert parse_message(wire) == message


@pytest.mark.parametrize(('wire', 'message'), WIRES)
def test_cut_at_every_octet_or_with_octets_to_spare(wire: bytes, message: Message) -> None:
    for end in range(len(wire)):
        with pytest.raises(FormatError):
            parse_message(wire[:end])
    with pytest.raises(FormatError, match='1 octets follow'):
        parse_message(wire + b'\0')


@pytest.mark.parametrize(('wire', 'message'), WIRES)
def test_damage_gives_a_message_or_a_format_error(wire: bytes, message: Message) -> None:
    for at in range(len(wire)):
        for octet in (0, 1, 0x3F, 0x40, 0x80, 0xC0, 0xFF, wire[at] ^ 1, wire[at] ^ 0x80):
            _parse_or_refuse(wire[:at] + bytes([octet]) + wire[at + 1:])
    chance = random.Random(wire)
    for _ in range(500):
        damaged = bytearray(wire)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        _parse_or_refuse(bytes(damaged))


def _parse_or_refuse(wire: bytes) -> None:
    try:
        message = parse_message(wire)
    except FormatError:
        return
    for question in message.questions:
        str(question)


def test_of_a_truncated_reply_only_the_head_counts() -> None:
    whole = dns.reply(7, 'example.com', 'MX', dns.mx('example.com', 10, 'mx'), truncated=True)
    head = len(dns.reply(7, 'example.com', 'MX', truncated=True))
    for end in range(head, len(whole) + 1):
        assert parse_message(whole[:end]) == Message(7, True, True, 0, (Question('example.com', 15),))


@pytest.mark.parametrize(('data', 'complaint'), [
    (b'\xc0\x00', 'does not lead back'),                         # to itself
    (b'\xc0\x02\0', 'does not lead back'),                       # forward
    (b'\1a\xc0\x00', 'does not lead back'),                      # to its own start: a circle
    (b'\1a\xc0\x09', 'does not lead back'),                      # beyond the end
    (b'\x40', 'kind of label'),
    (b'\x80', 'kind of label'),
    (b'\xc0', 'ends early'),
    (b'\5abcd', 'ends early'),
    (b'\x3f' + b'a' * 63, 'ends early'),
    ((b'\x3f' + b'a' * 63) * 4 + b'\0', 'longer than 255'),
], ids=repr)
def test_names_that_lie(data: bytes, complaint: str) -> None:
    with pytest.raises(FormatError, match=complaint):
        Parser(data).name()


@pytest.mark.parametrize('start', [2, 4])
def test_two_pointers_at_each_other(start: int) -> None:
    wire = Parser(b'\xc0\x02\xc0\x00\xc0\x00')
    wire.take(start)
    with pytest.raises(FormatError, match='does not lead back'):
        wire.name()


def test_the_longest_name_and_one_octet_more() -> None:
    longest = (b'\x3f' + b'a' * 63) * 3 + b'\x3d' + b'b' * 61 + b'\0'
    name = Parser(longest).name()
    assert len(longest) == 255 and encode_name(name) == longest
    with pytest.raises(FormatError, match='longer than 255'):
        encode_name(name + 'b')


def pointer_bomb(steps: int) -> bytes:
    """As many records as are allowed, their owner's name at the end of a chain of pointers, each to the one before."""
    chain = b'\0\0' + b''.join(pack('>H', 0xC000 | at) for at in range(24, 0x3000, 2))  # at octet 24, in an odd record
    owner = pack('>H', 0xC000 | (24 + 2 * (steps - 2)))
    holder = b'\0' + pack('>HHIH', 999, 1, 0, 1 + len(chain)) + b'\0' + chain
    victims = (owner + pack('>HHIH', 1, 1, 0, 4) + b'\xc0\0\2\1') * (MAX_RECORDS - 1)
    return pack('>6H', 1, 0x8180, 0, MAX_RECORDS, 0, 0) + holder + victims


def test_a_chain_of_pointers_is_cut_short() -> None:
    before = time.process_time()
    assert len(parse_message(pointer_bomb(255)).answers) == MAX_RECORDS
    assert time.process_time() - before < 1
    with pytest.raises(FormatError, match='255 steps'):
        parse_message(pointer_bomb(256))


def test_the_number_of_records_is_bounded() -> None:
    answers = [dns.address('a.example', '192.0.2.1')] * (MAX_RECORDS - 1)
    assert len(parse_message(dns.reply(1, 'a.example', 'A', *answers)).answers) == MAX_RECORDS - 1
    with pytest.raises(FormatError, match='more than 1000'):
        parse_message(dns.reply(1, 'a.example', 'A', *answers, answers[0]))


@pytest.mark.parametrize(('kind', 'data'), [
    ('A', b'\1\2\3'), ('A', b'\1\2\3\4\5'), ('AAAA', b'\1' * 15), ('AAAA', b'\1' * 17), ('MX', b'\0'),
    ('MX', b'\0\1'), ('MX', b'\0\1\0\0'), ('TXT', b'\2a'), ('CNAME', b''), ('CNAME', b'\0\0'),
    ('SOA', b'\0\0' + b'\1' * 19), ('SOA', b'\0\0' + b'\1' * 21),
])
def test_record_data_has_exactly_its_size(kind: str, data: bytes) -> None:
    """A second record follows, so that the octets a short one lacks would be there to read."""
    for answers in ([dns.record('a.example', kind, 1, data)], [dns.record('a.example', kind, 1, data)] * 2):
        with pytest.raises(FormatError):
            parse_message(dns.reply(1, 'a.example', 'A', *answers))


def test_a_record_hidden_in_the_data_of_another() -> None:
    hidden = dns.address('bank.example', '6.6.6.6')
    wire = dns.reply(1, 'a.example', 'A', dns.record('a.example', 'A', 1, b'\xc0\0\2\1' + hidden), b'')
    with pytest.raises(FormatError, match='octets to spare'):
        parse_message(wire)


def test_a_question_of_another_class() -> None:
    wire = bytearray(dns.reply(1, 'a.example', 'A'))
    wire[-1] = 3
    with pytest.raises(FormatError, match='class 3'):
        parse_message(bytes(wire))


@pytest.mark.parametrize('edns', [True, False])
@pytest.mark.parametrize('name', ['example.com', 'a-b.c_d.xn--4ca.example', ''])
def test_queries(name: str, edns: bool) -> None:
    query = dns.read_query(build_query(0xABCD, Question(name, Type.MX), edns))
    assert (query.id, query.name, query.type, query.edns) == (0xABCD, name, 'MX', edns)


def test_frames_at_every_cut() -> None:
    data = frame(b'first') + frame(b'') + b'\0'
    for end in range(len(data) + 1):
        message, rest = split_frame(data[:end])
        assert (message, rest) == ((None, data[:end]) if end < 7 else (b'first', data[7:end]))
    assert split_frame(data[7:]) == (b'', b'\0')
    assert split_frame(b'\0') == (None, b'\0')


@pytest.mark.parametrize(('text', 'name'), [
    ('example.com', 'example.com'),
    ('Example.COM.', 'example.com'),
    ('under_score.example', 'under_score.example'),
    ('bücher.Example', 'xn--bcher-kva.example'),
    ('例え。テスト', 'xn--r8jz45g.xn--zckzah'),
    ('\u212aelvin.example', 'kelvin.example'),
    ('1.0/25.2.0.192.in-addr.arpa', '1.0/25.2.0.192.in-addr.arpa'),
])
def test_normal_names(text: str, name: str) -> None:
    assert normal_name(text) == name


@pytest.mark.parametrize(('text', 'complaint'), [
    ('', 'empty'),
    ('.', 'empty'),
    ('a..b', 'not a domain name'),
    ('.a', 'not a domain name'),
    ('a b.example', 'not a domain name'),
    ('a\n.example', 'not a domain name'),
    ('a.example\n', 'not a domain name'),
    ('a\\046b', 'not a domain name'),
    ('a' * 64 + '.example', 'longer than 63'),
    ('.'.join(['abc'] * 64), 'longer than 255'),
    ('straße.example', 'U\\+00DF.*xn--'),
    ('ü' * 300, 'longer than 255'),
    ('ü' * 200, 'not an internationalized domain name'),
    ('ü..example', 'not an internationalized domain name'),
    ('\ud800.example', 'not an internationalized domain name'),
])
def test_no_domain_names(text: str, complaint: str) -> None:
    with pytest.raises(FormatError, match=complaint):
        normal_name(text)
