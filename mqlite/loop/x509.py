"""The names in a certificate (X.509, DER). Pure. The `ssl` module tells them only of one that it has verified.

    Certificate          SEQUENCE { TBSCertificate, algorithm, signature }
    TBSCertificate       SEQUENCE { [0] version, serial, algorithm, issuer, validity, subject, key, … [3] extensions }
    extensions           SEQUENCE of SEQUENCE { OID, BOOLEAN critical, OCTET STRING value }
    subjectAltName       SEQUENCE of names; [2] is a DNS name

Sources: RFC 5280 section 4.1 and 4.2.1.6, X.690 for DER. Certificates are the operator's own files, or what a peer has
shown within the limits of the handshake; nesting is no deeper than the drawing.
"""

from __future__ import annotations

from collections.abc import Iterator

from mqlite.errors import MqliteError

_SEQUENCE, _OID, _OCTETS = 0x30, 0x06, 0x04
_VERSION, _EXTENSIONS, _DNS_NAME = 0xa0, 0xa3, 0x82
_SUBJECT = 4  # the field of TBSCertificate, counted from the serial number
_SUBJECT_ALT_NAME = b'\x55\x1d\x11'  # 2.5.29.17
_COMMON_NAME = b'\x55\x04\x03'  # 2.5.4.3


class BadCertificate(MqliteError):
    """It is not DER, or no certificate."""


def dns_names(certificate: bytes) -> tuple[str, ...]:
    """The DNS names in small letters; of a certificate that has none, the common name of its subject."""
    fields = _fields(_first(certificate, _SEQUENCE))
    if len(fields) <= _SUBJECT:
        raise BadCertificate('it ends too early')
    names = [content for tag, extensions in fields if tag == _EXTENSIONS for content in _alternative_names(extensions)]
    names = names or _common_names(fields[_SUBJECT][1])
    return tuple(name.decode('ascii', 'replace').lower() for name in names)


def _fields(certificate: bytes) -> list[tuple[int, bytes]]:
    """Those of TBSCertificate, without the version, which may be missing."""
    fields = list(_elements(_first(certificate, _SEQUENCE)))
    return fields[1:] if fields and fields[0][0] == _VERSION else fields


def _alternative_names(extensions: bytes) -> list[bytes]:
    for _, extension in _elements(_first(extensions, _SEQUENCE)):
        parts = list(_elements(extension))
        if parts and parts[0] == (_OID, _SUBJECT_ALT_NAME) and parts[-1][0] == _OCTETS:
            return [name for tag, name in _elements(_first(parts[-1][1], _SEQUENCE)) if tag == _DNS_NAME]
    return []


def _common_names(subject: bytes) -> list[bytes]:
    """A name is a SEQUENCE of SET of SEQUENCE { OID, value }."""
    attributes = [list(_elements(attribute)) for _, part in _elements(subject) for _, attribute in _elements(part)]
    return [pair[1][1] for pair in attributes if len(pair) == 2 and pair[0] == (_OID, _COMMON_NAME)]


def _first(data: bytes, expected: int) -> bytes:
    tag, content = next(_elements(data), (0, b''))
    if tag != expected:
        raise BadCertificate(f'{tag:#04x} where {expected:#04x} should be')
    return content


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element. Tags of several octets are in no certificate."""
    at = 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1] if at + 1 < len(data) else 0x80, at + 2
        if size >= 0x80:
            count = size - 0x80
            size = int.from_bytes(data[at:at + count], 'big') if 0 < count <= 4 else len(data)
            at += count
        if at + size > len(data):
            raise BadCertificate('it is cut off')
        yield tag, data[at:at + size]
        at += size
