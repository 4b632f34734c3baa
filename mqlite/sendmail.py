"""The sendmail mode: a message on standard input goes to the inbox queue, as if it had come over SMTP.

The local user is trusted: its x-mq-* headers are obeyed. Exit statuses are those of sysexits.h, as programs that call
sendmail expect them; a line on standard error says what went wrong.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from typing import Any

from mqlite.errors import MqliteError, PermanentError, TemporaryError
from mqlite.host import host_name, user_name
from mqlite.loop.reactor import Reactor
from mqlite.message.headers import Trace, recipients_of, without_bcc
from mqlite.message.identifier import Identifiers
from mqlite.queues.open import open_store
from mqlite.receive import Receiver, ReceiverConfig
from mqlite.settings import Settings
from mqlite.smtp.framing import normalise
from mqlite.smtp.grammar import SyntaxFault, check_address

EX_OK, EX_USAGE, EX_DATAERR, EX_IOERR, EX_TEMPFAIL, EX_CONFIG = 0, 64, 65, 74, 75, 78


def status_of(error: Exception) -> int:
    """The exit status for what went wrong."""
    if isinstance(error, PermanentError):
        return EX_DATAERR
    if isinstance(error, TemporaryError):
        return EX_TEMPFAIL
    return EX_IOERR if isinstance(error, OSError) else EX_CONFIG


def sendmail(settings: Settings, arguments: Sequence[str], recipients: Sequence[str], envelope: str | None,
             ignore_dot: bool, extract_recipients: bool) -> int:
    """Submit standard input to the recipients; the exit status. `envelope`: the sender, None for the local user."""
    try:
        limit = settings.integer('smtp-maxsize')
        data = read_message(sys.stdin.buffer.read(limit + 1), ignore_dot)
        if len(data) > limit:
            raise PermanentError(f'the message is larger than {limit} bytes, the limit of smtp-maxsize')
        everybody = list(recipients)
        if extract_recipients:
            everybody += recipients_of(data)
            data = without_bcc(data)
        hostname = host_name(settings.text('hostname'))
        sender = f'{user_name()}@{hostname}' if envelope is None else envelope.strip('<>')
        _check(sender, everybody)
        origin = {'cli': {'command': sys.argv[0], 'arguments': list(arguments), 'user': user_name()}}
        _keep(settings, hostname, sender, everybody, data, origin)
    except (MqliteError, OSError) as error:
        print(f'mqlite: {error}', file=sys.stderr)
        return status_of(error)
    return EX_OK


def read_message(data: bytes, ignore_dot: bool) -> bytes:
    """Standard input as a message: CRLF line ends, up to a line that is a lone dot unless that is to be ignored."""
    data = normalise(data)
    if not ignore_dot:
        if data.startswith(b'.\r\n'):
            return b''
        end = data.find(b'\r\n.\r\n')
        if end >= 0:
            return data[:end + 2]
    return data


def _check(sender: str, recipients: Sequence[str]) -> None:
    if not recipients:
        raise PermanentError('there are no recipients; name them, or use --extract-recipients and a To: header')
    for address in ([sender] if sender else []) + list(recipients):
        try:
            check_address(address)
        except SyntaxFault as fault:
            raise PermanentError(f'{address}: {fault}') from None


def _keep(settings: Settings, hostname: str, sender: str, recipients: Sequence[str], data: bytes,
          origin: dict[str, Any]) -> None:
    reactor = Reactor()
    store = open_store(reactor, settings.items('queue-address'), lambda text: print(f'mqlite: {text}', file=sys.stderr))
    identifiers = Identifiers(settings.text('server-id'), reactor.clock.time(), secrets.randbits(64))
    receiver = Receiver(reactor.clock, store, identifiers, ReceiverConfig(
        hostname, settings.text('rabbitmq-inbox'), settings.flag('smtp-extract')))

    async def keep() -> None:
        await store.open()
        try:
            await receiver.keep(sender, recipients, data, Trace('', '', 'local'), origin, trusted=True)
        finally:
            await store.close()

    reactor.run(keep())
    reactor.close()
