"""RADIUS, as much of it as checking a password takes: the Access-Request, and whether an answer is genuine. Pure.

    0      1      2        4                20
    code   id     length   authenticator    attributes: type, length, value …

The protocol is of 1997 and rests on MD5. What makes an answer genuine here is Message-Authenticator, an HMAC over all
of it: without it, who sits between can turn Access-Reject into Access-Accept (Blast-RADIUS, CVE-2024-3596). So every
request has it, as its first attribute, and an answer without it is not believed. The Response Authenticator is checked
as well. Anything that is not genuine is to be ignored, as RFC 2865 section 3 has it: the true answer may still come.

Sources: RFC 2865, RFC 3579 section 3.2 (Message-Authenticator), draft-ietf-radext-deprecating-radius section 5.
Limits: 4096 octets of a packet, 128 of a password, 253 of an attribute.
"""

from __future__ import annotations

import hmac
from functools import partial
from hashlib import md5
from struct import pack, unpack_from
from typing import NamedTuple

from mqlite.errors import MqliteError

PACKET_LIMIT = 4096
PASSWORD_LIMIT = 128
VALUE_LIMIT = 253

ACCESS_REQUEST, ACCESS_ACCEPT, ACCESS_REJECT, ACCESS_CHALLENGE = 1, 2, 3, 11
_VERDICTS = {ACCESS_ACCEPT: True, ACCESS_REJECT: False, ACCESS_CHALLENGE: False}  # SMTP has no way to pass a challenge

USER_NAME, USER_PASSWORD, CALLING_STATION_ID, NAS_IDENTIFIER, MESSAGE_AUTHENTICATOR = 1, 2, 31, 32, 80
_HEADER = 20
_md5 = partial(md5, usedforsecurity=False)  # hosts in FIPS mode have no other MD5; RADIUS has nothing else


class NotGenuine(MqliteError):
    """No answer to our request by somebody who knows the secret: to be ignored."""


class Request(NamedTuple):
    """What ties an answer to its question. Both are random, new for each check, and the same when it is sent again."""

    identifier: int  # 0-255
    authenticator: bytes  # 16 octets


def access_request(request: Request, secret: bytes, login: str, password: bytes, nas: str,
                   client: str) -> bytes | None:
    """The packet; None when login or password are longer than RADIUS has room for: they are nobody's."""
    name = login.encode()
    if len(name) > VALUE_LIMIT or len(password) > PASSWORD_LIMIT:
        return None
    attributes = (_attribute(MESSAGE_AUTHENTICATOR, bytes(16))
                  + _attribute(USER_NAME, name)
                  + _attribute(USER_PASSWORD, hide_password(password, secret, request.authenticator))
                  + _attribute(NAS_IDENTIFIER, nas.encode())
                  + _attribute(CALLING_STATION_ID, client.encode()))
    packet = pack('>BBH', ACCESS_REQUEST, request.identifier, _HEADER + len(attributes)) + request.authenticator
    return _signed(packet + attributes, secret, _HEADER + 2)


def read_answer(packet: bytes, request: Request, secret: bytes) -> bool:
    """Whether the server has let the login in. NotGenuine, the text saying why."""
    if len(packet) < _HEADER or packet[0] not in _VERDICTS:
        raise NotGenuine('it is no answer to an Access-Request')
    if packet[1] != request.identifier:
        raise NotGenuine('it answers another request')
    size, = unpack_from('>H', packet, 2)
    if not _HEADER <= size <= min(len(packet), PACKET_LIMIT):
        raise NotGenuine('its length is wrong')
    packet = packet[:size]  # what follows is padding
    made = _md5(packet[:4] + request.authenticator + packet[_HEADER:] + secret).digest()
    if not hmac.compare_digest(made, packet[4:_HEADER]):
        raise NotGenuine('its authenticator is wrong: the secrets differ, or it is forged')
    at = _find_authenticator(packet)
    if not hmac.compare_digest(_signed(packet[:4] + request.authenticator + packet[_HEADER:], secret, at)[at:at + 16],
                               packet[at:at + 16]):
        raise NotGenuine('its Message-Authenticator is wrong: the secrets differ, or it is forged')
    return _VERDICTS[packet[0]]


def hide_password(password: bytes, secret: bytes, authenticator: bytes) -> bytes:
    """RFC 2865 section 5.2: padded to blocks of 16 octets, each one under the MD5 of the secret and the one before."""
    padded = password + bytes(-len(password) % 16)
    hidden, before = b'', authenticator
    for at in range(0, len(padded), 16):
        mask = _md5(secret + before).digest()
        before = bytes(a ^ b for a, b in zip(padded[at:at + 16], mask))
        hidden += before
    return hidden


def _attribute(kind: int, value: bytes) -> bytes:
    return bytes((kind, len(value) + 2)) + value


def _signed(packet: bytes, secret: bytes, at: int) -> bytes:
    """The packet with its Message-Authenticator, whose value is at `at`, filled in: computed as if it were zeros."""
    zeroed = packet[:at] + bytes(16) + packet[at + 16:]
    return packet[:at] + hmac.new(secret, zeroed, _md5).digest() + packet[at + 16:]


def _find_authenticator(packet: bytes) -> int:
    """Where the value of the only Message-Authenticator is."""
    found, at = [], _HEADER
    while at < len(packet):
        size = packet[at + 1] if at + 1 < len(packet) else 0
        if size < 2 or at + size > len(packet):
            raise NotGenuine('its attributes are damaged')
        if packet[at] == MESSAGE_AUTHENTICATOR:
            found.append((at + 2, size - 2))
        at += size
    if len(found) != 1 or found[0][1] != 16:
        raise NotGenuine('it has no Message-Authenticator: update the RADIUS server, or tell it to send one')
    return found[0][0]
