"""LDAP version 3, as much of it as a simple bind takes: BER by hand, the request, its answer. Pure.

    LDAPMessage  30 len  02 01 01          message id 1
                         60 len            BindRequest   02 01 03 version, 04 len name, 80 len password
                         61 len            BindResponse  0a 01 result, 04 len matched DN, 04 len diagnostic text

A bind without a password is an anonymous one, and succeeds (RFC 4513 section 5.1.2): there is no request for it here.
The diagnostic text of the server is not handed on, as it may repeat what it was sent.

Sources: RFC 4511 (messages; section 5.1 narrows BER to definite lengths), RFC 4514 section 2.4 (escapes in a DN).
Limits: MESSAGE_LIMIT octets of an answer.
"""

from __future__ import annotations

import re

from mqlite.errors import MqliteError

MESSAGE_LIMIT = 65536  # octets of an answer; a bind response has some dozens

_SEQUENCE, _INTEGER, _OCTETS, _ENUMERATED = 0x30, 0x02, 0x04, 0x0a
_BIND_REQUEST, _BIND_RESPONSE, _UNBIND_REQUEST, _EXTENDED_RESPONSE = 0x60, 0x61, 0x42, 0x78
_SIMPLE = 0x80
_BIND_ID, _UNBIND_ID = 1, 2
_ESCAPED = re.compile('[\x00"+,;<=>\\\\]|^[ #]| $')

# RFC 4511 appendix A. These say that this login with this password is not let in; all others, that something is amiss.
_SUCCESS = 0
_REFUSALS = {
    19: 'constraintViolation',          # locked after too many failures, for some servers
    32: 'noSuchObject',
    34: 'invalidDNSyntax',
    48: 'inappropriateAuthentication',  # the entry has no password
    49: 'invalidCredentials',
    50: 'insufficientAccessRights',
    53: 'unwillingToPerform',           # the account is disabled
}
_TROUBLES = {
    1: 'operationsError', 2: 'protocolError', 3: 'timeLimitExceeded', 7: 'authMethodNotSupported',
    8: 'strongerAuthRequired', 10: 'referral', 11: 'adminLimitExceeded', 13: 'confidentialityRequired',
    14: 'saslBindInProgress', 51: 'busy', 52: 'unavailable', 80: 'other',
}

UNBIND = bytes((_SEQUENCE, 5, _INTEGER, 1, _UNBIND_ID, _UNBIND_REQUEST, 0))  # the farewell; it has no answer


class BadAnswer(MqliteError):
    """The server's fault: no answer to a bind, or one that says nothing of the login."""


def user_dn(login: str, base: str) -> str:
    """`uid=login,base`; the login cannot become more than one value of one attribute, whatever it holds."""
    escaped = _ESCAPED.sub(lambda match: f'\\{ord(match.group()):02x}', login)
    return f'uid={escaped},{base}'


def bind_request(name: str, password: bytes) -> bytes:
    """The message that asks whether the password belongs to the name. The password cannot be empty."""
    assert password
    request = _element(_INTEGER, b'\x03') + _element(_OCTETS, name.encode()) + _element(_SIMPLE, password)
    return _element(_SEQUENCE, _element(_INTEGER, bytes((_BIND_ID,))) + _element(_BIND_REQUEST, request))


def read_bind(data: bytes) -> bool | None:
    """Whether the server has let us in; None while its answer is not complete. BadAnswer."""
    if data[:1] not in (b'', bytes((_SEQUENCE,))):
        raise BadAnswer('what it sent is not LDAP')
    found = _take(data, 0, len(data), partial=True)
    if found is None:
        return None
    _, start, end = found
    number, at = _expect(data, _INTEGER, start, end)
    operation = _whole(data, at, end)
    if operation[0] == _EXTENDED_RESPONSE and number == b'\0':
        raise BadAnswer('it disconnects us')  # the only notice there is, RFC 4511 section 4.4.1
    if operation[0] != _BIND_RESPONSE or number != bytes((_BIND_ID,)):
        raise BadAnswer('what it sent does not answer our bind')
    result, _ = _expect(data, _ENUMERATED, operation[1], operation[2])
    return _verdict(int.from_bytes(result, 'big'))


def _verdict(code: int) -> bool:
    if code != _SUCCESS and code not in _REFUSALS:
        raise BadAnswer(f'it answered with {_TROUBLES.get(code, "an unknown result")} ({code})')
    return code == _SUCCESS


# BER: tag, length, contents (X.690 section 8.1)

def _element(tag: int, contents: bytes) -> bytes:
    size = len(contents)
    if size < 0x80:
        return bytes((tag, size)) + contents
    length = size.to_bytes((size.bit_length() + 7) // 8, 'big')
    return bytes((tag, 0x80 | len(length))) + length + contents


def _take(data: bytes, at: int, end: int, partial: bool = False) -> tuple[int, int, int] | None:
    """(tag, start, end of the contents) of the element at `at`; None when it is cut off and may be."""
    start, size = at + 2, 0
    if start <= end:
        size = data[at + 1]
        if size & 0x80:
            octets, start = size & 0x7f, start + (size & 0x7f)
            if not 0 < octets <= 4:
                raise BadAnswer('what it sent is not LDAP: a length that is not definite')
            size = int.from_bytes(data[at + 2:start], 'big')
            if start <= end and size > MESSAGE_LIMIT:
                raise BadAnswer(f'its answer is longer than {MESSAGE_LIMIT} octets')
        if start + size <= end:
            return data[at], start, start + size
    if partial:
        return None
    raise BadAnswer('what it sent is not LDAP: an element that ends behind its message')


def _whole(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    found = _take(data, at, end)
    assert found is not None
    return found


def _expect(data: bytes, tag: int, at: int, end: int) -> tuple[bytes, int]:
    """The contents of an element of this kind, of 1 to 4 octets, and where the next one begins."""
    found, start, stop = _whole(data, at, end)
    if found != tag or not 0 < stop - start <= 4:
        raise BadAnswer('what it sent is not LDAP: another kind of element than there must be')
    return data[start:stop], stop
