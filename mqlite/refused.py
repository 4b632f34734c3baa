"""Messages that were received and refused: a copy for the queue `rabbitmq-refused`, with the reason.

    {"envelope": ..., "recipient": ..., "mime": ..., "connection": {...}, "refused": {"code": 550, ...}}

One document for a message, however many recipients it had: `recipient` is the first, and `recipients` has all when
there are several. The MIME is what the client sent, without our Received line; its x-mq-* headers are not looked at.

Only what was refused for good (5yz) is kept: whoever got a 4yz comes again. A message that was refused before its
data (no relaying, a bad address), or is larger than `smtp-maxsize`, was never received. Nobody waits for the copy, and
nothing depends on it: when the queue cannot take it, or more than PENDING_BYTES wait for the queue, it is lost.
"""

from __future__ import annotations

from typing import Any, Callable

from mqlite.errors import MqliteError
from mqlite.loop.reactor import Reactor
from mqlite.message.document import LargeBody, Received, encode_each
from mqlite.message.identifier import format_moment
from mqlite.queues.contract import Store, to_publish
from mqlite.receive import connection_of
from mqlite.smtp.reply import BadReply, read_reply
from mqlite.smtp.session import Session

PENDING_BYTES = 32 << 20  # of copies that the queue has not taken yet; one is kept whatever its size


class RefusedMail:
    """Keeps copies on one queue."""

    def __init__(self, reactor: Reactor, store: Store, queue: str, hostname: str,
                 on_note: Callable[[str], object]) -> None:
        self._reactor = reactor
        self._store = store
        self._queue = queue
        self._hostname = hostname
        self._on_note = on_note
        self._pending = 0
        self._losing = False

    def keep(self, session: Session, data: bytes, answer: bytes) -> None:
        """A copy of what the session's transaction brought, refused with this answer. Returns at once."""
        if answer[:1] != b'5':
            return
        if self._pending and self._pending + len(data) > PENDING_BYTES:
            self._lost(f'{self._pending} bytes wait for the queue already')
            return
        self._pending += len(data)
        self._reactor.spawn(self._publish(self._document(session, data, answer), len(data)), 'refused message')

    async def _publish(self, body: bytes | LargeBody, size: int) -> None:
        try:
            await self._store.publish([to_publish(self._queue, body)])
            self._losing = False
        except MqliteError as error:
            self._lost(str(error))
        finally:
            self._pending -= size

    def _lost(self, reason: str) -> None:
        """Said once, until it works again: a flood of refused mail is not to become a flood of lines."""
        if not self._losing:
            self._on_note(f'a refused message could not be kept on {self._queue}: {reason}')
        self._losing = True

    def _document(self, session: Session, data: bytes, answer: bytes) -> bytes | LargeBody:
        recipients = [recipient.email for recipient in session.recipients or []]
        fields: dict[str, Any] = {
            'envelope': session.sender.email if session.sender else '', 'recipient': recipients[0],
            'received': format_moment(self._reactor.clock.time()), 'hostname': self._hostname,
            **connection_of(session),
            'refused': _reason(answer)}
        if len(recipients) > 1:
            fields['recipients'] = recipients
        return encode_each([Received(fields, data)])[0]


def _reason(answer: bytes) -> dict[str, Any]:
    """The reply as JSON; of a plugin's that is none, its text."""
    try:
        reply = read_reply(answer)
    except BadReply:
        return {'code': 550, 'status': '', 'description': answer.decode('utf-8', 'replace')}
    return {'code': reply.code, 'status': reply.status, 'description': reply.text}
