"""DNS for tests: replies built octet by octet, apart from the code under test, and a scripted nameserver.

The nameserver runs on the reactor of the resolver that asks it, UDP and TCP on one port of the loopback. It gives each
query to a function and sends the messages that this returns, in order; none is silence.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address
from struct import pack, unpack_from
from typing import Callable, NamedTuple

from mqlite.errors import MqliteError
from mqlite.loop.connect import Listener, ListenSocket
from mqlite.loop.reactor import READ, Reactor
from mqlite.loop.stream import Stream

HOST = '127.0.0.1'
TYPES = {'A': 1, 'NS': 2, 'CNAME': 5, 'SOA': 6, 'PTR': 12, 'MX': 15, 'TXT': 16, 'AAAA': 28, 'OPT': 41}
NXDOMAIN, SERVFAIL, REFUSED = 3, 2, 5


class Query(NamedTuple):
    """A query as the nameserver sees it."""

    id: int
    name: str
    type: str
    edns: bool
    tcp: bool
    peer: tuple[str, int]


def wire_name(name: str) -> bytes:
    return b''.join(bytes([len(label)]) + label.encode() for label in name.split('.') if label) + b'\0'


def record(name: str, kind: str, ttl: int, data: bytes, record_class: int = 1) -> bytes:
    return wire_name(name) + pack('>HHIH', TYPES[kind], record_class, ttl, len(data)) + data


def address(name: str, text: str, ttl: int = 300) -> bytes:
    data = ip_address(text).packed
    return record(name, 'A' if len(data) == 4 else 'AAAA', ttl, data)


def alias(name: str, target: str, ttl: int = 300) -> bytes:
    return record(name, 'CNAME', ttl, wire_name(target))


def mx(name: str, preference: int, host: str, ttl: int = 300) -> bytes:
    return record(name, 'MX', ttl, pack('>H', preference) + wire_name(host))


def soa(name: str, ttl: int, minimum: int) -> bytes:
    names = wire_name('ns.' + name) + wire_name('root.' + name)
    return record(name, 'SOA', ttl, names + pack('>5I', 1, 2, 3, 4, minimum))


def reply(query_id: int, name: str, kind: str, *answers: bytes, rcode: int = 0, authority: Iterable[bytes] = (),
          additional: Iterable[bytes] = (), truncated: bool = False, flags: int = 0x8180,
          question: bool = True) -> bytes:
    """A reply to one question; `flags` are those of a recursive server."""
    authority, additional = list(authority), list(additional)
    header = pack('>6H', query_id, flags | rcode | (0x0200 if truncated else 0), int(question), len(answers),
                  len(authority), len(additional))
    asked = wire_name(name) + pack('>HH', TYPES[kind], 1) if question else b''
    return header + asked + b''.join(answers) + b''.join(authority) + b''.join(additional)


def read_query(data: bytes, tcp: bool = False, peer: tuple[str, int] = ('', 0)) -> Query:
    """What a query asks; AssertionError unless it is exactly what a stub resolver should send."""
    query_id, flags, questions, answers, authority, additional = unpack_from('>6H', data)
    assert (flags, questions, answers, authority) == (0x0100, 1, 0, 0)
    labels, at = [], 12
    while data[at]:
        labels.append(data[at + 1:at + 1 + data[at]].decode())
        at += 1 + data[at]
    kind, query_class = unpack_from('>HH', data, at + 1)
    opt = data[at + 5:]
    assert query_class == 1
    assert opt == (b'\0\0\x29\x04\xd0\0\0\0\0\0\0' if additional else b''), 'an OPT record that offers 1232 octets'
    name_of = {number: name for name, number in TYPES.items()}
    return Query(query_id, '.'.join(labels), name_of[kind], bool(additional), tcp, peer)


class Nameserver:
    """A scripted nameserver; `address` is what goes into the resolver's configuration."""

    def __init__(self, reactor: Reactor, answer: Callable[[Query], list[bytes]]) -> None:
        self.queries: list[Query] = []
        self._reactor = reactor
        self._answer = answer
        self._streams: list[Stream] = []
        self._listener = Listener(reactor, ListenSocket(HOST, 0), self._accepted, print)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((HOST, self._listener.port))
        self._socket.setblocking(False)
        self.address = f'{HOST}:{self._listener.port}'
        self._listener.start()
        reactor.watch(self._socket.fileno(), READ, self._readable)

    def close(self) -> None:
        self._reactor.unwatch(self._socket.fileno())
        self._socket.close()
        self._listener.close()
        for stream in self._streams:
            stream.close()

    def _replies(self, query: Query) -> list[bytes]:
        self.queries.append(query)
        return self._answer(query)

    def _readable(self, _events: int) -> None:
        data, peer = self._socket.recvfrom(65535)
        for message in self._replies(read_query(data, False, peer)):
            self._socket.sendto(message, peer)

    def _accepted(self, stream: Stream) -> None:
        self._streams.append(stream)
        self._reactor.spawn(self._serve(stream))

    async def _serve(self, stream: Stream) -> None:
        """Every message goes out in two pieces, cut in the middle of its length."""
        data = b''
        try:
            while len(data) < 2 or len(data) < 2 + unpack_from('>H', data)[0]:
                await stream.wait_bytes()
                data += stream.take()
            for message in self._replies(read_query(data[2:], True, stream.peer)):
                framed = pack('>H', len(message)) + message
                stream.write(framed[:1])
                await stream.drain()
                stream.write(framed[1:])
                await stream.drain()
        except MqliteError:
            pass  # the resolver has closed first
        finally:
            stream.close()
