"""Reading encoded words (RFC 2047) in the fields of a header. Pure."""

from __future__ import annotations

from email.errors import HeaderParseError
from email.header import decode_header, make_header

_LIMIT = 10000  # characters of a field that are searched for encoded words


def decode_words(text: str) -> str:
    """The text of an unfolded field with its encoded words decoded; as it is when they are not in order."""
    if '=?' not in text or len(text) > _LIMIT:
        return text
    try:
        return str(make_header(decode_header(text)))
    except (HeaderParseError, LookupError, ValueError):
        return text
