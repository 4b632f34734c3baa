"""A worker: one loop with everything that belongs to it, and what is wired to what.

Opening: the context of the plugins, the queue. When all workers of the process are open, they begin to listen and to
deliver. Whatever fails before is a ConfigError.

Stopping: no new clients; idle sessions get 421; messages that are being received or sent are finished, for at most
STOP_SECONDS; what was not finished goes back to its queue; the queue is closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mqlite.control import ControlSocket, socket_base
from mqlite.database.locals import Locals
from mqlite.database.open import open_database
from mqlite.delivery.engine import Engine
from mqlite.delivery.explain import Question
from mqlite.host import OwnPlaces, host_name
from mqlite.log import Log
from mqlite.loop.connect import Listener, ListenSocket
from mqlite.loop.reactor import Reactor
from mqlite.mail_log import open_mail_log
from mqlite.parts import make_receiver, make_store
from mqlite.plugin.host import PluginHost
from mqlite.queues.contract import QueueError
from mqlite.receiving import make_desk, make_server, make_spool
from mqlite.recorder import Recorder, Seat
from mqlite.sending import make_engine
from mqlite.settings import Settings
from mqlite.smtp.certificates import Certificates
from mqlite.smtp.server import SmtpServer
from mqlite.smtp.shares import Shares
from mqlite.spool.watch import SpoolWatch

EXPLAINED = 20  # messages that a command is told of
STOP_SECONDS = 30.0  # for what is in flight; process supervisors wait longer (systemd: 90 s)


@dataclass(frozen=True)
class Portion:
    """What is this worker's own among all workers of the daemon."""

    number: int  # never the number of two
    workers: int  # how many there are
    seat: Seat  # where it notes what plugins do
    recorder: Recorder

    def of(self, limit: int) -> int:
        """This worker's part of a limit of the daemon; 0 means none."""
        return max(1, limit // self.workers) if limit else 0


class Worker:
    """One reactor, one store, the server, the delivery engine, and a context of the plugins."""

    def __init__(self, reactor: Reactor, settings: Settings, log: Log, sockets: Sequence[ListenSocket],
                 host: PluginHost | None, certificates: Certificates | None, portion: Portion) -> None:
        """ConfigError. The listening sockets are the worker's to close."""
        self._reactor = reactor
        self._settings = settings
        self._log = log
        hostname = host_name(settings.text('hostname'))
        secure_ports = settings.ports('smtp-secure-port')
        self._database = open_database(reactor, settings, log)
        is_local = None if self._database is None else Locals(self._database)
        self._host = host
        self._store = make_store(reactor, settings, log.warning)
        self._desk = make_desk(reactor, settings, hostname, self._host, log)
        shares = Shares(*(portion.of(settings.integer(name)) for name in
                          ('smtp-connections', 'smtp-connections-in', 'smtp-connections-out')))
        receiver = make_receiver(reactor, settings, self._store, hostname, portion.number,
                                 open_mail_log(settings, 'received', log.warning))
        self._server = make_server(reactor, settings, self._store, hostname, self._host, log, is_local, shares.incoming,
                                   certificates, self._desk, receiver)
        self._engine = make_engine(reactor, settings, log, self._store, self._database, host, shares.outgoing,
                                   portion.workers, portion.recorder.is_condemned,
                                   OwnPlaces((place.address, place.port) for place in sockets))
        self._control: ControlSocket | None = None
        self._spool = make_spool(reactor, settings, self._store, receiver, is_local, log)
        self._portion = portion
        shared = self._is_busiest if portion.workers > 1 else None
        self._listeners = [Listener(reactor, place, partial(self._server.accept, tls=place.port in secure_ports),
                                    log.warning, shared) for place in sockets]

    async def open(self) -> None:
        """Ready to begin; ConfigError."""
        if self._database is not None:
            self._database.start()
        if self._host is not None:
            await self._host.start()
        try:
            await self._store.open()
        except QueueError as error:
            self._log.warning(str(error))  # the store goes on trying; until then clients get 451

    async def begin(self) -> None:
        """All workers of the process are open."""
        self._engine.start()
        base = socket_base(self._settings)
        if base:
            self._control = ControlSocket(self._reactor, base, self._portion.number & 0xffff, self._answer, self._log)
        if self._spool is not None:
            self._spool.start()
        self._portion.seat.sessions = 0
        for listener in self._listeners:
            listener.start()

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """To a command."""
        return self._engine.explain(Question(str(question.get('why', ''))), EXPLAINED)

    def _is_busiest(self) -> bool:
        portion = self._portion
        portion.seat.sessions = len(self._server)
        return portion.recorder.is_busiest(portion.seat)

    async def stop(self) -> None:
        self._portion.seat.leave_for_good()
        if self._control is not None:
            self._control.close()
        for listener in self._listeners:
            listener.close()
        self._log.info(f'stopping: {len(self._server)} sessions')
        parts: list[SmtpServer | Engine | SpoolWatch] = [self._server, self._engine]
        parts += [self._spool] if self._spool is not None else []
        for ending in [self._reactor.spawn(part.stop(STOP_SECONDS), 'stop') for part in parts]:
            await ending
        if self._desk is not None:
            self._desk.stop()
        if self._host is not None:
            await self._host.stop()
        await self._store.close()
        if self._database is not None:
            await self._database.stop()
