"""What we declare on a broker, and what its refusals mean. Pure.

Declaring is idempotent as long as the arguments are those that the queue has. When they are not, the broker refuses and
the operator must decide; the texts here name the setting.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mqlite.amqp.methods import Properties
from mqlite.amqp.uri import Address
from mqlite.queues.contract import Message, Publishable
from mqlite.queues.parking import DELAYS, waiting_queue

LONGEST_NAME = 255  # octets of a queue's name: an AMQP short string
LARGEST_PRIORITY = 255
_LAZY_UNTIL = (3, 12)  # from this version on classic queues are what lazy ones were
_DELIVERY_LIMIT_FROM = (4, 0)  # quorum queues drop a message after 20 redeliveries unless told otherwise


@dataclass(frozen=True)
class RabbitConfig:
    """The settings rabbitmq-*."""

    addresses: tuple[Address, ...]
    verify: bool
    exchange: str
    declare: bool
    durable: bool
    persistent: bool
    lazy: bool
    queue_type: str
    max_priority: int
    gzip: bool
    qos: int
    throttle: int
    outbox: str
    queues: tuple[str, ...]  # all that are configured, the outbox among them
    fallback: str  # where results go whose own queue does not exist; '' for nowhere


#   word of the broker         the setting that decides it
_SETTINGS = {
    'durable':                  'rabbitmq-durable',
    'transient_nonexcl_queues': 'rabbitmq-durable',  # 4.x: a feature that may be switched off
    'x-max-priority':           'rabbitmq-maxpriority',
    'x-queue-mode':             'rabbitmq-lazy',
    'x-queue-type':             'rabbitmq-queue-type',
    'type':                     'rabbitmq-exchange',
}

#   method              what RabbitMQ wants the user to have (access control guide)
_PERMISSIONS = {
    'exchange.declare':  'configure',
    'queue.declare':     'configure',
    'queue.bind':        'write for the queue, read for the exchange',
    'publishing':        'write',
}


def version_of(text: str) -> tuple[int, int]:
    """(major, minor) of a version like 3.10.8; (0, 0) when it is none."""
    match = re.match(r'(\d{1,4})\.(\d{1,4})', text)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)


def declarations(config: RabbitConfig, version: str) -> list[tuple[str, dict[str, Any]]]:
    """The methods to send, in order: (name, fields). With rabbitmq-declare: false only whether the exchange is there is
    asked, because publishing to one that is not would cost the channel."""
    rows: list[tuple[str, dict[str, Any]]] = []
    if config.exchange:
        rows.append(('exchange.declare', {'exchange': config.exchange, 'type': 'direct', 'durable': True,
                                          'passive': not config.declare}))
    if config.declare:
        for queue in config.queues:
            rows += declare_queue(config, version, queue)
    return rows


def declare_waiting(config: RabbitConfig, version: str) -> list[tuple[str, dict[str, Any]]]:
    """The waiting queues are ours, and are declared in any case. Without priorities: they are read in order."""
    return [_declare(config, version, waiting_queue(config.outbox, delay), priorities=False) for delay in DELAYS]


def declare_queue(config: RabbitConfig, version: str, queue: str) -> list[tuple[str, dict[str, Any]]]:
    """One queue, and its binding when there is an exchange."""
    rows = [_declare(config, version, queue, priorities=True)]
    if config.exchange:
        rows.append(('queue.bind', {'queue': queue, 'exchange': config.exchange, 'routing_key': queue}))
    return rows


def _declare(config: RabbitConfig, version: str, queue: str, priorities: bool) -> tuple[str, dict[str, Any]]:
    arguments: dict[str, Any] = {}
    quorum = config.queue_type == 'quorum'
    if quorum:
        arguments['x-queue-type'] = 'quorum'
        if version_of(version) >= _DELIVERY_LIMIT_FROM:
            arguments['x-delivery-limit'] = -1
    else:
        if config.max_priority and priorities:
            arguments['x-max-priority'] = config.max_priority
        if config.lazy and version_of(version) < _LAZY_UNTIL:
            arguments['x-queue-mode'] = 'lazy'
    return 'queue.declare', {'queue': queue, 'durable': config.durable or quorum, 'arguments': arguments}


def properties(config: RabbitConfig, priority: int, encoding: str | None = None,
               headers: dict[str, Any] | None = None) -> Properties:
    """The AMQP properties of a message that we publish. `encoding`: of its body, None for none."""
    return Properties(content_type='application/json', content_encoding=encoding,
                      headers=headers, delivery_mode=2 if config.persistent else 1,
                      priority=min(priority, config.max_priority) if config.max_priority else None)


def refusal(messages: Sequence[Publishable], largest: int) -> str:
    """Why these can never be kept; '' when nothing speaks against it. `largest`: bytes of a body, 0 for no limit."""
    for message in messages:
        queue = message.queue
        if not queue.isprintable() or len(queue.encode('utf-8')) > LONGEST_NAME:
            return f'no queue can be called {queue[:LONGEST_NAME]!r}'
        if not 0 <= message.priority <= LARGEST_PRIORITY:
            return f'a priority must be from 0 to {LARGEST_PRIORITY}, not {message.priority}'
        size = len(message.body) if isinstance(message, Message) else 0  # a large one is measured when it is sent
        if 0 < largest < size:
            return f'a message of {size} bytes is too large for the broker, which takes {largest}'
    return ''


def explain(code: int, text: str, method: str, name: str) -> str:
    """The broker's refusal, for the operator. `method`: of the table, or 'consuming', 'publishing', 'reading';
    `name`: of what, such as 'queue outbox'."""
    switched_off = re.search(r'(transient_nonexcl_queues)', text)
    if switched_off:
        return f'the broker refuses {name} as it is to be declared: change {_SETTINGS[switched_off[1]]} ({text})'
    if code == 406:
        match = re.search(r"(?:inequivalent|invalid) arg '([^']+)'", text)
        setting = _SETTINGS.get(match[1]) if match else None
        fit = f'make {setting} fit it' if setting else 'make the rabbitmq-* settings fit it'
        return f'{name} is there already, declared otherwise: {fit}, delete it, or set rabbitmq-declare: false ({text})'
    if code == 403:
        instead = ', or set rabbitmq-declare: false' if method.endswith(('.declare', '.bind')) else ''
        return (f'the user of queue-address may not use {name}: grant the permission '
                f'({_PERMISSIONS.get(method, "read")}){instead} ({text})')
    if code == 404:
        return f'{name} is not there: create it, or set rabbitmq-declare: true ({text})'
    return f'{method} of {name} failed: {text}'
