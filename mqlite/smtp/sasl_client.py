"""SMTP AUTH, the client's side: which mechanism to take, and what to send at each step. Pure.

A step is the name of the state that it is (as results name it) and a function from the server's challenge, as it stands
behind 334, to the line to send. After the last step comes the verdict: 235, or a refusal.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable
from typing import Callable

from mqlite.smtp.reply import BadReply
from mqlite.smtp.sasl import cram_md5

Step = tuple[str, Callable[[str], bytes]]

_PREFERRED = {True: ('PLAIN', 'LOGIN', 'CRAM-MD5'), False: ('CRAM-MD5', 'PLAIN', 'LOGIN')}  # by: is it encrypted?


def choose_mechanism(offered: Iterable[str], encrypted: bool) -> str | None:
    """The best of the words behind AUTH in the server's EHLO; None when we know none of them."""
    names = {word.upper() for word in offered}
    return next((name for name in _PREFERRED[encrypted] if name in names), None)


def client_steps(mechanism: str, login: str, password: str) -> list[Step]:
    """All steps of an exchange, in order. BadReply comes from a step whose challenge is no base64."""
    name, secret = login.encode(), password.encode()

    def digest(challenge: str) -> bytes:
        return _line(name + b' ' + cram_md5(secret, _decode(challenge)).encode())

    steps: dict[str, list[Step]] = {
        'PLAIN':    [('authplain',    lambda _: b'AUTH PLAIN ' + _line(b'\0' + name + b'\0' + secret))],
        'LOGIN':    [('authlogin',    lambda _: b'AUTH LOGIN\r\n'),
                     ('authusername', lambda _: _line(name)),
                     ('authpassword', lambda _: _line(secret))],
        'CRAM-MD5': [('authcram',     lambda _: b'AUTH CRAM-MD5\r\n'),
                     ('authresponse', digest)],
    }
    return steps[mechanism]


def _line(octets: bytes) -> bytes:
    return b64encode(octets) + b'\r\n'


def _decode(challenge: str) -> bytes:
    try:
        return b64decode(challenge.strip(), validate=True)
    except (Base64Error, ValueError):
        raise BadReply('the challenge of CRAM-MD5 is not base64') from None
