"""The sendmail mode: a message on standard input goes to the inbox queue, as if it had come over SMTP.

The local user is trusted: its x-mq-* headers are obeyed. Exit statuses are those of sysexits.h, as programs that call
sendmail expect them; a line on standard error says what went wrong.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mqlite.errors import PermanentError, TemporaryError
from mqlite.host import host_name, user_name
from mqlite.log import escape
from mqlite.loop.reactor import Reactor
from mqlite.message.headers import Trace, recipients_of, without_bcc
from mqlite.parts import load_locals, make_receiver, make_store
from mqlite.settings import Settings
from mqlite.smtp.framing import normalise
from mqlite.smtp.grammar import SyntaxFault, check_address
from mqlite.smtp.session import Address

EX_OK, EX_USAGE, EX_DATAERR, EX_IOERR, EX_TEMPFAIL, EX_CONFIG = 0, 64, 65, 74, 75, 78


def status_of(error: Exception) -> int:
    """The exit status for what went wrong."""
    if isinstance(error, PermanentError):
        return EX_DATAERR
    if isinstance(error, TemporaryError):
        return EX_TEMPFAIL
    return EX_IOERR if isinstance(error, OSError) else EX_CONFIG


def sendmail(settings: Settings, recipients: Sequence[str], options: Mapping[str, str]) -> int:
    """Submit standard input to the recipients; the exit status.

    Options: `envelope` is the sender, '' for the null sender, absent for the local user; `ignore-dot` and
    `extract-recipients` count by being there. MqliteError, OSError.
    """
    limit = settings.integer('smtp-maxsize')
    data = read_message(sys.stdin.buffer.read(limit + 1), 'ignore-dot' in options)
    if len(data) > limit:
        raise PermanentError(f'the message is larger than {limit} bytes, the limit of smtp-maxsize')
    everybody = list(recipients)
    if 'extract-recipients' in options:
        everybody += recipients_of(data)
        data = without_bcc(data)
    hostname, user = host_name(settings.text('hostname')), user_name(os.getuid())
    sender = options['envelope'].strip('<>') if 'envelope' in options else f'{user}@{hostname}'
    _check(sender, everybody, settings)
    # without the settings that were given beside them: they may hold passwords, and this goes to the result queues
    arguments = [f'--{name}={value}' if value else f'--{name}' for name, value in options.items()] + list(recipients)
    origin = {'cli': {'command': sys.argv[0], 'arguments': arguments, 'user': user}}
    _keep(settings, hostname, sender, everybody, data, origin)
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


def _check(sender: str, recipients: Sequence[str], settings: Settings) -> None:
    if not recipients:
        raise PermanentError('there are no recipients: To, Cc and Bcc are empty')
    named = [('envelope', sender)] if sender else []
    for name, address in [*named, *(('recipient', recipient) for recipient in recipients)]:
        try:
            check_address(address, settings.text(f'validate-{name}') == 'loose')
        except SyntaxFault as fault:
            raise PermanentError(f'{escape(address)}: {fault}') from None


def _keep(settings: Settings, hostname: str, sender: str, recipients: Sequence[str], data: bytes,
          origin: dict[str, Any]) -> None:
    local, reactor = load_locals(settings), Reactor()

    async def keep() -> None:
        store = make_store(reactor, settings, lambda text: print(f'mqlite: {text}', file=sys.stderr))
        await store.open()
        try:
            receiver = make_receiver(reactor, settings, store, hostname, secrets.randbits(64))
            addresses = [Address(recipient, recipient in local) for recipient in recipients]
            await receiver.keep(receiver.prepare(sender, addresses, data, Trace('', '', 'local'), origin, trusted=True))
        finally:
            await store.close()

    try:
        reactor.run(keep())
    finally:
        reactor.close()
