"""What a certificate says (X.509, DER). Pure. The `ssl` module tells it only of one that it has verified.

    Certificate          SEQUENCE { TBSCertificate, algorithm, signature }
    TBSCertificate       SEQUENCE { [0] version, serial, algorithm, issuer, validity, subject, key, … [3] extensions }
    extensions           SEQUENCE of SEQUENCE { OID, BOOLEAN critical, OCTET STRING value }
    subjectAltName       SEQUENCE of names; [2] is a DNS name

Sources: RFC 5280 section 4.1 and 4.2.1.6, X.690 for DER. Certificates are the operator's own files, or what a peer has
shown within the limits of the handshake; nesting is no deeper than the drawing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone

from mqlite.der import INTEGER, OCTETS, OID, SEQUENCE, BadDer, elements, first

_VERSION, _EXTENSIONS, _DNS_NAME = 0xa0, 0xa3, 0x82
_ISSUER, _VALIDITY, _SUBJECT = 2, 3, 4  # fields of TBSCertificate, counted from the serial number
_SUBJECT_ALT_NAME = b'\x55\x1d\x11'  # 2.5.29.17
_COMMON_NAME = b'\x55\x04\x03'  # 2.5.4.3
_UTC_TIME, _UTF16, _UTF32 = 0x17, 0x1e, 0x1c  # types of a time, and of texts that are not ASCII or UTF-8

#: What the parts of a name are called (X.520), by the last octet of their OID 2.5.4.x.
_PARTS = {3: 'common', 6: 'country', 7: 'locality', 8: 'state', 10: 'organization', 11: 'unit'}


@dataclass(frozen=True)
class Described:
    """A certificate. Times: seconds since 1970. Names: parts by the words of _PARTS."""

    version: int
    not_before: float
    not_after: float
    subject: dict[str, str]
    issuer: dict[str, str]
    names: tuple[str, ...] = ()  # of DNS
    self_issued: bool = field(default=False)  # the subject is its own issuer


def describe(certificate: bytes) -> Described:
    """What it says. BadDer."""
    every = list(elements(first(first(certificate, SEQUENCE), SEQUENCE)))
    version = int.from_bytes(first(every[0][1], INTEGER), 'big') + 1 if every and every[0][0] == _VERSION else 1
    fields = _fields(first(certificate, SEQUENCE))
    if len(fields) <= _SUBJECT:
        raise BadDer('it ends too early')
    times = [_seconds(tag, text) for tag, text in elements(fields[_VALIDITY][1])]
    if len(times) != 2:
        raise BadDer('it has no time of validity')
    subject, issuer = fields[_SUBJECT][1], fields[_ISSUER][1]
    return Described(version, times[0], times[1], _parts(subject), _parts(issuer), dns_names(certificate),
                     subject == issuer)


def _seconds(tag: int, octets: bytes) -> float:
    """UTCTime has two digits of the year, those from 50 on being of the last century (RFC 5280 section 4.1.2.5)."""
    text = octets.decode('ascii', 'replace')
    if tag == _UTC_TIME:
        text = ('19' if text[:2] >= '50' else '20') + text
    try:
        return datetime.strptime(text, '%Y%m%d%H%M%SZ').replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        raise BadDer(f'{text!r} is no time') from None


def _parts(name: bytes) -> dict[str, str]:
    """A name is a SEQUENCE of SET of SEQUENCE { OID, value }; of a part that it has twice, the first."""
    found: dict[str, str] = {}
    for _, part in elements(name):
        for _, attribute in elements(part):
            pair = list(elements(attribute))
            if len(pair) == 2 and len(pair[0][1]) == 3 and pair[0][1][:2] == _COMMON_NAME[:2]:
                word = _PARTS.get(pair[0][1][2])
                if word:
                    codec = {_UTF16: 'utf-16-be', _UTF32: 'utf-32-be'}.get(pair[1][0], 'utf-8')
                    found.setdefault(word, pair[1][1].decode(codec, 'replace'))
    return found


def dns_names(certificate: bytes) -> tuple[str, ...]:
    """The DNS names in small letters; of a certificate that has none, the common name of its subject."""
    fields = _fields(first(certificate, SEQUENCE))
    if len(fields) <= _SUBJECT:
        raise BadDer('it ends too early')
    names = [content for tag, extensions in fields if tag == _EXTENSIONS for content in _alternative_names(extensions)]
    names = names or _common_names(fields[_SUBJECT][1])
    return tuple(name.decode('ascii', 'replace').lower() for name in names)


def _fields(certificate: bytes) -> list[tuple[int, bytes]]:
    """Those of TBSCertificate, without the version, which may be missing."""
    fields = list(elements(first(certificate, SEQUENCE)))
    return fields[1:] if fields and fields[0][0] == _VERSION else fields


def _alternative_names(extensions: bytes) -> list[bytes]:
    for _, extension in elements(first(extensions, SEQUENCE)):
        parts = list(elements(extension))
        if parts and parts[0] == (OID, _SUBJECT_ALT_NAME) and parts[-1][0] == OCTETS:
            return [name for tag, name in elements(first(parts[-1][1], SEQUENCE)) if tag == _DNS_NAME]
    return []


def _common_names(subject: bytes) -> list[bytes]:
    """A name is a SEQUENCE of SET of SEQUENCE { OID, value }."""
    attributes = [list(elements(attribute)) for _, part in elements(subject) for _, attribute in elements(part)]
    return [pair[1][1] for pair in attributes if len(pair) == 2 and pair[0] == (OID, _COMMON_NAME)]
