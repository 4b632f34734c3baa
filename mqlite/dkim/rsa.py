"""RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 sections 8.2 and 9.2), for hosts without libcrypto. Pure.

Python's numbers do not take constant time. Whoever can measure single signatures of ours from next door should have
libcrypto, which can. The base is blinded, so that what is raised to the secret power is nobody's choice.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from math import gcd

from mqlite.dkim.keys import RsaKey

_SHA256 = bytes.fromhex('3031300d060960864801650304020105000420')  # DigestInfo up to the digest, RFC 8017 page 47


def sign(key: RsaKey, data: bytes, noise: int) -> bytes:
    """The signature of the data. `noise`: a random number nobody knows, below the modulus."""
    n = key.modulus
    message = int.from_bytes(_padded(data, key.size), 'big')
    blind = noise % n
    if gcd(blind, n) != 1:  # as likely as guessing the key
        blind = 1
    (p, q), (dp, dq) = key.primes, key.exponents
    base = message * pow(blind, key.exponent, n) % n
    by_p, by_q = pow(base % p, dp, p), pow(base % q, dq, q)
    power = by_q + (by_p - by_q) * key.coefficient % p * q  # the Chinese remainder theorem, RFC 8017 5.1.2
    signature = power * pow(blind, -1, n) % n
    if pow(signature, key.exponent, n) != message:  # one wrong bit in the computation would give the key away
        raise ArithmeticError('an RSA signature went wrong: the key, or this machine, is not sound')
    return signature.to_bytes(key.size, 'big')


def verify(modulus: int, exponent: int, data: bytes, signature: bytes) -> bool:
    """Whether it is the signature of the data."""
    size = (modulus.bit_length() + 7) // 8
    number = int.from_bytes(signature, 'big')
    if len(signature) != size or number >= modulus or size < len(_SHA256) + 32 + 11:
        return False
    return hmac.compare_digest(pow(number, exponent, modulus).to_bytes(size, 'big'), _padded(data, size))


def _padded(data: bytes, size: int) -> bytes:
    info = _SHA256 + sha256(data).digest()
    return b'\x00\x01' + b'\xff' * (size - len(info) - 3) + b'\x00' + info
