"""Everything that can happen to a broker, under load and with deliveries running: `python3 build.py peers`.

Each time every 250 is accounted for at the end, and nobody helps the daemon.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pytest

from mqlite.loop.clock import Clock
from mqlite.loop.task import sleep
from mqlite.queues import rabbit
from mqlite.queues.contract import Message
from tests.support.accounts import Accounts, timed
from tests.support.broker import Broker
from tests.support.daemon import Daemon
from tests.support.load import send
from tests.support.loop import open_descriptors
from tests.support.process import HOST, wait_until
from tests.support.rabbit import RabbitStores
from tests.support.sink import CapturingSink

Start = Callable[..., Daemon]
DEFERRED = 100_000
RECONNECTS = 10_000


@pytest.fixture
def accounts(start_accounts: Callable[..., Accounts], broker: Broker) -> Accounts:
    return start_accounts(broker)


def doubled(accounts: Accounts, deferred: int = 0) -> int:
    return sum(count > 1 for count in accounts.close(deferred).values())


def test_killed(accounts: Accounts) -> None:
    for _ in range(3):
        accounts.wait_more(300)
        accounts.broker.kill()
        assert accounts.wait_refused(5) < 1
        accounts.broker.start()
        accounts.wait_more()
    assert doubled(accounts) <= 300


def test_stopped_for_longer_than_two_heartbeats(accounts: Accounts) -> None:
    accounts.wait_more(300)
    accounts.broker.pause()
    wait_until(lambda: 'silent for two heartbeats' in accounts.daemon.output(), 'the link to be given up')
    accounts.wait_refused(10)
    assert accounts.wait_refused(10) < 1
    accounts.broker.resume()
    accounts.wait_more(300)
    assert doubled(accounts) <= 100


def test_stopped_and_heartbeats_off(start_accounts: Callable[..., Accounts], broker: Broker) -> None:
    """Nobody ends the link, and clients are told after ten seconds that nothing is kept."""
    accounts = start_accounts(broker, broker.url + '?heartbeat=0')
    accounts.wait_more(300)
    broker.pause()
    wait_until(lambda: 'does not confirm messages' in accounts.daemon.output(), 'the stall to be noticed')
    accounts.wait_refused(10)
    assert accounts.wait_refused(10) < 1
    broker.resume()
    accounts.wait_more(300)
    assert 'confirms messages again' in accounts.daemon.output() and 'is gone' not in accounts.daemon.output()
    assert doubled(accounts) == 0


def test_restarted_in_order(accounts: Accounts) -> None:
    accounts.wait_more(300)
    accounts.broker.restart()
    accounts.wait_more(300)
    assert doubled(accounts) <= 100


def test_a_memory_alarm_is_set_and_lifted(accounts: Accounts) -> None:
    accounts.wait_more(300)
    accounts.broker.set_memory_alarm(True)
    accounts.wait_refused(10)
    assert accounts.wait_refused(10) < 1
    wait_until(lambda: 'takes no messages now' in accounts.daemon.output(), 'the alarm to be noticed')
    accounts.broker.set_memory_alarm(False)
    accounts.wait_more(300)
    assert 'is gone' not in accounts.daemon.output()
    assert doubled(accounts) == 0


@pytest.mark.parametrize('queue', ['results', 'outbox.wait.60'])
def test_a_queue_that_holds_no_mail_is_deleted(accounts: Accounts, queue: str) -> None:
    accounts.wait_more(300)
    accounts.broker.delete_queue(queue)
    accounts.wait_more(300)
    assert doubled(accounts) <= 100


def test_the_outbox_is_deleted(accounts: Accounts) -> None:
    """What it held is gone, by the operator's will: what was in our hands at that moment, and what nobody had taken.
    Everything that was promised a second later is delivered."""
    accounts.wait_more(300)
    before = accounts.load.promised
    accounts.broker.delete_queue('outbox')
    wait_until(lambda: accounts.daemon.output().count('connected to'), 'the consumer to be back')
    lost_at_most = list(before)
    accounts.wait_more(300)
    accounts.load.stop()
    accounts.load.promised[:] = accounts.load.promised[len(lost_at_most):]
    assert doubled(accounts) <= 100


def test_the_broker_closes_the_consumers_channel(accounts: Accounts) -> None:
    """Acknowledgements take too long for its taste, because a server is silent."""
    accounts.sink.script['.'] = [b'<silence>'] * 3
    set_env = ('application:set_env(rabbit, consumer_timeout, {}), '
               'application:set_env(rabbit, channel_tick_interval, {}).')
    accounts.broker.evaluate(set_env.format(3000, 500))
    accounts.broker.close_connections()             # new channels look at the settings
    try:
        accounts.wait_more(300)
        wait_until(lambda: accounts.daemon.output().count('closed the channel for consuming') >= 2,
                   'the channel to be closed twice')
    finally:
        accounts.broker.evaluate(set_env.format(1800000, 60000))
        accounts.broker.close_connections()
    accounts.wait_more(300)
    accounts.hang_up()                              # on those that still wait in silence
    assert doubled(accounts) <= 100


def test_connections_are_closed_again_and_again(accounts: Accounts) -> None:
    for _ in range(10):
        accounts.wait_more(60)
        accounts.broker.close_connections()
    accounts.wait_more(100)
    assert doubled(accounts) <= 500


@pytest.fixture
def cluster() -> Iterator[list[Broker]]:
    first = Broker()
    nodes = [first, *(Broker(epmd_port=first.epmd_port) for _ in range(2))]
    with contextlib.ExitStack() as stack:
        for node in nodes:
            stack.callback(node.close)
            node.start()
        for node in nodes:
            node.wait_ready()
        for node in nodes[1:]:
            node.join(first)
        yield nodes


def test_one_of_three_nodes_is_killed(start_accounts: Callable[..., Accounts], cluster: list[Broker]) -> None:
    url = ';'.join(f'{HOST}:{node.port}' for node in cluster)
    accounts = start_accounts(cluster[2], f'amqp://guest:guest@{url}/?heartbeat=2', rabbitmq_queue_type='quorum')
    accounts.wait_more(300)
    cluster[0].kill()                               # the one that we are connected to
    accounts.wait_more(300)
    cluster[0].start().wait_ready()
    accounts.wait_more(100)
    cluster[1].kill()
    accounts.wait_more(300)
    assert doubled(accounts) <= 200


def test_a_hundred_thousand_deferred_messages_do_not_stop_fresh_mail(
        start_daemon: Start, broker: Broker, sink: CapturingSink, closing: contextlib.ExitStack) -> None:
    """Another program publishes them to the outbox, in front of the fresh ones."""
    broker.delete_queues()
    daemon = start_daemon(queue_address=broker.url, smtp_sink_address=HOST, smtp_sink_port=sink.port)
    daemon.stop()
    document = json.dumps({'envelope': 'a@example.org', 'recipient': 'b@example.com', 'mime': 'Subject: later\n\nx',
                           'nextattempt': {'time': '2099-01-01 00:00:00'}}).encode()
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(broker.url))) as connection:
        channel = connection.channel()
        for _ in range(DEFERRED):
            channel.basic_publish('', 'outbox', document, pika.BasicProperties(delivery_mode=2))
    daemon.start()
    seconds = timed(lambda: wait_until(lambda: broker.depth('outbox.wait.1200') == DEFERRED, 'all to wait', 240))
    print(f'{DEFERRED} deferred messages are put aside in {seconds:.0f} s')
    send(daemon.port)
    print(f'a fresh one arrives in {timed(lambda: sink.wait_for(1)):.2f} s')
    daemon.stop()
    accounts = Accounts(start_daemon, broker, sink)
    closing.callback(accounts.end_load)
    accounts.wait_more(1000)
    assert doubled(accounts, DEFERRED) == 0


def test_thousands_of_reconnects_leave_nothing_behind(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbit, 'FIRST_PAUSE', 0.0)
    monkeypatch.setattr(rabbit, 'LONGEST_PAUSE', 0.0)
    stores = RabbitStores(broker, Clock())

    async def main() -> None:
        store = await stores.open()
        store.consume('q', 100, 1 << 20, lambda delivery: store.settle(delivery, [Message('results', b'r')]))
        await sleep(stores.reactor, 0.1)
        for number in range(RECONNECTS):
            link = store._link
            assert link is not None
            link.drop('test')
            stores.notes.clear()
            while store._link is link or store.trouble is not None:
                await sleep(stores.reactor, 0.001)
            if number == 100:
                before = open_descriptors(), memory()
        await sleep(stores.reactor, 1)
        link = store._link
        assert link is not None
        assert (broker.connections(), broker.channels()) == (1, len(link._machine._channels))
        grown = open_descriptors() - before[0], memory() - before[1]
        print(f'{RECONNECTS} reconnects: {grown[0]} descriptors and {grown[1] // 1024} kB more than after 100')
        assert grown[0] <= 0 and grown[1] < 4 << 20
        await store.close()

    with contextlib.closing(stores):
        stores.run(main())


def memory() -> int:
    """Resident bytes of this process."""
    return int(Path('/proc/self/statm').read_text().split()[1]) * 4096
