"""The header of a message: adding Received, taking the x-mq-* headers out. Pure.

`x-mq-*` headers are instructions of whoever submits a message; each becomes a property of its JSON (MESSAGES: the table
below). They are always taken out, and obeyed only for clients that may relay: a stranger's would choose queues and
servers for us. Names are compared without case; a folded value is unfolded; CR, LF and NUL cannot come through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from email.policy import compat32
from email.utils import getaddresses
from typing import Any

_X_MQ = re.compile(rb'^x-mq-([!-9;-~]*)[ \t]*:((?:[^\r\n]|\r\n[ \t])*)(?:\r\n|\Z)', re.IGNORECASE | re.MULTILINE)
_BCC = re.compile(rb'^bcc[ \t]*:(?:[^\r\n]|\r\n[ \t])*(?:\r\n|\Z)', re.IGNORECASE | re.MULTILINE)
_FOLD = re.compile(rb'\r\n[ \t]+')

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
_RESERVED = ('recipient', 'mime', 'results', 'connection', 'spool', 'cli', 'http', 'received', 'hostname', 'message-id')


def header_end(mime: bytes) -> int:
    """Where the header ends: behind the CRLF of its last line. The whole length when there is no body."""
    if mime[:2] == b'\r\n':
        return 0
    end = mime.find(b'\r\n\r\n')
    return len(mime) if end < 0 else end + 2


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
    for match in _X_MQ.finditer(header):
        name = match.group(1).decode('ascii').lower()
        value = _FOLD.sub(b' ', match.group(2)).strip().replace(b'\0', b'').decode('utf-8', 'replace')
        _store(properties, name, value)
    if 'queues' in properties:
        properties['queues'] = {**dict.fromkeys(_QUEUES), **properties['queues']}
    return _X_MQ.sub(b'', header) + mime[end:], properties


def _store(properties: dict[str, Any], name: str, value: str) -> None:
    if name in _RESERVED or not name:
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
    if kind == 'number' and value.isdigit():
        return int(value)
    if kind == 'numbers':
        words = value.replace(',', ' ').split()
        if words and all(word.isdigit() for word in words):
            return [int(word) for word in words]
    return value


def recipients_of(mime: bytes) -> list[str]:
    """The addresses in To, Cc and Bcc, each once, in their order."""
    header = BytesHeaderParser(policy=compat32).parsebytes(mime[:header_end(mime)])
    fields = [str(value) for name in ('to', 'cc', 'bcc') for value in header.get_all(name, [])]
    return list(dict.fromkeys(address for _name, address in getaddresses(fields) if address))


def without_bcc(mime: bytes) -> bytes:
    """The message without its Bcc headers."""
    end = header_end(mime)
    return _BCC.sub(b'', mime[:end]) + mime[end:]


@dataclass(frozen=True)
class Trace:
    """Who handed the message to us, for the Received line. Without `client`: a program on this host."""

    helo: str
    client: str
    protocol: str


def received_header(trace: Trace, hostname: str, identifier: str, recipient: str, date: str) -> bytes:
    """A trace line (RFC 5321 4.4). `recipient` is empty when there are several: they need not know of each other."""
    origin = ''
    if trace.client:
        literal = f'IPv6:{trace.client}' if ':' in trace.client else trace.client
        origin = f'from {trace.helo} ([{literal}])\r\n\t'
    whom = f'\r\n\tfor <{recipient}>' if recipient else ''
    return (f'Received: {origin}by {hostname} (mqlite) with {trace.protocol} id {identifier}{whom};'
            f'\r\n\t{date}\r\n').encode('ascii')
