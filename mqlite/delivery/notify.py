"""Which notifications an outcome leads to, and what stands in them. Pure.

    outcome                             event      told when
    given up                            FAILURE    at once
    tried again                         DELAY      once: at the first failure after DELAY_SECONDS
    delivered to a server without DSN   SUCCESS    at once, as "relayed"; who has DSN tells it (RFC 3461 5.2.2)

What a sender wants to be told stands in the document, else in the settings, and is FAILURE where neither says anything
(RFC 3461 section 4.1). Nobody is told about mail of the null sender, which notifications themselves have. No queue, no
notifications. Nothing of a message that demands TLS on its whole way is in one, since the way back may have none (RFC
8689 section 5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from mqlite.message.bounce import Notice, make_notification
from mqlite.message.compose import compose
from mqlite.message.document import Document, DocumentError
from mqlite.message.identifier import parse_moment
from mqlite.message.result import Result
from mqlite.queues.contract import Message
from mqlite.smtp.dsn import NOTHING, Request

DELAY_SECONDS = 4 * 3600.0  # since the first attempt, as sendmail (Timeout.queuewarn)

_STATUS = re.compile(r'[245]\.[0-9]{1,3}\.[0-9]{1,3}')

#   state        result     enhanced status code without its class, for what has none (RFC 3463)
_STATUSES = {
    ('dns',       'error'):   '1.2',  # bad destination system address
    ('dns',       'timeout'): '4.3',  # directory server failure
    ('bind',      'error'):   '3.5',  # system incorrectly configured
    ('connect',   'error'):   '4.1',  # no answer from host
    ('connect',   'timeout'): '4.1',
    ('process',   'timeout'): '4.7',  # delivery time expired
    ('process',   'invalid'): '5.4',  # invalid arguments
    ('responsive', 'error'):  '6.3',  # conversion required but not supported
    ('personalize', 'error'): '6.3',
    ('rewrite',   'error'):   '6.3',
    ('handshake', 'error'):   '7.5',  # cryptographic failure
}
#   result     the same for whatever state
_OTHER_STATUSES = {
    'lost':    '4.2',  # bad connection
    'timeout': '4.2',
    'invalid': '5.0',  # protocol status
}


@dataclass(frozen=True)
class NotifyConfig:
    """What notifications need to know."""

    reporter: str  # our name
    queue: str  # for them; '' for none
    defaults: Request = NOTHING  # what is to be told, unless the document says


def about_final(body: bytes, document: Document, result: Result, now: float, config: NotifyConfig) -> list[Message]:
    """The notification about a result after which nothing is tried: none or one."""
    if not document.queue('dsn', config.queue):
        return []
    if result.result != 'accepted':
        return _notify('FAILURE', 'failed', body, document, result, now, None, config)
    return [] if result.dsn else _notify('SUCCESS', 'relayed', body, document, result, now, None, config)


def about_retry(body: bytes, document: Document, result: Result, now: float, until: float,
                config: NotifyConfig) -> list[Message]:
    """The notification about an attempt after which there will be others, until `until`: none or one."""
    if not document.attempts or not document.queue('dsn', config.queue):
        return []
    late = (document.first_attempt or now) + DELAY_SECONDS
    if not _moment_of(document.attempts[-1]) < late <= now:
        return []
    return _notify('DELAY', 'delayed', body, document, result, now, until, config)


def _notify(event: str, action: str, body: bytes, document: Document, result: Result, now: float, until: float | None,
            config: NotifyConfig) -> list[Message]:
    try:
        sender, recipient, request = document.envelope, document.recipient, document.notices(config.defaults)
    except DocumentError:
        return []  # nobody to tell, or nothing that can be said
    if not sender or event not in (request.notify or ('FAILURE',)):
        return []
    entry = document.attempts[-1] if _is_expiry(result) and document.attempts else result.fields(now)
    code, said = entry.get('code'), _text(entry, 'description')
    by_smtp = isinstance(code, int)
    notice = Notice(
        action, sender, recipient, request, config.reporter, _status(action, result, entry), now,
        arrived=_moment_of({'time': document.fields.get('received')}) or None, attempted=_moment_of(entry) or None,
        until=until, server=_text(entry, 'mta') if by_smtp else '', by_smtp=by_smtp,
        said=' '.join(filter(None, (str(code), _text(entry, 'status'), said))) if by_smtp else said)
    mime = make_notification(notice, b'' if document.requires_tls else _message(body, now))
    fields = {'envelope': '', 'recipient': sender, 'mime': mime.decode('utf-8', 'surrogateescape'),
              **({'smtputf8': True} if notice.utf8 else {})}
    return [Message(document.queue('dsn', config.queue), Document(fields).encode())]


def _message(body: bytes, now: float) -> bytes:
    """The message of a document as it was sent; b'' if there is none."""
    try:
        return compose(Document.decode(body), now)
    except DocumentError:
        return b''


def _is_expiry(result: Result) -> bool:
    """Whether time is up, which does not tell why; the attempt before does."""
    return (result.state, result.result) == ('process', 'timeout')


def _status(action: str, result: Result, entry: dict[str, Any]) -> str:
    """The enhanced status code: the server's if it fits the action, else what can be said of the state."""
    first = '2' if action == 'relayed' else '5' if result.permanent and not _is_expiry(result) else '4'
    said = _text(entry, 'status')
    if _STATUS.fullmatch(said) and (said[0] == first or action == 'failed' and said[0] != '2'):
        return said
    code = entry.get('code')
    if isinstance(code, int):
        return f'{str(code)[0]}.0.0' if action == 'failed' and 400 <= code <= 599 else f'{first}.0.0'
    kind, how = _text(entry, 'state'), _text(entry, 'result')
    return f'{first}.{_STATUSES.get((kind, how)) or _OTHER_STATUSES.get(how, "0.0")}'


def _text(entry: dict[str, Any], name: str) -> str:
    """A text of an entry that may have come with the document, from anybody."""
    value = entry.get(name)
    return value if isinstance(value, str) else ''


def _moment_of(entry: dict[str, Any]) -> float:
    try:
        return parse_moment(entry.get('time'))
    except ValueError:
        return 0.0
