"""The JSON document: bytes that survive it, properties of the right and of the wrong form, and poison."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest

from mqlite.message import document as document_module
from mqlite.message.document import (
    DEPTH_LIMIT,
    QUEUE_NAME_LIMIT,
    Document,
    DocumentError,
    LargeBody,
    Received,
    Smarthost,
    due_time,
    encode_each,
)
from mqlite.smtp.dsn import NOTHING, Request

MISSING = object()


def whole(body: bytes | LargeBody) -> bytes:
    return body if isinstance(body, bytes) else b''.join(body)


def encode(fields: dict[str, Any], mime: bytes) -> bytes:
    return whole(encode_each([Received(fields, mime)])[0])


def document(**fields: object) -> Document:
    return Document.decode(json.dumps(fields).encode())


def nested(depth: int, opening: str = '[', closing: str = ']') -> bytes:
    """A document with this many objects and arrays within each other, itself included."""
    return ('{"a":' + opening * (depth - 1) + closing * (depth - 1) + '}').encode()


# the message

@pytest.mark.parametrize('mime', [
    b'Subject: x\r\n\r\nbody\r\n',
    'Subject: é€😀\r\n'.encode(),
    b'\xff\xfe\x80\r\n',
    b'\xc3\r\n',                                    # a beginning of UTF-8
    b'\xed\xa0\xbd\xed\xb8\x80\r\n',                # surrogates in UTF-8, which is none
    b'\xed\xb2\x80\xf0\x9f\x98\x80\x80\r\n',
    b'\xc0\xaf\xf4\x90\x80\x80\r\n',                # overlong; beyond U+10FFFF
    b'\0\x01\x1b"\\/\x7f\r\n',
    '\u2028\u2029\ufeff\ufffd\uffff'.encode() + b'\r\n',
    bytes(set(range(256)) - {10, 13}) + b'\r\n',
])
def test_every_octet_of_a_message_survives(mime: bytes) -> None:
    body = encode({'recipient': 'a@b'}, mime)
    assert body.decode('utf-8')
    again = Document.decode(Document.decode(body).encode())
    assert again.take_mime() == mime
    assert again.fields == {'recipient': 'a@b'}


def test_random_messages_survive() -> None:
    generator = random.Random(8259)
    for _ in range(2000):
        octets = generator.choices([b'\xf0\x9f\x98\x80', b'\xed\xa0\xbd', b'\xed\xb8\x80', b'\xc3', b'\xa9', b'\xff',
                                    b'a', b'\\u',
                                    b'd83d', b'"', b'\0'], k=generator.randrange(1, 12))
        mime = b''.join(octets) + b'\r\n'
        assert Document.decode(encode({'a': 'b'}, mime)).take_mime() == mime


@pytest.mark.parametrize('piece', [1, 2, 3, 5])
def test_a_large_message_is_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    """Also where the pieces cut through a character, or through what is none."""
    generator = random.Random(piece)
    octets = [b'\xf0\x9f\x98\x80', b'\xed\xa0\xbd', b'\xc3', b'\xa9', b'\xff', b'\xe2\x82\xac', b'a', b'"', b'\r\n',
              b'\0']
    for _ in range(300):
        trace, mime = (b''.join(generator.choices(octets, k=generator.randrange(6, 30))) for _ in range(2))
        message = Received({'recipient': 'é@b'}, mime, trace=trace)
        monkeypatch.setattr(document_module, 'PIECE', 1000)
        body = whole(encode_each([message])[0])
        monkeypatch.setattr(document_module, 'PIECE', piece)
        pieces = encode_each([message, message])
        assert [whole(pieces[0]), whole(pieces[0]), whole(pieces[1])] == [body] * 3, 'it can be made more than once'
        assert json.loads(body)['mime'].encode('utf-8', 'surrogateescape') == trace + mime


def test_several_documents_share_one_message() -> None:
    bodies = encode_each([Received({'recipient': 'a@b'}, b'm\r\n'),
                          Received({'recipient': 'c@d', 'x': {'y': 1}}, b'm\r\n')])
    assert [json.loads(whole(body)) for body in bodies] == [
        {'recipient': 'a@b', 'mime': 'm\r\n'}, {'recipient': 'c@d', 'x': {'y': 1}, 'mime': 'm\r\n'}]


@pytest.mark.parametrize(('value', 'mime'), [
    ('a\nb', b'a\r\nb\r\n'),
    ('a\r\n.\r\nMAIL FROM:<x@y>', b'a\r\n.\r\nMAIL FROM:<x@y>\r\n'),
    ('x\n.\r\ny\r.\rz', b'x\r\n.\r\ny\r\n.\r\nz\r\n'),
    ('é', b'\xc3\xa9\r\n'),
    ('\udce9', b'\xe9\r\n'),
])
def test_the_message_of_others_is_normalised(value: str, mime: bytes) -> None:
    assert document(mime=value).take_mime() == mime


@pytest.mark.parametrize(('value', 'complaint'), [
    (MISSING, 'missing'), (None, 'missing'), ('', 'missing'), (1, 'must be a string'), ([], 'must be a string'),
    ({'text': 'x'}, 'is an object'),
    ('\ud800', 'lone surrogates'), ('\udfff', 'lone surrogates'), ('\udc00', 'lone surrogates'),
    ('\udc7f', 'lone surrogates')])
def test_no_message(value: object, complaint: str) -> None:
    with pytest.raises(DocumentError, match=complaint):
        document(**({} if value is MISSING else {'mime': value})).take_mime()


# what is no document

@pytest.mark.parametrize(('body', 'complaint'), [
    (b'', 'not valid JSON'),
    (b'\0', 'not valid JSON'),
    (b'{', 'not valid JSON'),
    (b'{"a":1}x', 'not valid JSON'),
    (b"{'a':1}", 'not valid JSON'),
    (b'{"a":1,}', 'not valid JSON'),
    (b'{"a":"\n"}', 'not valid JSON'),
    (b'{"a":01}', 'not valid JSON'),
    (b'{"a":"\\x"}', 'not valid JSON'),
    (b'\xef\xbb\xbf{}', 'not valid JSON'),
    (b'\xff\xfe{\0}\0', 'not valid JSON'),
    (b'\x1f\x8b\x08', 'not valid JSON'),
    (b'{"a":NaN}', 'NaN is not JSON'),
    (b'{"a":Infinity}', 'Infinity is not JSON'),
    (b'{"a":[-Infinity]}', '-Infinity is not JSON'),
    (b'{"a":1e999}', 'too large'),
    (b'{"a":-1.5e308000}', 'too large'),
    (b'{"a":' + b'9' * 5000 + b'}', 'not valid JSON'),
    (b'null', 'not a JSON object'),
    (b'[]', 'not a JSON object'),
    (b'[{"recipient":"a@b"}]', 'not a JSON object'),
    (b'"text"', 'not a JSON object'),
    (b'1', 'not a JSON object'),
    (b'true', 'not a JSON object'),
    (nested(DEPTH_LIMIT + 1), 'within each other'),
    (nested(DEPTH_LIMIT + 1, '{"a":', '}').replace(b':}', b':1}'), 'within each other'),
    (nested(500), 'within each other'),
    (nested(100000), 'not valid JSON|within each other'),
    (b'[' * 1000000, 'not valid JSON'),
    (b'{"a":' * 1000000, 'not valid JSON'),
], ids=lambda value: str(value)[:40])
def test_no_document(body: bytes, complaint: str) -> None:
    with pytest.raises(DocumentError, match=complaint):
        Document.decode(body)
    assert due_time(body + b' "nextattempt"') == 0.0


@pytest.mark.parametrize('body', [
    nested(DEPTH_LIMIT),
    b'{"a":[' + b'[],' * 10000 + b'{}]}',
    b'{"a":' + b'9' * 4000 + b'}',
    b'{"a":[1e308,1e-999,-0.0,0.1]}',
    b'{"a":"\\ud800\\udc80\\u0000\\u2028","\\udfff":"\xff"}',
    b'{"":{"":[null,true]}}',
    b' \r\n\t{ } ',
], ids=lambda body: ascii(body[:40]))
def test_what_comes_in_can_go_out(body: bytes) -> None:
    """And comes back the same, also as a result: one level deeper."""
    first = Document.decode(body)
    again = Document.decode(first.encode())
    assert again.fields == first.fields
    assert json.loads(json.dumps({**first.fields, 'results': [{'state': 'message'}]}))


def test_of_a_name_that_is_there_twice_the_last_one_counts() -> None:
    twice = Document.decode(b'{"recipient":"a@b","recipient":"c@d"}')
    assert twice.recipient == 'c@d' and Document.decode(twice.encode()).fields == {'recipient': 'c@d'}


def test_a_wide_document_takes_no_longer_than_its_size() -> None:
    body = b'{"retries":[' + b'1,' * 1000000 + b'1],"ips":[' + b'"a",' * 100000 + b'"a"]}'
    begin = time.perf_counter()
    wide = Document.decode(body)
    assert len(wide.retries or []) == 1000001 and len(wide.ips or []) == 100001
    assert time.perf_counter() - begin < 10.0


# properties

GOOD = [
    ('envelope', MISSING, ''), ('envelope', None, ''), ('envelope', '', ''), ('envelope', 'a@b', 'a@b'),
    ('envelope', 'é@ü', 'é@ü'),
    ('recipient', 'A@B', 'A@B'), ('utf8', MISSING, False),
    ('not_before', MISSING, 0.0),
    ('max_attempts', MISSING, None), ('max_attempts', None, None), ('max_attempts', 0, 0), ('max_attempts', '3', 3),
    ('retries', MISSING, None), ('retries', [600, '60', 0], [600, 60, 0]),
    ('deadline', MISSING, None), ('deadline', '1970-01-01 00:01:00', 60.0),
    ('attempts', MISSING, []), ('attempts', [{}], [{}]),
    ('smarthost', MISSING, None), ('smarthost', {'hostname': 'h'}, Smarthost('h', 25)),
    ('smarthost', {'hostname': 'h', 'port': None}, Smarthost('h', 25)),
    ('smarthost', {'hostname': 'h', 'port': '587'}, Smarthost('h', 587)),
    ('ips', MISSING, None), ('ips', [], []), ('ips', ['192.0.2.1'], ['192.0.2.1']),
    ('ips', '192.0.2.1', None), ('ips', {}, None), ('ips', 1, None),     # not an array: as if it were not there
    ('priority', MISSING, 0), ('priority', 5, 5), ('priority', 1000, 255),
]
BAD: dict[str, list[object]] = {
    'envelope':     ['a', 'a@b\r\nRCPT TO:<c@d>', 'a@b\0', '<a@b>', 'a..b@c', 1, [], {}, True, '\udcff@b'],
    'recipient':    [MISSING, None, '', 'a', 'a@b\n', 'a@b> X', 'a b@c', 1, ['a@b'], '"\r"@b', 'postmaster'],
    'not_before':   ['2030-01-01 00:00:00', {'time': 1}, {'time': 'soon'}, {'time': '2030-02-30 00:00:00'}, [], 1],
    'deadline':     ['tomorrow', 1, {}, '2030-01-01T00:00:00'],
    'max_attempts': [-1, 1.5, 1.0, True, 'x', '', '-1', '²', '９', '9' * 5000, 2 ** 31, 10 ** 4000, [], {}],
    'retries':      [[], 1, '600,600', [None], [-1], ['²'], [[600]], {}, [1e9]],
    'attempts':     [{}, 'x', [1], [None], [[]]],
    'smarthost':    ['h', {}, {'hostname': ''}, {'hostname': 1}, {'hostname': 'h', 'port': 65536},
                     {'hostname': 'h', 'port': -1}, {'hostname': 'h', 'port': 'smtp'}, []],
    'ips':          [[1], [None], [['a']]],
    'priority':     [-1, 'high', True, 1.5, []],
}
NAMES = {'not_before': 'nextattempt', 'max_attempts': 'maxattempts', 'deadline': 'maxdelivertime',
         'attempts': 'results'}


def with_property(name: str, value: object) -> Document:
    return document(**({} if value is MISSING else {NAMES.get(name, name): value}))


@pytest.mark.parametrize(('name', 'value', 'expected'), GOOD, ids=lambda value: str(value)[:40])
def test_good_property(name: str, value: object, expected: Any) -> None:
    assert getattr(with_property(name, value), name) == expected


@pytest.mark.parametrize(('name', 'value'), [(name, value) for name in BAD for value in BAD[name]],
                         ids=lambda value: ascii(value)[:40])
def test_bad_property(name: str, value: object) -> None:
    """A text for the publisher, and nothing but DocumentError: it is all that the delivery expects."""
    with pytest.raises(DocumentError, match=f'"{NAMES.get(name, name)}'):
        getattr(with_property(name, value), name)


DEFAULTS = Request(('FAILURE',), 'HDRS')


@pytest.mark.parametrize(('value', 'request_'), [
    (MISSING, DEFAULTS), (None, DEFAULTS), ({}, DEFAULTS), ({'notify': None, 'ret': '', 'x': 1}, DEFAULTS),
    ({'notify': []}, DEFAULTS),
    ({'notify': 'NEVER'}, Request(('NEVER',), 'HDRS')),
    ({'notify': ['success', 'DELAY'], 'ret': 'full'}, Request(('SUCCESS', 'DELAY'), 'FULL')),
    ({'notify': 'SUCCESS, FAILURE', 'envid': 4711, 'orcpt': 'a@b'},
     Request(('SUCCESS', 'FAILURE'), 'HDRS', '4711', 'a@b')),
])
def test_the_notices_that_are_wanted(value: object, request_: Request) -> None:
    assert with_property('dsn', value).notices(DEFAULTS) == request_


def test_no_notices() -> None:
    assert document(dsn={}).notices(NOTHING) is document().notices(NOTHING) is NOTHING


@pytest.mark.parametrize('value', [
    'FAILURE', [], 1, {'notify': 'SOMETIMES'}, {'notify': ['NEVER', 'DELAY']}, {'notify': [1]}, {'notify': {}},
    {'notify': True}, {'ret': 'BODY'}, {'ret': []}, {'envid': 'a\nb'}, {'envid': 'x' * 101}, {'envid': {}},
    {'orcpt': 'a@b\r\n'}, {'orcpt': 'rfc822;'}, {'orcpt': '\udcff@b'}, {'orcpt': 'x' * 500}])
def test_bad_notices(value: object) -> None:
    with pytest.raises(DocumentError, match='"dsn'):
        with_property('dsn', value).notices(NOTHING)


def test_when_the_next_attempt_may_be() -> None:
    assert document(nextattempt={'time': '1970-01-01 00:01:00', 'x': 1}).not_before == 60.0
    assert document(nextattempt={'time': None}).not_before == document(nextattempt={}).not_before == 0.0


@pytest.mark.parametrize(('body', 'due'), [
    (b'{}', 0.0), (b'{"nextattempt":{"time":"1970-01-01 00:01:00"}}', 60.0), (b'{"nextattempt":"x"}', 0.0),
    (b'"nextattempt"', 0.0)])
def test_due_time(body: bytes, due: float) -> None:
    assert due_time(body) == due


def test_first_attempt() -> None:
    assert document().first_attempt is None
    assert document(results=[{'time': '1970-01-01 00:01:00'}, {}]).first_attempt == 60.0
    with pytest.raises(DocumentError, match=r'"results\[0\].time"'):
        _ = document(results=[{}]).first_attempt


def test_domain() -> None:
    assert document(recipient='"A@B"@Example.ORG').domain == 'example.org'
    assert document(recipient='é@BÜCHER.example').domain == 'xn--bcher-kva.example'
    assert document(recipient='é@FAß.example').domain == 'faß.example'  # which no two agree on


@pytest.mark.parametrize(('queues', 'name'), [
    (MISSING, 'default'), (None, 'default'), ('x', 'default'), ([], 'default'), ({}, 'default'),
    ({'other': 'x'}, 'default'),
    ({'results': None}, ''), ({'results': ''}, ''), ({'results': 'own'}, 'own'), ({'results': 'é'}, 'é'),
    ({'results': 1}, 'default'), ({'results': []}, 'default'), ({'results': 'a\0b'}, 'default'),
    ({'results': 'a\nb'}, 'default'),
    ({'results': '\ud800'}, 'default'), ({'results': '\udcff'}, 'default'),
    ({'results': 'x' * QUEUE_NAME_LIMIT}, 'x' * QUEUE_NAME_LIMIT),
    ({'results': 'x' * (QUEUE_NAME_LIMIT + 1)}, 'default'),
    ({'results': 'é' * QUEUE_NAME_LIMIT}, 'default'),
])
def test_queue(queues: object, name: str) -> None:
    """A name that no store could take would make the report of the mistake fail in its turn."""
    assert with_property('queues', queues).queue('results', 'default') == name
