"""What goes around a message that is sent: from whom, to whom, and what is asked of the servers on its way. Pure.

The commands of a transaction are made here, from the envelope and from what the server's EHLO offers. A wish that the
server does not know is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mqlite.smtp.dsn import NOTHING, Request


@dataclass(frozen=True)
class Envelope:
    """One message to one recipient."""

    sender: str  # '' for the null sender
    recipient: str
    dsn: Request = NOTHING

    def mail_command(self, extensions: Mapping[str, str], mime: bytes | None) -> bytes:
        """`extensions`: EHLO keyword -> its parameters. `mime`: None when the message is not known yet."""
        parameters = ''
        if mime is not None and 'SIZE' in extensions:
            parameters += f' SIZE={len(mime)}'
        if '8BITMIME' in extensions and (mime is None or not mime.isascii()):
            parameters += ' BODY=8BITMIME'
        if self.dsn is not NOTHING and 'DSN' in extensions:
            parameters += self.dsn.mail_parameters()
        return f'MAIL FROM:<{self.sender}>{parameters}\r\n'.encode('ascii')

    def rcpt_command(self, extensions: Mapping[str, str]) -> bytes:
        parameters = self.dsn.rcpt_parameters(False) if self.dsn is not NOTHING and 'DSN' in extensions else ''
        return f'RCPT TO:<{self.recipient}>{parameters}\r\n'.encode('ascii')
