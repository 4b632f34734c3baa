"""The publisher on a link that is not there: real state machines, and the test is the broker."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from mqlite.amqp.channel import Channel
from mqlite.amqp.events import Confirmed, Returned
from mqlite.amqp.methods import NO_PROPERTIES
from mqlite.errors import MqliteError
from mqlite.loop.reactor import READ, Reactor
from mqlite.loop.task import Waiter, sleep
from mqlite.queues.contract import LargeMessage, Message, QueueError
from mqlite.queues.publisher import (
    LINGER_TURNS,
    STALL_SECONDS,
    WIRE_BYTES,
    Group,
    Publisher,
    TooLargeForBroker,
    Unroutable,
    unmade,
)
from tests.support.amqp import confirming, methods, with_channel
from tests.support.loop import LoopBench
from tests.support.rabbit import CONFIG


class FakeLink:
    """What the publisher and the consumer see of a link. `writes`: the methods that left in each write."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.connection, self.made = confirming()
        self.blocked = False
        self.writes: list[list[tuple[str, dict[str, Any]]]] = []
        self.touched = 0

    def flush(self) -> None:
        data = self.connection.data_to_send()
        if data:
            self.writes.append(methods(data))

    def touch(self) -> None:
        self.touched += 1

    async def channel(self) -> Channel:
        self.connection, self.made = with_channel()
        return self.made

    def request(self, channel: Channel, name: str, **fields: Any) -> Any:
        channel.request(name, **fields)
        answer: Waiter[None] = Waiter(self.reactor)
        answer.set()
        return answer

    @property
    def sent(self) -> list[str]:
        """Routing keys of all publishes, in order."""
        return [fields['routing_key'] for write in self.writes for name, fields in write if name == 'basic.publish']


class Bench(LoopBench):
    """A publisher, and what became of each group."""

    def __init__(self) -> None:
        super().__init__()
        self.stalls: list[bool] = []
        self.publisher = Publisher(self.reactor, replace(CONFIG, throttle=5, max_priority=0), self._stall)
        self.outcomes: dict[str, list[MqliteError | None]] = {}
        self.groups: dict[str, Group] = {}
        self.link = FakeLink(self.reactor)

    def _stall(self) -> None:
        self.stalls.append(self.publisher.stalled)

    def attach(self) -> FakeLink:
        self.link = FakeLink(self.reactor)
        self.publisher.attach(self.link, self.link.made)    # type: ignore[arg-type]
        return self.link

    def publish(self, name: str, *messages: Message, patient: bool = False) -> None:
        self.outcomes[name] = []
        self.groups[name] = Group(messages or [Message(name, name.encode())], patient, self.outcomes[name].append)
        self.publisher.publish(self.groups[name])

    def confirm(self, first: int, last: int = 0, ok: bool = True) -> None:
        self.publisher.confirmed(Confirmed(1, first, last or first, ok))

    def give_back(self, queue: str, body: bytes) -> None:
        self.publisher.returned(Returned(1, 312, 'NO_ROUTE', '', queue, NO_PROPERTIES, body))


@pytest.fixture
def bench() -> Iterator[Bench]:
    with contextlib.closing(Bench()) as made:
        yield made


def test_all_publishes_of_a_turn_leave_in_one_write_and_confirms_settle_ranges(bench: Bench) -> None:
    async def main() -> None:
        link = bench.attach()
        for name in 'abcd':
            bench.publish(name)
        await bench.settle()
        assert len(link.writes) == 1 and link.sent == list('abcd')
        bench.confirm(1, 3)
        assert bench.outcomes == {'a': [None], 'b': [None], 'c': [None], 'd': []}

    bench.run(main())


def test_a_write_waits_for_a_few_turns_while_others_have_something_to_say(bench: Bench) -> None:
    ours, theirs = socket.socketpair()
    names = iter('abcdefghi'[:LINGER_TURNS + 2])

    def always_ready(_events: int) -> None:
        name = next(names, '')
        if name:
            bench.publish(name)
        else:
            bench.reactor.unwatch(ours.fileno())

    async def main() -> None:
        link = bench.attach()
        bench.reactor.watch(ours.fileno(), READ, always_ready)
        theirs.send(b'x')
        await bench.settle()
        bench.confirm(1)
        await bench.settle()
        assert [len(write) for write in link.writes] == [LINGER_TURNS + 1, 1]

    with ours, theirs:
        bench.run(main())


