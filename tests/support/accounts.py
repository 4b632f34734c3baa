"""Bookkeeping for fault tests on a broker: every 250 that a client got is found again at the end."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.support.broker import Broker
from tests.support.daemon import Daemon
from tests.support.load import Load, load_identifiers
from tests.support.process import HOST, find_program, wait_until
from tests.support.sink import CapturingSink

SECONDS = 60.0          # until everything has arrived, after a fault
QUEUES = ('outbox', *(f'outbox.wait.{delay}' for delay in (1200, 300, 60, 10, 2)))


class TimedLoad(Load):
    """`refusals`: for each message that was answered with 4yz, the seconds that the client had to wait for that."""

    def __init__(self, port: int, clients: int) -> None:
        self.refusals: list[float] = []
        super().__init__(port, clients)

    def _send(self, client: smtplib.SMTP, name: str) -> None:
        began = time.monotonic()
        try:
            super()._send(client, name)
        except smtplib.SMTPResponseException as error:
            assert 400 <= error.smtp_code < 500, error
            self.refusals.append(time.monotonic() - began)
            raise


class Accounts:
    """A daemon between a broker and a sink, clients that note what they were promised, and smtp-source beside them."""

    def __init__(self, start_daemon: Callable[..., Daemon], broker: Broker, sink: CapturingSink, url: str = '',
                 **settings: Any) -> None:
        self.broker = broker
        self.sink = sink
        self.daemon = start_daemon(queue_address=url or broker.url + '?heartbeat=2', smtp_sink_address=HOST,
                                   smtp_sink_port=sink.port, retry_interval=1, **settings)
        self.load = TimedLoad(self.daemon.port, clients=3)
        self._source = self._start_source()

    def _start_source(self) -> subprocess.Popen[bytes]:
        """Three clients that send without a pause, also after an answer that they do not like (-A)."""
        options = ['-A', '-s', '3', '-m', '1000000', '-l', '2000']
        return subprocess.Popen([find_program('smtp-source'), *options, f'{HOST}:{self.daemon.port}'],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait_more(self, count: int = 100, seconds: float = SECONDS) -> None:
        """So many messages more are promised: the daemon serves (again)."""
        before = len(self.load.promised)
        if self._source.poll() is not None:     # it does give up when a connection is refused
            self._source = self._start_source()
        wait_until(lambda: len(self.load.promised) >= before + count, f'{count} messages to be accepted; the log:\n'
                   + self.daemon.output(), seconds)

    def wait_refused(self, within: float) -> float:
        """Until a client is told to come later; how many seconds it had to wait for that answer."""
        refusals = self.load.refusals
        before = len(refusals)
        wait_until(lambda: len(refusals) > before, 'a client to be told to come later', within)
        return refusals[-1]

    def hang_up(self) -> None:
        """The sink ends all its connections."""
        for connection in self.sink._open:
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)

    def end_load(self) -> None:
        self._source.kill()
        self._source.wait()
        self.load.stop()

    def close(self, deferred: int = 0) -> Counter[str]:
        """End the load, wait until nothing but `deferred` messages is left; how often each promised message arrived."""
        self.end_load()
        promised = set(self.load.promised)
        wait_until(lambda: promised <= set(self._arrived()), 'every promised message', SECONDS)
        wait_until(lambda: sum(map(self.broker.depth, QUEUES)) == deferred, 'the queues to run empty', SECONDS)
        assert 'internal error' not in self.daemon.output(), self.daemon.output()
        counts = Counter(self._arrived())
        twice = sum(count > 1 for count in counts.values())
        print(f'{len(promised)} promised, {len(counts)} of these clients arrived, {twice} more than once, '
              f'{len(self.sink.transactions)} in all')
        return counts

    def _arrived(self) -> list[str]:
        return load_identifiers(list(self.sink.transactions))


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
