"""The daemon: a process with its ports, its user, its signals, and a worker.

Start: log, lock, ports, then the user is changed, then the worker is opened and listens. Whatever fails before the
first client is greeted is a ConfigError with one line for the operator, and nothing has happened.

Stop (SIGTERM, SIGINT): the worker stops. A second signal ends the process at once, which is safe at any moment:
nothing is acknowledged before it is kept.
"""

from __future__ import annotations

import os
import sys
import traceback

from mqlite import __version__
from mqlite.database.open import prepare
from mqlite.errors import ConfigError
from mqlite.host import allow_open_files, become_user, host_name, take_lock
from mqlite.log import Log
from mqlite.loop.clock import Clock
from mqlite.loop.connect import ANY_ADDRESS, NO_SUCH_FAMILY, ListenSocket
from mqlite.loop.reactor import HANG_UP, STOP_SIGNALS, Reactor
from mqlite.loop.task import Waiter
from mqlite.settings import Settings
from mqlite.smtp.certificates import Certificates
from mqlite.worker import Worker

OTHER_FILES = 400  # beside the connections: queue, logs, resolver, plugins, clients that are being sent away


class Daemon:
    """One process."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._reactor = Reactor(on_error=self._report)
        self._stop = Waiter[None](self._reactor)
        sys.unraisablehook = self._report_ignored

    def run(self) -> int:
        """Serve until a signal; the exit status."""
        settings = self._settings
        lock = take_lock(settings.text('lock')) if settings.text('lock') else None
        sockets = open_sockets(settings)
        if not allow_open_files(settings.integer('smtp-connections') + OTHER_FILES):
            self._log.warning('this host allows us fewer open files than smtp-connections needs; see ulimit -Hn')
        certificates = load_certificates(settings, self._log)
        if settings.text('user'):
            become_user(settings.text('user'))
        prepare(settings, self._log)
        for number in STOP_SIGNALS:
            self._reactor.on_signal(number, self._signalled)
        self._reactor.on_signal(HANG_UP, self._hung_up)
        self._reactor.run(self._serve(Worker(self._reactor, settings, self._log, sockets, certificates)))
        self._reactor.close()
        if lock is not None:
            os.close(lock)
        return 0

    async def _serve(self, worker: Worker) -> None:
        await worker.open()
        worker.listen()
        hostname = host_name(self._settings.text('hostname'))
        self._log.info(f'mqlite {__version__} is running as {hostname}, process {os.getpid()}')
        await self._stop
        await worker.stop()

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
