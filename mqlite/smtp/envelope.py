"""What goes around a message that is sent: from whom, to whom, and what is asked of the servers on its way. Pure.

The commands of a transaction are made here, from the envelope and from what the server's EHLO offers. A wish that the
server does not know is left out; what it cannot do without (SMTPUTF8, REQUIRETLS) is an obstacle, and the message goes
back. An address whose local part is ASCII is never one: its domain is written in A-labels (RFC 5890), which say the
same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mqlite.dns.message import FormatError, normal_name
from mqlite.smtp.dsn import NOTHING, Request
from mqlite.smtp.grammar import split_address
from mqlite.smtp.reply import Reply

_NO_SUCH_ADDRESS = Reply(550, '5.6.7', ('the server takes no addresses that are not ASCII: it has no SMTPUTF8',))
_NO_REQUIRETLS = Reply(550, '5.7.30', ('the message demands TLS on its whole way, and the server has no REQUIRETLS',))
_NO_SUCH_HEADER = Reply(550, '5.6.9', ('the server takes no header that is not ASCII: it has no SMTPUTF8',))


class Envelope(NamedTuple):
    """One message to one recipient."""

    sender: str  # '' for the null sender
    recipient: str
    dsn: Request = NOTHING
    utf8_header: bool = False  # the header of the message is UTF-8 for those only who know SMTPUTF8
    require_tls: bool = False  # RFC 8689

    def obstacle(self, extensions: Mapping[str, str]) -> Reply | None:
        """Why it cannot go to a server with these extensions (EHLO keyword -> its parameters); None if it can."""
        if self.require_tls and 'REQUIRETLS' not in extensions:
            return _NO_REQUIRETLS
        if 'SMTPUTF8' in extensions or not self._utf8:
            return None
        return _NO_SUCH_HEADER if self.sender.isascii() and self.recipient.isascii() else _NO_SUCH_ADDRESS

    def mail_command(self, extensions: Mapping[str, str], mime: bytes | None) -> bytes:
        """`mime`: None when the message is not known yet."""
        parameters = ''
        if mime is not None and 'SIZE' in extensions:
            parameters += f' SIZE={len(mime)}'
        if '8BITMIME' in extensions and (mime is None or not mime.isascii()):
            parameters += ' BODY=8BITMIME'
        if self._utf8:
            parameters += ' SMTPUTF8'
        if self.require_tls:
            parameters += ' REQUIRETLS'
        if self.dsn is not NOTHING and 'DSN' in extensions:
            parameters += self.dsn.mail_parameters()
        return f'MAIL FROM:<{self.sender}>{parameters}\r\n'.encode()

    def rcpt_command(self, extensions: Mapping[str, str]) -> bytes:
        parameters = self.dsn.rcpt_parameters(self._utf8) if self.dsn is not NOTHING and 'DSN' in extensions else ''
        return f'RCPT TO:<{self.recipient}>{parameters}\r\n'.encode()

    @property
    def _utf8(self) -> bool:
        return self.utf8_header or not (self.sender.isascii() and self.recipient.isascii())


def as_sent(address: str) -> str:
    """The address with its domain in A-labels, if that makes it ASCII."""
    if address.isascii():
        return address
    local, domain = split_address(address)
    if not local.isascii():
        return address
    try:
        return f'{local}@{normal_name(domain)}'
    except FormatError:
        return address


def plain_domain(domain: str) -> str:
    """The domain in lower case and in A-labels, its one form to compare it in; as it is where it has no such form."""
    if domain.isascii():
        return domain.lower()
    try:
        return normal_name(domain)
    except FormatError:
        return domain.lower()
