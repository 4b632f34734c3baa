"""From received bytes to kept messages: one JSON document per recipient, published, answered when kept.

Both ways in use this: a session of the SMTP server, and the sendmail command. What a received message must have is the
same for both: our Received line, x-mq-* headers taken out, an identifier per recipient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import format_datetime
from typing import Any

from mqlite.errors import PermanentError
from mqlite.loop.clock import Clock
from mqlite.mail_log import MailLog
from mqlite.message.document import Document, LargeBody, Received, encode_each
from mqlite.message.headers import Trace, extract, has_passed, header_end, received_header
from mqlite.message.identifier import Identifiers, format_moment
from mqlite.message.reports import report_kind
from mqlite.queues.contract import Publishable, QueueError, Store, to_publish
from mqlite.smtp.grammar import printable
from mqlite.smtp.reply import format_reply, reply
from mqlite.smtp.session import Address, Objection, Session

DSN_PROPERTIES = ('notify', 'ret', 'envid', 'orcpt')  # each is a parameter's name too
LISTED = 3000  # octets of identifiers in one reply: Exim takes one of more than 4096 for a failure, and sends again


@dataclass(frozen=True)
class ReceiverConfig:
    """What the receiver needs to know."""

    hostname: str
    inbox: str  # the queue; '' discards
    extract_headers: bool
    local: str = ''  # the queue for local addresses; '' for the inbox
    reports: str = ''  # the queue for reports to local addresses; '' when they are like other mail to them


class Receiver:
    """Keeps messages on the inbox queue; without an inbox they are discarded."""

    def __init__(self, clock: Clock, store: Store, identifiers: Identifiers, config: ReceiverConfig,
                 log: MailLog | None = None) -> None:
        """`log`: of what comes in over SMTP."""
        self._log = log
        self._clock = clock
        self._store = store
        self._identifiers = identifiers
        self._config = config
        self._second = -1
        self._date = self._moment = ''  # this second in the notation of mail, and of JSON

    async def receive(self, session: Session, data: bytes) -> bytes | Objection:
        """The reply to the final dot of an SMTP session: 250 when the message is kept, 4yz when it cannot be now. An
        Objection: it is refused."""
        if self._store.trouble is not None:
            return reply('queue-trouble')
        end = header_end(data)
        if end > session.limits.header:
            return Objection(reply('header-too-large', session.limits.header))
        if has_passed(data, end, session.limits.hops):
            return Objection(reply('too-many-hops', session.limits.hops))
        recipients = session.recipients or []
        trace = Trace(session.helo, session.client, session.protocol, session.cipher)
        try:
            sender = session.sender.email if session.sender else ''
            messages = self.prepare(sender, recipients, data, trace, connection_of(session), session.may_relay)
            _note_parameters(messages, session, data, end)
            asker = session.asker
            if asker is not None and 'mq_smtp_in_message' in asker.steps:
                for message in messages:
                    objection = await asker.ask('mq_smtp_in_message', message)
                    if objection is not None:
                        return objection
            await self.keep(messages)
        except PermanentError as error:
            return Objection(format_reply(550, '5.6.0', printable(str(error), 256)))
        except QueueError:
            return reply('queue-trouble')
        if self._log is not None:
            self._write_log(self._log, messages)
        return _reply_kept([message.fields['message-id'] for message in messages], recipients)

    def _write_log(self, log: MailLog, messages: Sequence[Received]) -> None:
        self._look_at_clock()
        for message in messages:
            is_report = message.local and bool(report_kind(message.mime))
            log.write({'json': message.fields, 'report': is_report, 'date': self._moment, 'time': self._second})

    def prepare(self, sender: str, recipients: Sequence[Address], data: bytes, trace: Trace, origin: dict[str, Any],
                trusted: bool, extracts: bool | None = None) -> list[Received]:
        """One message per recipient.

        `data` has CRLF line ends. `origin` is the property that says where the message came from. `extracts`: x-mq-*
        headers are taken out; None: as it is for SMTP. `trusted`: they are obeyed too. PermanentError: one asks for
        what cannot be.
        """
        self._look_at_clock()
        config, moment = self._config, self._moment
        extracts = config.extract_headers if extracts is None else extracts
        mime, properties = extract(data) if extracts else (data, {})
        if not trusted:
            properties = {}
        base = self._identifiers.next()
        names = [base] if len(recipients) == 1 else [f'{base}-{n}' for n in range(1, len(recipients) + 1)]
        line = received_header(trace, config.hostname, base, recipients[0].email if len(recipients) == 1 else '',
                               self._date)
        return [Received({'envelope': sender, 'recipient': recipient.email, 'message-id': name, 'received': moment,
                          'hostname': config.hostname, **origin, **properties}, mime, recipient.local, line)
                for name, recipient in zip(names, recipients)]

    async def keep(self, messages: Sequence[Received]) -> None:
        """Publish a document for each and wait until all are kept; what has no queue is discarded.

        PermanentError: a property has the wrong form, or the message is too large for the store.
        """
        queued = [(message, queue) for message, queue in zip(messages, self._queues(messages)) if queue]
        if queued:
            bodies = encode_each(message for message, _ in queued)
            await self._store.publish([_to_publish(queue, body, message.fields)
                                       for (message, queue), body in zip(queued, bodies)])

    def _queues(self, messages: Sequence[Received]) -> Iterator[str]:
        """The queue of each; a MIME that follows itself, as with several recipients, is looked at once."""
        config = self._config
        seen, kind = None, ''
        for message in messages:
            if message.local and config.reports and message.mime is not seen:
                seen, kind = message.mime, report_kind(message.mime)
            special = message.local and (kind and config.reports or config.local)
            yield special or config.inbox

    def _look_at_clock(self) -> None:
        now = self._clock.time()
        if int(now) != self._second:
            self._second = int(now)
            self._moment = format_moment(now)
            self._date = format_datetime(datetime.fromtimestamp(self._second, timezone.utc))


def connection_of(session: Session) -> dict[str, Any]:
    """The property that says where a message of this session came from."""
    address, port = session.local
    return {'connection': {'local-ip': address, 'local-port': port, 'remote-ip': session.client,
                           'remote-port': session.client_port, 'secure': session.secure,
                           **({'user': session.user} if session.user else {})}}


def _note_parameters(messages: Sequence[Received], session: Session, data: bytes, header: int) -> None:
    """As properties: what the parameters of MAIL and RCPT say of the message on its further way. `header`: where that
    ends."""
    said = session.sender.parameters if session.sender else {}
    if 'SMTPUTF8' in said and not data[:header].isascii():
        for message in messages:
            message.fields['smtputf8'] = True
    if 'REQUIRETLS' in said:
        for message in messages:
            message.fields.update(requiretls=True, security='verified')
    if session.limits.dsn:
        _note_notices(messages, session, said)


def _note_notices(messages: Sequence[Received], session: Session, of_sender: Mapping[str, str]) -> None:
    """The property `dsn`. What x-mq-dsn-* headers ask for counts more."""
    for message, recipient in zip(messages, session.recipients or []):
        said = {**of_sender, **recipient.parameters}
        asked = {name: said[name.upper()] for name in DSN_PROPERTIES if name.upper() in said}
        if asked:
            message.fields['dsn'] = {**asked, **message.fields.get('dsn', {})}


def _to_publish(queue: str, body: bytes | LargeBody, fields: dict[str, Any]) -> Publishable:
    document = Document(fields)
    return to_publish(queue, body, document.priority, document.not_before)


def _reply_kept(names: Sequence[str], recipients: Sequence[Address]) -> bytes:
    """The identifier of each recipient, as MailerQ lists them; of very many, those that fit and the last one."""
    lines = ['Ok, your message has been queued using the following identifiers:']
    room = LISTED
    for name, recipient in zip(names, recipients):
        line = f'{name} for {recipient.email}'.encode('ascii', 'backslashreplace').decode()
        room -= len(line) + 6
        if room < 0:
            lines.append(f'{name} to {names[-1]} for the other recipients, in their order')
            break
        lines.append(line)
    return format_reply(250, '', *lines)
