"""What results say of a message: as Python's parser reads it, and little of a large header."""

from __future__ import annotations

import email
import email.policy
import random
from typing import Any

import pytest

from mqlite.message.extracted import LIMIT, extracted


def of(mime: bytes) -> dict[str, Any]:
    return extracted(mime, 's@a.example', 'r@b.example')


def test_all_of_it() -> None:
    mime = (b'Received: one;\r\n\ttwo\r\nreceived: three\r\nFrom: Joe <joe@x.example>\r\nTo: a@x.example,\r\n'
            b' "B, C" <b@x.example>\r\nSubject: =?utf-8?q?gr=C3=BCn?=\r\nX-Example-Property:some-mime-property\r\n'
            b'Received: four\r\n\r\nFrom: body\r\n')
    assert of(mime) == {
        'from': 'joe@x.example', 'to': ['a@x.example', 'b@x.example'], 'subject': 'grün',
        'headers': {'received': ['one;\ttwo', 'three', 'four'], 'from': 'Joe <joe@x.example>',
                    'to': 'a@x.example, "B, C" <b@x.example>', 'subject': '=?utf-8?q?gr=C3=BCn?=',
                    'x-example-property': 'some-mime-property'},
        'envelope': {'domain': 'a.example', 'local': 's'}, 'recipient': {'domain': 'b.example', 'local': 'r'}}


def test_nothing() -> None:
    for mime in (b'', b'\r\n', b'\r\nbody', b'no field\r\n'):
        assert extracted(mime, '', 'r@b.example') == {
            'from': '', 'to': [], 'subject': '', 'headers': {}, 'envelope': {'domain': '', 'local': ''},
            'recipient': {'domain': 'b.example', 'local': 'r'}}


@pytest.mark.parametrize(('field', 'addresses'), [
    (b'a@b', ['a@b']), (b'<a@b>', ['a@b']), (b'Joe Doe <a@b>', ['a@b']), (b'"a, b" <a@b>', ['a@b']), (b'', []),
    (b'a@b, c@d', ['a@b', 'c@d']), (b'a@b (comment)', ['a@b']), (b'group: a@b, c@d;', ['a@b', 'c@d']),
    (b'a@b\r\nTo: c@d', ['a@b', 'c@d']), (b'"x@y" <a@b>', ['a@b']), (b'\xff <a@b>', ['a@b']),
    (b'a@b ' + b'(' * 5000, []), (b'a:' * 5000, []),
])
def test_addresses(field: bytes, addresses: list[str]) -> None:
    assert of(b'To: ' + field + b'\r\n\r\n')['to'] == addresses


def test_two_subjects() -> None:
    assert of(b'Subject: one\r\nSubject: two\r\n\r\n')['subject'] == 'one'


def test_octets_that_are_no_text_come_back_as_such() -> None:
    assert of(b'X: \xff\r\n\r\n')['headers'] == {'x': '\udcff'}


def test_a_large_header() -> None:
    headers = of(b'Subject: x\r\n' + b'X-A: ' + b'y' * LIMIT + b'\r\nX-B: z\r\n\r\n')['headers']
    assert set(headers) == {'subject', 'x-a'}
    assert len(headers['x-a']) < LIMIT


def test_as_python_reads_it() -> None:
    dice = random.Random(17)
    names = ['X-A', 'x-a', 'Subject', 'X-B-C', 'Date']
    for _ in range(300):
        fields = [(dice.choice(names), dice.choice(['a', 'a  b', 'a\r\n b', 'a\r\n\tb\r\n  c', ''])) for _ in range(6)]
        mime = ''.join(f'{name}: {value}\r\n' for name, value in fields).encode() + b'\r\nbody\r\n'
        read = email.message_from_bytes(mime, policy=email.policy.compat32)
        for name, value in of(mime)['headers'].items():
            expected = [text.replace('\r\n', '') for text in read.get_all(name, [])]
            assert (value if isinstance(value, list) else [value]) == expected
