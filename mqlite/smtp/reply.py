"""SMTP replies: the ones we give, as one table, and a parser for the ones we get. Pure.

Sources: RFC 5321 4.2 (codes, multi-line form, 4.5.3.1.5 line length), RFC 3463 and RFC 5248 (enhanced status codes,
IANA registry). A text that is formatted gets its values through `text()`, which keeps CR, LF and NUL out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from mqlite.errors import MqliteError
from mqlite.smtp.grammar import printable

LINE_LIMIT = 4096  # octets of one reply line; RFC 5321 says 512, servers exceed it
LINES_LIMIT = 256  # lines of one reply

#   name                 code status   text
REPLIES = {
    'ok':               (250, '2.0.0', 'Ok'),
    'sender-ok':        (250, '2.1.0', 'Sender ok'),
    'recipient-ok':     (250, '2.1.5', 'Recipient ok'),
    'reset':            (250, '2.0.0', 'Flushed'),
    'start-tls':        (220, '2.0.0', 'Go ahead with TLS'),
    'bye':              (221, '2.0.0', 'Bye'),
    'auth-ok':          (235, '2.7.0', 'Logged in'),
    'chunk-ok':         (250, '2.0.0', '{} octets received'),
    'cannot-verify':    (252, '2.5.0', 'Cannot verify a user, but will take mail for delivery'),
    'start-data':       (354, '',      'End data with <CR><LF>.<CR><LF>'),
    'shutdown':         (421, '4.3.2', 'The server is shutting down, try again later'),
    'internal-error':   (421, '4.3.0', 'Internal error, closing the connection, try again later'),
    'timeout':          (421, '4.4.2', 'Too slow, closing the connection'),
    'too-many-errors':  (421, '4.7.0', 'Too many errors, closing the connection'),
    'too-many-commands': (421, '4.7.0', 'Too many commands without a message, closing the connection'),
    'session-over':     (421, '4.7.0', 'This session has lasted long enough, come again'),
    'client-connections': (421, '4.7.0', 'Too many connections from {} at once'),
    'client-rate':      (421, '4.7.0', 'Too many connections from {} in a minute'),
    'not-smtp':         (421, '4.7.0', 'This is SMTP and not HTTP, closing the connection'),
    'not-proxied':      (421, '4.3.5', 'A PROXY header must come first on connections from this address'),
    'not-a-proxy':      (421, '4.3.5', 'No PROXY header is taken from this address, closing the connection'),
    'too-busy':         (421, '4.7.0', 'Too many connections, try again later'),
    'too-many-logins':  (421, '4.7.0', 'Too many failed logins, closing the connection'),
    'too-many-rcpts':   (452, '4.5.3', 'Too many recipients'),
    'client-messages':  (452, '4.7.0', 'Too many messages from {} in a minute'),
    'client-recipients': (452, '4.7.0', 'Too many recipients from {} in a minute'),
    'queue-trouble':    (452, '4.3.1', 'The queue cannot take messages now, try again later'),
    'plugin-trouble':   (451, '4.3.0', 'A filter of this server is not available now, try again later'),
    'auth-unavailable': (454, '4.7.0', 'Logins cannot be checked now, try again later'),
    'line-too-long':    (500, '5.5.2', 'Line too long'),
    'auth-too-long':    (500, '5.5.6', 'Line too long for AUTH'),
    'bad-line-end':     (500, '5.5.2', 'A line must end with <CR><LF>'),
    'unknown-command':  (500, '5.5.2', 'Command not recognized'),
    'syntax':           (501, '5.5.4', 'Syntax: {}'),
    'auth-syntax':      (501, '5.5.4', 'Syntax: AUTH mechanism [initial-response]'),
    'auth-base64':      (501, '5.5.2', 'Not base64'),
    'auth-malformed':   (501, '5.5.2', 'Not what this mechanism has to send'),
    'auth-cancelled':   (501, '5.7.0', 'Cancelled'),
    'auth-initial':     (501, '5.7.0', 'This mechanism has no initial response'),
    'bad-chunk':        (501, '5.5.4', 'Syntax: BDAT size [LAST]; where its octets end is unknown, so we must part'),
    'bad-sender':       (501, '5.1.7', 'Bad sender address: {}'),
    'bad-recipient':    (501, '5.1.3', 'Bad recipient address: {}'),
    'not-implemented':  (502, '5.5.1', 'Command not implemented'),
    'hello-first':      (503, '5.5.1', 'Say EHLO or HELO first'),
    'nested-mail':      (503, '5.5.1', 'A transaction is under way already'),
    'mail-first':       (503, '5.5.1', 'Say MAIL FROM first'),
    'chunks-begun':     (503, '5.5.1', 'The message has begun: go on with BDAT, or say RSET'),
    'tls-already':      (503, '5.5.1', 'TLS is active already'),
    'already-logged-in': (503, '5.5.1', 'Logged in already'),
    'auth-in-mail':     (503, '5.5.1', 'Not within a transaction'),
    'auth-mechanism':   (504, '5.5.4', 'Authentication mechanism not recognized'),
    'auth-failed':      (535, '5.7.8', 'Wrong login or password'),
    'auth-identity':    (535, '5.7.8', 'Nobody may act for another login'),
    'auth-needs-tls':   (538, '5.7.11', 'Say STARTTLS first: no passwords in clear'),
    'tls-pipelined':    (554, '5.5.0', 'What follows STARTTLS must be encrypted, closing the connection'),
    'utf8-sender':      (553, '5.6.7', 'The sender address is not ASCII, and MAIL said nothing of SMTPUTF8'),
    'utf8-recipient':   (553, '5.6.7', 'The address is not ASCII, and nothing was said of SMTPUTF8'),
    'no-recipients':    (554, '5.5.1', 'No valid recipients'),
    'relay-denied':     (550, '5.7.1', 'Relaying is not allowed for {}'),
    'bare-line-end':    (550, '5.5.2', 'The message has a bare <CR> or <LF>; lines must end with <CR><LF>'),
    'too-large':        (552, '5.3.4', 'The message is larger than {} bytes'),
    'header-too-large': (552, '5.3.4', 'The header of the message is larger than {} bytes'),
    'too-many-hops':    (554, '5.4.6', 'The message has passed more than {} servers: it goes round in circles'),
    'out-of-sync':      (554, '5.5.0', 'Wait for the reply before you go on'),
    'early-talker':     (554, '5.5.0', 'Wait for the greeting before you speak'),
    'bad-parameter':    (555, '5.5.4', 'Parameter {} not recognized'),
}


class BadReply(MqliteError):
    """The peer's fault: what it sent is not an SMTP reply."""


