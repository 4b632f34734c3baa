"""What hooks are given, in the shape that C has it: include/dns_ds.h, struct timeval, struct sockaddr.

Unlike connections and messages, which C knows by number, these are real structures, because hooks read their members.
They are ours: a plugin may read them during the call, and what it writes there changes nothing but this call.
"""

from __future__ import annotations

import ctypes
import struct
from ipaddress import ip_address
from typing import Any, Callable

from mqlite.plugin.domains import Domain

_INET, _INET6 = 2, 10  # address families of Linux
_MOST = 0xffffffff  # of a count of 32 bits


class Timeval(ctypes.Structure):
    """struct timeval."""

    _fields_ = [('seconds', ctypes.c_long), ('microseconds', ctypes.c_long)]


class MxRecord(ctypes.Structure):
    """mx_record."""

    _fields_ = [('host', ctypes.c_char_p), ('preference', ctypes.c_int)]


class DomainRecord(ctypes.Structure):
    """domain_record."""

    _fields_ = [('domain', ctypes.c_char_p), ('expiry', ctypes.c_uint64), ('last_delivery', Timeval),
                ('mxlist', ctypes.POINTER(ctypes.POINTER(MxRecord))), ('deliveries', ctypes.c_uint32),
                ('attempts', ctypes.c_uint32), ('transients', ctypes.c_uint32), ('failures', ctypes.c_uint32),
                ('mxcnt', ctypes.c_int), ('dns_failures', ctypes.c_uint8)]


def timeval(seconds: float) -> Timeval:
    whole = int(seconds)
    return Timeval(whole, int((seconds - whole) * 1e6))


def domain_record(domain: Domain) -> DomainRecord:
    exchangers = [MxRecord(host.encode('ascii', 'replace'), preference) for preference, host in domain.exchangers]
    listed = (ctypes.POINTER(MxRecord) * (len(exchangers) + 1))(*(ctypes.pointer(one) for one in exchangers))
    counts = (domain.deliveries, domain.attempts, domain.transients, domain.failures)
    return DomainRecord(domain.name.encode('utf-8', 'replace'), int(domain.expires), timeval(domain.last_delivery),
                        listed if exchangers else None, *(min(count, _MOST) for count in counts), len(exchangers),
                        min(domain.dns_failures, 255))


def socket_address(target: tuple[str, int]) -> Any:
    """struct sockaddr_in or sockaddr_in6 of (address, port)."""
    address = ip_address(target[0].partition('%')[0])
    if address.version == 4:
        data = struct.pack('=H', _INET) + struct.pack('>H', target[1]) + address.packed + bytes(8)
    else:
        data = struct.pack('=H', _INET6) + struct.pack('>HI', target[1], 0) + address.packed + bytes(4)
    return ctypes.create_string_buffer(data, len(data))


# By the words of the ABI table.
SHAPES: dict[str, Callable[[Any], Any]] = {
    'domain':         lambda domain: ctypes.byref(domain_record(domain)),
    'time':           lambda seconds: ctypes.byref(timeval(seconds)),
    'socket-address': lambda target: ctypes.byref(socket_address(target)),
}
