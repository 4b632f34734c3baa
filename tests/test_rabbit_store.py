"""What every store promises, on a real RabbitMQ; and where that differs from the embedded store."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator

import pytest

from mqlite.errors import PermanentError
from mqlite.loop.task import sleep
from mqlite.queues.contract import Delivery, QueueError, Store
from mqlite.queues.parking import HELD
from mqlite.queues.rabbit import RabbitStore
from tests.support.amqp_clients import Published, pika_publish
from tests.support.broker import Broker, BrokerClock
from tests.support.rabbit import RabbitStores
from tests.support.stores import MANY, all_of, bodies, messages, waits
from tests.test_queue_contract import (  # noqa: F401  (they run here on the fixture `stores` of this file)
    test_a_consumer_gets_what_is_there_and_what_comes,
    test_a_consumer_that_fails_does_not_take_the_others_along,
    test_a_consumer_that_has_stopped_gets_nothing_and_keeps_what_it_has,
    test_a_delivery_is_settled_or_released_once,
    test_a_message_that_can_never_be_kept_is_refused_and_holds_up_nobody,
    test_about_as_many_bytes_in_hand_as_were_asked_for,
    test_after_closing_nothing_is_promised,
    test_chosen_messages_that_wait_go_now,
    test_consumers_of_one_store_and_of_two_share_without_overlap,
    test_higher_priority_first_then_as_they_came,
    test_many_publishers_of_one_turn,
    test_no_more_in_hand_than_was_asked_for,
    test_publishing_nothing_is_kept_too,
    test_purging_deletes_what_nobody_holds,
    test_settling_publishes_what_it_led_to_and_takes_the_message_off,
    test_what_a_dying_process_held_reaches_those_that_live,
    test_what_is_put_back_is_as_lost_as_it_was,
    test_what_was_published_is_there_after_the_store_was_closed_and_opened,
)
from tests.test_queue_contract import test_a_message_comes_when_it_is_due_and_not_before as comes_when_due


@pytest.fixture
def stores(broker: Broker) -> Iterator[RabbitStores]:
    with contextlib.closing(RabbitStores(broker)) as made:
        yield made


@pytest.mark.parametrize('delay', [0.001, 60.0, 2000.0])
def test_a_message_comes_when_it_is_due(stores: RabbitStores, delay: float) -> None:
    comes_when_due(stores, delay)       # type: ignore[arg-type]


def test_what_is_released_comes_again_and_is_marked(stores: RabbitStores) -> None:
    """The broker marks what was in somebody's hands, whatever the reason."""
    async def main(store: Store) -> None:
        got: list[Delivery] = []
        await store.publish(messages(b'mail', priority=3))
        store.consume('q', 10, MANY, got.append)
        await sleep(stores.reactor, 1)
        assert got[0].lost == 0
        store.release(got.pop())
        await sleep(stores.reactor, 1)
        [again] = got
        assert (again.body, again.priority, again.lost) == (b'mail', 3, 1)

    stores.run_with_store(main)


def test_quorum_queues_count_how_often_a_message_was_lost(stores: RabbitStores) -> None:
    async def die(store: RabbitStore) -> int:
        got: list[Delivery] = []
        store.consume('q', 10, MANY, got.append)
        await sleep(stores.reactor, 1)
        [mail] = got
        await stores.abandon(store)
        return mail.lost

    settings = {'queue_type': 'quorum'}
    stores.run_with_store(lambda store: waits(store.publish(messages(b'mail'))), **settings)
    assert [stores.run_with_store(die, **settings) for _ in range(3)] == [0, 1, 2]


def test_a_message_is_not_fetched_before_its_time(stores: RabbitStores) -> None:
    """Waiting queues are moved by whoever consumes the outbox."""
    async def main(store: Store) -> None:
        now = stores.reactor.clock.time()
        await store.publish([*messages(b'now'), *messages(b'later', due=now + 10)])
        assert bodies(await store.fetch('q', 10)) == [b'now']
        await sleep(stores.reactor, 11)
        assert await store.fetch('q', 10) == []
        got: list[Delivery] = []
        store.consume('q', 10, MANY, got.append)
        await sleep(stores.reactor, 1)
        assert bodies(got) == [b'later']

    stores.run_with_store(main)


def test_listing_the_queues(stores: RabbitStores) -> None:
    """What is in somebody's hands is hidden from AMQP, and so are sizes."""
    async def main(store: Store) -> None:
        assert await store.list_queues() == []
        now = stores.reactor.clock.time()
        await store.publish([*messages(b'12', b'34', queue='b'), *messages(b'x', due=now + 60), *messages(b'y')])
        await store.fetch('b', 1)
        rows = [(row.name, row.ready, row.waiting, row.taken, row.size) for row in await store.list_queues()]
        assert rows == [('b', 1, 0, None, None), ('q', 1, 1, None, None)]

    stores.run_with_store(main)


def test_more_messages_than_channels_can_be_fetched(stores: RabbitStores) -> None:
    async def main(store: RabbitStore) -> None:
        await store.publish(messages(*(b'%d' % number for number in range(30))))
        for _ in range(30):
            [delivery] = await store.fetch('q', 1)
            await store.settle(delivery, [])
        assert store._link is not None and len(store._link._machine._channels) == 2

    stores.run_with_store(main)


async def lose_link(stores: RabbitStores, store: RabbitStore) -> None:
    link = store._link
    assert link is not None
    link.drop('test')
    while store.trouble is not None or store._link is link:
        await sleep(stores.reactor, 0.1)
    await sleep(stores.reactor, 1)          # for the copies


