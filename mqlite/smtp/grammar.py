"""The grammar of SMTP command arguments: paths, addresses, parameters. Pure.

Sources: RFC 5321 section 4.1.2 (paths, mailboxes, parameters) and 4.5.3.1 (sizes), RFC 6531 section 3.3 (what is not
ASCII). Input is what follows the verb, without CRLF; octets that are not UTF-8 are lone surrogates in it. Anything
outside the grammar raises SyntaxFault with a text for the client; nothing else is raised. Who may use an address that
is not ASCII is not decided here.

Loose (`smtp-validate-address`, `validate-envelope`, `validate-recipient`): a local part is anything that can stand
between angle brackets, such as the `a..b` and `a.` that some providers gave to people; the domain is as strict.

Local parts have no limit of their own. The 64 octets of RFC 5321 4.5.3.1.1 are what everybody must take, not the most
that anybody may send, and senders that put the recipient into the bounce address (VERP) exceed them.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from functools import lru_cache

from mqlite.errors import PermanentError

DOMAIN_LIMIT = 255  # octets, RFC 5321 4.5.3.1.2
PATH_LIMIT = 256  # octets with the angle brackets, RFC 5321 4.5.3.1.3


def _or_beyond(ascii_characters: str) -> str:
    """The class of these and of all that is not ASCII, at which `_check_international` looks closer.

    It is written as what it excludes: `re` takes 4 ms to compile each class that names a range up to U+10FFFF.
    """
    return '[^' + ''.join(f'\\x{code:02x}' for code in range(128) if not re.match(ascii_characters, chr(code))) + ']'


_ATEXT = _or_beyond(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]")
_LABEL = r'[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?'
_U_LETTER, _U_INNER = _or_beyond(r'[A-Za-z0-9_]'), _or_beyond(r'[A-Za-z0-9_-]')
_U_LABEL = rf'{_U_LETTER}(?:{_U_INNER}{{0,61}}{_U_LETTER})?'
_DOT_STRING = rf'{_ATEXT}+(?:\.{_ATEXT}+)*'
_QTEXT = _or_beyond(r'[\x20\x21\x23-\x5b\x5d-\x7e]')
_QUOTED = rf'"(?:{_QTEXT}|\\[\x20-\x7e])*"'
_DOMAIN = rf'{_U_LABEL}(?:\.{_U_LABEL})*'
_VALUE = _or_beyond(r'[\x21-\x3c\x3e-\x7e]')
_LITERAL = r'\[[\x21-\x5a\x5e-\x7e]+\]'

_ADDRESS = re.compile(rf'(?:{_DOT_STRING}|{_QUOTED})@({_DOMAIN}|{_LITERAL})')
_LOOSE_ADDRESS = re.compile(rf'(?:{_QUOTED}|[^\x00-\x1f<>\x7f]+)@({_DOMAIN}|{_LITERAL})')
_HOST_NAME = re.compile(rf'{_LABEL}(?:\.{_LABEL})*\.?')
_SOURCE_ROUTE = re.compile(rf'@{_DOMAIN}(?:,@{_DOMAIN})*:')
_PLAIN_PATH = re.compile(rf'<({_DOT_STRING}@{_DOMAIN})>')  # what nearly all are
_PATH = re.compile(r'<((?:[^<>"]|"(?:[^"\\]|\\.)*")*)>(?: (.*))?')
_LOOSE_PATH = re.compile(r'<([^<>]*)>(?: (.*))?')
_PARAMETER = re.compile(rf'([A-Za-z0-9][A-Za-z0-9-]*)(?:=({_VALUE}*))?')
_JOINERS = str.maketrans('', '', '\u200c\u200d')  # invisible, and needed to write Persian and Hindi (RFC 5892 A.1, A.2)
_FULL_STOP = '\u3002'  # would be a dot to some, and not to others


class SyntaxFault(PermanentError):
    """The client's fault: what it sent is not in the grammar."""


