"""`python3 build.py bench send SINK_HOST SINK_PORT N SIZE [AMQP_URL QUEUE]`: drain a full outbox to an SMTP sink.

Starts the daemon with an empty outbox (the embedded queue, or a queue on a broker), and stops its workers in the middle
of nothing (SIGSTOP); fills the outbox, prints READY, and lets the workers go on when a line comes on standard input. So
what it takes to start is not measured, as with other programs that are started before, and all that it takes to read,
send and report the messages is. It ends the daemon when standard input ends. Whoever runs it measures time and CPU of
this process tree.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Callable

from tests.support.daemon import Daemon
from tests.support.process import ROOT, wait_until

QUIET_SECONDS = 0.3  # without work after which a worker has nothing open


def main() -> int:
    host, port, count, size = sys.argv[1:5]
    broker = sys.argv[5:7]
    with tempfile.TemporaryDirectory(prefix='mqlite-bench-', dir=ROOT) as folder:
        daemon = make_daemon(Path(folder), host, port, broker).start()
        for worker in daemon.workers():
            wait_until(is_quiet(worker), 'a worker to have nothing to do', every=QUIET_SECONDS)
            os.kill(worker, signal.SIGSTOP)
        fill(daemon, broker[1] if broker else 'outbox', int(count), int(size))
        print('READY', flush=True)
        sys.stdin.readline()
        for worker in daemon.workers():
            os.kill(worker, signal.SIGCONT)
        sys.stdin.read()
        daemon.stop()
    return 0


def make_daemon(folder: Path, host: str, port: str, broker: list[str]) -> Daemon:
    queue = {'queue_address': broker[0], 'rabbitmq_outbox': broker[1]} if broker else {}
    return Daemon(folder, hostname='bench.test', application_log=folder / 'log', smtp_sink_address=host,
                  smtp_sink_port=port, **queue)


def is_quiet(process: int) -> Callable[[], bool]:
    """Whether a process has used no CPU since the look before."""
    last = None

    def look() -> bool:
        nonlocal last
        before, last = last, Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[11:13]  # ticks
        return last == before
    return look


def fill(daemon: Daemon, queue: str, count: int, size: int) -> None:
    mime = 'Subject: bench\r\n\r\n' + ('x' * 78 + '\r\n') * (size // 80)
    lines = (json.dumps({'envelope': 'sender@client.test', 'recipient': f'rcpt{number}@bench.test', 'mime': mime})
             for number in range(count))
    done = daemon.cli('queue', 'publish', queue, input='\n'.join(lines).encode())
    assert done.returncode == 0, done.stderr


if __name__ == '__main__':
    sys.exit(main())
