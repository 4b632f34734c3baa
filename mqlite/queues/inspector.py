"""Looking at queues on a broker, for the `queue` subcommands.

Each question has a channel of its own, because the broker closes the channel of a question that it refuses.
"""

from __future__ import annotations

from typing import Any

from mqlite.amqp.client import BrokerError, Link
from mqlite.amqp.events import Got
from mqlite.queues.consumer import RabbitDelivery, inflate
from mqlite.queues.contract import Delivery, QueueError, QueueStatus
from mqlite.queues.parking import DELAYS, waiting_queue
from mqlite.queues.topology import RabbitConfig, explain


class Inspector:
    """Questions over one link. QueueError with the broker's reason when it refuses one."""

    def __init__(self, link: Link, config: RabbitConfig) -> None:
        self._link = link
        self._config = config

    async def fetch(self, queue: str, count: int) -> list[Delivery]:
        link = self._link
        channel = await link.channel()
        try:
            answers = [link.request(channel, 'basic.get', queue=queue) for _ in range(count)]
            events = [await answer for answer in answers]
        except BrokerError as error:
            raise QueueError(explain(error.code, str(error), 'reading', f'queue {queue}')) from error
        deliveries: list[Delivery] = []
        for event in events:
            if isinstance(event, Got):
                body, fault = inflate(event)
                delivery = RabbitDelivery(queue, event, body, fault, None)
                delivery.link, delivery.channel = link, channel
                deliveries.append(delivery)
        return deliveries

    async def purge(self, queue: str) -> int:
        return int((await self.ask(queue, 'queue.purge', queue=queue)).fields['message_count'])

    async def list_queues(self) -> list[QueueStatus]:
        rows = []
        for queue in sorted(set(self._config.queues)):
            ready, waiting = await self._depth(queue), 0
            if queue == self._config.outbox:
                waiting = sum([await self._depth(waiting_queue(queue, delay)) for delay in DELAYS])
            rows.append(QueueStatus(queue, ready, waiting, None, None))
        return [row for row in rows if row.ready or row.waiting]

    async def _depth(self, queue: str) -> int:
        try:
            return int((await self.ask(queue, 'queue.declare', queue=queue, passive=True)).fields['message_count'])
        except QueueError:
            return 0

    async def ask(self, subject: str, name: str, **fields: Any) -> Any:
        link = self._link
        channel = await link.channel()
        try:
            answer = await link.request(channel, name, **fields)
        except BrokerError as error:
            raise QueueError(explain(error.code, str(error), name, f'queue {subject}')) from error
        channel.close()
        link.touch()
        return answer
