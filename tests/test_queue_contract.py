"""What every store promises (`contract.py`).

It runs once for each maker in STORES: another store joins by a row there. test_rabbit_store.py takes from here what
holds of a broker too, and says where that differs.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path

import pytest

from mqlite.errors import PermanentError
from mqlite.loop.task import sleep
from mqlite.message.identifier import format_moment
from mqlite.queues.contract import Delivery, LargeMessage, Message, QueueError, Store
from mqlite.queues.embedded import EmbeddedStore
from mqlite.requeue import hurry
from tests.support.stores import MANY, EmbeddedStores, all_of, bodies, messages, waits

YEAR = 365 * 86400.0
STORES = {'embedded': EmbeddedStores}


@pytest.fixture(params=list(STORES))
def stores(request: pytest.FixtureRequest, tmp_path: Path, closing: contextlib.ExitStack) -> EmbeddedStores:
    made = STORES[request.param](tmp_path)
    closing.callback(made.close)
    return made


def test_what_was_published_is_there_after_the_store_was_closed_and_opened(stores: EmbeddedStores) -> None:
    many = [b'', b'\x00\xff', b'x' * 3_000_000, *(b'%d' % n for n in range(500))]
    stores.run_with_store(lambda store: waits(store.publish(messages(*many))))
    assert stores.run_with_store(all_of) == many


def test_publishing_nothing_is_kept_too(stores: EmbeddedStores) -> None:
    stores.run_with_store(lambda store: waits(store.publish([])))


def test_many_publishers_of_one_turn(stores: EmbeddedStores) -> None:
    async def main(store: Store) -> list[bytes]:
        waiters = [store.publish(messages(b'%03d' % n)) for n in range(200)]
        for waiter in waiters:
            await waiter
        return await all_of(store)

    assert stores.run_with_store(main) == [b'%03d' % n for n in range(200)]


def test_a_consumer_gets_what_is_there_and_what_comes(stores: EmbeddedStores) -> None:
    async def main(store: Store) -> list[Delivery]:
        got: list[Delivery] = []
        await store.publish([Message('q', b'before', 5), Message('other', b'not mine')])
        store.consume('q', 10, MANY, got.append)
        await sleep(stores.reactor, 1)
        assert bodies(got) == [b'before']
        await store.publish(messages(b'after'))
        await sleep(stores.reactor, 1)
        return got

    first, second = stores.run_with_store(main)
    assert (first.queue, first.body, first.priority, first.lost) == ('q', b'before', 5, 0)
    assert second.body == b'after'


def test_a_consumer_gets_a_large_message_that_comes(stores: EmbeddedStores) -> None:
    async def main(store: Store) -> None:
        got: list[Delivery] = []
        store.consume('q', 10, MANY, got.append)
        await sleep(stores.reactor, 1)
        await store.publish([LargeMessage('q', [b'one ', b'piece'])])
        await sleep(stores.reactor, 1)
        assert bodies(got) == [b'one piece']

    stores.run_with_store(main)


def test_settling_publishes_what_it_led_to_and_takes_the_message_off(stores: EmbeddedStores) -> None:
    async def main(store: Store) -> None:
        await store.publish(messages(b'mail', b'more'))
        first, second = await store.fetch('q', 2)
        await store.settle(first, messages(b'result', queue='results'))
        await store.settle(second, [])

    stores.run_with_store(main)
    assert stores.run_with_store(all_of) == []
    assert stores.run_with_store(lambda store: all_of(store, 'results')) == [b'result']


@pytest.mark.parametrize('who', ['the same consumer', 'another', 'one that comes later', 'fetch'])
def test_what_is_released_comes_again_as_it_was(stores: EmbeddedStores, who: str) -> None:
    async def main(store: Store) -> None:
        first: list[Delivery] = []
        second: list[Delivery] = []
        await store.publish(messages(b'mail', priority=3))
        consumer = store.consume('q', 10, MANY, first.append)
        await sleep(stores.reactor, 1)
        if who == 'another':
            store.consume('q', 10, MANY, second.append)
            await sleep(stores.reactor, 1)
        if who != 'the same consumer':
            consumer.stop()
        store.release(first.pop())
        if who == 'one that comes later':
            store.consume('q', 10, MANY, second.append)
        await sleep(stores.reactor, 1)
        [again] = first + second + (await store.fetch('q', 10) if who == 'fetch' else [])
        assert (again.body, again.priority, again.lost) == (b'mail', 3, 0)

    stores.run_with_store(main)


def test_no_more_in_hand_than_was_asked_for(stores: EmbeddedStores) -> None:
    async def main(store: Store) -> None:
        in_hand: list[Delivery] = []
        await store.publish(messages(*(b'%d' % n for n in range(100))))
        store.consume('q', 10, MANY, in_hand.append)
        done = 0
        while done < 100:
            await sleep(stores.reactor, 1)
            assert 1 <= len(in_hand) <= 10
            for _ in range(len(in_hand) // 2 + 1):
                store.settle(in_hand.pop(), [])
                done += 1

    stores.run_with_store(main)


def test_about_as_many_bytes_in_hand_as_were_asked_for(stores: EmbeddedStores) -> None:
    async def main(store: Store) -> None:
        in_hand: list[Delivery] = []
        await store.publish(messages(*[b'x' * 1000] * 20, b'y' * 50_000, b'z'))
        store.consume('q', 100, 3500, in_hand.append)
        sizes: list[int] = []
        while sum(sizes) < 22:
            await sleep(stores.reactor, 1)
            assert sum(len(delivery.body) for delivery in in_hand[:-1]) < 3500     # one may go beyond
            sizes.append(len(in_hand))
            while in_hand:
                store.settle(in_hand.pop(), [])
        assert max(sizes) == 4

    stores.run_with_store(main)


def test_higher_priority_first_then_as_they_came(stores: EmbeddedStores) -> None:
    async def main(store: Store) -> list[bytes]:
        for name, priority in ((b'a', 0), (b'b', 9), (b'c', 5), (b'd', 9), (b'e', 0)):
            await store.publish(messages(name, priority=priority))
        return await all_of(store)

    assert stores.run_with_store(main) == [b'b', b'd', b'c', b'a', b'e']


@pytest.mark.parametrize('delay', [0.001, 60.0, 8 * 3600.0])
def test_a_message_comes_when_it_is_due_and_not_before(stores: EmbeddedStores, delay: float) -> None:
    clock = stores.reactor.clock

    async def main(store: Store) -> None:
        came: list[tuple[bytes, float]] = []
        start = clock.time()
        store.consume('q', 10, MANY, lambda delivery: came.append((delivery.body, clock.time())))
        await store.publish(messages(b'late', due=start + 2 * delay))
        await store.publish(messages(b'early', due=start + delay))
        await store.publish(messages(b'never', due=start + YEAR))
        await store.publish(messages(b'overdue', due=start - 5))
        await sleep(stores.reactor, 3 * delay)
        assert [body for body, _ in came] == [b'overdue', b'early', b'late']
        assert [when - start for _, when in came] == pytest.approx([0, delay, 2 * delay], abs=0.01)

    stores.run_with_store(main)


@pytest.mark.parametrize('delay', [0.0, 13.0])
def test_what_is_put_back_is_as_lost_as_it_was(stores: EmbeddedStores, delay: float) -> None:
    async def main(store: Store) -> None:
        got: list[Delivery] = []
        await store.publish(messages(b'never lost', b'mail'))
        store.consume('q', 10, MANY, got.append)
        await sleep(stores.reactor, 1)
        for delivery, lost in zip(got[:], (0, 2)):
            due = stores.reactor.clock.time() + delay if delay else 0.0
            await store.settle(delivery, [Message('q', delivery.body, 3, due, lost)])
        await sleep(stores.reactor, 20)
        assert {delivery.body: delivery.lost for delivery in got[2:]} == {b'never lost': 0, b'mail': 2}

    stores.run_with_store(main)


def test_fetch_takes_no_message_before_its_time(stores: EmbeddedStores) -> None:
    async def main(store: Store) -> None:
        now = stores.reactor.clock.time()
        await store.publish([*messages(b'now'), *messages(b'later', due=now + 10)])
        assert bodies(await store.fetch('q', 10)) == [b'now']
        await sleep(stores.reactor, 11)
        assert bodies(await store.fetch('q', 10)) == [b'later']
        assert await store.fetch('q', 10) == []

    stores.run_with_store(main)


@pytest.mark.parametrize('fresh_first', [True, False])
def test_neither_retries_nor_fresh_mail_starve(stores: EmbeddedStores, fresh_first: bool) -> None:
    async def main(store: Store) -> None:
        now = stores.reactor.clock.time()
        fresh, retries = messages(*[b'fresh'] * 50), messages(*[b'retry'] * 50, due=now - 60)
        for batch in ((fresh, retries) if fresh_first else (retries, fresh)):
            await store.publish(batch)
        got: list[Delivery] = []
        store.consume('q', 20, MANY, got.append)
        await sleep(stores.reactor, 1)
        assert Counter(bodies(got)) == {b'fresh': 10, b'retry': 10}

    stores.run_with_store(main)


def test_a_consumer_that_has_stopped_gets_nothing_and_keeps_what_it_has(stores: EmbeddedStores) -> None:
    async def main(store: Store) -> None:
        got: list[Delivery] = []
        await store.publish(messages(b'1', b'2', b'3'))

        def on_delivery(delivery: Delivery) -> None:
            got.append(delivery)
            if len(got) == 2:
                consumer.stop()

        consumer = store.consume('q', 10, MANY, on_delivery)
        await sleep(stores.reactor, 1)
        await store.publish(messages(b'4'))
        await sleep(stores.reactor, 1)
        assert bodies(got) == [b'1', b'2']
        assert await all_of(store) == [b'3', b'4']
        for delivery in got:
            await store.settle(delivery, [])
        consumer.stop()

    stores.run_with_store(main)
    assert stores.run_with_store(all_of) == [b'3', b'4']


def test_consumers_of_one_store_and_of_two_share_without_overlap(stores: EmbeddedStores) -> None:
    async def main(store: Store) -> None:
        other = await stores.open(poll=1)
        got: list[bytes] = []

        def consume(which: Store) -> None:
            def on_delivery(delivery: Delivery) -> None:
                got.append(delivery.body)
                which.settle(delivery, [])
            which.consume('q', 5, MANY, on_delivery)

        for which in (store, store, other):
            consume(which)
        names = [b'%d' % n for n in range(300)]
        for name in names:
            store.publish(messages(name))
        while len(got) < len(names):
            await sleep(stores.reactor, 1)
        await sleep(stores.reactor, 5)
        assert sorted(got) == sorted(names)
        await other.close()

    stores.run_with_store(main)


def test_closing_gives_back_and_dying_gives_back_with_a_mark(stores: EmbeddedStores) -> None:
    async def first(store: EmbeddedStore) -> None:
        await store.publish(messages(b'mail', b'settled'))
        mail, settled = await store.fetch('q', 2)
        assert mail.lost == 0
        await store.settle(settled, [])

    async def die(store: EmbeddedStore) -> int:
        [mail] = await store.fetch('q', 5)
        await stores.abandon(store)
        return mail.lost

    stores.run_with_store(first)
    assert [stores.run_with_store(die) for _ in range(3)] == [0, 1, 2]


def test_what_a_dying_process_held_reaches_those_that_live(stores: EmbeddedStores) -> None:
    async def main(store: EmbeddedStore) -> None:
        other = await stores.open()
        await other.publish(messages(b'mail'))
        await other.fetch('q', 1)
        got: list[Delivery] = []
        store.consume('q', 10, MANY, got.append)
        await sleep(stores.reactor, 100)
        assert got == []
        await stores.abandon(other)
        await sleep(stores.reactor, 100)
        [delivery] = got
        assert (delivery.body, delivery.lost) == (b'mail', 1)
        store.release(delivery)
        await sleep(stores.reactor, 1)
        assert [delivery.lost for delivery in got] == [1, 1]

    stores.run_with_store(main, poll=10.0)


def test_purging_deletes_what_nobody_holds(stores: EmbeddedStores) -> None:
    async def main(store: Store) -> None:
        later = stores.reactor.clock.time() + 60
        await store.publish([*messages(*(b'%d' % n for n in range(2500))), *messages(b'later', due=later),
                             *messages(b'mine', queue='other')])
        held = await store.fetch('q', 3)
        assert await store.purge('q') == 2498
        assert await store.purge('q') == 0
        assert await store.purge('no such queue') == 0
        assert await all_of(store) == []
        for delivery in held:
            store.release(delivery)
        assert await all_of(store) == [b'0', b'1', b'2']
        assert await all_of(store, 'other') == [b'mine']

    stores.run_with_store(main)


def test_listing_the_queues(stores: EmbeddedStores) -> None:
    async def main(store: Store) -> None:
        assert await store.list_queues() == []
        now = stores.reactor.clock.time()
        await store.publish([*messages(b'12', b'34', b'56', queue='b'), *messages(b'', queue='a', due=now + 60),
                             *messages(b'x', queue='b', due=now - 60)])
        await store.fetch('b', 1)
        rows = [(row.name, row.ready, row.waiting, row.taken, row.size) for row in await store.list_queues()]
        assert rows == [('a', 0, 1, 0, 0), ('b', 3, 0, 1, 7)]

    stores.run_with_store(main)


@pytest.mark.parametrize('bad', [
    Message('\udcff', b'a name that is no text'),
    Message('line\nend', b''),
    Message('q', b'', priority=2**70),
])
def test_a_message_that_can_never_be_kept_is_refused_and_holds_up_nobody(stores: EmbeddedStores, bad: Message) -> None:
    async def main(store: Store) -> None:
        good = store.publish(messages(b'good'))
        with pytest.raises(PermanentError):
            await store.publish([bad])
        await good
        [delivery] = await store.fetch('q', 1)
        with pytest.raises(PermanentError):
            await store.settle(delivery, [bad])
        await store.settle(delivery, messages(b'result'))       # it was still in hand
        assert await all_of(store) == [b'result']

    stores.run_with_store(main)


def test_a_delivery_is_settled_or_released_once(stores: EmbeddedStores) -> None:
    async def main(store: Store) -> None:
        await store.publish(messages(b'1', b'2'))
        one, two = await store.fetch('q', 2)
        store.settle(one, [])
        store.release(two)
        for delivery in (one, two):
            with pytest.raises(KeyError):
                store.settle(delivery, [])
            with pytest.raises(KeyError):
                store.release(delivery)
        assert await all_of(store) == [b'2']

    stores.run_with_store(main)


def test_a_consumer_that_fails_does_not_take_the_others_along(stores: EmbeddedStores) -> None:
    async def main(store: Store) -> None:
        got: list[bytes] = []

        def on_delivery(delivery: Delivery) -> None:
            got.append(delivery.body)
            if len(got) == 1:
                raise ValueError('a bug')

        await store.publish(messages(b'1', b'2'))
        store.consume('q', 10, MANY, on_delivery)
        await sleep(stores.reactor, 1)
        await store.publish(messages(b'3'))
        await sleep(stores.reactor, 1)
        assert got == [b'1', b'2', b'3']

    stores.run_with_store(main)
    assert stores.errors == ["ValueError('a bug') in the consumer of q"]
    stores.errors.clear()


def test_after_closing_nothing_is_promised(stores: EmbeddedStores) -> None:
    async def main() -> None:
        store = await stores.open()
        await store.publish(messages(b'1', b'2'))
        one, two = await store.fetch('q', 2)
        last = store.publish(messages(b'3'))
        await store.close()
        await last
        await store.close()
        with pytest.raises(QueueError):
            await store.publish(messages(b'4'))
        with pytest.raises(QueueError):
            await store.settle(one, [])
        store.release(two)
        for call in (store.fetch('q', 1), store.purge('q'), store.list_queues()):
            with pytest.raises(QueueError):
                await call

    stores.run(main())
    assert stores.run_with_store(all_of) == [b'1', b'2', b'3']


def test_chosen_messages_that_wait_go_now(stores: EmbeddedStores) -> None:
    """In batches, and each once; the others are left as they were, with their time."""
    async def main(store: Store) -> None:
        due = stores.reactor.clock.time() + 4000
        documents = [{'recipient': f'{number}@d{number % 2}.example', 'nextattempt': {'time': format_moment(due)}}
                     for number in range(500)]
        await store.publish([*messages(*(json.dumps(one).encode() for one in documents), priority=3, due=due),
                             *messages(b'no JSON', due=due)])
        assert await hurry(store, 'q', lambda document: document.domain == 'd1.example') == 250
        ready = await store.fetch('q', 1000)
        assert {json.loads(delivery.body)['recipient'] for delivery in ready} == {
            one['recipient'] for one in documents[1::2]}
        assert {delivery.priority for delivery in ready} == {3} and b'nextattempt' not in ready[0].body
        for delivery in ready:
            await store.settle(delivery, [])
        assert await hurry(store, 'q', lambda document: True) == 250
        assert len(await store.fetch('q', 1000)) == 250

    stores.run_with_store(main)
