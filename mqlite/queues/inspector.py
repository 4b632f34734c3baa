"""Looking at queues on a broker, for the `queue` subcommands.

A question has a channel of its own, because the broker closes the channel of a question that it refuses; reading keeps
one, on which what was read is answered.
"""

from __future__ import annotations

from typing import Any

from mqlite.amqp.channel import OPEN, Channel
from mqlite.amqp.client import BrokerError, Link
from mqlite.amqp.events import Got, TooLarge
from mqlite.queues.consumer import RabbitDelivery, inflate
from mqlite.queues.contract import Delivery, QueueError, QueueStatus
from mqlite.queues.parking import DELAYS, waiting_queue
from mqlite.queues.topology import RabbitConfig, explain


class Refused(QueueError):
    """The broker will not; `code` is its reply code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Inspector:
    """Questions over one link. QueueError with the broker's reason when it refuses one."""

    def __init__(self, link: Link, config: RabbitConfig) -> None:
        self._link = link
        self._config = config
        self._reading: Channel | None = None

    async def fetch(self, queue: str, count: int, waiting: bool = False) -> list[Delivery]:
        """`waiting`: of the waiting queues of the outbox, but for the heads that a daemon holds."""
        if not waiting:
            return await self._fetch(queue, count)
        deliveries: list[Delivery] = []
        for delay in DELAYS if queue == self._config.outbox else ():
            deliveries += await self._fetch(waiting_queue(queue, delay), count - len(deliveries))
        return deliveries

    async def _fetch(self, queue: str, count: int) -> list[Delivery]:
        link = self._link
        channel = self._reading
        if channel is None or channel.state != OPEN:
            channel = self._reading = await link.channel()
        try:
            answers = [link.request(channel, 'basic.get', queue=queue) for _ in range(count)]
            events = [await answer for answer in answers]
        except BrokerError as error:
            if error.code == 404:
                return []
            raise Refused(explain(error.code, str(error), 'reading', f'queue {queue}'), error.code) from error
        deliveries: list[Delivery] = []
        for event in events:
            fault = f'the message has {event.size} bytes, more than can be taken' if isinstance(event, TooLarge) else ''
            got = event.message if isinstance(event, TooLarge) else event
            if isinstance(got, Got):
                body, unreadable = inflate(got)
                deliveries.append(RabbitDelivery(queue, got, body, fault or unreadable, link, channel, None))
        return deliveries

    async def purge(self, queue: str) -> int:
        """Of the outbox also what waits for its time, but for the heads that a daemon holds."""
        names = [queue]
        if queue == self._config.outbox:
            names += [waiting_queue(queue, delay) for delay in DELAYS]
        return sum([await self._count('queue.purge', name) for name in names])

    async def list_queues(self) -> list[QueueStatus]:
        """Those of the settings: AMQP cannot ask which others there are."""
        rows = []
        for queue in sorted(set(self._config.queues)):
            ready, waiting = await self._count('queue.declare', queue, passive=True), 0
            if queue == self._config.outbox:
                waiting = sum([await self._count('queue.declare', waiting_queue(queue, delay), passive=True)
                               for delay in DELAYS])
            rows.append(QueueStatus(queue, ready, waiting, None, None))
        return [row for row in rows if row.ready or row.waiting]

    async def exists(self, queue: str) -> bool:
        try:
            await self.ask(queue, 'queue.declare', queue=queue, passive=True)
        except Refused:
            return False
        return True

    async def _count(self, name: str, queue: str, **fields: Any) -> int:
        """The number of messages that the answer tells; 0 for a queue that is not there."""
        try:
            return int((await self.ask(queue, name, queue=queue, **fields)).fields['message_count'])
        except Refused as error:
            if error.code != 404:
                raise
            return 0

    async def ask(self, subject: str, name: str, **fields: Any) -> Any:
        link = self._link
        channel = await link.channel()
        try:
            answer = await link.request(channel, name, **fields)
        except BrokerError as error:
            raise Refused(explain(error.code, str(error), name, f'queue {subject}'), error.code) from error
        if channel.state == OPEN:
            channel.close()
            link.touch()
        return answer
