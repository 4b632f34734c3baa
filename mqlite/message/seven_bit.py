"""A message for servers without 8BITMIME: what is in it in seven bits, in lines of 998 octets (RFC 6152 3). Pure.

    a text or file with 8-bit octets or long lines    quoted-printable or base64, whichever is shorter
    a multipart, a message within                     its parts, one by one; it says 7bit then
    fields of a header with 8-bit octets              encoded words

What fits already stays octet by octet. Three things stay as they are although they do not fit, as most programs send
them: what is in multipart/signed or multipart/encrypted, which a change would break (RFC 1847 section 2); a part that
says it is base64 or quoted-printable and is not; and a multipart without its delimiters. Signatures over the whole
message (DKIM of others) do not survive the change; ours are made after it.
"""

from __future__ import annotations

import re

from mqlite.message.fields import FieldError, encoded, make_field
from mqlite.message.mime import Entity, field_name, split_fields
from mqlite.message.transfer import encode_shorter, fits_seven_bit, set_octets
from mqlite.smtp.framing import ended

_UNTOUCHED = ('multipart/signed', 'multipart/encrypted')
_COMPOSITE = ('multipart/', 'message/')  # must not be encoded as a whole (RFC 2045 section 6.4)
_ENCODED = ('base64', 'quoted-printable')
_QUOTED = re.compile('"[^"]*"')


def to_seven_bit(mime: bytes) -> bytes:
    """The message (CRLF line ends) in seven bits, as far as that can be."""
    if fits_seven_bit(mime):
        return mime
    whole = Entity(mime)
    _convert(whole)
    if not whole.is_leaf or whole.contents.encoding not in ('', '7bit', '8bit', 'binary'):
        whole.set_field('mime-version', b'MIME-Version: 1.0\r\n')
    return ended(whole.octets())


def _convert(entity: Entity) -> None:
    if not entity.header.isascii():
        entity.header = b''.join(field if field.isascii() else _ascii_field(field)
                                 for field in split_fields(entity.header))
    contents = entity.contents
    if contents.type in _UNTOUCHED or contents.encoding in _ENCODED:
        return
    if not entity.is_leaf:
        for part in entity.inner():
            _convert(part)
        entity.pieces = [piece if isinstance(piece, Entity) else _ascii(piece) for piece in entity.pieces]
        if contents.encoding in ('8bit', 'binary'):
            entity.set_field('content-transfer-encoding', b'Content-Transfer-Encoding: 7bit\r\n')
    elif not contents.type.startswith(_COMPOSITE) and not fits_seven_bit(entity.body):
        set_octets(entity, *encode_shorter(entity.body))


def _ascii(octets: bytes) -> bytes:
    """Text around parts, which nobody is shown (RFC 2046 5.1.1)."""
    return octets if octets.isascii() else octets.decode('ascii', 'replace').replace('\ufffd', '?').encode('ascii')


def _ascii_field(field: bytes) -> bytes:
    """The field with encoded words; where it describes contents only within quotes, where names of files are."""
    name, _, value = field.partition(b':')
    text = value.replace(b'\r\n', b'').decode('utf-8', 'replace').strip(' \t')
    if field_name(field).startswith('content-'):
        text = _QUOTED.sub(lambda match: f'"{encoded(match.group()[1:-1])}"', text)
        return name + b': ' + _ascii(text.encode()) + b'\r\n'
    try:
        return _ascii(make_field(name.decode('ascii', 'replace'), text))
    except FieldError:
        return _ascii(field)
