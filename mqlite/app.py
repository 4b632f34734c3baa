"""The daemon: what is wired to what, the start, and the stop.

Start: log, lock, ports, then the user is changed, then the queue is opened and served. Whatever fails before the first
client is greeted is a ConfigError with one line for the operator, and nothing has happened.

Stop (SIGTERM, SIGINT): the ports close; idle sessions get 421; messages that are being received or sent are finished,
for at most STOP_SECONDS; what was not finished goes back to its queue; the queue is closed. A second signal ends the
process at once, which is safe at any moment: nothing is acknowledged before it is kept.
"""

from __future__ import annotations

import ipaddress
import os
import traceback

from mqlite import __version__
from mqlite.delivery.attempt import Dialler
from mqlite.delivery.engine import Engine, EngineConfig
from mqlite.delivery.retry import RetryPolicy
from mqlite.delivery.route import RouteConfig
from mqlite.errors import ConfigError
from mqlite.host import become_user, host_name, take_lock
from mqlite.log import Log
from mqlite.loop.connect import ANY_ADDRESS, NO_SUCH_FAMILY, Listener
from mqlite.loop.reactor import HANG_UP, STOP_SIGNALS, Reactor
from mqlite.loop.stream import Stream
from mqlite.loop.task import Waiter
from mqlite.loop.tls import client_context
from mqlite.parts import make_receiver, make_resolver, make_store
from mqlite.plugin.host import PluginHost
from mqlite.plugin.loader import load_plugins
from mqlite.queues.contract import QueueError, Store
from mqlite.settings import Settings
from mqlite.smtp.server import ServerConfig, SmtpServer
from mqlite.smtp.session import Limits

STOP_SECONDS = 30.0  # for what is in flight; process supervisors wait longer (systemd: 90 s)
_LOOPBACK = (ipaddress.ip_network('127.0.0.0/8'), ipaddress.ip_network('::1/128'))
_KNOWN_CLIENTS = 10000  # client addresses for which the answer of may_relay is remembered


