"""The daemon: its ports, its user, its signals, and a supervisor that keeps the workers running.

Start: lock, ports, then the user is changed, then the workers are forked. Whatever fails before the first client is
greeted is a ConfigError with one line for the operator, and nothing has happened.

Stop (SIGTERM, SIGINT): the ports close, the workers stop. A second signal ends all at once, which is safe at any
moment: nothing is acknowledged before it is kept.
"""

from __future__ import annotations

import os
import secrets
import sys

from mqlite import __version__
from mqlite.database.open import prepare
from mqlite.errors import ConfigError
from mqlite.host import allow_open_files, become_user, host_name, take_lock
from mqlite.log import Log
from mqlite.loop.clock import Clock
from mqlite.loop.connect import ANY_ADDRESS, NO_SUCH_FAMILY, ListenSocket
from mqlite.loop.fork import Parent
from mqlite.loop.reactor import HANG_UP, STOP_SIGNALS, Reactor
from mqlite.recorder import Recorder
from mqlite.settings import Settings
from mqlite.smtp.certificates import Certificates
from mqlite.supervisor import Supervisor
from mqlite.worker_process import Inherited, WorkerProcess

OTHER_FILES = 400  # beside the connections: queue, logs, resolver, plugins, clients that are being sent away


class Daemon:
    """The process that was started."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._processes, self._threads = settings.integer('processes'), settings.integer('smtp-threads')
        self._recorder = Recorder(self._processes * self._threads)
        self._entropy = secrets.randbits(64)
        sys.unraisablehook = self._report_ignored

    def run(self) -> int:
        """Serve until a signal; the exit status."""
        settings = self._settings
        hostname = host_name(settings.text('hostname'))
        lock = take_lock(settings.text('lock')) if settings.text('lock') else None
        self._sockets = open_sockets(settings)
        if not allow_open_files(settings.integer('smtp-connections') + OTHER_FILES):
            self._log.warning('this host allows us fewer open files than smtp-connections needs; see ulimit -Hn')
        self._certificates = load_certificates(settings, self._log)
        if settings.text('smtp-auth') and not self._certificates and not settings.flag('smtp-auth-clear'):
            self._log.warning('logins are taken from this host only, because no TLS is there to protect passwords: set '
                              'smtp-certificate, or smtp-auth-clear: true to take them in clear')
        if settings.text('user'):
            become_user(settings.text('user'))
        prepare(settings, self._log)
        reactor = Reactor(on_error=self._log.mistake)
        supervisor = Supervisor(reactor, self._log, self._processes, self._work, self._recorder,
                                lambda: self._running(hostname))

        def signalled() -> None:
            for place in self._sockets:
                place.close()
            supervisor.stop()

        for number in STOP_SIGNALS:
            reactor.on_signal(number, signalled)
        reactor.on_signal(HANG_UP, self._hung_up)
        status = reactor.run(supervisor.run())
        reactor.close()
        self._log.info('stopped')
        if lock is not None:
            os.close(lock)
        return status

    def _work(self, parent: Parent, number: int, serial: int) -> int:
        """The life of a worker process."""
        threads = self._threads
        seats = self._recorder.seats[number * threads:(number + 1) * threads]
        process = WorkerProcess(self._settings, self._log, parent,
                                Inherited(self._sockets, self._certificates, self._recorder, seats))
        return process.run(self._entropy + serial * threads)

    def _running(self, hostname: str) -> None:
        for place in self._sockets:
            self._log.info(f'listening on {place.address} port {place.port}')
        workers = f', {self._processes} worker processes' if self._processes > 1 else ''
        self._log.info(f'mqlite {__version__} is running as {hostname}, process {os.getpid()}{workers}')

    def _hung_up(self) -> None:
        """What log rotation sends. Log files are opened anew by themselves; a new configuration needs a restart."""
        self._log.info('SIGHUP: nothing to do; restart for a new configuration')

    def _report_ignored(self, ignored: sys.UnraisableHookArgs) -> None:
        """What went wrong where nothing can be raised: in a callback from C, or while something is let go of."""
        self._log.warning(f'ignored {ignored.exc_value!r} in {ignored.object!r}')


def load_certificates(settings: Settings, log: Log) -> Certificates | None:
    """What the server shows; None when it speaks no TLS. ConfigError."""
    certificates, keys = settings.items('smtp-certificate'), settings.items('smtp-key')
    if certificates:
        return Certificates(certificates, keys, settings.text('smtp-ciphers'), Clock(), log)
    needed_by = 'smtp-key' if keys else 'smtp-secure-port' if settings.ports('smtp-secure-port') else ''
    if needed_by:
        raise ConfigError(f'smtp-certificate is missing: {needed_by} means nothing without it')
    return None


def open_sockets(settings: Settings) -> list[ListenSocket]:
    """A socket for each address and port to listen on. ConfigError."""
    chosen, sockets = settings.items('smtp-ip'), []
    ports = [(port, name) for name in ('smtp-port', 'smtp-secure-port') for port in settings.ports(name)]
    for address in chosen or ANY_ADDRESS:
        for port, name in ports:
            try:
                sockets.append(ListenSocket(address, port))
            except OSError as error:
                if not chosen and error.errno in NO_SUCH_FAMILY:
                    continue
                raise ConfigError(f'cannot listen on {address} port {port}: {error.strerror}; '
                                  f'check smtp-ip and {name}') from error
    return sockets
