"""Ed25519 (RFC 8032 section 5.1), for hosts without libcrypto. Pure.

The curve is  -x^2 + y^2 = 1 + d x^2 y^2  over the numbers modulo 2^255 - 19. A point is (X, Y, Z, T) with x = X/Z,
y = Y/Z, xy = T/Z, so that adding needs no division (section 5.1.4). A signature takes some milliseconds, and not
constant time: see rsa.py.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha512

_P = 2 ** 255 - 19
_ORDER = 2 ** 252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_ONE = pow(2, (_P - 1) // 4, _P)

Point = tuple[int, int, int, int]
_ZERO: Point = (0, 1, 1, 0)


def sign(seed: bytes, data: bytes) -> bytes:
    """The 64 octets of the signature."""
    secret, prefix, public = _expand(seed)
    r = _number(prefix, data)
    first = _encode(_times(r, _BASE))
    s = (r + _number(first, public, data) * secret) % _ORDER
    return first + s.to_bytes(32, 'little')


def public_key(seed: bytes) -> bytes:
    """The 32 octets that are published."""
    return _expand(seed)[2]


def verify(public: bytes, data: bytes, signature: bytes) -> bool:
    """Whether it is the signature of the data."""
    if len(signature) != 64 or len(public) != 32:
        return False
    key, first = _decode(public), _decode(signature[:32])
    s = int.from_bytes(signature[32:], 'little')
    if key is None or first is None or s >= _ORDER:
        return False
    h = _number(signature[:32], public, data)
    return _encode(_times(s, _BASE)) == _encode(_add(first, _times(h, key)))


@lru_cache(maxsize=64)
def _expand(seed: bytes) -> tuple[int, bytes, bytes]:
    """The secret scalar, the prefix of nonces, the public key."""
    digest = sha512(seed).digest()
    secret = int.from_bytes(digest[:32], 'little') & ~7 & (1 << 254) - 1 | 1 << 254
    return secret, digest[32:], _encode(_times(secret, _BASE))


def _number(*parts: bytes) -> int:
    return int.from_bytes(sha512(b''.join(parts)).digest(), 'little') % _ORDER


def _add(one: Point, other: Point) -> Point:
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c = 2 * one[3] * other[3] * _D % _P
    d = 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(count: int, point: Point) -> Point:
    result = _ZERO
    while count:
        if count & 1:
            result = _add(result, point)
        point = _add(point, point)
        count >>= 1
    return result


def _encode(point: Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, 'little')


def _decode(octets: bytes) -> Point | None:
    """Section 5.1.3; None for what is no point."""
    y = int.from_bytes(octets, 'little')
    sign, y = y >> 255, y & (1 << 255) - 1
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT_OF_MINUS_ONE % _P
    if (x * x - square) % _P or not x and sign:
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _base() -> Point:
    """The point with y = 4/5 and an even x."""
    point = _decode((4 * pow(5, -1, _P) % _P).to_bytes(32, 'little'))
    assert point is not None
    return point


_BASE = _base()
