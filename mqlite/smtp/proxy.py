"""The PROXY header, in which a load balancer says for whom it speaks: versions 1 (a line) and 2 (binary). Pure.

Source: HAProxy's proxy-protocol.txt, sections 2.1 and 2.2. Only the client's address is taken out; the destination is
checked and dropped, because a message goes out from addresses that are ours; TLVs are skipped.

    version 1   PROXY TCP4 192.0.2.1 192.0.2.9 56324 25 CRLF
    version 2   signature (12) | version, command | family, transport | length (2) | addresses and TLVs (length)

A client that the proxy cannot name (UNKNOWN, UNSPEC, a UNIX socket) is somebody, and not the proxy: the header is
valid, and whoever reads it must not give that client the rights of the proxy. With the command LOCAL the proxy speaks
for itself, to see whether we are well. Limits: 107 octets of version 1, V2_LIMIT of version 2.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from mqlite.errors import PermanentError

V1_LIMIT = 107  # octets with CRLF, section 2.1
V2_LIMIT = 4096  # octets; addresses take at most 232, and TLVs are to leave the whole within one segment

_V1 = b'PROXY '
_V2 = b'\r\n\r\n\0\r\nQUIT\n'
_V2_START = 16  # octets before the addresses
_LOCAL, _PROXY = 0x20, 0x21  # the version is in the upper half
_ADDRESS_SIZES = {0x11: 4, 0x21: 16}  # TCP over IPv4, TCP over IPv6: octets of an address
_FAMILIES, _TRANSPORTS = range(4), range(3)  # those that have a meaning
_PORT = re.compile(r'0|[1-9][0-9]{0,4}')


class ProxyFault(PermanentError):
    """The proxy's fault, or that of whoever configured it: this is no PROXY header."""


class Header(NamedTuple):
    """What a header says."""

    length: int  # octets that it took
    client: tuple[str, int] | None  # address and port; None when the proxy does not name the client
    own: bool = False  # the proxy speaks for itself


def read_header(data: bytes) -> Header | None:
    """The header at the beginning of a connection; None when more has to arrive first. ProxyFault."""
    if data.startswith(_V2[:len(data)]):
        return _read_v2(data) if len(data) >= _V2_START else None
    if not data.startswith(_V1[:len(data)]):
        raise ProxyFault('the connection does not begin with a PROXY header')
    end = data.find(b'\n', 0, V1_LIMIT) + 1
    if end:
        return _read_v1(data[:end])
    if len(data) >= V1_LIMIT:
        raise ProxyFault(f'a PROXY line of more than {V1_LIMIT} octets')
    return None


def _read_v1(line: bytes) -> Header:
    if not line.endswith(b'\r\n'):
        raise ProxyFault('a PROXY line that does not end with CRLF')
    words = line[:-2].decode('latin-1').split(' ')
    if words[1] == 'UNKNOWN':
        return Header(len(line), None)
    if words[1] not in ('TCP4', 'TCP6') or len(words) != 6:
        raise ProxyFault('a PROXY line in a form that does not exist')
    version = int(words[1][-1])
    client, _destination = _read_address(words[2], version), _read_address(words[3], version)
    port, _destination_port = _read_port(words[4]), _read_port(words[5])
    return Header(len(line), (client, port))


def _read_address(text: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ProxyFault('a PROXY line with an address that is none') from None
    if address.version != version or '%' in text or version == 4 and str(address) != text:
        raise ProxyFault('a PROXY line with an address of another form')
    return _plain(address)


def _read_port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > 0xffff:
        raise ProxyFault('a PROXY line with a port that is none')
    return int(text)


def _read_v2(data: bytes) -> Header | None:
    command, family = data[12], data[13]
    length = _V2_START + int.from_bytes(data[14:16], 'big')
    if command not in (_LOCAL, _PROXY):
        raise ProxyFault(f'a PROXY header of an unknown version or command ({command:#04x})')
    if command == _PROXY and (family >> 4 not in _FAMILIES or family & 15 not in _TRANSPORTS):
        raise ProxyFault(f'a PROXY header with an unknown family of addresses ({family:#04x})')
    if length > V2_LIMIT:
        raise ProxyFault(f'a PROXY header of more than {V2_LIMIT} octets')
    if len(data) < length:
        return None
    size = _ADDRESS_SIZES.get(family, 0)
    if command == _LOCAL or not size:
        return Header(length, None, command == _LOCAL)
    if length < _V2_START + 2 * size + 4:
        raise ProxyFault('a PROXY header that is too short for its addresses')
    ports = _V2_START + 2 * size
    address = ipaddress.ip_address(data[_V2_START:_V2_START + size])
    return Header(length, (_plain(address), int.from_bytes(data[ports:ports + 2], 'big')))


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """As we know the same client when it comes directly: a proxy that listens on IPv6 writes ::ffff:192.0.2.1."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
