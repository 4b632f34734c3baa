"""The property `extracted` of results: what a message says of itself, for those who do not get the message. Pure.

    {"from": "...", "to": ["..."], "subject": "...", "headers": {"x-a": "b", "received": ["...", "..."]},
     "envelope": {"domain": "...", "local": "..."}, "recipient": {"domain": "...", "local": "..."}}

Addresses and subject are decoded; headers are as they stand in the message, unfolded, their names in lower case,
several of one name in an array. It is made for every result (7 microseconds for nine fields), so what most messages
have is read by hand, and only other addresses by the parser for them.

Limits: LIMIT octets of the header.
"""

from __future__ import annotations

import re
from typing import Any

from mqlite.message.addresses import read_addresses
from mqlite.message.headers import header_end
from mqlite.message.words import decode_words
from mqlite.smtp.grammar import split_address

LIMIT = 32768  # octets; what is beyond would make results as large as the messages that they are to do without

_ONE_ADDRESS = re.compile(r'(?:[^"<>(),;:@]*<)?([^\s"<>(),;:\\]+@[^\s"<>(),;:\\]+?)>?')


def extracted(mime: bytes, envelope: str, recipient: str) -> dict[str, Any]:
    """The property for a message with CRLF line ends. The addresses are valid ones, or ''."""
    header = mime[:min(header_end(mime), LIMIT)].decode('utf-8', 'surrogateescape')
    headers: dict[str, Any] = {}
    for line in header.replace('\r\n ', ' ').replace('\r\n\t', '\t').split('\r\n'):
        name, colon, value = line.partition(':')
        if not colon:
            continue
        name, value = name.rstrip(' \t').lower(), value.strip(' \t')
        earlier = headers.get(name)
        if earlier is None:
            headers[name] = value
        elif isinstance(earlier, list):
            earlier.append(value)
        else:
            headers[name] = [earlier, value]
    return {
        'from': next(iter(_addresses(headers.get('from'))), ''),
        'to': _addresses(headers.get('to')),
        'subject': decode_words(_first(headers.get('subject'))),
        'headers': headers,
        'envelope': _halves(envelope),
        'recipient': _halves(recipient),
    }


def _first(value: str | list[str] | None) -> str:
    return value[0] if isinstance(value, list) else value or ''


def _addresses(value: str | list[str] | None) -> list[str]:
    if not value:
        return []
    if isinstance(value, str):
        match = _ONE_ADDRESS.fullmatch(value)
        if match is not None:
            return [match.group(1)]
        value = [value]
    return [address for _, address in read_addresses(value) if address]


def _halves(address: str) -> dict[str, str]:
    local, domain = split_address(address)
    return {'domain': domain, 'local': local}
