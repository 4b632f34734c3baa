"""SMTP AUTH, the client's side: which mechanism to take, and what to send at each step. Pure.

A password goes in clear to this host and to private networks only: anybody on the way to another could read it, and
take STARTTLS out of the server's offer to be able to. CRAM-MD5 shows it to nobody.

A step is the name of the state that it is (as results name it) and a function from the server's challenge, as it stands
behind 334, to the line to send. After the last step comes the verdict: 235, or a refusal.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Callable

from mqlite.smtp.reply import BadReply
from mqlite.smtp.sasl import cram_md5

Step = tuple[str, Callable[[str], bytes]]

#  the password is seen by        mechanisms, the best first
_ENCRYPTED  = ('PLAIN', 'LOGIN', 'CRAM-MD5')  # the server
_NEARBY     = ('CRAM-MD5', 'PLAIN', 'LOGIN')  # whoever listens on this host or in a private network
_FAR        = ('CRAM-MD5',)                   # anybody


@dataclass(frozen=True)
class Login:
    """Who we are to a server."""

    name: str
    password: str = field(repr=False)


def choose_mechanism(offered: Iterable[str], encrypted: bool, address: str) -> str | None:
    """The best of the words behind AUTH in the EHLO of the server at this address; None when there is none that we may
    use."""
    names = {word.upper() for word in offered}
    preferred = _ENCRYPTED if encrypted else _NEARBY if ip_address(address.partition('%')[0]).is_private else _FAR
    return next((name for name in preferred if name in names), None)


def client_steps(mechanism: str, login: Login) -> list[Step]:
    """All steps of an exchange, in order. BadReply comes from a step whose challenge is no base64."""
    name, secret = login.name.encode(), login.password.encode()

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
