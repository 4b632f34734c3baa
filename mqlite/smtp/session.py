"""One SMTP session as the server sees it: who the client is, what it has said, what it may say next. Pure.

    state         means                                            left by
    greeted       connected, has not said hello                    EHLO, HELO
    ready         no transaction                                   MAIL
    mail          has a sender                                     RCPT accepted; RSET, EHLO, end of data -> ready
    rcpt          has a sender and recipients                      DATA -> data
    data          message data is coming, commands are not read    end of data -> ready

`commands.py` has the table of verbs; this file has the state that their rows test and change.
"""

from __future__ import annotations

from dataclasses import dataclass

from mqlite.errors import MqliteError
from mqlite.smtp.reply import reply


class Refused(MqliteError):
    """A command was refused; `answer` is the reply to send."""

    def __init__(self, name: str, *values: object) -> None:
        super().__init__(name)
        self.answer = reply(name, *values)


@dataclass(frozen=True)
class Limits:
    """What a client may ask of us."""

    size: int = 100 * 1024 * 1024  # bytes of a message
    recipients: int = 1000  # per message; RFC 5321 4.5.3.1.8 asks for at least 100
    errors: int = 20  # refused commands since the last message that was kept, then 421


@dataclass
class Session:
    """The state of one session."""

    hostname: str  # ours, in the greeting
    client: str  # the client's address
    client_port: int
    local: tuple[str, int]  # our address and port
    may_relay: bool
    limits: Limits
    helo: str = ''
    esmtp: bool = False
    sender: str | None = None  # None: no transaction; '': the null sender
    recipients: list[str] | None = None
    receiving: bool = False  # DATA was accepted
    errors: int = 0
    said_quit: bool = False
    ended: bool = False  # close when the last reply is sent

    def greeting(self) -> bytes:
        return f'220 {self.hostname} ESMTP mqlite\r\n'.encode('ascii')

    def hello(self, name: str, esmtp: bool) -> None:
        """A new hello ends the transaction (RFC 5321 4.1.4)."""
        self.reset()
        self.helo, self.esmtp = name, esmtp

    def begin(self, sender: str) -> None:
        self.sender, self.recipients = sender, []

    def reset(self) -> None:
        """Forget the transaction, keep the session."""
        self.sender, self.recipients, self.receiving = None, None, False

    def failed(self, answer: bytes) -> bytes:
        """Count a refused command; the answer, or the last one when there were too many.

        A temporary refusal is not the client's error: it may send a thousand recipients and get 452 for the last ones.
        """
        if answer[:1] == b'4':
            return answer
        self.errors += 1
        if self.errors > self.limits.errors:
            self.ended = True
            return reply('too-many-errors')
        return answer
