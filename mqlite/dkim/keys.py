"""Private keys, read from PEM. Pure.

    -----BEGIN RSA PRIVATE KEY-----   PKCS #1 (RFC 8017 appendix A.1.2)
    -----BEGIN PRIVATE KEY-----       PKCS #8 (RFC 5958) around RSA, or around Ed25519 (RFC 8410)

A key that is protected by a pass phrase is refused: nobody is there to type it. So is an RSA key of less than 1024
bits, which verifiers do not take (RFC 8301 section 3.2).
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Union

from mqlite.der import INTEGER, OCTETS, OID, SEQUENCE, BadDer, Reader, first
from mqlite.errors import PermanentError

LEAST_BITS, MOST_BITS = 1024, 8192
PEM_LIMIT = 16384  # characters; the largest RSA key has 6400
_PEM = re.compile(r'-----BEGIN ([A-Z ]+)-----\s(.*?)-----END \1-----', re.DOTALL)
_RSA_OID = bytes.fromhex('2a864886f70d010101')
_ED25519_OID = bytes.fromhex('2b6570')


class KeyFault(PermanentError):
    """This is no key that can sign; the text says why, and nothing of the key."""


@dataclass(frozen=True)
class RsaKey:
    """The numbers of RFC 8017 section 3.2, and the key as it was written, in DER."""

    modulus: int
    exponent: int
    primes: tuple[int, int] = field(repr=False)
    exponents: tuple[int, int] = field(repr=False)
    coefficient: int = field(repr=False)
    der: bytes = field(repr=False)
    algorithm: str = 'rsa-sha256'

    @property
    def size(self) -> int:
        """Bytes of a signature."""
        return (self.modulus.bit_length() + 7) // 8


@dataclass(frozen=True)
class Ed25519Key:
    """The 32 octets of RFC 8032 section 5.1.5."""

    seed: bytes = field(repr=False)
    der: bytes = field(repr=False)
    algorithm: str = 'ed25519-sha256'


PrivateKey = Union[RsaKey, Ed25519Key]


@lru_cache(maxsize=1024)
def read_key(pem: str) -> PrivateKey:
    """KeyFault when it is none. The same few keys sign everything: each is read once."""
    if len(pem) > PEM_LIMIT:
        raise KeyFault(f'it is longer than {PEM_LIMIT} characters: write nothing but the key')
    match = _PEM.search(pem)
    if match is None:
        raise KeyFault('it is not in PEM form: -----BEGIN ... PRIVATE KEY-----')
    label, text = match.groups()
    if 'ENCRYPTED' in label or 'ENCRYPTED' in text:
        raise KeyFault('it is protected by a pass phrase: store it without one')
    try:
        der = binascii.a2b_base64(''.join(text.split()).encode('ascii'))
        if label == 'RSA PRIVATE KEY':
            return _read_rsa(der, der)
        if label == 'PRIVATE KEY':
            return _read_pkcs8(der)
    except (ValueError, BadDer):  # ValueError: not base64
        raise KeyFault('it is damaged') from None
    raise KeyFault(f'a {label} is not a key that DKIM knows: RSA or Ed25519')


def _read_pkcs8(der: bytes) -> PrivateKey:
    fields = Reader(first(der, SEQUENCE))
    fields.take(INTEGER)  # the version
    algorithm = first(fields.take(SEQUENCE), OID)
    key = fields.take(OCTETS)
    if algorithm == _RSA_OID:
        return _read_rsa(key, der)
    if algorithm != _ED25519_OID:
        raise KeyFault('DKIM knows RSA and Ed25519, and it is neither')
    seed = first(key, OCTETS)
    if len(seed) != 32:
        raise BadDer('the key has not 32 octets')
    return Ed25519Key(seed, der)


def _read_rsa(pkcs1: bytes, der: bytes) -> RsaKey:
    fields = Reader(first(pkcs1, SEQUENCE))
    _version, modulus, exponent, _private, *rest = [int.from_bytes(fields.take(INTEGER), 'big') for _ in range(9)]
    p, q, dp, dq, coefficient = rest
    if not LEAST_BITS <= modulus.bit_length() <= MOST_BITS:
        raise KeyFault(f'an RSA key of {modulus.bit_length()} bits: from {LEAST_BITS} to {MOST_BITS} will do, '
                       f'best are 2048')
    if p * q != modulus:
        raise BadDer('the primes are not those of the modulus')
    return RsaKey(modulus, exponent, (p, q), (dp, dq), coefficient, der)