def reply(name: str, *values: object) -> bytes:
    """One of ours, by its name in the table, ready to send."""
    if not values:
        return _READY[name]
    code, status, text = REPLIES[name]
    return format_reply(code, status, text.format(*(printable(str(value), 256) for value in values)))


def format_reply(code: int, status: str, *lines: str) -> bytes:
    """A reply of one or more lines; the status (may be empty) stands in each of them."""
    prefix = f'{status} ' if status else ''
    texts = [f'{code}-{prefix}{line}' for line in lines[:-1]] + [f'{code} {prefix}{lines[-1]}']
    return ('\r\n'.join(texts) + '\r\n').encode('ascii', 'backslashreplace')


_READY = {name: format_reply(*row) for name, row in REPLIES.items()}


@dataclass(frozen=True)
class Reply:
    """A reply of a server: code, enhanced status code ('' when it gave none), and its lines without both."""

    code: int
    status: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return ' '.join(self.lines)


class ClientFailure(MqliteError):
    """A step of an outgoing conversation went wrong.

    `kind`: timeout, lost, invalid (not an SMTP answer), error (refused, by `reply` unless it was TLS).
    """

    def __init__(self, state: str, kind: str, text: str, reply: Reply | None = None) -> None:
        super().__init__(text)
        self.state = state
        self.kind = kind
        self.text = text
        self.reply = reply


_REMEMBERED_LINE = 256  # octets of a reply line that is worth remembering
_LINE = re.compile(r'([2-5][0-9]{2})(?:([ -])(.*))?', re.DOTALL)
_STATUS = re.compile(r'([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: +|$)')


class ReplyReader:
    """Puts the lines of one reply together."""

    def __init__(self) -> None:
        self._code = 0
        self._lines: list[str] = []

    def feed(self, line: bytes) -> Reply | None:
        """Take one line with its line end; the reply when it is complete. BadReply when it is none."""
        if not self._lines and line[3:4] == b' ' and len(line) <= _REMEMBERED_LINE:
            return _single(line)
        return self._feed(line)

    def _feed(self, line: bytes) -> Reply | None:
        text = line.rstrip(b'\r\n').decode('utf-8', 'replace')
        match = _LINE.fullmatch(text)
        if match is None:
            raise BadReply(f'not an SMTP reply: {printable(text)}')
        code, separator, rest = int(match.group(1)), match.group(2), match.group(3) or ''
        if self._lines and code != self._code:
            raise BadReply(f'the reply changes its code from {self._code} to {code}')
        if len(self._lines) >= LINES_LIMIT:
            raise BadReply(f'the reply has more than {LINES_LIMIT} lines')
        self._code = code
        self._lines.append(rest)
        if separator == '-':
            return None
        lines, self._lines = self._lines, []
        return _assemble(code, lines)


@lru_cache(maxsize=512)
def _single(line: bytes) -> Reply | None:
    """A reply of one line: servers repeat themselves."""
    return ReplyReader()._feed(line)


def read_reply(text: bytes) -> Reply:
    """A whole reply, of one or more lines. BadReply when it is none."""
    reader, found = ReplyReader(), None
    for line in text.splitlines(keepends=True):
        if found is not None:
            raise BadReply('something follows the reply')
        found = reader.feed(line)
    if found is None:
        raise BadReply('the reply has no last line')
    return found


def _assemble(code: int, lines: list[str]) -> Reply:
    match = _STATUS.match(lines[-1])
    if match is None or match.group(1)[0] != str(code)[0]:
        return Reply(code, '', tuple(lines))
    status = match.group(1)
    texts = [line[len(status):].lstrip() if line.startswith(status) else line for line in lines]
    return Reply(code, status, tuple(texts))
