"""Messages for servers without 8BITMIME: octet by octet, and whatever Python reads in them is what it read before."""

from __future__ import annotations

import email
import email.policy
import random
from typing import Any

import pytest

from mqlite.message.seven_bit import to_seven_bit
from mqlite.message.transfer import fits_seven_bit


def lines(text: str) -> bytes:
    return text.replace('\n', '\r\n').encode('utf-8', 'surrogateescape')


@pytest.mark.parametrize(('before', 'after'), [
    ('Subject: x\n\nplain\n', 'Subject: x\n\nplain\n'),
    ('Subject: x\n\ngrün, and some more text\n',
     'Subject: x\nContent-Transfer-Encoding: quoted-printable\nMIME-Version: 1.0\n\ngr=C3=BCn, and some more text\n'),
    ('MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nслово\n',
     'MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\n'
     '0YHQu9C+0LLQvg0K\n'),
    ('Content-Transfer-Encoding: binary\n\n\udcff\0\udcfe\n',
     'Content-Transfer-Encoding: base64\nMIME-Version: 1.0\n\n/wD+DQo=\n'),
    ('Subject: grün\nX: y\n\nplain\n', 'Subject: =?utf-8?b?Z3LDvG4=?=\nX: y\n\nplain\n'),
    ('From: Jörg <j@x>\n\n', 'From: =?utf-8?b?SsO2cmc=?= <j@x>\n\n'),
    ('X-\udcff: y\nZ: \udcff\n\n', 'X-?: y\nZ: =?utf-8?b?77+9?=\n\n'),
    ('Content-Disposition: attachment; filename="ü 1.pdf"; x=ü\n\n',
     'Content-Disposition: attachment; filename="=?utf-8?b?w7w=?= 1.pdf"; x=??\n\n'),
    pytest.param(f'To: ü{"(" * 2000}\n\n', f'To: ??{"(" * 2000}\n\n', id='nested'),
    # what stays as it is
    ('Content-Transfer-Encoding: base64\n\nü\n', 'Content-Transfer-Encoding: base64\nMIME-Version: 1.0\n\nü\n'),
    ('Content-Type: multipart/mixed\n\nü\n', 'Content-Type: multipart/mixed\n\nü\n'),
    ('Content-Type: message/partial\n\nü\n', 'Content-Type: message/partial\n\nü\n'),
])
def test_messages(before: str, after: str) -> None:
    assert to_seven_bit(lines(before)) == lines(after)


def test_parts() -> None:
    """Only what has to change does; nothing within what is signed."""
    before = lines('MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 8bit\n\n'
                   'preämble\n'
                   '--b\n\nplain\n'
                   '--b\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\ngrün und mehr\n'
                   '--b\nContent-Type: multipart/signed; boundary=c\n\n--c\n\ngrün\n--c--\n'
                   '--b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\n'
                   'Subject: ü\nMIME-Version: 1.0\n\ngrün und mehr\n'
                   '--b--\n')
    after = lines('MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 7bit\n\n'
                  'pre??mble\n'
                  '--b\n\nplain\n'
                  '--b\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n'
                  'gr=C3=BCn und mehr\n'
                  '--b\nContent-Type: multipart/signed; boundary=c\n\n--c\n\ngrün\n--c--\n'
                  '--b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\n\n'
                  'Subject: =?utf-8?b?w7w=?=\nMIME-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n\n'
                  'gr=C3=BCn und mehr\n'
                  '--b--\n')
    assert to_seven_bit(before) == after


def test_long_lines() -> None:
    made = to_seven_bit(b'MIME-Version: 1.0\r\n\r\n' + b'x' * 5000 + b'\r\nshort\r\n')
    assert fits_seven_bit(made)
    assert email.message_from_bytes(made).get_payload(decode=True) == b'x' * 5000 + b'\r\nshort\r\n'


def leaves(octets: bytes) -> list[tuple[str, Any]]:
    """The types and decoded contents of all parts."""
    message = email.message_from_bytes(octets, policy=email.policy.default)
    return [(part.get_content_type(), part.get_payload(decode=True)) for part in message.walk()
            if not part.is_multipart()]


def test_random_messages_say_the_same() -> None:
    dice = random.Random(11)

    def part(depth: int) -> bytes:
        kind = dice.randrange(5 if depth else 3)
        if kind < 3:
            encoding = dice.choice([b'8bit', b'binary', b''])
            body = b'\r\n'.join(dice.choice([b'text', 'grün'.encode(), b'\xff\xfe', b'', b'x' * 1200, b'a b ='])
                                for _ in range(dice.randint(1, 5)))
            return (b'Content-Type: ' + dice.choice([b'text/plain; charset=utf-8', b'image/png']) + b'\r\n'
                    + (b'Content-Transfer-Encoding: ' + encoding + b'\r\n' if encoding else b'') + b'\r\n' + body)
        if kind == 3:
            return b'Content-Type: message/rfc822\r\n\r\nSubject: s\r\nMIME-Version: 1.0\r\n' + part(depth - 1)
        name = b'b%d' % dice.randrange(10 ** 9)
        inner = b''.join(b'--' + name + b'\r\n' + part(depth - 1) + b'\r\n' for _ in range(dice.randint(1, 3)))
        return b'Content-Type: multipart/mixed; boundary=' + name + b'\r\n\r\n' + inner + b'--' + name + b'--\r\n'

    for _ in range(300):
        before = b'Subject: s\r\nMIME-Version: 1.0\r\n' + part(3) + b'\r\n'
        after = to_seven_bit(before)
        assert fits_seven_bit(after)
        assert leaves(after) == leaves(before)


def test_what_is_no_message_at_all() -> None:
    """Whatever it is, once is enough."""
    dice = random.Random(13)
    pieces = [b'\xff', b'\r\n', b'--b', b'Content-Type: multipart/mixed; boundary=b\r\n', b':', b'Content-', b'\0',
              b'"', b' ', b'Content-Transfer-Encoding: base64\r\n', b'x' * 999]
    for _ in range(2000):
        made = to_seven_bit(b''.join(dice.choice(pieces) for _ in range(dice.randint(0, 12))) + b'\r\n')
        assert to_seven_bit(made) == made
