"""DER (X.690), the form of certificates and keys, taken apart. Pure.

    element     tag   size                          content
                1     1, or 0x80 + n and n octets   size

Tags of several octets, and sizes of more than four, are in no certificate and no key.
"""

from __future__ import annotations

from collections.abc import Iterator

from mqlite.errors import MqliteError

INTEGER, BITS, OCTETS, OID, SEQUENCE = 0x02, 0x03, 0x04, 0x06, 0x30


class BadDer(MqliteError):
    """It is not DER, or not what it should be."""


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element. BadDer."""
    at = 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1] if at + 1 < len(data) else 0x80, at + 2
        if size >= 0x80:
            count = size - 0x80
            size = int.from_bytes(data[at:at + count], 'big') if 0 < count <= 4 else len(data)
            at += count
        if at + size > len(data):
            raise BadDer('it is cut off')
        yield tag, data[at:at + size]
        at += size


class Reader:
    """Takes the elements of a SEQUENCE one after the other."""

    def __init__(self, data: bytes) -> None:
        self._elements = elements(data)

    def take(self, expected: int) -> bytes:
        """The content of the next element, which has this tag. BadDer."""
        tag, content = next(self._elements, (0, b''))
        if tag != expected:
            raise BadDer(f'{tag:#04x} where {expected:#04x} should be')
        return content


def first(data: bytes, expected: int) -> bytes:
    """The content of the first element, which has this tag. BadDer."""
    return Reader(data).take(expected)
