"""THE EXTENSION TABLE: what EHLO offers, and the parameters of MAIL and RCPT that come with it. Pure.

A parameter is accepted only while its extension is on offer to this session, which has said EHLO. `read` takes the
session and the text behind `=` ('' when there is none), changes nothing, and gives what the parameter says; it raises
SyntaxFault for what is not in its grammar, with the right form as the text, and Refused for what cannot be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Callable

from mqlite.smtp.dsn import decode_xtext, parse_envid, parse_notify, parse_orcpt, parse_ret
from mqlite.smtp.grammar import SyntaxFault, upper
from mqlite.smtp.session import Refused, Session

Read = Callable[[Session, str], str]


@dataclass(frozen=True)
class Extension:
    """A row of the extension table."""

    line: Callable[[Session], str]  # what EHLO says; '' when it is not on offer to this session now
    mail: Mapping[str, Read] = field(default_factory=dict)  # the parameters of MAIL
    rcpt: Mapping[str, Read] = field(default_factory=dict)  # and of RCPT


def offers(session: Session) -> Iterator[str]:
    """The lines of EHLO behind the first one."""
    return (line for extension in EXTENSIONS if (line := extension.line(session)))


def read_parameters(session: Session, verb: str, words: Mapping[str, str]) -> Mapping[str, str]:
    """What the parameters of a command say, by their names in upper case. Refused."""
    if not words:
        return words
    said = {}
    for name, value in words.items():
        extension, read = _PARAMETERS[verb].get(name, (None, _read_flag))
        if extension is None or not session.esmtp or not extension.line(session):
            raise Refused('bad-parameter', name)
        try:
            said[name] = read(session, value)
        except SyntaxFault as fault:
            raise Refused('syntax', fault) from None
    return said


def parameter_names(session: Session, verb: str) -> list[str]:
    """Those that may stand behind this verb now, for HELP."""
    return [name if read is _read_flag else f'{name}='
            for name, (extension, read) in _PARAMETERS.get(verb, {}).items() if extension.line(session)]


def _read_flag(session: Session, value: str) -> str:
    if value:
        raise SyntaxFault('this parameter has no value')
    return value


def _read_size(session: Session, value: str) -> str:
    """RFC 1870: the client declares the size, so that we can refuse before it has sent everything."""
    if not value.isdecimal() or not value.isascii() or len(value) > 20:
        raise SyntaxFault('SIZE=number of bytes')
    if int(value) > session.limits.size:
        raise Refused('too-large', session.limits.size)
    return value


def _read_auth(_session: Session, value: str) -> str:
    """RFC 4954 section 5: who wrote the message, says the client. Nobody is believed it."""
    mailbox = value if value == '<>' else decode_xtext(value)
    if not mailbox:
        raise SyntaxFault('AUTH=<>, or AUTH=address as xtext')
    return mailbox


def _read_body(session: Session, value: str) -> str:
    """RFC 6152. Both kinds are kept as they come."""
    if upper(value) not in ('7BIT', '8BITMIME'):
        raise SyntaxFault('BODY=7BIT or BODY=8BITMIME')
    return upper(value)


#             what EHLO says                                 parameters of MAIL, and of RCPT           source
EXTENSIONS = (
    Extension(lambda session: 'PIPELINING'),                                                         # RFC 2920
    Extension(lambda session: f'SIZE {session.limits.size}', {'SIZE': _read_size}),                  # RFC 1870
    Extension(lambda session: '8BITMIME',                    {'BODY': _read_body}),                  # RFC 6152
    Extension(lambda session: 'DSN' if session.limits.dsn else '',                                   # RFC 3461
              {'RET':    lambda session, value: parse_ret(value),
               'ENVID':  lambda session, value: parse_envid(value)},
              {'NOTIFY': lambda session, value: parse_notify(value),
               'ORCPT':  lambda session, value: parse_orcpt(value, session.utf8)}),
    Extension(lambda session: 'CHUNKING'),                                                           # RFC 3030
    Extension(lambda session: f'LIMITS RCPTMAX={session.limits.recipients}'),                        # RFC 9422
    Extension(lambda session: 'SMTPUTF8',                    {'SMTPUTF8': _read_flag}),              # RFC 6531
    Extension(lambda session: 'STARTTLS' if session.starttls and not session.secure else ''),        # RFC 3207
    Extension(lambda session: f'AUTH {" ".join(session.mechanisms)}' if session.mechanisms else '',  # RFC 4954
              {'AUTH': _read_auth}),
    Extension(lambda session: 'REQUIRETLS' if session.secure else '', {'REQUIRETLS': _read_flag}),   # RFC 8689
    Extension(lambda session: 'ENHANCEDSTATUSCODES'),                                                # RFC 2034
    Extension(lambda session: 'HELP'),                                                               # RFC 5321
)

_PARAMETERS = {
    'MAIL': {name: (extension, read) for extension in EXTENSIONS for name, read in extension.mail.items()},
    'RCPT': {name: (extension, read) for extension in EXTENSIONS for name, read in extension.rcpt.items()},
}
