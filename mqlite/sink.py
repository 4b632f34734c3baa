"""`mqlite.pyz sink`: an SMTP receiver for trying things out. It takes every message, prints it, and keeps nothing."""

from __future__ import annotations

import sys

from mqlite.errors import ConfigError
from mqlite.loop.connect import Listener, ListenSocket
from mqlite.loop.reactor import STOP_SIGNALS, Reactor
from mqlite.loop.task import Waiter
from mqlite.smtp.admission import AdmissionConfig
from mqlite.smtp.reply import reply
from mqlite.smtp.server import ServerConfig, SmtpServer
from mqlite.smtp.session import Limits, Session
from mqlite.smtp.shares import Shares

ADDRESS = '127.0.0.1'
_STOP_SECONDS = 2.0


def run_sink(port: int) -> int:
    """Serve on the loopback address until a signal; the exit status."""
    reactor = Reactor()
    stop = Waiter[None](reactor)
    config = ServerConfig('sink.localhost', Limits(), 300, AdmissionConfig(Shares().incoming, lambda _client: True))
    server = SmtpServer(reactor, config, _print)
    try:
        listener = Listener(reactor, ListenSocket(ADDRESS, port), server.accept, print)
    except OSError as error:
        raise ConfigError(f'cannot listen on {ADDRESS} port {port}: {error.strerror}; choose another --port') from error

    def signalled() -> None:
        if not stop.done:
            stop.set()

    for number in STOP_SIGNALS:
        reactor.on_signal(number, signalled)

    async def serve() -> None:
        listener.start()
        print(f'sink: listening on {ADDRESS} port {listener.port}', flush=True)
        await stop
        listener.close()
        await server.stop(_STOP_SECONDS)

    reactor.run(serve())
    reactor.close()
    return 0


async def _print(session: Session, data: bytes) -> bytes:
    recipients = ', '.join(f'<{recipient.email}>' for recipient in session.recipients or [])
    sender = session.sender.email if session.sender else ''
    out = sys.stdout.buffer
    out.write(f'sink: message of {len(data)} bytes from <{sender}> to {recipients}\n'.encode())
    out.write(data.replace(b'\r\n', b'\n') + b'\n')
    out.flush()
    return reply('ok')
