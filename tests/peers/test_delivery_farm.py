"""A daemon, and a farm of a hundred exchangers of which some are slow, mute, down or full: real sockets, real queue."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.support.daemon import Daemon
from tests.support.database import execute, make_database
from tests.support.farm import BUSY, BUSY_CONNECTIONS, EXCHANGERS, MUTE, PACED, REFUSING, SLOW
from tests.support.process import ROOT, free_port, wait_until

MESSAGES = int(os.environ.get('MQLITE_FARM_MESSAGES', '100000'))
DOMAINS = 10  # of each exchanger
RATE = 600  # per minute, to PACED


class RunningFarm:
    def __init__(self) -> None:
        self.port = free_port()
        self.process = subprocess.Popen([sys.executable, '-m', 'tests.support.farm', str(self.port)], cwd=ROOT,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.nameserver = f'127.0.0.1:{self.process.stdout.readline().split()[1]}'

    def report(self) -> dict[str, Any]:
        """Counts by exchanger."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write('\n')
        self.process.stdin.flush()
        found = json.loads(self.process.stdout.readline())
        return {name: {int(key): count for key, count in value.items()} if isinstance(value, dict) else value
                for name, value in found.items()}

    def close(self) -> None:
        with self.process:  # closes its pipes, and waits
            self.process.kill()


@pytest.fixture
def farm() -> Iterator[RunningFarm]:
    made = RunningFarm()
    yield made
    made.close()


def largest(pid: int) -> int:
    """MiB that the process has used at most."""
    status = Path(f'/proc/{pid}/status').read_text()
    return int(status.partition('VmHWM:')[2].split()[0]) // 1024


def messages() -> bytes:
    numbers = list(range(MESSAGES))
    random.Random(1).shuffle(numbers)
    mime = 'Subject: farm\r\n\r\n' + 'x' * 2000 + '\r\n'
    return b'\n'.join(json.dumps({
        'envelope': 's@client.test', 'mime': mime,
        'recipient': f'{number}@d{number // EXCHANGERS % DOMAINS}.e{number % EXCHANGERS}.farm.test'}).encode()
        for number in numbers)


def test_a_farm(farm: RunningFarm, start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    path = str(tmp_path / 'config.db')
    make_database(path).close()
    execute(path, f"INSERT INTO capacity (domain, domain_maxmessages) VALUES ('d3.e{PACED}.farm.test', {RATE})")
    daemon = start_daemon(database_address=f'sqlite://{path}', rabbitmq_results='', rabbitmq_success='done')
    daemon.stop()
    assert daemon.cli('queue', 'publish', 'outbox', input=messages()).returncode == 0
    daemon.program = [sys.executable, '-m', 'tests.support.farm_daemon', str(farm.port), farm.nameserver]
    daemon.patience = 60.0
    begin = time.monotonic()
    daemon.start()
    count, healthy = MESSAGES // EXCHANGERS, range(SLOW[0])
    wait_until(lambda: all(farm.report()['taken'].get(number) == count for number in healthy), 'the healthy',
               900, every=0.5)
    took, report = time.monotonic() - begin, farm.report()
    [worker] = daemon.workers()
    print(f'{len(healthy) * count} messages to healthy exchangers in {took:.1f} s, '
          f'{len(healthy) * count / took:.0f} per second; at most {largest(worker)} MiB; '
          f'taken meanwhile: slow {[report["taken"].get(number, 0) for number in SLOW]}, '
          f'busy {report["taken"].get(BUSY, 0)}, paced {len(report["paced"])}')
    wait_until(lambda: farm.report()['taken'].get(BUSY) == count and len(farm.report()['paced']) >= min(count, 300),
               'the busy and the paced', 300, every=0.5)
    report = farm.report()
    assert report['most_open'][BUSY] <= BUSY_CONNECTIONS and report['refused'].get(BUSY, 0) < 30
    paced = report['paced']
    rate = 60 * (len(paced) - 1) / (paced[-1] - paced[0])
    print(f'paced: {rate:.1f} per minute, {RATE} was set; refused by the busy one: {report["refused"].get(BUSY, 0)}; '
          f'connects to mute ones: {[report["connects"].get(number, 0) for number in MUTE]}')
    assert 0.95 * RATE <= rate <= 1.05 * RATE
    assert all(report['taken'].get(number, 0) >= 5 for number in SLOW), 'nobody starves'
    assert all(report['connects'].get(number, 0) <= 10 for number in MUTE)
    assert largest(worker) < 400 and not any(number in report['taken'] for number in REFUSING)
