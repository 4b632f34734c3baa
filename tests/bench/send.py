"""`python3 build.py bench send SINK_HOST SINK_PORT N SIZE [AMQP_URL QUEUE]`: drain a full outbox to an SMTP sink.

Fills the queue (the embedded one, or a queue on a broker), prints READY, starts the daemon when a line comes on
standard input, and ends it when standard input ends. Whoever runs it measures time and CPU of this process tree.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.process import ROOT, free_port


def main() -> int:
    host, port, count, size = sys.argv[1:5]
    broker = sys.argv[5:7]
    with tempfile.TemporaryDirectory(prefix='mqlite-bench-', dir=ROOT) as folder:
        config = write_config(Path(folder), host, port, broker)
        fill(config, broker[1] if broker else 'outbox', int(count), int(size))
        print('READY', flush=True)
        sys.stdin.readline()
        daemon = subprocess.Popen([sys.executable, '-m', 'mqlite', '--config', str(config)], cwd=ROOT)
        sys.stdin.read()
        daemon.terminate()
        return daemon.wait()


def write_config(folder: Path, host: str, port: str, broker: list[str]) -> Path:
    config = folder / 'mqlite.conf'
    queue = f'queue-address: {broker[0]}\nrabbitmq-outbox: {broker[1]}' if broker else \
        f'queue-address: sqlite://{folder}/queue.db'
    config.write_text(f'smtp-ip: 127.0.0.1\nsmtp-port: {free_port()}\nhostname: bench.test\n{queue}\n'
                      f'application-log: {folder}/log\nsmtp-sink-address: {host}\nsmtp-sink-port: {port}\n')
    return config


def fill(config: Path, queue: str, count: int, size: int) -> None:
    mime = 'Subject: bench\r\n\r\n' + ('x' * 78 + '\r\n') * (size // 80)
    lines = (json.dumps({'envelope': 'sender@client.test', 'recipient': f'rcpt{number}@bench.test', 'mime': mime})
             for number in range(count))
    subprocess.run([sys.executable, '-m', 'mqlite', 'queue', 'publish', queue, '--config', str(config)], cwd=ROOT,
                   input='\n'.join(lines).encode(), stderr=subprocess.DEVNULL, check=True)


if __name__ == '__main__':
    sys.exit(main())
