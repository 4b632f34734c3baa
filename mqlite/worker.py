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
from typing import Any, Callable

from mqlite.auth.desk import LoginDesk
from mqlite.auth.open import open_authenticator
from mqlite.control import ControlSocket, socket_base
from mqlite.database.locals import Locals
from mqlite.database.open import open_database
from mqlite.delivery.engine import Engine
from mqlite.delivery.explain import Question
from mqlite.errors import ConfigError
from mqlite.host import OwnPlaces, host_name
from mqlite.log import Log
from mqlite.loop.connect import Listener, ListenSocket
from mqlite.loop.reactor import Reactor
from mqlite.mail_log import open_mail_log
from mqlite.parts import make_receiver, make_resolver, make_store
from mqlite.plugin.host import PluginHost
from mqlite.queues.contract import QueueError, Store
from mqlite.receive import Receiver
from mqlite.recorder import Recorder, Seat
from mqlite.refused import RefusedMail
from mqlite.sending import make_engine
from mqlite.settings import DEFAULT, Settings
from mqlite.smtp.admission import AdmissionConfig
from mqlite.smtp.certificates import Certificates
from mqlite.smtp.clients import ClientLimits, ClientRule
from mqlite.smtp.server import ServerConfig, SmtpServer
from mqlite.smtp.session import Limits
from mqlite.smtp.shares import Share, Shares
from mqlite.spool.directory import SpoolConfig, SpoolDirectory
from mqlite.spool.watch import SpoolWatch, WatchConfig

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


def make_desk(reactor: Reactor, settings: Settings, hostname: str, host: PluginHost | None,
              log: Log) -> LoginDesk | None:
    """Where clients log in; None when they cannot. ConfigError.

    With smtp-auth, who is outside of an smtp-range that somebody has set cannot, as for MailerQ.
    """
    setting, judged = settings.text('smtp-auth'), host is not None and host.judges_logins
    if not setting and not judged:
        return None
    try:
        store = open_authenticator(reactor, make_resolver(reactor, settings), setting) if setting else None
    except ConfigError as error:
        raise ConfigError(f'smtp-auth: {error}') from None
    limited = setting and settings.origin('smtp-range') != DEFAULT
    return LoginDesk(reactor, hostname, store, judged, log.warning, settings.flag('smtp-auth-clear'),
                     settings.networks('smtp-range') if limited else None)


def make_server(reactor: Reactor, settings: Settings, store: Store, hostname: str,
                host: PluginHost | None, log: Log, is_local: Callable[[str], bool] | None,
                share: Share, certificates: Certificates | None, desk: LoginDesk | None,
                receiver: Receiver) -> SmtpServer:
    """The receiving side."""
    queue = settings.text('rabbitmq-refused')
    refused = RefusedMail(reactor, store, queue, hostname, log.warning) if queue else None
    return SmtpServer(reactor, ServerConfig(
        hostname, make_limits(settings), settings.seconds('smtp-timeout'), make_admission(settings, share), log.warning,
        is_local, settings.integer('smtp-min-rate'), settings.text('smtp-bare-line-ends') == 'normalise'),
        receiver.receive,
        host.ask_for if host is not None and host.asks_incoming else None,
        refused.keep if refused is not None else None,
        certificates.context if certificates is not None else None, desk)


def make_limits(settings: Settings) -> Limits:
    """What one session may ask of us."""
    return Limits(
        size=settings.integer('smtp-maxsize'), recipients=settings.integer('smtp-max-recipients'),
        errors=settings.integer('smtp-max-errors'), commands=settings.integer('smtp-max-commands'),
        header=settings.integer('smtp-max-header'), hops=settings.integer('smtp-max-hops'),
        dsn=settings.flag('dsn-advertise'), loose=settings.text('smtp-validate-address') == 'loose',
        must_log_in=bool(settings.text('smtp-auth')))


def make_admission(settings: Settings, share: Share) -> AdmissionConfig:
    """Who is let in."""
    of_client = ClientLimits(*(settings.integer(f'smtp-client-{name}') for name in (
        'connections', 'connection-rate', 'message-rate', 'recipient-rate')))
    in_range, is_proxy = (ClientRule(settings.networks(name)) for name in ('smtp-range', 'smtp-proxy'))
    return AdmissionConfig(share, in_range, is_proxy, of_client,
                           settings.seconds('smtp-session-timeout'), settings.seconds('smtp-greeting-delay'))


def make_spool(reactor: Reactor, settings: Settings, store: Store, receiver: Receiver,
               is_local: Callable[[str], bool] | None, log: Log) -> SpoolWatch | None:
    """The spool directory; None where there is none. ConfigError."""
    path = settings.text('spool-directory')
    if not path:
        return None
    directory = SpoolDirectory(SpoolConfig(
        path, settings.text('spool-fail-directory'), settings.seconds('spool-delay'), settings.flag('spool-remove'),
        settings.integer('smtp-maxsize')))
    config = WatchConfig(settings.flag('spool-extract'), settings.integer('spool-open-files'),
                         settings.integer('spool-threads'))
    return SpoolWatch(reactor, directory, receiver, store, config,
                      is_local or (lambda _address: False), log)
