"""Whether a message is a report that a program has written: what kind of one, by its header and the types of its parts.

    kind     what it is                        how it is known
    dsn      delivery status notification      multipart/report with a part message/delivery-status (RFC 3464, 6533)
    mdn      disposition notification          … message/disposition-notification (RFC 8098, 6533)
    arf      feedback loop, DMARC failure      … message/feedback-report (RFC 5965, 6591)
    tls      SMTP TLS report                   … application/tlsrpt+json or +gzip (RFC 8460)
    dmarc    DMARC aggregate report            a zip or gzip file, named or announced as RFC 7489 7.2.1.1 wants it

The part decides, not the parameter `report-type`, which some programs leave out. A report inside another message (one
that was forwarded) is not one, nor are bounces of older programs, which are plain text. Nothing is decoded or
unpacked: what is in the part is for whoever reads the queue.

Limits: PARTS parts are looked at, HEADER_LIMIT octets of a header and FIELD_LIMIT of a field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from mqlite.message.headers import header_end

PARTS = 10  # a multipart/report has two or three (RFC 6522 section 3)
HEADER_LIMIT = 65536  # octets of a header, of the message or of a part, that are looked at
FIELD_LIMIT = 2048  # octets of a field: a boundary has 70 at most (RFC 2046 5.1.1), file names are longer

_PARTS = {
    'message/delivery-status':                 'dsn',
    'message/global-delivery-status':          'dsn',
    'message/disposition-notification':        'mdn',
    'message/global-disposition-notification': 'mdn',
    'message/feedback-report':                 'arf',
    'application/tlsrpt+json':                 'tls',
    'application/tlsrpt+gzip':                 'tls',
}
#: As senders of DMARC reports call them; octet-stream counts because the name or subject has to fit as well.
_ARCHIVES = frozenset(f'application/{name}' for name in (
    'gzip', 'x-gzip', 'zip', 'x-zip', 'x-zip-compressed', 'octet-stream'))

_TYPE, _DISPOSITION, _SUBJECT = (re.compile(rb'(?:^|\r\n)%s[ \t]*:' % name, re.IGNORECASE)
                                 for name in (b'content-type', b'content-disposition', b'subject'))
#: ; name=value, name*0=beginning; name*1=rest (in pieces), name*=charset'language'%41%42 (RFC 2045 5.1, RFC 2231)
_PARAMETER = re.compile(r';\s*([^\s;=*]+)(?:\*\d+)?(\*?)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))', re.DOTALL)
_CHARSET = re.compile(r"[^']*'[^']*'")
_FIELD_END = re.compile(rb'\r\n(?![ \t])')
#: receiver "!" policy-domain "!" begin "!" end [ "!" unique-id ] "." extension
_DMARC_NAME = re.compile(r'[^!/]+![^!/]+!\d+!\d+(?:![^!/]+)?\.(?:xml|xml\.gz|xml\.zip|zip|gz)', re.I)
_DMARC_SUBJECT = re.compile(r'report domain:.*submitter:', re.I | re.S)


@dataclass(frozen=True)
class Part:
    """What the header of a message, or of a part of one, says of its contents."""

    type: str  # in lower case; '' when it does not say
    boundary: str
    filename: str


def report_kind(mime: bytes) -> str:
    """The kind of report that a message with CRLF line ends is; '' when it is none."""
    end = header_end(mime)
    header = mime[:min(end, HEADER_LIMIT)]
    whole = _read_part(header)
    if whole.type in _ARCHIVES:
        return 'dmarc' if _is_dmarc(whole, header) else ''
    if not whole.type.startswith('multipart/') or not whole.boundary:
        return ''
    for part in _parts(mime, end, whole.boundary):
        if whole.type == 'multipart/report' and part.type in _PARTS:
            return _PARTS[part.type]
        if part.type in _ARCHIVES and _is_dmarc(part, header):
            return 'dmarc'
    return ''


def _is_dmarc(file: Part, header: bytes) -> bool:
    """Whether the file has the name of an aggregate report, or the message its subject."""
    return bool(_DMARC_NAME.fullmatch(file.filename) or _DMARC_SUBJECT.search(_field(header, _SUBJECT)))


def _parts(mime: bytes, start: int, boundary: str) -> Iterator[Part]:
    """What the headers of the parts say (RFC 2046 5.1.1)."""
    delimiter = b'\r\n--' + boundary.encode('latin-1', 'replace')
    at = mime.find(delimiter, max(0, start - 2))  # the first may stand right behind the empty line
    for _ in range(PARTS):
        line_end = mime.find(b'\r\n', at + len(delimiter)) if at >= 0 else -1
        if line_end < 0 or mime.startswith(b'--', at + len(delimiter)):
            return
        piece = mime[line_end + 2:line_end + 2 + HEADER_LIMIT]
        yield _read_part(piece[:header_end(piece)])
        at = mime.find(delimiter, line_end)


def _read_part(header: bytes) -> Part:
    kind, _, parameters = _field(header, _TYPE).partition(';')
    of_type, of_disposition = _parameters(';' + parameters), _parameters(_field(header, _DISPOSITION))
    return Part(kind.strip().lower(), of_type.get('boundary', ''),
                of_disposition.get('filename', of_type.get('name', '')))


def _parameters(text: str) -> dict[str, str]:
    """The parameters of a field by name, in lower case; one that comes in pieces is put together in their order."""
    found: dict[str, str] = {}
    for name, encoded, quoted, token in _PARAMETER.findall(text):
        name, value = name.lower(), re.sub(r'\\(.)', r'\1', quoted) or token
        if encoded:
            value = unquote(value if name in found else _CHARSET.sub('', value, 1), errors='replace')
        found[name] = found.get(name, '') + value
    return found


def _field(header: bytes, start: re.Pattern[bytes]) -> str:
    """The first field that begins like this, unfolded; '' when there is none."""
    found = start.search(header)
    if found is None:
        return ''
    value = header[found.end():found.end() + FIELD_LIMIT]
    return _FIELD_END.split(value, 1)[0].replace(b'\r\n', b'').decode('latin-1').strip()
