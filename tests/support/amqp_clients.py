"""The AMQP clients of others, each as one function to publish and one to read."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, NamedTuple
from urllib.parse import urlsplit

import aio_pika
import amqp
import pika


class Published(NamedTuple):
    """A message and the AMQP properties that matter here; None is absent."""

    body: bytes
    content_encoding: str | None = None
    priority: int | None = None
    content_type: str | None = 'application/json'
    delivery_mode: int | None = 2
    redelivered: bool = False


def _properties(message: Published) -> dict[str, Any]:
    names = ('content_encoding', 'priority', 'content_type', 'delivery_mode')
    return {name: value for name in names for value in [getattr(message, name)] if value is not None}


def pika_publish(url: str, queue: str, messages: list[Published]) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    for message in messages:
        channel.basic_publish('', queue, message.body, pika.BasicProperties(**_properties(message)), mandatory=True)
    connection.close()


def pika_read(url: str, queue: str) -> list[Published]:
    """Nothing when the queue is not there (yet)."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    found: list[Published] = []
    try:
        channel.queue_declare(queue, passive=True)
    except pika.exceptions.ChannelClosedByBroker:
        connection.close()
        return found
    method, properties, body = channel.basic_get(queue, auto_ack=True)
    while method is not None:
        found.append(Published(body, properties.content_encoding, properties.priority, properties.content_type,
                               properties.delivery_mode, method.redelivered))
        method, properties, body = channel.basic_get(queue, auto_ack=True)
    connection.close()
    return found


def _py_amqp(url: str) -> Any:
    parts = urlsplit(url)
    return amqp.Connection(f'{parts.hostname}:{parts.port}', parts.username, parts.password, confirm_publish=True)


def py_amqp_publish(url: str, queue: str, messages: list[Published]) -> None:
    with _py_amqp(url) as connection:
        channel = connection.channel()
        for message in messages:
            channel.basic_publish(amqp.Message(message.body, **_properties(message)), '', queue, mandatory=True)


def py_amqp_read(url: str, queue: str) -> list[Published]:
    found = []
    with _py_amqp(url) as connection:
        channel = connection.channel()
        channel.auto_decode = False
        message = channel.basic_get(queue, no_ack=True)
        while message is not None:
            properties = message.properties
            found.append(Published(bytes(message.body), properties.get('content_encoding'), properties.get('priority'),
                                   properties.get('content_type'), properties.get('delivery_mode'),
                                   message.delivery_info['redelivered']))
            message = channel.basic_get(queue, no_ack=True)
    return found


def aio_pika_publish(url: str, queue: str, messages: list[Published]) -> None:
    async def publish() -> None:
        connection = await aio_pika.connect(url)
        async with connection:
            channel = await connection.channel()
            for message in messages:
                await channel.default_exchange.publish(aio_pika.Message(message.body, **_properties(message)), queue)
    asyncio.run(publish())


def aio_pika_read(url: str, queue: str) -> list[Published]:
    async def read() -> list[Published]:
        found = []
        connection = await aio_pika.connect(url)
        async with connection:
            channel = await connection.channel()
            place = await channel.get_queue(queue)
            message = await place.get(no_ack=True, fail=False)
            while message is not None:
                found.append(Published(message.body, message.content_encoding, message.priority, message.content_type,
                                       message.delivery_mode, bool(message.redelivered)))
                message = await place.get(no_ack=True, fail=False)
        return found
    return asyncio.run(read())


class Client(NamedTuple):
    publish: Callable[[str, str, list[Published]], None]
    read: Callable[[str, str], list[Published]]


CLIENTS = {
    'pika':     Client(pika_publish, pika_read),
    'py-amqp':  Client(py_amqp_publish, py_amqp_read),
    'aio-pika': Client(aio_pika_publish, aio_pika_read),
}
