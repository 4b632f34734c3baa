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

Limits: PARTS parts are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mqlite.message.headers import header_end
from mqlite.message.mime import HEADER_LIMIT, Contents, field_start, field_text, read_contents

PARTS = 10  # a multipart/report has two or three (RFC 6522 section 3)

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

_SUBJECT = field_start(b'subject')
#: receiver "!" policy-domain "!" begin "!" end [ "!" unique-id ] "." extension
_DMARC_NAME = re.compile(r'[^!/]+![^!/]+!\d+!\d+(?:![^!/]+)?\.(?:xml|xml\.gz|xml\.zip|zip|gz)', re.I)
_DMARC_SUBJECT = re.compile(r'report domain:.*submitter:', re.I | re.S)


def report_kind(mime: bytes) -> str:
    """The kind of report that a message with CRLF line ends is; '' when it is none."""
    end = header_end(mime)
    header = mime[:min(end, HEADER_LIMIT)]
    whole = read_contents(header)
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


def _is_dmarc(file: Contents, header: bytes) -> bool:
    """Whether the file has the name of an aggregate report, or the message its subject."""
    return bool(_DMARC_NAME.fullmatch(file.filename) or _DMARC_SUBJECT.search(field_text(header, _SUBJECT)))


def _parts(mime: bytes, start: int, boundary: str) -> Iterator[Contents]:
    """What the headers of the parts say (RFC 2046 5.1.1)."""
    delimiter = b'\r\n--' + boundary.encode('latin-1', 'replace')
    at = mime.find(delimiter, max(0, start - 2))  # the first may stand right behind the empty line
    for _ in range(PARTS):
        line_end = mime.find(b'\r\n', at + len(delimiter)) if at >= 0 else -1
        if line_end < 0 or mime.startswith(b'--', at + len(delimiter)):
            return
        piece = mime[line_end + 2:line_end + 2 + HEADER_LIMIT]
        yield read_contents(piece[:header_end(piece)])
        at = mime.find(delimiter, line_end)
