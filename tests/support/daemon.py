"""The daemon and the command line of mqlite, run as a user runs them: other processes, real files, real sockets.

By default from the checkout (`python -m mqlite`); `program` names another way, for instance a built archive.
"""

from __future__ import annotations

import atexit
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.peers import Certificate
from tests.support.process import HOST, ROOT, WAIT_SECONDS, Process, answers, environment_with, free_port, wait_until

CHECKOUT = (sys.executable, '-m', 'mqlite')
# The same program, for what others do to it: it looks every 50 ms for that, not every second, and for a broker that is
# away at least every half second.
ALERT = (sys.executable, '-c', """
import functools, sys
from mqlite import cli
from mqlite.database import live
from mqlite.queues import open, rabbit
from mqlite.spool import watch
live.LOOK_SECONDS = watch.LOOK_SECONDS = 0.05
rabbit.LONGEST_PAUSE = rabbit.FIRST_PAUSE
open.EmbeddedStore = functools.partial(open.EmbeddedStore, poll_seconds=0.05)
sys.exit(cli.main())
""")
BYTE_CODE = tempfile.mkdtemp(prefix='mqlite-byte-code-')        # compiled once, whatever this Python is told to keep
Path(BYTE_CODE).chmod(0o755)                                    # a daemon without privileges reads it
atexit.register(shutil.rmtree, BYTE_CODE)
ENVIRONMENT = {'PYTHONPATH': str(ROOT), 'PYTHONPYCACHEPREFIX': BYTE_CODE, 'PYTHONDONTWRITEBYTECODE': ''}


def greeting(port: int) -> bytes:
    """The first bytes that an SMTP server sends; empty when nothing answers."""
    try:
        with socket.create_connection((HOST, port), timeout=5) as connection:
            return connection.recv(512)
    except OSError:
        return b''


class Daemon:
    """One daemon in its own folder, which may be started more than once over the same queue.

    `settings` are written to `mqlite.conf` as they are; underscores in the keys stand for dashes.
    """

    def __init__(self, folder: Path, program: Sequence[str] = CHECKOUT, **settings: object) -> None:
        self.folder = folder
        self.program = program
        self.port = free_port()
        self.config = folder / 'mqlite.conf'
        self.process: Process | None = None
        self.patience = WAIT_SECONDS    # for the start and for the end
        self.settings: dict[str, object] = {
            'hostname': 'localhost', 'smtp-ip': HOST, 'smtp-port': self.port,
            'queue-address': f'sqlite://{folder}/queue.db', 'application-log': 'stdout',
            **{key.replace('_', '-'): value for key, value in settings.items()}}

    def start(self) -> Daemon:
        """Write the configuration, start, return once it has greeted; after `kill` or `stop`, over the same queue."""
        if self.process:
            self.process.close()
        self.config.write_text(''.join(f'{key}: {value}\n' for key, value in self.settings.items()))
        self.process = Process([*self.program, '--config', self.config], self.folder, ENVIRONMENT)
        self.process.wait_for(lambda: greeting(self.port).startswith(b'220 '), 'the greeting', self.patience)
        return self

    def output(self) -> str:
        return self.process.output() if self.process else ''

    def kill(self) -> None:
        """`kill -9`: what follows must find every message that got its 250."""
        assert self.process
        self.process.kill()
        wait_until(lambda: not answers(self.port), f'port {self.port} to be free')  # the kernel ends one after another

    def workers(self) -> list[int]:
        """The worker processes."""
        assert self.process
        return self.process.children()

    def stop(self) -> None:
        """SIGTERM; AssertionError unless it ends with status 0, and without a traceback in its log."""
        assert self.process
        self.process.signal(signal.SIGTERM)
        status = self.process.wait(self.patience)
        assert status == 0 and 'Traceback' not in self.output(), f'status {status}; its output:\n{self.output()}'

    def close(self) -> None:
        """End of the test: a daemon that still runs is stopped, and must stop cleanly."""
        if self.process is None:
            return
        try:
            if self.process.running:
                self.stop()
        finally:
            self.process.close()

    def cli(self, *arguments: str, input: bytes = b'') -> subprocess.CompletedProcess[bytes]:
        """`mqlite ARGUMENTS --config` of this daemon, in this process."""
        words = [*arguments, '--config', str(self.config)]
        from tests.support.command import run_here  # here, not above: see there
        ended = run_here(self.folder, *words, input=input)
        return subprocess.CompletedProcess(words, ended.status, ended.output.encode(), ended.errors.encode())

    def take(self, queue: str, count: int) -> list[dict[str, Any]]:
        """Take the documents off a queue until there were so many. AssertionError when they do not come, or more do."""
        taken: list[dict[str, Any]] = []

        def enough() -> bool:
            done = self.cli('queue', 'get', queue)
            assert done.returncode == 0, done.stderr
            taken.extend(json.loads(line) for line in done.stdout.splitlines())
            return len(taken) >= count
        wait_until(enough, f'{count} documents on {queue}')
        assert len(taken) == count, f'{len(taken)} documents on {queue}, {count} were expected'
        return taken


class SecureDaemon(Daemon):
    """It offers STARTTLS, `secure_port` speaks TLS from the first byte, and what it receives stays on `inbox`."""

    def __init__(self, folder: Path, *certificates: Certificate, **settings: object) -> None:
        self.secure_port = free_port()
        self.certificate = str(certificates[0].certificate)
        super().__init__(
            folder, CHECKOUT, rabbitmq_inbox='inbox', smtp_secure_port=self.secure_port,
            smtp_certificate=', '.join(str(pair.certificate) for pair in certificates),
            smtp_key=', '.join(str(pair.key) for pair in certificates), **settings)


def run_cli(*arguments: str, input: bytes = b'', program: Sequence[str] = CHECKOUT,
            cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run to its end with these bytes on standard input; the caller judges status, output and errors (bytes)."""
    return subprocess.run([*program, *arguments], input=input, capture_output=True, cwd=cwd, timeout=60,
                          env=environment_with(ENVIRONMENT))

