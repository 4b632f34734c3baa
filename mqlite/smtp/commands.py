"""THE VERB TABLE: every SMTP command of the server, with its syntax, its check and what it does. Pure.

A command goes through three steps. `check` parses the argument and tests the state, changes nothing, and raises
Refused. If the row names a `step`, whoever has a say is asked about what it gave (plugins, by the driver). `proceed`
has the effect, and gives the reply; it refuses only what the answer to that question may have changed. HELP is made
from the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

from mqlite.smtp.chunking import Chunk, parse_chunk
from mqlite.smtp.extensions import offers, parameter_names, read_parameters
from mqlite.smtp.grammar import SyntaxFault, check_helo, parse_path, upper
from mqlite.smtp.reply import format_reply, reply
from mqlite.smtp.sasl import AuthRefused, Exchange, Step
from mqlite.smtp.session import AUTH, DATA, TLS, Address, Refused, Session

LINE_LIMIT = 2048  # octets with CRLF; RFC 5321 4.5.3.1.4 says 512, parameters may need more (RFC 3461: 500 each)


@dataclass(frozen=True)
class Command:
    """A row of the verb table."""

    syntax: str
    check: Callable[[Session, str], Any]
    proceed: Callable[[Session, Any], bytes]
    step: str = ''  # what plugins are asked about; '' when they are not
    optional: bool = False  # there only while EHLO has a line of its name
    last: bool = False  # its reply must be read before the next command is sent (RFC 2920 3.1)


@dataclass(frozen=True)
class Checked:
    """A command that may be carried out."""

    command: Command
    subject: Any  # what its check gave

    def proceed(self, session: Session) -> bytes:
        """Carry it out; the reply."""
        try:
            return self.command.proceed(session, self.subject)
        except Refused as refusal:
            return session.failed(refusal.answer)


def check(session: Session, line: bytes) -> Checked:
    """Parse and check one line; Refused."""
    command, argument = parse_line(session, line)
    return Checked(command, command.check(session, argument))


def answer(session: Session, line: bytes) -> bytes:
    """The reply to one line as it was received, with its line end."""
    try:
        command, argument = parse_line(session, line)
        return command.proceed(session, command.check(session, argument))
    except Refused as refusal:
        return session.refuse(refusal)


def parse_line(session: Session, line: bytes) -> tuple[Command, str]:
    """The row of the table and the argument, stripped. Refused when there is no such command.

    A client that does not wait where it must does not listen: its next lines answer nothing that we have said.
    """
    if line[-2:] != b'\r\n' or b'\r' in line[:-2]:
        raise Refused('bad-line-end')
    verb, _, argument = line[:-2].decode('utf-8', 'surrogateescape').partition(' ')  # no grammar has surrogates
    command = COMMANDS.get(upper(verb))
    if command is None:
        raise Refused('unknown-command')
    if session.pipelines and (command.last or not session.esmtp):
        return _OUT_OF_SYNC, ''
    return command, argument.strip(' \t')


# EHLO and HELO

def _check_hello(session: Session, argument: str) -> str:
    try:
        check_helo(argument)
    except SyntaxFault:
        raise Refused('syntax', 'EHLO hostname, or EHLO [address]') from None
    return argument


def _proceed_ehlo(session: Session, name: str) -> bytes:
    session.hello(name, esmtp=True)
    return session.idled(format_reply(250, '', f'{session.hostname} greets {name}', *offers(session)))


def _proceed_helo(session: Session, name: str) -> bytes:
    session.hello(name, esmtp=False)
    return session.idled(format_reply(250, '', f'{session.hostname} greets {name}'))


# MAIL

def _check_mail(session: Session, argument: str) -> Address:
    if not session.helo:
        raise Refused('hello-first')
    if session.sender is not None:
        raise Refused('nested-mail')
    if session.usage is not None and not session.usage.may_begin:
        raise Refused('client-messages', session.client)
    sender, words = _path(session, argument, 'FROM:', 'bad-sender')
    parameters = read_parameters(session, 'MAIL', words)
    if not (sender.isascii() or 'SMTPUTF8' in parameters):
        raise Refused('utf8-sender')
    return Address(sender, parameters=parameters)


def _proceed_mail(session: Session, sender: Address) -> bytes:
    session.begin(sender)
    return reply('sender-ok')


# RCPT

def _check_rcpt(session: Session, argument: str) -> Address:
    if session.recipients is None:
        raise Refused('mail-first' if session.helo else 'hello-first')
    if session.chunks is not None:
        raise Refused('chunks-begun')
    recipient, words = _path(session, argument, 'TO:', 'bad-recipient', session.hostname)
    if not recipient:
        raise Refused('bad-recipient', 'a recipient cannot be empty')
    if not (recipient.isascii() or session.utf8):
        raise Refused('utf8-recipient')
    parameters = read_parameters(session, 'RCPT', words)
    if len(session.recipients) >= session.limits.recipients:
        raise Refused('too-many-rcpts')
    if session.usage is not None and not session.usage.may_add:
        raise Refused('client-recipients', session.client)
    return Address(recipient, session.is_local is not None and session.is_local(recipient), parameters)


def _proceed_rcpt(session: Session, recipient: Address) -> bytes:
    assert session.recipients is not None
    if session.usage is not None:
        session.usage.recipients += 1
    if not session.may_relay and not recipient.local:
        raise Refused('relay-denied', session.client)
    session.recipients.append(recipient)
    return reply('recipient-ok')


# DATA and BDAT

def _check_data(session: Session, argument: str) -> None:
    if argument:
        raise Refused('syntax', 'DATA')
    if session.chunks is not None:
        raise Refused('chunks-begun')
    _check_recipients(session)


def _check_recipients(session: Session) -> None:
    if session.recipients is None:
        raise Refused('mail-first' if session.helo else 'hello-first')
    if not session.recipients:
        raise Refused('no-recipients')


def _proceed_data(session: Session, _parsed: None) -> bytes:
    session.then = DATA
    return reply('start-data')


def _check_bdat(session: Session, argument: str) -> Chunk | None:
    """None: it is not in the grammar, and what follows is no command."""
    chunk = parse_chunk(argument)
    if chunk is not None:
        try:
            _check_recipients(session)
        except Refused as refusal:
            refusal.chunk = chunk
            raise
    return chunk


def _proceed_bdat(session: Session, chunk: Chunk | None) -> bytes:
    """The reply comes when the octets have come (RFC 3030 section 2)."""
    if chunk is None:
        session.ended = True
        return reply('bad-chunk')
    session.expect(chunk)
    return b''


# STARTTLS

def _check_starttls(session: Session, argument: str) -> None:
    if session.secure:
        raise Refused('tls-already')
    if not session.starttls:
        raise Refused('not-implemented')
    if argument:
        raise Refused('syntax', 'STARTTLS')


def _proceed_starttls(session: Session, _parsed: None) -> bytes:
    """The driver has the reply: it depends on whether the client has waited for it."""
    session.then = TLS
    return b''


# AUTH

def _check_auth(session: Session, argument: str) -> tuple[Exchange, Step]:
    offered = session.mechanisms
    if not offered:
        by_tls = session.starttls and not session.secure and session.desk is not None
        raise Refused('auth-needs-tls' if by_tls else 'not-implemented')
    if not session.esmtp:
        raise Refused('hello-first')
    if session.user:
        raise Refused('already-logged-in')
    if session.sender is not None:
        raise Refused('auth-in-mail')
    assert session.desk is not None
    exchange = Exchange(offered, session.desk.new_challenge)
    try:
        return exchange, exchange.start(argument)
    except AuthRefused as refusal:
        raise Refused(refusal.name) from None


def _proceed_auth(session: Session, begun: tuple[Exchange, Step]) -> bytes:
    """The driver goes on: more lines may belong to it, and who judges takes time."""
    session.exchange, session.then = begun, AUTH
    return b''


# the small ones

def _check_nothing(session: Session, argument: str) -> None:
    """Any argument is fine, and ignored (RFC 5321 4.1.1.9 for NOOP)."""


def _check_no_argument(session: Session, argument: str) -> None:
    if argument:
        raise Refused('syntax', 'this command takes no argument')


def _check_vrfy(session: Session, argument: str) -> None:
    """RFC 6531 section 3.7.4.2: what is not ASCII needs the parameter here, too."""
    if not argument:
        raise Refused('syntax', 'VRFY name')
    if not (argument.isascii() or argument.upper().endswith(' SMTPUTF8')):
        raise Refused('utf8-recipient')


def _check_unsupported(session: Session, argument: str) -> None:
    raise Refused('not-implemented')


def _proceed_rset(session: Session, _parsed: None) -> bytes:
    session.reset()
    return session.idled(reply('reset'))


def _proceed_noop(session: Session, _parsed: None) -> bytes:
    return session.idled(reply('ok'))


def _proceed_vrfy(session: Session, _parsed: None) -> bytes:
    return session.idled(reply('cannot-verify'))


def _check_help(session: Session, argument: str) -> str:
    """The command that help is wanted for; '' for all, also when we do not know what is meant."""
    verb = upper(argument)
    return verb if verb in COMMANDS and COMMANDS[verb].syntax else ''


def _proceed_help(session: Session, topic: str) -> bytes:
    offered = {line.partition(' ')[0] for line in offers(session)}
    lines = [' '.join([row.syntax, *(f'[{name}]' for name in parameter_names(session, verb))])
             for verb, row in COMMANDS.items()
             if row.syntax and topic in ('', verb) and (topic or not row.optional or verb in offered)]
    return session.idled(format_reply(214, '2.0.0', *([] if topic else ['Commands:']), *lines))


def _proceed_quit(session: Session, _parsed: None) -> bytes:
    session.said_quit = session.ended = True
    return reply('bye')


def _proceed_http(session: Session, _parsed: None) -> bytes:
    """A web page may let a browser that may relay send us a form whose body is SMTP: it must not get that far."""
    session.ended = True
    return reply('not-smtp')


def _proceed_proxy(session: Session, _parsed: None) -> bytes:
    """Whoever speaks for others without being trusted is not listened to, also where the header is a mistake."""
    session.ended = True
    return reply('not-a-proxy')


def _proceed_out_of_sync(session: Session, _parsed: None) -> bytes:
    session.ended = True
    return reply('out-of-sync')


def _path(session: Session, argument: str, prefix: str, refusal: str, home: str = '') -> tuple[str, dict[str, str]]:
    """`FROM:<address> [parameters]`; a space after the colon is common and harmless."""
    if argument[:len(prefix)].upper() != prefix:
        raise Refused('syntax', f'{"MAIL" if prefix == "FROM:" else "RCPT"} {prefix}<address>')
    try:
        return parse_path(argument[len(prefix):].lstrip(' \t'), home, session.limits.loose)
    except SyntaxFault as fault:
        raise Refused(refusal, fault) from None


#   verb             syntax                              check               proceed
COMMANDS: dict[str, Command] = {
    'EHLO': Command('EHLO hostname',                     _check_hello,       _proceed_ehlo, last=True),
    'HELO': Command('HELO hostname',                     _check_hello,       _proceed_helo, last=True),
    'MAIL': Command('MAIL FROM:<address>',               _check_mail,        _proceed_mail, 'mq_smtp_in_mailfrom'),
    'RCPT': Command('RCPT TO:<address>',                 _check_rcpt,        _proceed_rcpt, 'mq_smtp_in_rcptto'),
    'DATA': Command('DATA',                              _check_data,        _proceed_data, last=True),
    'BDAT': Command('BDAT size [LAST]',                  _check_bdat,        _proceed_bdat),
    'STARTTLS': Command('STARTTLS',                      _check_starttls,    _proceed_starttls, optional=True),
    'AUTH': Command('AUTH mechanism [initial-response]', _check_auth,        _proceed_auth, optional=True),
    'RSET': Command('RSET',                              _check_no_argument, _proceed_rset),
    'NOOP': Command('NOOP',                              _check_nothing,     _proceed_noop, last=True),
    'VRFY': Command('VRFY name',                         _check_vrfy,        _proceed_vrfy, last=True),
    'HELP': Command('HELP [command]',                    _check_help,        _proceed_help),
    'QUIT': Command('QUIT',                              _check_no_argument, _proceed_quit),
    'EXPN': Command('',                                  _check_unsupported, _proceed_noop),
    'TURN': Command('',                                  _check_unsupported, _proceed_noop),
    'CONNECT': Command('',                               _check_nothing,     _proceed_http),
    'GET':     Command('',                               _check_nothing,     _proceed_http),
    'HEAD':    Command('',                               _check_nothing,     _proceed_http),
    'OPTIONS': Command('',                               _check_nothing,     _proceed_http),
    'POST':    Command('',                               _check_nothing,     _proceed_http),
    'PUT':     Command('',                               _check_nothing,     _proceed_http),
    'PROXY':   Command('',                               _check_nothing,     _proceed_proxy),
}

_OUT_OF_SYNC = Command('', _check_nothing, _proceed_out_of_sync)
