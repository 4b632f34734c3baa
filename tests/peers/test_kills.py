"""`kill -9` during deliveries, again and again, with either queue: `python3 build.py peers`.

Nothing is lost. What arrives twice was unsettled when the daemon died: on the outbox still, although the server had it.
Its result says so. Each message that is settled has its result.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.broker import Broker
from tests.support.daemon import Daemon
from tests.support.process import HOST, wait_until
from tests.support.sink import CapturingSink

Start = Callable[..., Daemon]
MESSAGES = 4000
KILLS = 10
IN_FLIGHT = 100     # arrived, not settled: one for each of 20 connections, and those whose results are being written
SECONDS = 60.0


def documents() -> bytes:
    return b''.join(json.dumps({'envelope': 's@a.example', 'recipient': f'r{number}@b.example',
                                'mime': 'Subject: x\r\n\r\nx\r\n'}).encode() + b'\n' for number in range(MESSAGES))


def arrived(sink: CapturingSink) -> Counter[str]:
    """How often each recipient's message did."""
    return Counter(line.decode()[len('RCPT TO:<'):-1] for transaction in list(sink.transactions)
                   for line in transaction.recipients)


def depth(daemon: Daemon, broker: Broker | None) -> int:
    """Messages that are not settled, in somebody's hands or not."""
    if broker is not None:
        return broker.depth_but('results')
    done = daemon.cli('queue', 'list')
    assert done.returncode == 0, done.stderr
    return sum(sum(map(int, line.split()[1:4])) for line in done.stdout.decode().splitlines()
               if line.startswith('outbox'))


def attempts(daemon: Daemon) -> dict[str, list[dict[str, Any]]]:
    """The last attempt of each result, by recipients."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in daemon.cli('queue', 'get', 'results').stdout.splitlines():
        document = json.loads(line)
        found.setdefault(document['recipient'], []).append(document['results'][-1])
    return found


@pytest.mark.parametrize('store', ['embedded', 'rabbit'])
def test_killed_again_and_again(start_daemon: Start, sink: CapturingSink, broker: Broker, store: str) -> None:
    broker.delete_queues()
    used = broker if store == 'rabbit' else None
    queue = {'queue_address': broker.url} if used else {}
    daemon = start_daemon(smtp_sink_address=HOST, smtp_sink_port=sink.port, **queue)
    daemon.stop()
    done = daemon.cli('queue', 'publish', 'outbox', input=documents())
    assert done.returncode == 0, done.stderr
    daemon.start()
    chance, unsettled = random.Random(6), []        # of what had arrived at each kill
    for _ in range(KILLS):
        count = len(sink.transactions) + chance.randrange(1, MESSAGES // KILLS)
        wait_until(lambda count=count: len(sink.transactions) >= count,     # type: ignore[misc]
                   f'{count} deliveries', SECONDS, every=0.001)
        daemon.kill()
        wait_until(lambda: broker.connections() == 0, 'the broker to see it')
        unsettled.append(len(arrived(sink)) + depth(daemon, used) - MESSAGES)
        daemon.start()
    wait_until(lambda: len(arrived(sink)) == MESSAGES, 'everything to be delivered', SECONDS, every=0.1)
    wait_until(lambda: depth(daemon, used) == 0, 'everything to be settled', SECONDS, every=0.5)
    arrivals, results = arrived(sink), attempts(daemon)
    doubled = {recipient: count for recipient, count in arrivals.items() if count > 1}
    print(f'{store}: arrived, but not settled at each kill: {unsettled}; {len(doubled)} of {MESSAGES} arrived twice')
    assert len(arrivals) == len(results) == MESSAGES and 0 <= min(unsettled) <= max(unsettled) < IN_FLIGHT
    assert sum(arrivals.values()) - MESSAGES <= sum(unsettled)
    assert all(any(attempt.get('redelivered') for attempt in results[recipient]) for recipient in doubled)
    assert all(attempt['result'] == 'accepted' for found in results.values() for attempt in found)
    assert all(len(found) <= arrivals[recipient] for recipient, found in results.items())
    if store == 'embedded':     # there a message and its result are settled in one step
        assert all(len(found) == 1 for found in results.values())
