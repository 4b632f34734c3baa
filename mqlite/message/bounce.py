"""Delivery status notifications: what a sender is told of a message that failed, is late, or left our sight. Pure.

    multipart/report
      text/plain                    for a person
      message/delivery-status       for a program (RFC 3464)
      message/rfc822                the message, or text/rfc822-headers: only its header

With addresses that are not ASCII the second and third part have the types of RFC 6533 (message/global-...).

What a server said is quoted, and was written by strangers: it is printable ASCII here, and cut at TEXT_LIMIT. The
boundary is made of a hash of all that stands between the boundaries, so that nobody can write a message that has it.
"""

from __future__ import annotations

import hashlib
import textwrap
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import format_datetime

from mqlite.message.fields import fold, make_field
from mqlite.message.headers import header_end
from mqlite.smtp.dsn import Request, split_orcpt
from mqlite.smtp.grammar import printable

FULL_LIMIT = 1024 * 1024  # octets: of a larger message only the header goes back, as for RET=HDRS
HEADER_LIMIT = 64 * 1024  # octets of a header that go back
TEXT_LIMIT = 600  # characters of what a server said

#   action     subject                              what it means for the sender
_WORDS = {
    'failed':  ('Your message was not delivered',   'Your message could not be delivered to this address. It is not '
                                                    'tried any more.'),
    'delayed': ('Your message is delayed',          'Your message could not be delivered to this address yet. You need '
                                                    'not send it again: it is tried until the time below.'),
    'relayed': ('Your message was passed on',       'Your message was passed on to a server that does not report '
                                                    'whether it is delivered. You will hear of it only if it fails.'),
}


@dataclass(frozen=True)
class Notice:
    """What is told. Times are seconds since 1970."""

    action: str  # failed, delayed, relayed
    sender: str  # who is told
    recipient: str  # of whom
    request: Request  # what the sender asked for
    reporter: str  # our name
    status: str  # enhanced status code
    now: float
    arrived: float | None = None  # when we got the message
    attempted: float | None = None
    until: float | None = None  # when we give up
    server: str = ''  # the name of the server that said it
    said: str = ''  # its reply, or what else there is to say
    by_smtp: bool = True  # it is the reply of an SMTP server

    @property
    def utf8(self) -> bool:
        """It has addresses that are not ASCII: then so has the header of the notification."""
        return not (self.sender.isascii() and self.recipient.isascii() and self.request.orcpt.isascii())


def make_notification(notice: Notice, message: bytes) -> bytes:
    """The notification as a message. `message`: the one it is about, b'' if there is none to be had."""
    part_type, original = _original(notice, message)
    parts = [
        _part('text/plain', _explanation(notice, len(original) < len(message)).encode()),
        _part(f'message/{"global-" if notice.utf8 else ""}delivery-status', _delivery_status(notice)),
        *([_part(part_type, original)] if original else []),
    ]
    name = hashlib.sha256(b''.join(parts)).hexdigest()[:32]
    boundary = f'=_{name}'.encode()
    header = b''.join((
        make_field('From', f'Mail Delivery System <MAILER-DAEMON@{notice.reporter}>'),
        make_field('To', f'<{notice.sender}>'),
        make_field('Subject', _WORDS[notice.action][0]),
        make_field('Date', _date(notice.now)),
        make_field('Message-ID', f'<{name}@{notice.reporter}>'),
        b'Auto-Submitted: auto-replied\r\n'  # RFC 3834 section 5: nobody is to answer
        b'MIME-Version: 1.0\r\n'
        b'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="' + boundary + b'"\r\n',
        b'' if all(part.isascii() for part in parts) else b'Content-Transfer-Encoding: 8bit\r\n',
    ))
    return header + b''.join(b'\r\n--' + boundary + b'\r\n' + part for part in parts) + b'\r\n--' + boundary + b'--\r\n'


def _part(content_type: str, body: bytes) -> bytes:
    encoding = '' if body.isascii() else 'Content-Transfer-Encoding: 8bit\r\n'
    charset = '; charset=utf-8' if content_type == 'text/plain' and encoding else ''
    return f'Content-Type: {content_type}{charset}\r\n{encoding}\r\n'.encode() + body


def _original(notice: Notice, message: bytes) -> tuple[str, bytes]:
    """The type of the third part, and what it has. RET counts for failures only (RFC 3461 section 4.3)."""
    kind = 'global' if notice.utf8 else 'rfc822'
    if notice.action == 'failed' and notice.request.ret == 'FULL' and len(message) <= FULL_LIMIT:
        return f'message/{kind}', message
    header = message[:header_end(message)]
    if len(header) > HEADER_LIMIT:
        header = header[:header.rfind(b'\r\n', 0, HEADER_LIMIT) + 2]
    return ('message/global-headers' if notice.utf8 else 'text/rfc822-headers'), header


def _explanation(notice: Notice, shortened: bool) -> str:
    """The text for a person."""
    lines = [f'This is the mail server at {notice.reporter}.', '',
             *textwrap.wrap(_WORDS[notice.action][1], 72), '', f'    {notice.recipient}', '']
    if notice.said:
        source = f'The server {printable(notice.server, 255)} said:' if notice.server else 'The reason:'
        lines += [source, '', *textwrap.wrap(printable(notice.said, TEXT_LIMIT), 72, initial_indent='    ',
                                             subsequent_indent='    '), '']
    if notice.until is not None:
        lines += [f'It is tried until {_date(notice.until)}.', '']
    if shortened:
        lines += ['The header of your message is attached.', '']
    return '\r\n'.join(lines)


def _delivery_status(notice: Notice) -> bytes:
    """The fields of RFC 3464: section 2.2 about the message, an empty line, section 2.3 about the recipient."""
    request = notice.request
    original_type, original = split_orcpt(request.orcpt)
    address_type = 'rfc822' if notice.recipient.isascii() else 'utf-8'
    said = printable(notice.said, TEXT_LIMIT)
    about_message = (
        ('Original-Envelope-Id', request.envid),
        ('Reporting-MTA', f'dns; {notice.reporter}'),
        ('Arrival-Date', _date(notice.arrived)),
    )
    about_recipient = (
        ('Original-Recipient', original and f'{original_type};{original}'),
        ('Final-Recipient', f'{address_type};{notice.recipient}'),
        ('Action', notice.action),
        ('Status', notice.status),
        ('Remote-MTA', notice.server and f'dns; {printable(notice.server, 255)}'),
        ('Diagnostic-Code', said and f'{"smtp" if notice.by_smtp else "x-mqlite"}; {said}'),
        ('Last-Attempt-Date', _date(notice.attempted)),
        ('Will-Retry-Until', _date(notice.until)),
    )
    return '\r\n'.join(''.join(fold(name, value) for name, value in group if value)
                       for group in (about_message, about_recipient)).encode()


def _date(moment: float | None) -> str:
    return '' if moment is None else format_datetime(datetime.fromtimestamp(int(moment), timezone.utc))
