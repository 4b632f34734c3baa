"""What an attempt leads to: the messages for the result queues, and the document for the next attempt. Pure.

    outcome        to the queues
    delivered      results, success
    given up       results, failure
    tried again    the outbox (with `nextattempt`), retry

A document that is not valid JSON cannot come back as itself: its text comes back as the property `invalid`. So does
one whose results no queue would take (see `bare`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mqlite.message.document import Document, DocumentError
from mqlite.message.extracted import extracted
from mqlite.message.identifier import format_moment
from mqlite.message.result import Result
from mqlite.queues.contract import Message

#   outcome       kinds of queues
_KINDS = {
    'delivered': ('results', 'success'),
    'given up':  ('results', 'failure'),
    'again':     ('retry',),
}
_ENCODER = json.JSONEncoder(check_circular=False)  # what came as JSON is no circle, and the look takes half of the time
_SHOWN_INVALID = 65536  # bytes of a document that come back when it cannot come back as itself


def final(body: bytes, document: Document, mime: bytes | None, result: Result, now: float,
          queues: Mapping[str, str]) -> list[Message]:
    """The messages for a result after which nothing is tried. `queues`: the configured queue of each kind. `mime`: the
    message as it was to be sent."""
    return _tell(_KINDS[_outcome(result)], _with_result(body, document, result, now), document, mime, queues)


def again(body: bytes, document: Document, mime: bytes | None, result: Result, now: float, due: float, outbox: str,
          queues: Mapping[str, str]) -> list[Message]:
    """The document goes back to the outbox until `due`, and the retry queue is told."""
    fields = _with_result(body, document, result, now)
    fields['nextattempt'] = {**(fields.get('nextattempt') or {}), 'time': format_moment(due)}
    original = Document.decode(body).fields
    whole = {**fields, 'mime': original['mime']} if 'mime' in original else fields
    message = Message(outbox, Document(whole).encode(), document.priority, due)
    return [message, *_tell(_KINDS['again'], fields, document, mime, queues)]


def unreadable(body: bytes, result: Result, now: float, queues: Mapping[str, str]) -> list[Message]:
    """For a body that is no document, or one whose properties have the wrong form: it is given up."""
    document = readable(body)
    if document is None:
        return bare(body, result, now, queues)
    fields = document.fields
    earlier = fields.get('results')
    fields['results'] = [*(earlier if isinstance(earlier, list) else []), result.fields(now)]
    if not fields.get('keepmime'):
        fields.pop('mime', None)
    return _tell(_KINDS['given up'], fields, Document(fields), None, queues)


def readable(body: bytes) -> Document | None:
    """The document, if it is one."""
    try:
        return Document.decode(body)
    except DocumentError:
        return None


def bare(body: bytes, result: Result, now: float, queues: Mapping[str, str]) -> list[Message]:
    """The least that can be said: a result that is small and asks nothing of the document, to the configured queues."""
    fields = {'invalid': body[:_SHOWN_INVALID].decode('utf-8', 'replace'), 'results': [result.fields(now)]}
    return _tell(_KINDS[_outcome(result)], fields, Document(fields), None, queues)


def _outcome(result: Result) -> str:
    return 'delivered' if result.result == 'accepted' else 'given up'


def _with_result(body: bytes, document: Document, result: Result, now: float) -> dict[str, Any]:
    """The document's properties with the result appended; the MIME only when `keepmime` asks for it."""
    fields = {**document.fields, 'results': [*document.attempts, result.fields(now)]}
    if fields.get('keepmime'):
        fields['mime'] = Document.decode(body).fields.get('mime')
    else:
        fields.pop('mime', None)
    return fields


def with_extracted(fields: dict[str, Any], mime: bytes) -> dict[str, Any]:
    return {**fields, 'extracted': extracted(mime, fields.get('envelope') or '', fields['recipient'])}


def _tell(kinds: tuple[str, ...], fields: dict[str, Any], document: Document, mime: bytes | None,
          queues: Mapping[str, str]) -> list[Message]:
    names = [document.queue(kind, queues[kind]) for kind in kinds]
    if not any(names):
        return []
    if mime is not None:
        fields = with_extracted(fields, mime)
    body = _ENCODER.encode(fields).encode('ascii')
    return [Message(name, body) for name in names if name]
