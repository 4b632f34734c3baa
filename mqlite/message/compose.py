"""From a document to the message that is sent: everything that a document asks to be done to it. Pure.

    property      what is done, in this order                state when it fails
    mime          an object becomes a message                responsive
    data          templates are filled in                    personalize
    inlinecss     style blocks become style attributes       rewrite
    headers       the header is changed                      rewrite

The result has CRLF line ends, whatever was put into it. A document that asks for nothing gives its `mime`. What
cannot be done makes the message undeliverable, unless the document says `force`: then it goes without that change. An
object that is no message yet cannot be forced.
"""

from __future__ import annotations

from typing import Any, Callable

from mqlite.errors import PermanentError
from mqlite.message.build import build_message
from mqlite.message.document import Document, DocumentError
from mqlite.message.inline_css import inline_styles
from mqlite.message.personalize import personalize, personalize_object
from mqlite.message.rewrite import change_header
from mqlite.smtp.framing import normalise
from mqlite.smtp.grammar import split_address


class ConversionError(DocumentError):
    """What the document asks for cannot be done to its message; `state` is where."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state


def compose(document: Document, now: float) -> bytes:
    """Take the message out of the document, and do what the document asks for. DocumentError.

    `now`: seconds since 1970, for a message that is made here.
    """
    fields = document.fields
    if fields.keys().isdisjoint(_ASKED) and not isinstance(fields.get('mime'), dict):
        return document.take_mime()
    if isinstance(fields.get('mime'), dict):
        mime = _build(document, now)
    else:
        mime = document.take_mime()
        if fields.get('data') is not None:
            mime = _changed(document, 'personalize', lambda: personalize(mime, _variables(document)), mime)
    if fields.get('inlinecss'):
        mime = _changed(document, 'rewrite', lambda: inline_styles(mime), mime)
    if fields.get('headers') is not None:
        mime = _changed(document, 'rewrite', lambda: change_header(mime, fields['headers']), mime)
    return normalise(mime)  # a template in UTF-16, say, can make any octets


_ASKED = frozenset(['data', 'inlinecss', 'headers'])


def check_later(document: Document) -> None:
    """ConversionError for a document whose message will come from a plugin, if it asks for a change of it."""
    asked = [name for name in _ASKED if document.fields.get(name)]
    if asked and not document.fields.get('force'):
        raise ConversionError('rewrite', f'"{min(asked)}" cannot be done to a message that a plugin brings')


def _build(document: Document, now: float) -> bytes:
    parts = document.fields.pop('mime')
    if document.fields.get('data') is not None:
        given = parts
        parts = _changed(document, 'personalize', lambda: personalize_object(given, _variables(document)), given)
    domain = split_address(document.envelope or document.recipient)[1]
    try:
        return build_message(parts, document.first_attempt or now, domain)
    except PermanentError as error:
        raise ConversionError('responsive', str(error)) from None


def _variables(document: Document) -> dict[str, Any]:
    data = document.fields['data']
    if not isinstance(data, dict):
        raise DocumentError('"data" must be an object')
    return {'envelope': document.envelope, 'recipient': document.recipient, **data}


def _changed(document: Document, state: str, change: Callable[[], Any], before: Any) -> Any:
    """What the change gives; with `force` what was before it where it cannot be made."""
    try:
        return change()
    except PermanentError as error:
        if document.fields.get('force'):
            return before
        raise ConversionError(state, str(error)) from None
