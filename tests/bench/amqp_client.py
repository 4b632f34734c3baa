"""`python3 build.py bench amqp_client publish|consume HOST PORT QUEUE N SIZE WINDOW`: our AMQP client alone.

publish: N persistent messages of SIZE bytes to a durable queue with confirms, at most WINDOW unconfirmed.
consume: N messages, each acknowledged, prefetch 1000. Prints {"wall": seconds, "cpu": seconds}.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

from mqlite.amqp.channel import Channel
from mqlite.amqp.client import Link
from mqlite.amqp.events import Confirmed, Delivered
from mqlite.amqp.methods import Properties
from mqlite.amqp.uri import Address
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import Waiter

PERSISTENT = Properties(content_type='application/json', delivery_mode=2)


class Client:
    """Counts what the broker says, and keeps the window full."""

    def __init__(self, host: str, port: int, queue: str, count: int, size: int, window: int) -> None:
        self.reactor = Reactor()
        self.done: Waiter[None] = Waiter(self.reactor)
        self.link = Link(self.reactor, Address(host=host, port=port), self.on_event)
        self.channel: Channel | None = None
        self.host, self.queue, self.count, self.window = host, queue, count, window
        self.body = b'{"envelope": "sender@client.test", "mime": "'.ljust(size - 2, b'x') + b'"}'
        self.sent = self.settled = 0

    async def run(self, mode: str) -> tuple[float, float]:
        await self.link.open(self.host, verify=True)
        self.channel = await self.link.channel()
        if mode == 'publish':
            await self.link.request(self.channel, 'confirm.select')
            begin = times()
            self.fill()
        else:
            await self.link.request(self.channel, 'basic.qos', prefetch_count=1000)
            begin = times()
            await self.link.request(self.channel, 'basic.consume', queue=self.queue, consumer_tag='bench')
        await self.done
        end = times()
        await self.link.close()
        return end[0] - begin[0], end[1] - begin[1]

    def fill(self) -> None:
        assert self.channel is not None
        while self.sent < self.count and self.sent - self.settled < self.window:
            self.channel.publish('', self.queue, self.body, PERSISTENT)
            self.sent += 1
        self.link.touch()

    def on_event(self, event: Any) -> None:
        assert self.channel is not None
        if isinstance(event, Delivered):
            self.channel.ack(event.delivery_tag)
            self.settled += 1
        elif isinstance(event, Confirmed):
            self.settled += event.last - event.first + 1
            self.fill()
        if self.settled == self.count and not self.done.done:
            self.done.set()


def times() -> tuple[float, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), usage.ru_utime + usage.ru_stime


def main() -> int:
    mode, host, port, queue, count, size, window = sys.argv[1:8]
    client = Client(host, int(port), queue, int(count), int(size), int(window))
    wall, cpu = client.reactor.run(client.run(mode))
    print(json.dumps({'wall': wall, 'cpu': cpu}))
    return 0


if __name__ == '__main__':
    sys.exit(main())
