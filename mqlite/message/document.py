"""The JSON document of a message: written when mail is received, read when it is delivered. Pure.

    {"envelope": "sender@...", "recipient": "...", "mime": "...", ...}

Bytes and text: JSON has no bytes. A MIME that is UTF-8 travels as that text. Each byte that is not part of valid UTF-8
travels as a lone surrogate U+DC80..U+DCFF (Python's surrogateescape), which JSON can write (`\\udcff`) and which comes
back as the same byte. So every message survives the queue byte for byte; other programs see a character that stands
for "not UTF-8" there.

A property that has the wrong form raises DocumentError with a text for whoever published the document. Properties
that this file does not know are kept and handed through to the results. So whatever `decode` lets in, `encode` must be
able to write: numbers that JSON has no form for, and deep nesting, are refused when they come. Of a name that an object
has twice the last one counts.
"""

from __future__ import annotations

import json
import math
import re
from codecs import getincrementaldecoder
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mqlite.errors import PermanentError
from mqlite.message.identifier import parse_moment
from mqlite.smtp import dsn
from mqlite.smtp.envelope import plain_domain
from mqlite.smtp.framing import normalise
from mqlite.smtp.grammar import SyntaxFault, check_address, split_address
from mqlite.smtp.sasl_client import Login

DEPTH_LIMIT = 100  # objects and arrays within each other
QUEUE_NAME_LIMIT = 255  # octets, AMQP's short string
PIECE = 1 << 20  # bytes of a message that are converted at a time; smaller messages as a whole

_LARGEST_NUMBER = 2 ** 31  # seconds, attempts: larger ones are a mistake
_DIGITS = re.compile(r'[0-9]{1,11}')
_QUEUE_NAME = re.compile(r'[^\x00-\x1f\x7f\ud800-\udfff]+')


#: How a connection can be protected; a delivery never falls short of the last two.
SECURITY = ('optional', 'opportunistic', 'required', 'verified')


class DocumentError(PermanentError):
    """The publisher's fault: this document cannot be delivered."""


class NoMime(DocumentError):
    """There is no message in it."""


@dataclass(frozen=True)
class Smarthost:
    """The server that a message asks to be sent through."""

    hostname: str
    port: int
    login: Login | None = None


@dataclass
class Received:
    """A message that came in, for one recipient, before it is a document."""

    fields: dict[str, Any]  # the properties but for the MIME
    mime: bytes
    local: bool = False  # goes to the local queue
    trace: bytes = b''  # our Received field, which comes before the MIME


class LargeBody:
    """The document of a large message, made piece by piece: as a whole, the message would be held twice and more."""

    def __init__(self, head: bytes, mime: tuple[bytes, ...]) -> None:
        self._head = head
        self._mime = mime

    def __iter__(self) -> Iterator[bytes]:
        decoder = getincrementaldecoder('utf-8')('surrogateescape')
        yield self._head + b'"'
        for part in self._mime:
            with memoryview(part) as view:
                for at in range(0, len(view), PIECE):
                    yield _to_bytes(decoder.decode(view[at:at + PIECE]))[1:-1]
        yield _to_bytes(decoder.decode(b'', final=True))[1:-1] + b'"}'


def encode_each(messages: Iterable[Received]) -> list[bytes | LargeBody]:
    """Their documents. A MIME that follows itself, as with several recipients, is converted once."""
    bodies: list[bytes | LargeBody] = []
    converted, text = None, b''
    for message in messages:
        head = json.dumps(message.fields)[:-1].encode('ascii') + b', "mime": '
        if len(message.mime) > PIECE:
            bodies.append(LargeBody(head, (message.trace, message.mime)))
            continue
        if message.mime is not converted:
            converted = message.mime
            text = _to_bytes((message.trace + converted).decode('utf-8', 'surrogateescape'))
        bodies.append(b'%b%b}' % (head, text))
    return bodies


def _to_bytes(value: object) -> bytes:
    """As JSON. Text is UTF-8, which is half the size of escapes; only lone surrogates have to be escaped."""
    return _ENCODER.encode(value).encode('utf-8', 'backslashreplace')


