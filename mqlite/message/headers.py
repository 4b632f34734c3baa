"""The header of a message: adding Received, taking the x-mq-* headers out. Pure.

`x-mq-*` headers are instructions of whoever submits a message; each becomes a property of its JSON (MESSAGES: the table
below). They are always taken out, and obeyed only for clients that may relay: a stranger's would choose queues and
servers for us. Names are compared without case; a folded value is unfolded; CR, LF and NUL cannot come through.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from mqlite.message.addresses import read_addresses

_X_MQ = re.compile(rb'^x-mq-', re.IGNORECASE | re.MULTILINE)
_STARTS = {name: re.compile(rb'^%s[ \t]*:' % name.encode('ascii'), re.IGNORECASE | re.MULTILINE)
           for name in ('to', 'cc', 'bcc', 'from', 'sender', 'return-path', 'x-mq-envelope')}
_FIELD_END = re.compile(rb'\r\n(?![ \t])')  # searched for: one pattern for a whole field takes a minute for 64 MiB
_FIELD = re.compile(rb'([!-9;-~]+)[ \t]*:(.*)', re.DOTALL)
_NUMBER = re.compile('[0-9]{1,11}')

#   header x-mq-...           property path                 kind
_PROPERTIES = {
    'envelope':             (('envelope',),                'text'),
    'ip':                   (('ips',),                     'list'),
    'pool':                 (('pool',),                    'text'),
    'tag':                  (('tags',),                    'list'),
    'delayed':              (('nextattempt', 'time'),      'text'),
    'maxdelivertime':       (('maxdelivertime',),          'text'),
    'maxattempts':          (('maxattempts',),             'number'),
    'retries':              (('retries',),                 'numbers'),
    'inlinecss':            (('inlinecss',),               'flag'),
    'keepmime':             (('keepmime',),                'flag'),
    'results-queue':        (('queues', 'results'),        'text'),
    'failure-queue':        (('queues', 'failure'),        'text'),
    'success-queue':        (('queues', 'success'),        'text'),
    'retry-queue':          (('queues', 'retry'),          'text'),
    'smarthost-hostname':   (('smarthost', 'hostname'),    'text'),
    'smarthost-port':       (('smarthost', 'port'),        'number'),
    'smarthost-username':   (('smarthost', 'username'),    'text'),
    'smarthost-password':   (('smarthost', 'password'),    'text'),
    'dsn-notify':           (('dsn', 'notify'),            'text'),
    'dsn-ret':              (('dsn', 'ret'),               'text'),
    'dsn-orcpt':            (('dsn', 'orcpt'),             'text'),
    'dsn-envid':            (('dsn', 'envid'),             'text'),
}
_QUEUES = ('results', 'failure', 'success', 'retry')

#: What no custom header can be: what we say about a message ourselves, and properties that are no plain text.
_RESERVED = frozenset([
    'recipient', 'mime', 'results', 'connection', 'spool', 'cli', 'http', 'received', 'hostname', 'message-id',
    'checks', 'extracted', *(path[0] for path, kind in _PROPERTIES.values() if len(path) > 1 or kind == 'list')])


def header_end(mime: bytes) -> int:
    """Where the header ends: behind the CRLF of its last line. The whole length when there is no body."""
    if mime[:2] == b'\r\n':
        return 0
    end = mime.find(b'\r\n\r\n')
    return len(mime) if end < 0 else end + 2


def has_passed(mime: bytes, end: int, servers: int) -> bool:
    """Whether more servers than that have put their Received line into the header, which ends there."""
    if mime.count(b'\n', 0, end) < servers:
        return False  # most messages: so few lines
    return (b'\n' + mime[:end].lower()).count(b'\nreceived:') > servers


def extract(mime: bytes) -> tuple[bytes, dict[str, Any]]:
    """The message without its x-mq-* headers, and the properties that they ask for.

    One of the four queue headers present turns the configured defaults of the other three off (null). A value that is
    not of its kind stays text: the delivery says what is wrong with it, to whoever reads the results.
    """
    end = header_end(mime)
    header = mime[:end]
    if b'x-mq-' not in header.lower():
        return mime, {}
    properties: dict[str, Any] = {}
    header, fields = _take_fields(header, _X_MQ)
    for field in fields:
        match = _FIELD.fullmatch(field)
        if match is not None:
            _store(properties, match.group(1).decode('ascii').lower(), _unfolded(match.group(2)))
    if 'queues' in properties:
        properties['queues'] = {**dict.fromkeys(_QUEUES), **properties['queues']}
    return header + mime[end:], properties


def _take_fields(header: bytes, start: re.Pattern[bytes]) -> tuple[bytes, list[bytes]]:
    """The header without the fields that begin like this, and what follows the beginning in each of them."""
    kept, taken, at = [], [], 0
    for match in start.finditer(header):
        field_end = _FIELD_END.search(header, match.end())
        stop = field_end.end() if field_end else len(header)
        kept.append(header[at:match.start()])
        taken.append(header[match.end():stop])
        at = stop
    kept.append(header[at:])
    return b''.join(kept), taken


def _unfolded(value: bytes) -> str:
    """The text of a field on one line (RFC 5322 2.2.3), its tabs as spaces."""
    for octets, instead in ((b'\r\n', b''), (b'\t', b' '), (b'\0', b'')):
        value = value.replace(octets, instead)
    return value.decode('utf-8', 'replace').strip(' ')


def _store(properties: dict[str, Any], name: str, value: str) -> None:
    if name in _RESERVED and name not in _PROPERTIES:
        return
    path, kind = _PROPERTIES.get(name, ((name,), 'text'))
    if kind == 'list':
        properties.setdefault(path[0], []).append(value)
        return
    place = properties
    for step in path[:-1]:
        place = place.setdefault(step, {})
    place[path[-1]] = _convert(value, kind)


def _convert(value: str, kind: str) -> object:
    if kind == 'flag':
        return value.lower() not in ('0', 'false', 'no', 'off')
    if kind == 'number' and _NUMBER.fullmatch(value):
        return int(value)
    if kind == 'numbers':
        words = value.replace(',', ' ').split()
        if words and all(_NUMBER.fullmatch(word) for word in words):
            return [int(word) for word in words]
    return value


def recipients_of(mime: bytes) -> list[str]:
    """The addresses in To, Cc and Bcc, each once, in their order."""
    return addresses_in(mime, 'to', 'cc', 'bcc')


def sender_of(mime: bytes) -> str:
    """The first address in From; '' when there is none."""
    return next(iter(addresses_in(mime, 'from')), '')


def addresses_in(mime: bytes, *names: str) -> list[str]:
    """The addresses in the fields of these names, each once, in the order of the names."""
    fields = [value for name in names for value in _values(mime, name)]
    return list(dict.fromkeys(address for _name, address in read_addresses(fields) if address))


def has_null_path(mime: bytes) -> bool:
    """Whether the first Return-Path is `<>`, which a notification has (RFC 5321 4.4)."""
    return _values(mime, 'return-path')[:1] == ['<>']


def _values(mime: bytes, name: str) -> list[str]:
    """The fields of this name, unfolded."""
    return [_unfolded(value) for value in _take_fields(mime[:header_end(mime)], _STARTS[name])[1]]


def without_bcc(mime: bytes) -> bytes:
    """The message without its Bcc headers."""
    end = header_end(mime)
    return _take_fields(mime[:end], _STARTS['bcc'])[0] + mime[end:]


class Trace(NamedTuple):
    """Who handed the message to us, for the Received line. Without `client`: a program on this host."""

    helo: str
    client: str
    protocol: str
    cipher: tuple[str, str, int] | None = None  # its name, the version of TLS, secret bits


def received_header(trace: Trace, hostname: str, identifier: str, recipient: str, date: str) -> bytes:
    """A trace line (RFC 5321 4.4). `recipient` is empty when there are several: they need not know of each other."""
    origin = ''
    if trace.client:
        literal = f'IPv6:{trace.client}' if ':' in trace.client else trace.client
        origin = f'from {trace.helo} ([{literal}])\r\n\t'
    tls = f' ({trace.cipher[1]} {trace.cipher[0]})' if trace.cipher else ''
    whom = f'\r\n\tfor <{recipient}>' if recipient else ''
    # of a transaction with SMTPUTF8 the address may be other than ASCII (RFC 6531 section 3.7.3)
    return (f'Received: {origin}by {hostname} (mqlite) with {trace.protocol}{tls} id {identifier}'
            f'{whom};\r\n\t{date}\r\n').encode()
