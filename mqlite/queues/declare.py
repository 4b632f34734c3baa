"""Declaring what the store needs on a broker, over a link that was just opened (what that is: see topology.py)."""

from __future__ import annotations

from mqlite.amqp.client import BrokerError, BrokerRefused, Link
from mqlite.queues.inspector import Inspector, Refused
from mqlite.queues.topology import RabbitConfig, declarations, declare_waiting, explain


async def declare(link: Link, config: RabbitConfig) -> None:
    """BrokerRefused or Refused, with the setting to change, for the first thing that the broker does not allow."""
    channel = await link.channel()
    rows = declarations(config, link.version)
    answers = [link.request(channel, name, **fields) for name, fields in rows]
    for (name, fields), answer in zip(rows, answers):
        try:
            await answer
        except BrokerError as error:
            if link.ended.done:
                raise
            subject = f'queue {fields["queue"]}' if 'queue' in fields else f'exchange {fields["exchange"]}'
            raise BrokerRefused(explain(error.code, str(error), name, subject), error.code) from error
    channel.close()
    link.touch()
    inspector = Inspector(link, config)
    for name, fields in declare_waiting(config, link.version):
        try:
            await inspector.ask(fields['queue'], name, **fields)
        except Refused:  # not allowed, or declared otherwise: one that is there will do
            if not await inspector.exists(fields['queue']):
                raise
