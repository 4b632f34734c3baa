"""A message from the property `mime` as an object. Pure.

    {"from": {"name": "Jo", "address": "jo@example.org"}, "to": [...], "subject": "...", "text": "...", "html": "...",
     "headers": {"x-a": "b"}, "attachments": [{"data": "base64...", "name": "a.pdf", "type": "application/pdf"}]}

    text, html           multipart/alternative, or the one that there is; `content` is another name for `html`
    and attachments      multipart/mixed, the text first
    date, message id     made from the moment and from the contents, unless `headers` has them

Not done, and refused: `content` as an object (MailerQ's responsive mail), attachments by URL, a DKIM key inside.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import re
from datetime import datetime, timezone
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

from mqlite.errors import PermanentError
from mqlite.message.fields import format_address, make_field
from mqlite.message.transfer import encode_base64, encode_shorter, fits_seven_bit

#   property    field        several addresses
_ADDRESSES = (
    ('from',    'From',      False),
    ('replyTo', 'Reply-To',  False),
    ('to',      'To',        True),
    ('cc',      'Cc',        True),
)
_TYPE = re.compile(r'[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(?:; *[A-Za-z0-9-]+=[A-Za-z0-9._-]+)*')
_WHOLE_MESSAGES = ('multipart/', 'message/')  # types that must not be base64 (RFC 2046 5.2.1), so only a file can be
_CONTROLS = re.compile(r'[\x00-\x1f\x7f]+')


class BuildError(PermanentError):
    """No message can be made of this object."""


def build_message(parts: dict[str, Any], now: float, domain: str) -> bytes:
    """The message. BuildError, FieldError. `now`: seconds since 1970. `domain`: of the message id."""
    _refuse(parts)
    header = [make_field(name, ', '.join(_addresses(parts.get(key), key, several)))
              for key, name, several in _ADDRESSES if parts.get(key)]
    if parts.get('subject') is not None:
        header.append(make_field('Subject', _text(parts, 'subject')))
    own = _own_fields(parts.get('headers'))
    names = {name.lower() for name, _ in own}
    seed = hashlib.sha256(json.dumps([parts, now // 1], sort_keys=True).encode()).hexdigest()
    if 'date' not in names:
        header.append(make_field('Date', format_datetime(datetime.fromtimestamp(int(now), timezone.utc))))
    if 'message-id' not in names:
        header.append(make_field('Message-ID', f'<{seed[:32]}@{domain}>'))
    header += [make_field(name, value) for name, value in own]
    return b''.join(header) + b'MIME-Version: 1.0\r\n' + _body(parts, seed)


def _refuse(parts: dict[str, Any]) -> None:
    if isinstance(parts.get('content'), (dict, list)):
        raise BuildError('"mime.content" must be HTML as a text: responsive mail made of blocks is not supported')
    if parts.get('dkim'):
        raise BuildError('"dkim" belongs beside "mime", not inside')


def _text(parts: dict[str, Any], name: str) -> str:
    value = parts.get(name)
    if value is None:
        return ''
    if not isinstance(value, str):
        raise BuildError(f'"mime.{name}" must be a text')
    return value


def _addresses(value: object, name: str, several: bool) -> list[str]:
    """As they stand in the field."""
    items = value if isinstance(value, list) else [value]
    if len(items) > 1 and not several:
        raise BuildError(f'"mime.{name}" must be one address')
    return [_address(item, name) for item in items]


def _address(item: object, name: str) -> str:
    """A text is taken as it is: it may be a list, with names, as in a message."""
    if isinstance(item, str):
        return item
    if isinstance(item, dict):
        address, words = item.get('address'), item.get('name') or ''
        if isinstance(address, str) and isinstance(words, str) and address and not _has_space(address):
            return format_address(words, address)
    raise BuildError(f'"mime.{name}" must be an address, or an object with "name" and "address"')


def _has_space(address: str) -> bool:
    return any(c.isspace() or c in '<>,;' for c in address)


def _own_fields(value: object) -> list[tuple[str, str]]:
    """The property `headers`: names with a value, or several in an array."""
    if value is None:
        return []
    if not isinstance(value, dict):
        raise BuildError('"mime.headers" must be an object of names and values')
    found = [(name, text) for name, item in value.items() for text in (item if isinstance(item, list) else [item])]
    for name, text in found:
        if isinstance(text, bool) or not isinstance(text, (str, int, float)):
            raise BuildError(f'"mime.headers": the value of {name[:100]!r} must be a text')
    return [(name, str(text)) for name, text in found]


def _body(parts: dict[str, Any], seed: str) -> bytes:
    """Content fields, an empty line, and the content."""
    texts = [_text_part(kind, text) for kind, text in (
        ('plain', _text(parts, 'text')), ('html', _text(parts, 'html') or _text(parts, 'content'))) if text]
    body = texts[0] if len(texts) == 1 else _multipart('alternative', seed, texts) if texts else _text_part('plain', '')
    attachments = parts.get('attachments')
    if not attachments:
        return body
    if not isinstance(attachments, list):
        raise BuildError('"mime.attachments" must be an array')
    return _multipart('mixed', seed, [body, *map(_attachment, attachments)])


def _multipart(kind: str, seed: str, parts: list[bytes]) -> bytes:
    """Neither quoted-printable nor base64 can have `=_` in it, and text that has the seed cannot have made it."""
    boundary = f'=_{kind[0]}{seed[32:]}'
    delimiter = f'\r\n--{boundary}'.encode('ascii')
    return (f'Content-Type: multipart/{kind};\r\n\tboundary="{boundary}"\r\n'.encode('ascii')
            + b''.join(delimiter + b'\r\n' + part for part in parts) + delimiter + b'--')


def _text_part(kind: str, text: str) -> bytes:
    text = text.replace('\r\n', '\n').replace('\r', '\n').replace('\n', '\r\n')
    octets = text.encode('utf-8', 'surrogateescape')
    encoding, body = ('7bit', octets) if fits_seven_bit(octets) else encode_shorter(octets)
    charset = 'us-ascii' if octets.isascii() else 'utf-8'
    return (f'Content-Type: text/{kind}; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'
            .encode('ascii') + body)


def _attachment(item: object) -> bytes:
    if not isinstance(item, dict):
        raise BuildError('"mime.attachments" must be an array of objects')
    if item.get('url') and not item.get('data'):
        raise BuildError('"mime.attachments": only attachments with "data" are supported, nothing is downloaded')
    data, kind, name = item.get('data'), item.get('type') or 'application/octet-stream', item.get('name') or ''
    if not isinstance(data, str) or not isinstance(kind, str) or not isinstance(name, str):
        raise BuildError('"mime.attachments": "data" (base64), "name" and "type" must be texts')
    try:
        octets = binascii.a2b_base64(re.sub(r'\s', '', data).encode('ascii'))
    except (binascii.Error, UnicodeEncodeError) as error:
        raise BuildError(f'"mime.attachments": "data" is not base64: {error}') from None
    if not _TYPE.fullmatch(kind):
        raise BuildError(f'"mime.attachments": {kind[:100]!r} is no type')
    if kind.lower().startswith(_WHOLE_MESSAGES):
        kind = 'application/octet-stream'
    return (f'Content-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n'.encode('ascii')
            + make_field('Content-Disposition', f'attachment{_filename(name)}') + b'\r\n' + encode_base64(octets))


def _filename(name: str) -> str:
    """As a parameter (RFC 2231 where it is not ASCII), without what would be a path or a control character."""
    name = _CONTROLS.sub('', name.replace('\\', '/').rsplit('/', 1)[-1])[:200]
    if not name:
        return ''
    if name.isascii():
        escaped = name.replace('"', '\\"')
        return f'; filename="{escaped}"'
    return f"; filename*=utf-8''{quote(name, safe='')}"
