"""The embedded store in trouble: locked by others, a clock that is set, a file that is no database, a disk that hangs.

What it promises as every store does is in test_queue_contract.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Callable

import pytest

from mqlite.loop.clock import Clock, VirtualClock
from mqlite.loop.task import sleep
from mqlite.queues import embedded as embedded_store
from mqlite.queues import sqlite
from mqlite.queues.contract import Delivery, QueueError
from mqlite.queues.embedded import EmbeddedStore
from tests.support.loop import open_descriptors
from tests.support.stores import MANY, EmbeddedStores, all_of, bodies, messages


@pytest.fixture
def embedded(tmp_path: Path, closing: contextlib.ExitStack) -> EmbeddedStores:
    made = EmbeddedStores(tmp_path)
    closing.callback(made.close)
    return made


@pytest.fixture
def locked(embedded: EmbeddedStores, monkeypatch: pytest.MonkeyPatch) -> Callable[[], sqlite3.Connection]:
    """locked(): nobody else can write until the connection is closed, and nobody waits long to find out."""
    monkeypatch.setattr(sqlite, '_BUSY_SECONDS', 0.01)

    def lock() -> sqlite3.Connection:
        connection = sqlite3.connect(embedded.path, isolation_level=None)
        connection.execute('BEGIN IMMEDIATE')
        return connection
    return lock


def test_in_trouble_publishes_fail_at_once_and_settlements_wait(embedded: EmbeddedStores,
                                                                locked: Callable[[], sqlite3.Connection]) -> None:
    async def main(store: EmbeddedStore) -> None:
        await store.publish(messages(b'1', b'2'))
        one, two = await store.fetch('q', 2)
        lock = locked()
        with pytest.raises(QueueError, match='database is locked'):
            await store.publish(messages(b'3'))
        settled = store.settle(one, messages(b'result'))
        store.release(two)
        refused = store.publish(messages(b'4'))
        assert refused.done
        with pytest.raises(QueueError):
            await refused
        await sleep(embedded.reactor, 60)
        troubles = [store.trouble]
        assert not settled.done
        lock.close()
        await settled
        troubles.append(store.trouble)
        assert [trouble is None for trouble in troubles] == [False, True]
        await store.publish(messages(b'5'))
        assert await all_of(store) == [b'2', b'result', b'5']

    embedded.run_with_store(main)
    begin, end = embedded.notes
    assert f'{embedded.path} cannot be used now: database is locked; mail is refused' in begin
    assert end == 'the queue can be written again'


def test_a_consumer_goes_on_after_trouble(embedded: EmbeddedStores,
                                          locked: Callable[[], sqlite3.Connection]) -> None:
    async def main(store: EmbeddedStore) -> None:
        got: list[Delivery] = []
        await store.publish(messages(b'mail'))
        lock = locked()
        store.consume('q', 10, MANY, got.append)
        await sleep(embedded.reactor, 30)
        assert got == []
        lock.close()
        await sleep(embedded.reactor, 30)
        assert bodies(got) == [b'mail']

    embedded.run_with_store(main)


def test_what_is_put_back_in_trouble_comes_again(embedded: EmbeddedStores,
                                                 locked: Callable[[], sqlite3.Connection]) -> None:
    clock = embedded.reactor.clock

    async def main(store: EmbeddedStore) -> None:
        got: list[Delivery] = []
        await store.publish(messages(b'1', b'2'))
        store.consume('q', 10, MANY, got.append)
        await sleep(embedded.reactor, 30)
        one, two = got
        lock = locked()
        with pytest.raises(QueueError):
            await store.publish(messages(b'3', queue='other'))
        store.release(one)
        store.settle(two, messages(b'later', due=clock.time() + 60))
        lock.close()
        await sleep(embedded.reactor, 70)
        assert bodies(got) == [b'1', b'2', b'1', b'later']

    embedded.run_with_store(main)


def test_closing_in_trouble_ends_and_loses_no_message(embedded: EmbeddedStores,
                                                      locked: Callable[[], sqlite3.Connection]) -> None:
    async def main() -> None:
        store = await embedded.open()
        await store.publish(messages(b'1', b'2'))
        [one, _two] = await store.fetch('q', 2)
        lock = locked()
        settled = store.settle(one, [])
        await sleep(embedded.reactor, 5)
        await store.close()
        with pytest.raises(QueueError):
            await settled
        lock.close()

    embedded.run(main())
    assert '1 results could not be kept: their messages will be sent again' in embedded.notes
    assert embedded.run_with_store(all_of) == [b'1', b'2']


def test_a_batch_that_fails_for_a_reason_nobody_foresaw_does_not_stop_the_queue(
        embedded: EmbeddedStores, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(store: EmbeddedStore) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(store._database, 'apply', lambda *_args: [][0])
            with pytest.raises(QueueError, match='IndexError'):
                await store.publish(messages(b'1'))
        await sleep(embedded.reactor, 2)
        await store.publish(messages(b'2'))
        assert await all_of(store) == [b'2']

    embedded.run_with_store(main)


def test_a_clock_that_is_set_forward_brings_what_is_due(embedded: EmbeddedStores) -> None:
    clock = embedded.reactor.clock
    assert isinstance(clock, VirtualClock)

    async def main(store: EmbeddedStore) -> None:
        got: list[Delivery] = []
        store.consume('q', 10, MANY, got.append)
        await store.publish(messages(b'mail', due=clock.time() + 7200))
        await sleep(embedded.reactor, 30)
        clock._start += 7200
        await sleep(embedded.reactor, 30)
        assert bodies(got) == [b'mail']

    embedded.run_with_store(main, poll=10.0)


def test_opening_what_cannot_be_opened_leaves_nothing_behind(embedded: EmbeddedStores) -> None:
    embedded.path.write_bytes(b'this is no database, whatever its name may say')

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(Exception, match='not a database'):
                await embedded.open()

    before = open_descriptors()
    embedded.run(main())
    assert open_descriptors() == before


def test_a_commit_that_does_not_end_refuses_what_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process was stopped while it was its turn."""
    monkeypatch.setattr(embedded_store, 'STUCK_SECONDS', 0.01)
    stores = EmbeddedStores(tmp_path, Clock())

    async def main(store: EmbeddedStore) -> None:
        turn = os.open(f'{stores.path}-turn', os.O_RDWR)
        fcntl.flock(turn, fcntl.LOCK_EX)
        first = store.publish(messages(b'first'))
        while store.trouble is None:
            await sleep(stores.reactor, 0.001)
        with pytest.raises(QueueError, match='has not answered'):
            await store.publish(messages(b'second'))
        assert not first.done
        os.close(turn)
        await first
        await store.publish(messages(b'third'))
        assert await all_of(store) == [b'first', b'third']

    stores.run_with_store(main)
    stores.close()
    assert len(stores.notes) == 2 and 'look at its disk' in stores.notes[0] and 'again' in stores.notes[1]
