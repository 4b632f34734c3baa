r"""The DSN extension: what a sender wants to be told about delivery, as parameters and as a value. Pure.

    MAIL FROM:<a@b> RET=HDRS ENVID=QQ314+2B159
    RCPT TO:<c@d>   NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2B1@example.com

Sources: RFC 3461 (4: the parameters and xtext; 4.2 and 4.4: sizes), RFC 6533 section 3 (addresses of the type utf-8).

In a `Request` everything is decoded: an envelope identifier is text, an original recipient is `type;address` or an
address alone, whose type then follows from its characters. On the wire an address of the type utf-8 is written with
`\x{fc}` for what xtext would write as octets, and as it is between servers that speak SMTPUTF8.

Limits: 100 characters for ENVID, 500 for ORCPT, encoded. The functions raise SyntaxFault and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mqlite.smtp.grammar import SyntaxFault, printable, upper

EVENTS = ('SUCCESS', 'FAILURE', 'DELAY')
RETURNS = ('FULL', 'HDRS')
ENVID_LIMIT = 100  # characters, RFC 3461 section 4.4
ORCPT_LIMIT = 500  # characters, RFC 3461 section 4.2

_ADDRESS_TYPE = re.compile(r'[A-Za-z0-9-]+')
_TYPED = re.compile(r'([A-Za-z0-9-]+);(.*)', re.DOTALL)
_XTEXT = re.compile(r'(?:[!-*,-<>-~]|\+[0-9A-F]{2})*')
_HEX_OCTET = re.compile(r'\+([0-9A-F]{2})')
_HEX_POINT = re.compile(r'\\x\{([0-9A-Fa-f]{2,6})\}')


@dataclass(frozen=True)
class Request:
    """What is asked for one recipient. '' and (): nothing was said."""

    notify: tuple[str, ...] = ()  # ('NEVER',), or some of EVENTS
    ret: str = ''  # one of RETURNS
    envid: str = ''
    orcpt: str = ''

    def mail_parameters(self) -> str:
        """Behind the address of MAIL, each with a space in front."""
        return (f' RET={self.ret}' if self.ret else '') + (f' ENVID={encode_xtext(self.envid)}' if self.envid else '')

    def rcpt_parameters(self, utf8: bool) -> str:
        """Behind the address of RCPT. `utf8`: the transaction has SMTPUTF8."""
        return ((f' NOTIFY={",".join(self.notify)}' if self.notify else '')
                + (f' ORCPT={encode_address(self.orcpt, utf8)}' if self.orcpt else ''))


NOTHING = Request()


def make_request(notify: str, ret: str, envid: str, orcpt: str) -> Request:
    """A Request that can be written as parameters, whatever the texts are. Empty ones say nothing."""
    request = Request(tuple(parse_notify(notify).split(',')) if notify else (), parse_ret(ret) if ret else '', envid,
                      orcpt)
    if len(encode_xtext(envid)) > ENVID_LIMIT:
        raise SyntaxFault(f'the envelope identifier is longer than {ENVID_LIMIT} characters')
    if orcpt and len(encode_address(orcpt, False)) > ORCPT_LIMIT:
        raise SyntaxFault(f'the original recipient is longer than {ORCPT_LIMIT} characters')
    return NOTHING if request == NOTHING else request


# what a client says

def parse_notify(value: str) -> str:
    """`NEVER`, or a list of events, in upper case and without what stands there twice."""
    events = tuple(dict.fromkeys(word.strip(' ') for word in upper(value).split(',')))
    if events != ('NEVER',) and not set(events) <= set(EVENTS):
        raise SyntaxFault('NOTIFY=NEVER, or some of SUCCESS,FAILURE,DELAY')
    return ','.join(events)


def parse_ret(value: str) -> str:
    if upper(value) not in RETURNS:
        raise SyntaxFault('RET=FULL or RET=HDRS')
    return upper(value)


def parse_envid(value: str) -> str:
    text = decode_xtext(value)
    if not text or len(value) > ENVID_LIMIT:
        raise SyntaxFault(f'ENVID=identifier as xtext, at most {ENVID_LIMIT} characters')
    return text


def parse_orcpt(value: str, utf8: bool) -> str:
    """`type;address`, decoded. `utf8`: the transaction has SMTPUTF8, and so octets that are not ASCII may stand there.
    """
    kind, _, address = value.partition(';')
    if not address or len(value) > ORCPT_LIMIT or not _ADDRESS_TYPE.fullmatch(kind):
        raise SyntaxFault(f'ORCPT=type;address as xtext, at most {ORCPT_LIMIT} characters')
    if kind.lower() == 'utf-8':
        if not (utf8 or address.isascii()):
            raise SyntaxFault('ORCPT=utf-8;address without SMTPUTF8 must be ASCII')
        return f'{kind};{_decode_points(address)}'
    return f'{kind};{decode_xtext(address)}'


# what an address and an identifier look like on the wire

def encode_xtext(text: str) -> str:
    """RFC 3461 section 4: `+` and two hexadecimal digits for what is not plain. Text that is not ASCII cannot be."""
    if not (text.isascii() and text.isprintable()):
        raise SyntaxFault(f'{printable(text)} is not printable ASCII')
    return ''.join(f'+{ord(c):02X}' if c in '+= ' else c for c in text)


def decode_xtext(text: str) -> str:
    if not _XTEXT.fullmatch(text):
        raise SyntaxFault('not xtext')
    plain = _HEX_OCTET.sub(lambda match: chr(int(match.group(1), 16)), text) if '+' in text else text
    if not (plain.isascii() and plain.isprintable()):
        raise SyntaxFault('xtext for something else than printable ASCII')
    return plain


def split_orcpt(text: str) -> tuple[str, str]:
    """(type, address) of an original recipient; an address alone is of the type that its characters need."""
    match = _TYPED.fullmatch(text)
    if match is not None:
        return match.group(1), match.group(2)
    return 'rfc822' if text.isascii() else 'utf-8', text


def encode_address(text: str, utf8: bool) -> str:
    """The value of ORCPT for an original recipient. `utf8`: the transaction has SMTPUTF8."""
    kind, address = split_orcpt(text)
    if not address:
        raise SyntaxFault('the original recipient is empty')
    if kind.lower() != 'utf-8':
        return f'{kind};{encode_xtext(address)}'
    _check_printable(address)
    return kind + ';' + ''.join(f'\\x{{{ord(c):02X}}}' if c in '\\+= ' or not (utf8 or c.isascii()) else c
                                for c in address)


def _decode_points(text: str) -> str:
    try:
        plain = _HEX_POINT.sub(lambda match: chr(int(match.group(1), 16)), text)
    except (ValueError, OverflowError):
        raise SyntaxFault('ORCPT=utf-8;address has no such character') from None
    if '\\' in _HEX_POINT.sub('', text) or '=' in text or '+' in text:
        raise SyntaxFault(r'ORCPT=utf-8;address writes \ + and = as \x{5C} \x{2B} and \x{3D}')
    _check_printable(plain)
    return plain


def _check_printable(text: str) -> None:
    """Neither control characters nor what is no character at all, such as half of a pair."""
    if not text.isprintable():
        raise SyntaxFault(f'{printable(text)} has characters that cannot be printed')
