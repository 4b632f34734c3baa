"""What a file of the spool directory says: the message, its sender and its recipients. Pure.

The recipients are the addresses in To, Cc and Bcc. The sender is the first address in x-mq-envelope (when x-mq-*
headers count), Return-Path, From and Sender, in this order, as in MailerQ; but a Return-Path of `<>` is the null
sender, since what has it is a notification, and nobody may be notified of what becomes of that. Bcc is taken out.

A file that is no message, or has an address that cannot be one, is refused as a whole: sending to some of its
recipients would leave nobody knowing to whom. Limits: HEADER_LIMIT, RECIPIENTS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mqlite.errors import PermanentError
from mqlite.message.headers import addresses_in, has_null_path, header_end, recipients_of, without_bcc
from mqlite.smtp.framing import normalise
from mqlite.smtp.grammar import SyntaxFault, check_address, printable

HEADER_LIMIT = 256 * 1024  # octets; RECIPIENTS addresses with their names take a quarter of it
RECIPIENTS = 1000  # as over SMTP (RFC 5321 4.5.3.1.8 asks for at least 100)

_FIRST_LINE = re.compile(rb'[!-9;-~]+[ \t]*:')


@dataclass(frozen=True)
class Submission:
    """A message that may be kept."""

    sender: str  # '' for the null sender
    recipients: list[str]
    data: bytes  # with CRLF line ends


def read_submission(content: bytes, extract: bool) -> Submission:
    """PermanentError says what is wrong with the file. `extract`: its x-mq-* headers count."""
    data = normalise(content)
    if not _FIRST_LINE.match(data):
        raise PermanentError('it is no message: it does not begin with a header field')
    if header_end(data[:HEADER_LIMIT + 2]) > HEADER_LIMIT:
        raise PermanentError(f'the header is larger than {HEADER_LIMIT} bytes')
    if b'\0' in data[:header_end(data)]:
        raise PermanentError('there is a NUL in the header')
    recipients = recipients_of(data)
    if not recipients:
        raise PermanentError('there are no recipients: To, Cc and Bcc are empty')
    if len(recipients) > RECIPIENTS:
        raise PermanentError(f'there are {len(recipients)} recipients, at most {RECIPIENTS}')
    sender = _sender(data, extract)
    for address in recipients + ([sender] if sender else []):
        try:
            check_address(address)
        except SyntaxFault as fault:
            raise PermanentError(f'{printable(address)}: {fault}') from None
    return Submission(sender, recipients, without_bcc(data))


def _sender(data: bytes, extract: bool) -> str:
    chosen = addresses_in(data, 'x-mq-envelope') if extract else []
    if not chosen and has_null_path(data):
        return ''
    chosen = chosen or addresses_in(data, 'return-path', 'from', 'sender')
    if not chosen:
        raise PermanentError('there is no sender: x-mq-envelope, Return-Path, From and Sender have no address')
    return chosen[0]