def parse_path(text: str, home: str = '', loose: bool = False) -> tuple[str, dict[str, str]]:
    """`<path> [parameters]` as (address, parameters); the address is '' for the null reverse-path `<>`.

    Parameter names come out in upper case; one without a value has ''. A source route is dropped (RFC 5321 appendix C).
    `home` is the domain of `<postmaster>`, the one recipient that needs none (RFC 5321 4.5.1).
    """
    if text.isascii() and len(text) <= PATH_LIMIT:
        plain = _PLAIN_PATH.fullmatch(text)
        if plain is not None:
            return plain.group(1), {}
    match = _PATH.fullmatch(text) or (_LOOSE_PATH.fullmatch(text) if loose else None)
    if match is None:
        raise SyntaxFault('the address must stand in angle brackets')
    path, rest = match.groups()
    route = _SOURCE_ROUTE.match(path)
    address = path[route.end():] if route else path
    if home and address.lower() == 'postmaster':
        address = f'{address}@{home}'
    if address:
        check_address(address, loose)
    elif route:
        raise SyntaxFault('the address is missing')
    return address, parse_parameters(rest or '')


def parse_parameters(text: str) -> dict[str, str]:
    """`NAME[=value] ...` with the names in upper case. Each may stand there once."""
    parameters: dict[str, str] = {}
    for word in filter(None, text.split(' ')):
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise SyntaxFault(f'bad parameter {printable(word)}')
        name = match.group(1).upper()
        if name in parameters:
            raise SyntaxFault(f'parameter {name} given twice')
        parameters[name] = match.group(2) or ''
    return parameters


@lru_cache(maxsize=4096)
def check_address(address: str, loose: bool = False) -> None:
    """SyntaxFault unless it is `local-part@domain` or `local-part@[literal]`."""
    if len(address) + 2 > PATH_LIMIT:
        raise SyntaxFault(f'the address is longer than {PATH_LIMIT - 2} octets')
    if not address.isascii():
        _check_international(address)
    match = (_LOOSE_ADDRESS if loose else _ADDRESS).fullmatch(address)
    if match is None:
        if '@' not in address:
            raise SyntaxFault('the address has no domain')
        raise SyntaxFault('the address is not valid')
    domain = match.group(1)
    if domain.startswith('['):
        parse_literal(domain)


def _check_international(address: str) -> None:
    """SyntaxFault for what cannot be seen, and in a domain for what a look-up would change (RFC 5890 2.3.2.1)."""
    if not address.translate(_JOINERS).isprintable():
        raise SyntaxFault('the address is not valid')
    if len(address.encode('utf-8')) + 2 > PATH_LIMIT:
        raise SyntaxFault(f'the address is longer than {PATH_LIMIT - 2} octets')
    domain = address.rpartition('@')[2]
    if unicodedata.normalize('NFKC', domain) != domain or _FULL_STOP in domain:
        raise SyntaxFault('the domain has characters that domains are not written with')


def parse_literal(domain: str) -> str:
    """The address inside `[192.0.2.1]` or `[IPv6:2001:db8::1]`, in canonical form (RFC 5321 4.1.3)."""
    inner = domain[1:-1]
    try:
        if '%' in inner:  # Python takes any text behind it for a zone of IPv6
            raise ValueError
        if inner[:5].upper() == 'IPV6:':
            return str(ipaddress.IPv6Address(inner[5:]))
        return str(ipaddress.IPv4Address(inner))
    except ValueError:
        raise SyntaxFault('the address literal is not valid') from None


def split_address(address: str) -> tuple[str, str]:
    """(local part, domain) of a valid address; ('', '') for the null sender."""
    local, _, domain = address.rpartition('@')
    return local, domain


def check_helo(text: str) -> None:
    """SyntaxFault unless it is a domain or an address literal. Names without a dot are common and pass."""
    if len(text) > DOMAIN_LIMIT:
        raise SyntaxFault(f'the name is longer than {DOMAIN_LIMIT} octets')
    if text.startswith('[') and text.endswith(']'):
        parse_literal(text)
    elif _HOST_NAME.fullmatch(text) is None:
        raise SyntaxFault('not a host name or address literal')


def upper(word: str) -> str:
    """A keyword in upper case, '' for none: some letters that are not ASCII would become letters that are."""
    return word.upper() if word.isascii() else ''


def printable(text: str, limit: int = 60) -> str:
    """Text from outside, made fit for a reply or a log line: control and non-ASCII characters escaped, bounded."""
    shown = ''.join(c if ' ' <= c <= '~' else f'\\x{ord(c):02x}' for c in text[:limit])
    return shown + '...' if len(text) > limit else shown