class Daemon:
    """One process: one reactor, one store, the server and the delivery engine."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._reactor = Reactor(on_error=self._report)
        self._hostname = host_name(settings.text('hostname'))
        self._stop = Waiter[None](self._reactor)
        self._store = make_store(self._reactor, settings, log.warning)
        self._listeners: list[Listener] = []

    def run(self) -> int:
        """Serve until a signal; the exit status."""
        settings = self._settings
        lock = take_lock(settings.text('lock')) if settings.text('lock') else None
        self._listen()
        if settings.text('user'):
            become_user(settings.text('user'))
        for number in STOP_SIGNALS:
            self._reactor.on_signal(number, self._signalled)
        self._reactor.on_signal(HANG_UP, self._hung_up)
        self._host = make_plugin_host(self._reactor, settings, self._log)
        self._server = make_server(self._reactor, settings, self._store, self._hostname, self._host)
        self._engine = make_engine(self._reactor, settings, self._store, self._hostname, self._host)
        self._reactor.run(self._serve())
        self._reactor.close()
        if lock is not None:
            os.close(lock)
        return 0

    def _listen(self) -> None:
        chosen = self._settings.items('smtp-ip')
        for address in chosen or ANY_ADDRESS:
            for port in self._settings.ports('smtp-port'):
                try:
                    self._listeners.append(Listener(self._reactor, address, port, self._accept, self._log.warning))
                except OSError as error:
                    if not chosen and error.errno in NO_SUCH_FAMILY:
                        continue
                    raise ConfigError(f'cannot listen on {address} port {port}: {error.strerror}; '
                                      f'check smtp-ip and smtp-port') from error

    def _accept(self, stream: Stream) -> None:
        self._server.accept(stream)

    async def _serve(self) -> None:
        if self._host is not None:
            await self._host.start()
        try:
            await self._store.open()
        except QueueError as error:
            self._log.warning(str(error))  # the store goes on trying; until then clients get 451
        self._engine.start()
        for listener in self._listeners:
            listener.start()
            self._log.info(f'listening on {listener.address} port {listener.port}')
        self._log.info(f'mqlite {__version__} is running as {self._hostname}, process {os.getpid()}')
        await self._stop
        for listener in self._listeners:
            listener.close()
        self._log.info(f'stopping: {len(self._server)} sessions')
        for ending in [self._reactor.spawn(part.stop(STOP_SECONDS), 'stop') for part in (self._server, self._engine)]:
            await ending
        if self._host is not None:
            await self._host.stop()
        await self._store.close()
        self._log.info('stopped')

    def _signalled(self) -> None:
        if self._stop.done:
            self._log.warning('second signal: ending at once')
            os._exit(1)
        self._stop.set()

    def _hung_up(self) -> None:
        """What log rotation sends. Log files are opened anew by themselves; a new configuration needs a restart."""
        self._log.info('SIGHUP: nothing to do; restart for a new configuration')

    def _report(self, error: BaseException, where: str) -> None:
        """A mistake of ours: one task or callback has ended, the others go on."""
        frames = ' < '.join(f'{frame.name} {os.path.basename(frame.filename)}:{frame.lineno}'
                            for frame in reversed(traceback.extract_tb(error.__traceback__)))
        self._log.critical(f'internal error {where}: {error!r} in {frames}')


def make_plugin_host(reactor: Reactor, settings: Settings, log: Log) -> PluginHost | None:
    """The plugins, loaded; None where there are none."""
    directory = settings.text('plugin-directory')
    if not directory:
        return None
    plugins = load_plugins(directory, log, int(settings.text('plugin-generation') or 0), settings.text('plugin-shim'))
    log.info(f'plugins in {directory}: {", ".join(plugin.name for plugin in plugins) or "none"}')
    return PluginHost(plugins, reactor, log, settings.seconds('plugin-timeout')) if plugins else None


def make_server(reactor: Reactor, settings: Settings, store: Store, hostname: str,
                host: PluginHost | None) -> SmtpServer:
    """The receiving side."""
    receiver = make_receiver(reactor, settings, store, hostname)
    return SmtpServer(reactor, ServerConfig(
        hostname, Limits(size=settings.integer('smtp-maxsize')), settings.seconds('smtp-timeout'),
        settings.integer('smtp-connections'), RelayRule(settings)), receiver.receive,
        host.ask_for if host is not None and host.asks_incoming else None)


def make_engine(reactor: Reactor, settings: Settings, store: Store, hostname: str, host: PluginHost | None) -> Engine:
    """The sending side."""
    queues = {kind: settings.text(f'rabbitmq-{kind}') for kind in ('results', 'success', 'failure', 'retry')}
    config = EngineConfig(
        settings.text('rabbitmq-outbox'), queues,
        RetryPolicy(settings.intervals('retry-interval'), settings.integer('max-attempts'),
                    settings.seconds('max-delivertime')),
        RouteConfig(_server_of(settings, 'smtp-sink-address', 'smtp-sink-port'),
                    _server_of(settings, 'smarthost', 'smarthost-port'), settings.items('smtp-default-ips')),
        settings.integer('smtp-connections'), host is not None and host.loads_mime)
    dialler = Dialler(reactor, make_resolver(reactor, settings), hostname, client_context(),
                      host.companion if host is not None and host.asks_outgoing else None)
    return Engine(reactor, store, dialler, config)


def _server_of(settings: Settings, host: str, port: str) -> tuple[str, int] | None:
    name = settings.text(host)
    return (name, settings.integer(port)) if name and name != '0.0.0.0' else None


class RelayRule:
    """Which clients may relay: those in smtp-range.

    Where smtp-auth is set, its installation relies on logins that this version cannot check; the range then was never
    meant to be enough, so only this host may relay.
    """

    def __init__(self, settings: Settings) -> None:
        self._networks = _LOOPBACK if settings.text('smtp-auth') else settings.networks('smtp-range')
        self._known: dict[str, bool] = {}

    def __call__(self, client: str) -> bool:
        answer = self._known.get(client)
        if answer is None:
            if len(self._known) >= _KNOWN_CLIENTS:
                self._known.clear()
            address = ipaddress.ip_address(client.partition('%')[0])
            answer = self._known[client] = any(address in network for network in self._networks)
        return answer