class Document:
    """A document that was read from a queue."""

    def __init__(self, fields: dict[str, Any], loose: Collection[str] = ()) -> None:
        """`loose`: which of `envelope` and `recipient` need not be as RFC 5321 wants addresses."""
        self.fields = fields
        self._loose = loose

    @classmethod
    def decode(cls, body: bytes, loose: Collection[str] = ()) -> Document:
        """DocumentError when it is not a JSON object, or one that is nested too deeply."""
        try:
            fields = _DECODER.decode(body.decode('utf-8', 'surrogateescape'))
        except (ValueError, RecursionError) as error:
            raise DocumentError(f'not valid JSON: {error}') from None
        if not isinstance(fields, dict):
            raise DocumentError('not a JSON object')
        if _is_deep(fields):
            raise DocumentError(f'more than {DEPTH_LIMIT} objects and arrays within each other')
        return cls(fields, loose)

    def encode(self) -> bytes:
        return _to_bytes(self.fields)

    @property
    def envelope(self) -> str:
        """The sender's address, '' for the null sender."""
        value = self.fields.get('envelope')
        return '' if value is None or value == '' else self._address('envelope')

    @property
    def recipient(self) -> str:
        return self._address('recipient')

    def _address(self, name: str) -> str:
        value = self.fields.get(name)
        if not isinstance(value, str) or not value:
            raise DocumentError(f'"{name}" is missing')
        try:
            check_address(value, name in self._loose)
        except SyntaxFault as fault:
            raise DocumentError(f'"{name}": {fault}') from None
        return value

    @property
    def domain(self) -> str:
        """The recipient's domain, in lower case and in A-labels."""
        return plain_domain(split_address(self.recipient)[1])

    @property
    def utf8(self) -> bool:
        """The header of the message is UTF-8, and whoever sent it knew: a server must have SMTPUTF8 to take it."""
        return bool(self.fields.get('smtputf8'))

    @property
    def security(self) -> str:
        """How the connection must be protected, a word of SECURITY."""
        if self.requires_tls:
            return 'verified'
        value = self.fields.get('security')
        if value is None or value == '':
            return 'opportunistic'
        if value not in SECURITY:
            raise DocumentError(f'"security" must be one of {", ".join(SECURITY)}')
        return str(value)

    @property
    def requires_tls(self) -> bool:
        """Every server on its way must take it over verified TLS, and demand the same of the next one (RFC 8689)."""
        return bool(self.fields.get('requiretls'))

    def take_mime(self) -> bytes:
        """Take the message out of the document: CRLF line ends, the last line ended. DocumentError if there is none."""
        value = self.fields.pop('mime', None)
        if isinstance(value, dict):
            raise DocumentError('"mime" is an object')
        if value is None or value == '':
            raise NoMime('"mime" is missing')
        if not isinstance(value, str):
            raise DocumentError('"mime" must be a string')
        try:
            return normalise(value.encode('utf-8', 'surrogateescape'))
        except UnicodeEncodeError:
            raise DocumentError('"mime" has characters that are not Unicode text (lone surrogates)') from None

    @property
    def not_before(self) -> float:
        """When the next attempt may be made, seconds since 1970; 0 for at once."""
        value = self.fields.get('nextattempt')
        if value is None:
            return 0.0
        if not isinstance(value, dict):
            raise DocumentError('"nextattempt" must be an object with a "time"')
        return 0.0 if value.get('time') is None else _moment(value['time'], 'nextattempt.time')

    @property
    def deadline(self) -> float | None:
        """`maxdelivertime`, seconds since 1970."""
        value = self.fields.get('maxdelivertime')
        return None if value is None else _moment(value, 'maxdelivertime')

    @property
    def max_attempts(self) -> int | None:
        value = self.fields.get('maxattempts')
        return None if value is None else _number(value, 'maxattempts')

    @property
    def retries(self) -> list[int] | None:
        """Seconds between attempts."""
        value = self.fields.get('retries')
        if value is None:
            return None
        if isinstance(value, list) and value:
            return [_number(item, 'retries') for item in value]
        raise DocumentError('"retries" must be an array of seconds')

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """The results of the attempts so far, oldest first."""
        value = self.fields.get('results')
        if value is None:
            return []
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            return value
        raise DocumentError('"results" must be an array of objects')

    @property
    def first_attempt(self) -> float | None:
        """When the first attempt ended, seconds since 1970."""
        return _moment(self.attempts[0].get('time'), 'results[0].time') if self.attempts else None

    @property
    def smarthost(self) -> Smarthost | None:
        value = self.fields.get('smarthost')
        if value is None:
            return None
        if not isinstance(value, dict) or not isinstance(value.get('hostname'), str) or not value['hostname']:
            raise DocumentError('"smarthost" must be an object with a "hostname"')
        port = _number(value.get('port') or 25, 'smarthost.port')
        if not 0 < port < 65536:
            raise DocumentError('"smarthost.port" must be from 1 to 65535')
        name, password = (_said(value.get(key), f'smarthost.{key}') for key in ('username', 'password'))
        return Smarthost(value['hostname'], port, Login(name, password) if name else None)

    @property
    def ips(self) -> list[str] | None:
        """Local addresses to send from. What is not an array counts as left out, as in MailerQ."""
        value = self.fields.get('ips')
        if not isinstance(value, list):
            return None
        if all(isinstance(item, str) for item in value):
            return value
        raise DocumentError('"ips" must be an array of addresses')

    @property
    def tags(self) -> list[str]:
        """Labels; what is not an array of them counts as left out."""
        tags = self.fields.get('tags')
        return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []

    @property
    def received_on(self) -> str:
        """The address of ours that it came in on; '' when it did not come over SMTP."""
        connection = self.fields.get('connection')
        address = connection.get('local-ip') if isinstance(connection, dict) else None
        return address if isinstance(address, str) else ''

    @property
    def pool(self) -> str:
        """Name of the group of local addresses to send from; '' for none."""
        value = self.fields.get('pool')
        if value is None or isinstance(value, str):
            return value or ''
        raise DocumentError('"pool" must be a string')

    @property
    def priority(self) -> int:
        value = self.fields.get('priority')
        return 0 if value is None else min(_number(value, 'priority'), 255)

    def notices(self, defaults: dsn.Request) -> dsn.Request:
        """The property `dsn`, with the settings where it says nothing: which notices the sender wants."""
        value = self.fields.get('dsn')
        if value is None:
            return defaults
        if not isinstance(value, dict):
            raise DocumentError('"dsn" must be an object')
        notify, ret, envid, orcpt = (value.get(name) for name in ('notify', 'ret', 'envid', 'orcpt'))
        if isinstance(notify, list) and all(isinstance(event, str) for event in notify):
            notify = ','.join(notify)
        try:
            return dsn.make_request(_said(notify, 'dsn.notify') or ','.join(defaults.notify),
                                    _said(ret, 'dsn.ret') or defaults.ret, _said(envid, 'dsn.envid'),
                                    _said(orcpt, 'dsn.orcpt'))
        except SyntaxFault as fault:
            raise DocumentError(f'"dsn": {fault}') from None

    def queue(self, kind: str, default: str) -> str:
        """The queue for results, success, failure or retry: the document's own name, '' for none, or the default.

        Never raises: also a document with mistakes must have a place where it is reported.
        """
        queues = self.fields.get('queues')
        if not isinstance(queues, dict) or kind not in queues:
            return default
        name = queues[kind]
        if name is None or name == '':
            return ''
        valid = isinstance(name, str) and _QUEUE_NAME.fullmatch(name) and len(name.encode()) <= QUEUE_NAME_LIMIT
        return name if valid else default


