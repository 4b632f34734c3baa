"""Clients that know what was promised to them: each message has its own identifier, and who got a 250 is remembered."""

from __future__ import annotations

import re
import smtplib
import threading
from collections.abc import Iterable

from tests.support.process import HOST, WAIT_SECONDS, wait_until
from tests.support.sink import Transaction

MESSAGES_PER_CONNECTION = 5


def connect(port: int, source: str = HOST) -> smtplib.SMTP:
    return smtplib.SMTP(HOST, port, local_hostname='client.example', timeout=20, source_address=(source, 0))


def send(port: int, message: bytes = b'Subject: hello\r\n\r\nHello.\r\n', *recipients: str,
         source: str = HOST) -> None:
    """One message, to recipient@example.com unless others are named, from that address. smtplib's errors."""
    with connect(port, source) as client:
        client.sendmail('sender@example.org', recipients or ['recipient@example.com'], message,
                        mail_options=['BODY=8BITMIME'])


class Load:
    """Threads that send without a pause, and go on after every error, until `stop`.

    `promised`: the identifiers whose final dot was answered with 250. A message without that answer may have been
    kept or not; it is never sent again under the same identifier.
    """

    def __init__(self, port: int, clients: int = 6) -> None:
        self.port = port
        self.promised: list[str] = []
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def wait_for(self, count: int, seconds: float = WAIT_SECONDS) -> None:
        wait_until(lambda: len(self.promised) >= count, f'{count} messages to be accepted', seconds)

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        connection = 0
        while not self._stopped.is_set():
            connection += 1
            try:
                with connect(self.port) as client:
                    self._send(client, f'{number}-{connection}')
            except (OSError, smtplib.SMTPException):        # killed, stopping, or not there yet
                self._stopped.wait(0.01)

    def _send(self, client: smtplib.SMTP, name: str) -> None:
        for count in range(MESSAGES_PER_CONNECTION):
            identifier = f'{name}-{count}'
            client.sendmail('sender@example.org', 'recipient@example.com', f'X-Load: {identifier}\r\n\r\nx\r\n')
            self.promised.append(identifier)


def load_identifiers(transactions: Iterable[Transaction]) -> list[str]:
    """The identifiers of messages of a Load that arrived, in order, as often as they arrived."""
    return [found[1].decode() for transaction in transactions
            for found in [re.search(rb'^X-Load: (\S+)\r$', transaction.message, re.MULTILINE)] if found]
