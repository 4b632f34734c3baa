"""Hashed passwords as crypt(3) and openssl-passwd(1) write them: read, and checked against a password. Pure.

    $6$[rounds=N$]salt$86 characters    SHA-512     mkpasswd -m sha-512, openssl passwd -6
    $5$[rounds=N$]salt$43 characters    SHA-256     mkpasswd -m sha-256, openssl passwd -5
    $1$salt$22 characters               MD5         openssl passwd -1; from the 1990s, checked and not recommended
    $apr1$salt$22 characters            MD5         openssl passwd -apr1, htpasswd

By hand, because the module `crypt` left Python with 3.13. Other hashes ($2b$ bcrypt, $y$ yescrypt, $7$ scrypt, DES) are
refused when they are read, with a text that says what to write instead: bcrypt and yescrypt are made to be slow in C,
and in Python they would take seconds of a processor for each login.

A check takes 5 to 20 ms with the usual 5000 rounds: it belongs into a worker thread. Limits: ROUNDS_LIMIT, and what
smtp/sasl.py lets through as a password; the time grows with the product of both.

Sources: U. Drepper, Unix crypt using SHA-256 and SHA-512 (0.6, 2016), whose steps the comments number; P.-H. Kamp's
md5crypt (FreeBSD, 1994), and its Apache form, which differs in the magic.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from functools import partial
from hashlib import md5, sha256, sha512
from typing import Any, Callable

from mqlite.errors import ConfigError

ROUNDS = 5000  # when the hash does not say
FEWEST_ROUNDS = 1000  # what asks for fewer gets these
ROUNDS_LIMIT = 1_000_000  # more would take seconds for each guess
_HASH = re.compile(r'\$(6|5|1|apr1)\$(?:rounds=([1-9][0-9]{0,8})\$)?([^$:\n]{0,16})\$([./0-9A-Za-z]+)')
_OTHERS = (('$2', 'bcrypt'), ('$y$', 'yescrypt'), ('$gy$', 'gost-yescrypt'), ('$7$', 'scrypt'), ('$argon2', 'Argon2'),
           ('{', 'a hash of LDAP'))
_ALPHABET = b'./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
_md5 = partial(md5, usedforsecurity=False)  # hosts in FIPS mode have no other MD5; the operator chose this hash


class UnknownHash(ConfigError):
    """The operator's fault: a hash that cannot be checked here. The text does not repeat it."""


@dataclass(frozen=True)
class Hash:
    """A hashed password."""

    scheme: str
    salt: bytes = field(repr=False)
    rounds: int
    encoded: bytes = field(repr=False)

    def matches(self, password: bytes) -> bool:
        """Whether it is the hash of this password. Slow, by intent."""
        made = _SCHEMES[self.scheme].make(password, self.salt, self.rounds)
        return hmac.compare_digest(made, self.encoded)


def parse_hash(text: str) -> Hash:
    """UnknownHash when it is none that can be checked."""
    match = _HASH.fullmatch(text)
    if match is None:
        kind = next((f' ({name})' for prefix, name in _OTHERS if text.startswith(prefix)), '')
        raise UnknownHash(f'the password is not hashed in a way that can be checked here{kind}; make a hash with '
                          f'`openssl passwd -6` or `mkpasswd -m sha-512`')
    name, rounds, salt, encoded = match.groups()
    scheme = _SCHEMES[name]
    if len(encoded) != scheme.size or len(salt) > scheme.salt or rounds and not scheme.counts:
        raise UnknownHash(f'the hash that begins with ${name}$ is damaged: make it anew')
    number = int(rounds or ROUNDS)
    if number > ROUNDS_LIMIT:
        raise UnknownHash(f'the hash has {number} rounds, at most {ROUNDS_LIMIT} can be waited for: make it anew')
    return Hash(name, salt.encode(), max(number, FEWEST_ROUNDS), encoded.encode())


def _sha_crypt(new: Callable[..., Any], order: bytes, password: bytes, salt: bytes, rounds: int) -> bytes:
    inner = new(password + salt + password).digest()  # 4-8
    outer = new(password + salt + _stretch(inner, len(password)))  # 1-3, 9-10
    bits = len(password)
    while bits:  # 11
        outer.update(inner if bits & 1 else password)
        bits >>= 1
    digest = outer.digest()  # 12
    p = _stretch(new(password * len(password)).digest(), len(password))  # 13-16
    s = _stretch(new(salt * (16 + digest[0])).digest(), len(salt))  # 17-20
    return _encode(_repeat(new, digest, p, s, rounds), order)  # 21-22


def _md5_crypt(magic: bytes, password: bytes, salt: bytes, _rounds: int) -> bytes:
    inner = _md5(password + salt + password).digest()
    outer = _md5(password + magic + salt + _stretch(inner, len(password)))
    bits = len(password)
    while bits:
        outer.update(b'\0' if bits & 1 else password[:1])
        bits >>= 1
    return _encode(_repeat(_md5, outer.digest(), password, salt, 1000), _MD5_ORDER)


def _repeat(new: Callable[..., Any], digest: bytes, p: bytes, s: bytes, rounds: int) -> bytes:
    """21: what goes into a round depends on its number modulo 2, 3 and 7 only, so there are 42 kinds."""
    kinds = [(s * (i % 3 > 0) + p * (i % 7 > 0), i % 2) for i in range(42)]
    for i in range(rounds):
        middle, odd = kinds[i % 42]
        digest = new(p + middle + digest if odd else digest + middle + p).digest()
    return digest


def _stretch(octets: bytes, size: int) -> bytes:
    return (octets * (size // len(octets) + 1))[:size] if octets else b''


def _encode(digest: bytes, order: bytes) -> bytes:
    """Three octets as four characters, the lowest bits first; the last ones as as many characters as they need."""
    encoded = bytearray()
    for at in range(0, len(order), 3):
        octets = bytes(digest[place] for place in order[at:at + 3])
        bits = int.from_bytes(octets, 'big')
        for _ in range(len(octets) + 1):
            encoded.append(_ALPHABET[bits & 63])
            bits >>= 6
    return bytes(encoded)


def _order(size: int, turn: int, last: tuple[int, ...]) -> bytes:
    """Which octets of a digest stand together: a third of it apart, and turned by `turn` places from group to group."""
    third = size // 3
    groups: list[int] = []
    for at in range(third):
        group = (at, at + third, at + 2 * third)
        shift = at * turn % 3
        groups += group[shift:] + group[:shift]
    return bytes((*groups, *last))


_MD5_ORDER = bytes((0, 6, 12, 1, 7, 13, 2, 8, 14, 3, 9, 15, 4, 10, 5, 11))


@dataclass(frozen=True)
class _Scheme:
    """A row of the table of schemes."""

    salt: int  # octets at most
    size: int  # characters of the encoded digest
    counts: bool  # may say how many rounds
    make: Callable[[bytes, bytes, int], bytes]


_SCHEMES = {
    #               salt size counts make(password, salt, rounds)
    '6':    _Scheme(16, 86,  True,  partial(_sha_crypt, sha512, _order(64, 1, (63,)))),
    '5':    _Scheme(16, 43,  True,  partial(_sha_crypt, sha256, _order(32, 2, (31, 30)))),
    '1':    _Scheme(8,  22,  False, partial(_md5_crypt, b'$1$')),
    'apr1': _Scheme(8,  22,  False, partial(_md5_crypt, b'$apr1$')),
}