def due_time(body: bytes) -> float:
    """The `nextattempt` of a document, seconds since 1970; 0 for at once, and for what is no valid document."""
    if b'"nextattempt"' not in body:
        return 0.0
    try:
        return Document.decode(body).not_before
    except DocumentError:
        return 0.0


def _said(value: object, name: str) -> str:
    """A string in a property, '' when it is not there; programs number their envelopes."""
    if value is None:
        return ''
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return str(value)
    raise DocumentError(f'"{name}" must be a string')


def _moment(value: object, name: str) -> float:
    try:
        return parse_moment(value)
    except ValueError as error:
        raise DocumentError(f'"{name}": {error}') from None


def _number(value: object, name: str) -> int:
    """A whole number from 0; numbers in quotes are common in documents written by scripts."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LARGEST_NUMBER:
        raise DocumentError(f'"{name}" must be a whole number')
    return value


def _refuse_constant(name: str) -> object:
    raise ValueError(f'{name} is not JSON')


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError('a number is too large')
    return number


_ENCODER = json.JSONEncoder(ensure_ascii=False)
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def _is_deep(fields: dict[str, Any]) -> bool:
    """Whether more than DEPTH_LIMIT objects and arrays stand within each other; level by level, without recursion."""
    level: list[Any] = [fields]
    for _ in range(DEPTH_LIMIT):
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)
                 if isinstance(inner, (dict, list))]
        if not level:
            return False
    return True
