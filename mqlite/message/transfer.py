"""Transfer encodings and character sets of a part: its body as octets or as text, and back (RFC 2045 section 6). Pure.

Text is line by line with LF between, as programs have it, and goes back with CRLF.
"""

from __future__ import annotations

import binascii
import codecs
import re

from mqlite.errors import PermanentError
from mqlite.message.fields import LINE_LIMIT, fold
from mqlite.message.mime import Entity, field_name, split_fields

_CHARSET = re.compile(rb';\s*charset\s*=\s*(?:"[^"]*"|[^;\s]*)', re.IGNORECASE)
_IDENTITY = ('', '7bit', '8bit', 'binary')


class TransferError(PermanentError):
    """The part is not what its header says it is."""


def fits_seven_bit(octets: bytes) -> bool:
    """Whether this can be sent as `7bit`: ASCII, and no line that is too long."""
    return octets.isascii() and b'\0' not in octets and not _has_long_line(octets)


def _has_long_line(octets: bytes) -> bool:
    return len(octets) > LINE_LIMIT and max(map(len, octets.split(b'\r\n'))) > LINE_LIMIT


def decoded(entity: Entity) -> bytes:
    """The body of a leaf without its transfer encoding. TransferError for one that nobody knows."""
    encoding = entity.contents.encoding
    if encoding == 'base64':
        try:
            return binascii.a2b_base64(entity.body)
        except binascii.Error as error:
            raise TransferError(f'a part is not base64: {error}') from None
    if encoding == 'quoted-printable':
        return binascii.a2b_qp(entity.body)
    if encoding in _IDENTITY:
        return entity.body
    raise TransferError(f'a part has the transfer encoding {encoding[:40]!r}')


def encode_base64(octets: bytes) -> bytes:
    """Lines of 76 characters; the last one has no line end."""
    text = binascii.b2a_base64(octets, newline=False)
    return b'\r\n'.join(text[at:at + 76] for at in range(0, len(text), 76))


def encode_printable(octets: bytes) -> bytes:
    """Quoted-printable for text with CRLF line ends."""
    return b'\r\n'.join(binascii.b2a_qp(line).replace(b'=\n', b'=\r\n') for line in octets.split(b'\r\n'))


def encode_shorter(octets: bytes) -> tuple[str, bytes]:
    """Encoding and body in 7 bits, for text with CRLF line ends: whichever encoding is shorter."""
    if len(octets) < 6 * (len(octets) - len(octets.translate(None, _EIGHT_BIT))):
        return 'base64', encode_base64(octets)
    return 'quoted-printable', encode_printable(octets)


_EIGHT_BIT = bytes(range(128, 256))


def set_octets(entity: Entity, encoding: str, body: bytes) -> None:
    """Give a leaf this body, which has that transfer encoding."""
    entity.body = body
    entity.set_field('content-transfer-encoding', f'Content-Transfer-Encoding: {encoding}\r\n'.encode('ascii'))


def text_of(entity: Entity) -> str:
    """The text of a leaf. TransferError when it has other characters than its character set."""
    charset = entity.contents.charset or 'utf-8'  # without one it is ASCII, which is UTF-8
    try:
        text = decoded(entity).decode(_known(charset))
    except (ValueError, LookupError):
        raise TransferError(f'a part is not text in {charset[:40]!r}') from None
    return text.replace('\r\n', '\n')


def set_text(entity: Entity, text: str) -> None:
    """Give a leaf this text: in its own character set and transfer encoding as far as they can take it."""
    text = text.replace('\r\n', '\n').replace('\r', '\n').replace('\n', '\r\n')
    contents = entity.contents
    try:
        octets = text.encode(_known(contents.charset or 'ascii'))
    except (ValueError, LookupError):
        octets = text.encode('utf-8', 'surrogateescape')
        _set_charset(entity)
    if contents.encoding == 'base64':
        entity.body = encode_base64(octets)
    elif contents.encoding == 'quoted-printable':
        entity.body = encode_printable(octets)
    elif fits_seven_bit(octets) or contents.encoding in ('8bit', 'binary') and not _has_long_line(octets):
        entity.body = octets
    else:
        set_octets(entity, *encode_shorter(octets))


def _known(charset: str) -> str:
    """A character set; Python has other codecs that are no such thing. LookupError."""
    if not getattr(codecs.lookup(charset), '_is_text_encoding', True):
        raise LookupError(charset)
    return charset


def _set_charset(entity: Entity) -> None:
    """Say that the part is UTF-8."""
    for field in split_fields(entity.header):
        if field_name(field) == 'content-type':
            value = _CHARSET.sub(b'', field.partition(b':')[2].replace(b'\r\n', b'')).strip()
            text = value.decode('latin-1').rstrip(';') + '; charset=utf-8'
            entity.set_field('content-type', fold('Content-Type', text).encode('latin-1'))
            return
    entity.set_field('content-type', b'Content-Type: text/plain; charset=utf-8\r\n')
