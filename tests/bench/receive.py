"""`python3 build.py bench receive`: how fast mqlite takes mail in and keeps it, beside aiosmtpd, which discards it.

smtp-source (package postfix) sends messages of 5 KiB over 20 sessions, one message per connection and connections kept.
Prints messages per second and CPU seconds per 1,000 messages of each server, children and threads included. The
contestants take turns; medians are shown. `--amqp URL` keeps on a broker instead of the embedded queue, and with
`--processes 1,2` mqlite takes part with one worker process and with two.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.process import ROOT, answers, find_program, free_port, wait_until

AIOSMTPD = """
import asyncio, sys
from aiosmtpd.smtp import SMTP
class Discard:
    async def handle_DATA(self, server, session, envelope):
        return '250 OK'
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Discard(), hostname='bench.test'), '127.0.0.1', int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
"""
MODES = {'one message per connection': (), 'connections kept': ('-d',)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--messages', type=int, default=5000)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--amqp', default='')
    parser.add_argument('--processes', default='1')
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix='mqlite-bench-', dir=ROOT))
    servers = {}
    try:
        for count in options.processes.split(','):
            servers[f'mqlite, {count}' if count != '1' else 'mqlite'] = start_mqlite(folder, options.amqp, count)
        servers['aiosmtpd'] = start_aiosmtpd()
        for mode, flags in MODES.items():
            report(mode, {name: [] for name in servers}, servers, flags, options)
    finally:
        for process, _ in servers.values():
            process.terminate()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def start_mqlite(folder: Path, amqp: str, processes: str) -> tuple[subprocess.Popen[bytes], int]:
    port = free_port()
    config = folder / f'mqlite-{processes}.conf'
    config.write_text(f'''smtp-ip: 127.0.0.1
smtp-port: {port}
hostname: bench.test
queue-address: {amqp or f"sqlite://{folder}/queue-{processes}.db"}
rabbitmq-inbox: inbox
processes: {processes}
application-log: {folder}/log-{processes}
''')
    command = [sys.executable, '-m', 'mqlite', '--config', str(config)]
    process = subprocess.Popen(command, cwd=ROOT)
    log = folder / f'log-{processes}'
    wait_until(lambda: log.exists() and 'is running' in log.read_text(), 'mqlite to start')
    return process, port


def start_aiosmtpd() -> tuple[subprocess.Popen[bytes], int]:
    port = free_port()
    process = subprocess.Popen([sys.executable, '-c', AIOSMTPD, str(port)])
    wait_until(lambda: answers(port), f'port {port} to answer')
    return process, port


def report(mode: str, figures: dict[str, list[tuple[float, float]]],
           servers: dict[str, tuple[subprocess.Popen[bytes], int]], flags: tuple[str, ...],
           options: argparse.Namespace) -> None:
    for turn in range(options.rounds + 1):
        for name, (process, port) in servers.items():
            figure = measure(process.pid, port, flags, options.messages)
            if turn:  # the first one warms up
                figures[name].append(figure)
    print(f'\n{mode}: 20 sessions, 5 KiB, {options.messages} messages a round, {options.rounds} rounds')
    for name, rows in figures.items():
        rate, cpu = (statistics.median(column) for column in zip(*rows))
        print(f'  {name:<10} {rate:>8.0f} messages/s   {cpu:.3f} CPU s per 1,000')


def measure(pid: int, port: int, flags: tuple[str, ...], messages: int) -> tuple[float, float]:
    before, begin = cpu_seconds_of_all(pid), time.perf_counter()
    subprocess.run([find_program('smtp-source'), '-s', '20', '-m', str(messages), '-l', '5120', '-f', 'a@client.test',
                    '-t', 'b@bench.test', *flags, f'127.0.0.1:{port}'], check=True)
    wall = time.perf_counter() - begin
    return messages / wall, (cpu_seconds_of_all(pid) - before) / messages * 1000


def cpu_seconds_of_all(pid: int) -> float:
    """Of the process and the processes that it has started."""
    children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    return sum(cpu_seconds(process) for process in (pid, *map(int, children)))


def cpu_seconds(pid: int) -> float:
    """User and system time of the process, all its threads."""
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


if __name__ == '__main__':
    sys.exit(main())
