"""The consumer on a link that is not there: how much it takes; the test is the broker."""

from __future__ import annotations

from typing import Any

from mqlite.amqp.events import Delivered
from mqlite.amqp.methods import NO_PROPERTIES
from mqlite.queues.consumer import FIRST_WINDOW, RabbitConsumer
from tests import test_rabbit_publisher
from tests.support.amqp import method, methods
from tests.test_rabbit_publisher import Bench, FakeLink

bench = test_rabbit_publisher.bench  # fixture


class Consuming:
    """A consumer with a broker that keeps count of its window."""

    def __init__(self, bench: Bench, prefetch: int, prefetch_bytes: int) -> None:
        self.link = FakeLink(bench.reactor)
        self.taken: list[bytes] = []
        self.consumer = RabbitConsumer(bench.reactor, 'q', prefetch, prefetch_bytes, print, self._hand_out,
                                       lambda _consumer: None)
        self.tag = 0

    def _hand_out(self, consumer: RabbitConsumer, event: Delivered, _fault: str) -> None:
        consumer.took(event.body)
        self.taken.append(event.body)

    def deliver(self, body: bytes) -> None:
        self.tag += 1
        self.consumer.arrived(Delivered(1, 'mqlite-1', self.tag, False, '', 'q', NO_PROPERTIES, body), '')

    def said(self) -> list[tuple[str, Any]]:
        """What was asked of the broker since the last call: each with its telling field."""
        telling = {'basic.qos': 'prefetch_count', 'basic.consume': 'consumer_tag', 'basic.cancel': 'consumer_tag',
                   'basic.nack': 'delivery_tag'}
        return [(name, fields[telling[name]]) for name, fields in methods(self.link.connection.data_to_send())]


def test_the_window_opens_while_messages_are_small_and_closes_when_they_are_not(bench: Bench) -> None:
    consuming = Consuming(bench, 1000, 100_000)

    async def main() -> None:
        await consuming.consumer.start(consuming.link, lambda *_: None)     # type: ignore[arg-type]
        assert consuming.said() == [('basic.qos', FIRST_WINDOW), ('basic.consume', 'mqlite-1')]
        for _ in range(2 * FIRST_WINDOW):
            consuming.deliver(b'x' * 100)
            consuming.consumer.gave(b'x' * 100)
        await bench.settle()
        assert consuming.said() == [('basic.qos', 64), ('basic.consume', 'mqlite-2'), ('basic.cancel', 'mqlite-1')]
        consuming.taken.clear()
        for _ in range(12):
            consuming.deliver(b'x' * 10_000)
        assert consuming.said() == [('basic.cancel', 'mqlite-2')]       # ten in hand, two in line
        assert len(consuming.taken) == 10
        for _ in range(10):
            consuming.deliver(b'x' * 10_000)
        assert consuming.said() == [('basic.nack', consuming.tag)]      # line and hands are full
        for count in (3, 5):
            for _ in range(count):
                consuming.consumer.gave(b'x' * 10_000)
            await bench.settle()
        assert len(consuming.taken) == 18 and consuming.said() == []
        for _ in range(14):
            consuming.consumer.gave(b'x' * 10_000)
        await bench.settle()
        assert consuming.said() == [('basic.qos', 16), ('basic.consume', 'mqlite-3')]

    bench.run(main())


def test_a_consumer_that_was_stopped_does_not_begin_again(bench: Bench) -> None:
    consuming = Consuming(bench, 10, 10_000)

    async def main() -> None:
        await consuming.consumer.start(consuming.link, lambda *_: None)     # type: ignore[arg-type]
        for _ in range(12):
            consuming.deliver(b'x' * 90)
        consuming.said()
        consuming.consumer.stop()
        consuming.consumer.stop()
        assert consuming.said() == [('basic.cancel', 'mqlite-1'), ('basic.nack', 11), ('basic.nack', 12)]
        consuming.deliver(b'on its way')
        assert consuming.said() == [('basic.nack', 13)]
        for _ in range(10):
            consuming.consumer.gave(b'x' * 90)
        await bench.settle()
        assert consuming.said() == [] and len(consuming.taken) == 10

    bench.run(main())


def test_nothing_breaks_on_a_channel_that_the_broker_has_closed(bench: Bench) -> None:
    consuming = Consuming(bench, 10, 1000)

    async def main() -> None:
        await consuming.consumer.start(consuming.link, lambda *_: None)     # type: ignore[arg-type]
        consuming.link.connection.receive(method(1, 'channel.close', reply_code=406, reply_text='no', class_id=0,
                                                 method_id=0))
        for _ in range(20):
            consuming.deliver(b'x' * 100)
        for _ in range(10):
            consuming.consumer.gave(b'x' * 100)
        await bench.settle()
        consuming.consumer.stop()

    bench.run(main())