def test_no_more_on_the_wire_than_the_throttle_allows(bench: Bench) -> None:
    async def main() -> None:
        link = bench.attach()
        for number in range(12):
            bench.publish(str(number))
        await bench.settle()
        assert link.sent == list('01234')
        bench.confirm(1, 2)
        await bench.settle()
        assert link.sent == list('0123456')
        bench.confirm(3, 7)
        await bench.settle()
        assert len(link.sent) == 12

    bench.run(main())


def test_large_messages_are_made_when_they_are_sent_and_few_at_a_time(bench: Bench) -> None:
    made: list[bytes] = []

    class Body:
        def __init__(self, name: bytes) -> None:
            self.name = name

        def __iter__(self) -> Iterator[bytes]:
            made.append(self.name)
            yield self.name
            yield b'x' * (WIRE_BYTES // 2)

    async def main() -> None:
        link = bench.attach()
        bench.publish('mail', *(unmade(LargeMessage('q', Body(b'%d' % number))) for number in range(5)))
        await bench.settle()
        assert (made, link.sent) == ([b'0', b'1'], ['q'] * 2)
        bench.confirm(1)
        await bench.settle()
        assert made == [b'0', b'1', b'2']
        bench.publisher.detach(QueueError('gone'))
        link = bench.attach()
        bench.publish('more', *(unmade(LargeMessage('q', Body(b'%d' % number))) for number in range(5, 7)))
        await bench.settle()
        assert made == [b'0', b'1', b'2', b'5', b'6']
        bench.confirm(1, 2)
        assert bench.outcomes['more'] == [None]

    bench.run(main())


def test_a_group_has_its_outcome_when_all_its_messages_have(bench: Bench) -> None:
    async def main() -> None:
        bench.attach()
        a, b, c = (Message(queue, queue.encode()) for queue in 'abc')
        bench.publish('group', a, b, c)
        await bench.settle()
        bench.confirm(2, ok=False)
        assert bench.outcomes['group'] == []        # a and c may be kept still: they must not be published again
        bench.confirm(3)
        bench.confirm(1)
        [error] = bench.outcomes['group']
        assert isinstance(error, QueueError) and 'refused a message for queue b' in str(error)
        assert bench.groups['group'].left == [b]

    bench.run(main())


def test_a_returned_message_is_known_by_its_body(bench: Bench) -> None:
    """The queue was deleted, or made, between two publishes with the same routing key."""
    async def main() -> None:
        bench.attach()
        bench.publish('kept', Message('q', b'kept'))
        bench.publish('returned', Message('q', b'returned'))
        bench.publish('again', Message('q', b'kept'))
        await bench.settle()
        bench.give_back('q', b'returned')
        bench.confirm(1, 3)
        assert bench.outcomes['kept'] == bench.outcomes['again'] == [None]
        [error] = bench.outcomes['returned']
        assert isinstance(error, Unroutable) and error.queue == 'q'

    bench.run(main())


def test_when_the_link_is_lost_everything_without_a_confirm_fails_once(bench: Bench) -> None:
    async def main() -> None:
        bench.attach()
        bench.publish('group', *(Message('q', b'%d' % number) for number in range(7)))
        bench.publish('waiting')
        await bench.settle()
        bench.confirm(1, 2)
        bench.publisher.detach(QueueError('gone'))
        assert [str(error) for outcomes in bench.outcomes.values() for error in outcomes] == ['gone', 'gone']
        assert [message.body for message in bench.groups['group'].left] == [b'2', b'3', b'4', b'5', b'6']
        assert not bench.publisher.busy
        bench.confirm(3, 5)                         # of the link that is gone
        bench.attach()
        await bench.settle()
        assert bench.link.sent == []

    bench.run(main())


def test_while_the_broker_blocks_nothing_is_written(bench: Bench) -> None:
    async def main() -> None:
        link = bench.attach()
        bench.publish('wire')
        await bench.settle()
        link.blocked = True
        bench.publish('client')
        bench.publish('patient', patient=True)
        await bench.settle()
        bench.publisher.fail_waiting(QueueError('blocked'))
        assert (bench.outcomes['wire'], len(bench.outcomes['client']), bench.outcomes['patient']) == ([], 1, [])
        await sleep(bench.reactor, 5 * STALL_SECONDS)
        assert link.sent == ['wire'] and bench.stalls == []
        link.blocked = False
        bench.publisher.resume()
        await bench.settle()
        assert link.sent == ['wire', 'patient']

    bench.run(main())


def test_a_broker_that_confirms_nothing_stalls(bench: Bench) -> None:
    async def main() -> None:
        bench.attach()
        bench.publish('client')
        bench.publish('patient', patient=True)
        await sleep(bench.reactor, STALL_SECONDS * 0.9)
        assert bench.stalls == []
        await sleep(bench.reactor, STALL_SECONDS * 0.4)
        assert bench.stalls == [True]
        bench.publisher.fail_impatient(QueueError('stalled'))
        assert len(bench.outcomes['client']) == 1 and bench.outcomes['patient'] == []
        bench.confirm(1, 2)
        assert bench.stalls == [True, False]
        assert len(bench.outcomes['client']) == 1 and bench.outcomes['patient'] == [None]

    bench.run(main())


def test_a_broker_that_is_slow_but_confirms_does_not_stall(bench: Bench) -> None:
    async def main() -> None:
        bench.attach()
        for number in range(5):
            bench.publish(str(number))
        for tag in range(1, 6):
            await sleep(bench.reactor, STALL_SECONDS * 0.8)
            bench.confirm(tag)
        assert bench.stalls == []

    bench.run(main())


@pytest.mark.parametrize(('text', 'limit'), [
    ('PRECONDITION_FAILED - message size 300 is larger than configured max size 128', 128),
    ('PRECONDITION_FAILED - message size is too much', 299),
])
def test_what_is_too_large_is_known_from_then_on(bench: Bench, text: str, limit: int) -> None:
    async def main() -> None:
        bench.attach()
        bench.publish('small')
        bench.publish('large', Message('q', b'x' * 300))
        await bench.settle()
        bench.publisher.too_large(text)
        [error] = bench.outcomes['large']
        assert isinstance(error, TooLargeForBroker) and bench.publisher.limit == limit
        bench.publisher.detach(QueueError('gone'))
        bench.attach()
        bench.publish('again', Message('q', b'x' * 300))
        await bench.settle()
        assert isinstance(bench.outcomes['again'][0], TooLargeForBroker) and bench.link.sent == []
        bench.publisher.detach(QueueError('gone'))          # for another reason: the limit may be another one now
        bench.attach()
        bench.publish('perhaps', Message('q', b'x' * 300))
        await bench.settle()
        assert bench.link.sent == ['q']

    bench.run(main())


def test_what_is_not_due_goes_to_a_waiting_queue(bench: Bench) -> None:
    async def main() -> None:
        link = bench.attach()
        now = bench.reactor.clock.time()
        bench.publish('late', Message('q', b'', due=now + 100))
        bench.publish('due', Message('q', b'', due=now - 1))
        bench.publish('result', Message('results', b'', due=now + 100))     # only the outbox has waiting queues
        await bench.settle()
        assert link.sent == ['q.wait.60', 'q', 'results']

    bench.run(main())


@pytest.mark.parametrize('seed', range(8))
def test_every_group_has_exactly_one_outcome_and_what_is_left_is_what_is_not_confirmed(bench: Bench,
                                                                                      seed: int) -> None:
    dice = random.Random(seed)
    confirmed: set[bytes] = set()

    async def main() -> None:
        wire: dict[int, bytes] = {}
        link, seen = bench.attach(), 0

        def look() -> None:
            nonlocal seen
            for key in link.sent[seen:]:
                seen += 1
                wire[seen] = key.encode()

        for step in range(150):
            choice = dice.random()
            look()
            if choice < 0.4:
                names = [f'{step}-{number}' for number in range(dice.randint(1, 4))]
                bench.publish(str(step), *(Message(name, name.encode()) for name in names),
                              patient=dice.random() < 0.5)
                await bench.settle()
            elif choice < 0.9 and wire:
                tag, ok = dice.choice(list(wire)), dice.random() < 0.8
                body = wire.pop(tag)
                if ok and dice.random() < 0.2:
                    bench.give_back(body.decode(), body)
                elif ok:
                    confirmed.add(body)
                bench.confirm(tag, ok=ok)
                await bench.settle()
            elif choice < 0.95:
                bench.publisher.fail_impatient(QueueError('stalled'))
            else:
                bench.publisher.detach(QueueError('gone'))
                wire.clear()
                link, seen = bench.attach(), 0
        bench.publisher.detach(QueueError('the end'))

    bench.run(main())
    assert all(len(outcomes) == 1 for outcomes in bench.outcomes.values())
    for name, group in bench.groups.items():
        assert not {message.body for message in group.left} & confirmed
        assert (bench.outcomes[name] == [None]) == (not group.left and group.error is None) or not group.patient