def test_what_is_in_hand_when_the_link_is_lost_is_not_delivered_twice(stores: RabbitStores) -> None:
    async def main(store: RabbitStore) -> None:
        got: list[Delivery] = []
        await store.publish(messages(b'1', b'2', b'2', b'3'))
        store.consume('q', 10, MANY, got.append)
        await sleep(stores.reactor, 1)
        await lose_link(stores, store)
        assert bodies(got) == [b'1', b'2', b'2', b'3']
        for delivery in got[:3]:
            await store.settle(delivery, messages(b'result', queue='results'))
        await lose_link(stores, store)
        store.release(got[3])
        await sleep(stores.reactor, 1)
        assert bodies(got[4:]) == [b'3'] and got[4].lost == 1
        await store.settle(got[4], [])

    stores.run_with_store(main)
    assert stores.run_with_store(all_of) == []
    assert stores.run_with_store(lambda store: all_of(store, 'results')) == [b'result'] * 3


def test_what_was_settled_while_there_was_no_link_is_kept_and_acknowledged_later(stores: RabbitStores) -> None:
    async def main(store: RabbitStore) -> None:
        got: list[Delivery] = []
        await store.publish(messages(b'1', b'2'))
        store.consume('q', 10, MANY, got.append)
        await sleep(stores.reactor, 1)
        link = store._link
        assert link is not None
        link.drop('test')
        first = store.settle(got[0], messages(b'r1', queue='results'))      # the store has not noticed yet
        await sleep(stores.reactor, 0.01)
        assert store.trouble is not None
        second = store.settle(got[1], messages(b'r2', queue='results'))
        refused = store.publish(messages(b'3'))
        assert refused.done and not first.done and not second.done
        await first
        await second
        await sleep(stores.reactor, 1)
        assert len(got) == 2 and len(store._memory) == 0
        with pytest.raises(QueueError):
            await refused

    stores.run_with_store(main)
    assert stores.run_with_store(all_of) == []
    assert sorted(stores.run_with_store(lambda store: all_of(store, 'results'))) == [b'r1', b'r2']


@pytest.mark.parametrize('due', [0.0, 3.0], ids=['now', 'later'])
def test_a_retry_that_is_too_large_goes_back_as_it_came_also_when_the_limit_is_known(stores: RabbitStores,
                                                                                     due: float) -> None:
    async def main(store: RabbitStore) -> None:
        got: list[Delivery] = []
        await store.publish(messages(b'x' * 2000))
        store.consume('q', 10, MANY, got.append)
        await sleep(stores.reactor, 1)
        store._publisher.limit = 1000
        with pytest.raises(PermanentError, match='too large'):
            await store.publish(messages(b'y' * 2000))
        at = due and stores.reactor.clock.time() + due
        await store.settle(got.pop(), messages(b'x' * 2000, due=at) + messages(b'z' * 2000, queue='results'))
        await sleep(stores.reactor, due + 2)
        assert bodies(got) == [b'x' * 2000]

    stores.run_with_store(main)
    assert stores.run_with_store(lambda store: all_of(store, 'results')) == []


def test_an_acknowledgement_that_did_not_arrive_is_repeated(stores: RabbitStores) -> None:
    async def main(store: RabbitStore) -> None:
        got: list[Delivery] = []
        await store.publish(messages(b'1'))
        store.consume('q', 10, MANY, got.append)
        await sleep(stores.reactor, 1)
        link = store._link
        assert link is not None
        link.flush, flush = lambda: None, link.flush        # type: ignore[method-assign]
        await store.settle(got[0], [])
        link._machine.data_to_send()
        link.flush = flush                                  # type: ignore[method-assign]
        await lose_link(stores, store)
        assert len(got) == 1

    stores.run_with_store(main)
    assert stores.run_with_store(all_of) == []


def test_a_foreign_message_in_a_waiting_queue_goes_to_the_outbox(stores: RabbitStores, broker: Broker) -> None:
    async def main(store: RabbitStore) -> None:
        got: list[Delivery] = []
        store.consume('q', 10, MANY, got.append)
        await sleep(stores.reactor, 1)
        pika_publish(broker.url, 'q.wait.1200', [Published(b'foreign'), Published(gzip.compress(b'packed'), 'gzip')])
        await sleep(stores.reactor, 1)
        assert sorted(bodies(got)) == [b'foreign', b'packed']

    stores.run_with_store(main)


def test_a_waiting_queue_keeps_its_order_however_many_wait(stores: RabbitStores) -> None:
    async def main(store: RabbitStore) -> None:
        due = stores.reactor.clock.time() + 60
        names = [b'%d' % number for number in range(350)]
        await store.publish(messages(*names, due=due))
        got: list[bytes] = []
        held: list[int] = []

        def on_delivery(delivery: Delivery) -> None:
            got.append(delivery.body)
            held.append(len(store._parker._held))
            store.settle(delivery, [])
        store.consume('q', 1000, MANY, on_delivery)
        while len(got) < len(names):
            await sleep(stores.reactor, 10)
            held.append(len(store._parker._held))
        assert stores.reactor.clock.time() >= due and got == names and 0 < max(held) <= HELD

    stores.run_with_store(main, max_priority=0)


def test_setting_the_clock_neither_stops_nor_hurries_the_waiting(stores: RabbitStores) -> None:
    clock = stores.reactor.clock
    assert isinstance(clock, BrokerClock)

    async def main(store: RabbitStore) -> None:
        got: list[Delivery] = []
        store.consume('q', 10, MANY, got.append)
        await store.publish(messages(b'mail', due=clock.time() + 300))
        await sleep(stores.reactor, 1)
        clock._start -= 86400           # it was wrong: the message is due in a day and 300 seconds now
        await sleep(stores.reactor, 3000)
        assert got == []
        clock._start += 86400
        await sleep(stores.reactor, 1200)
        assert bodies(got) == [b'mail']

    stores.run_with_store(main)
