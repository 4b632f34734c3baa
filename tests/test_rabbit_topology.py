"""The pure parts of the RabbitMQ store: what is declared, what refusals mean, where messages wait, what is a copy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mqlite.amqp.events import Delivered
from mqlite.amqp.methods import Properties
from mqlite.queues.consumer import RabbitDelivery, inflate
from mqlite.queues.contract import Message
from mqlite.queues.open import QUEUE_SETTINGS
from mqlite.queues.parking import (
    DELAYS,
    DUE_HEADER,
    LOST_HEADER,
    MOST_LOST,
    UNTIL_HEADER,
    place,
    times,
    times_lost,
    waiting_queue,
)
from mqlite.queues.redelivery import MOST_ACKED, Memory
from mqlite.queues.topology import (
    declarations,
    declare_queue,
    declare_waiting,
    explain,
    properties,
    refusal,
    version_of,
)
from mqlite.settings_kinds import QUEUE, QUEUE_NAME
from mqlite.settings_table import HONOURED, SETTINGS
from tests.support.rabbit import CONFIG

NOW = 1_700_000_000.0
LONG = 'x' * 256


@pytest.mark.parametrize(('text', 'version'), [
    ('3.10.8', (3, 10)), ('4.0', (4, 0)), ('3.8.9+beta', (3, 8)), ('', (0, 0)), ('rabbit', (0, 0)),
])
def test_version(text: str, version: tuple[int, int]) -> None:
    assert version_of(text) == version


@pytest.mark.parametrize(('settings', 'version', 'durable', 'arguments'), [
    ({},                                        '3.10.8', True,  {'x-max-priority': 10}),
    ({'max_priority': 0},                       '3.10.8', True,  {}),
    ({'max_priority': 0, 'durable': False},     '3.10.8', False, {}),
    ({'max_priority': 0, 'lazy': True},         '3.11.9', True,  {'x-queue-mode': 'lazy'}),
    ({'max_priority': 0, 'lazy': True},         '3.12.0', True,  {}),
    ({'queue_type': 'quorum', 'lazy': True},    '3.10.8', True,  {'x-queue-type': 'quorum'}),
    ({'queue_type': 'quorum', 'durable': False}, '3.13.1', True, {'x-queue-type': 'quorum'}),
    ({'queue_type': 'quorum'},                  '4.1.0',  True,  {'x-queue-type': 'quorum', 'x-delivery-limit': -1}),
])
def test_a_queue_as_the_settings_say(settings: dict[str, Any], version: str, durable: bool,
                                     arguments: dict[str, Any]) -> None:
    assert declare_queue(replace(CONFIG, **settings), version, 'q') == [
        ('queue.declare', {'queue': 'q', 'durable': durable, 'arguments': arguments})]


def test_an_exchange_is_declared_first_and_every_queue_is_bound_to_it() -> None:
    rows = declarations(replace(CONFIG, exchange='mx', queues=('a', 'b')), '3.10.8')
    assert [(name, fields.get('queue')) for name, fields in rows] == [
        ('exchange.declare', None), ('queue.declare', 'a'), ('queue.bind', 'a'), ('queue.declare', 'b'),
        ('queue.bind', 'b')]
    assert rows[2][1] == {'queue': 'a', 'exchange': 'mx', 'routing_key': 'a'}


def test_without_declaring_only_the_exchange_is_looked_for() -> None:
    assert declarations(replace(CONFIG, declare=False), '3.10.8') == []
    [(name, fields)] = declarations(replace(CONFIG, declare=False, exchange='mx'), '3.10.8')
    assert name == 'exchange.declare' and fields['passive'] is True


def test_waiting_queues_are_declared_in_any_case_and_have_no_priorities() -> None:
    rows = declare_waiting(replace(CONFIG, declare=False, exchange='mx'), '3.10.8')
    assert [(fields['queue'], fields['arguments']) for _, fields in rows] == [
        (f'q.wait.{delay}', {}) for delay in DELAYS]


@pytest.mark.parametrize(('priority', 'max_priority', 'expected'), [(3, 0, None), (3, 5, 3), (9, 5, 5), (0, 5, 0)])
def test_priority(priority: int, max_priority: int, expected: int | None) -> None:
    assert properties(replace(CONFIG, max_priority=max_priority), priority).priority == expected


@pytest.mark.parametrize(('persistent', 'mode'), [(True, 2), (False, 1)])
def test_persistent(persistent: bool, mode: int) -> None:
    assert properties(replace(CONFIG, persistent=persistent), 0).delivery_mode == mode


@pytest.mark.parametrize(('code', 'text', 'method', 'expected'), [
    (406, "inequivalent arg 'durable' for queue 'q'",       'queue.declare', 'make rabbitmq-durable fit it'),
    (406, "inequivalent arg 'x-queue-type' for queue 'q'",  'queue.declare', 'make rabbitmq-queue-type fit it'),
    (406, "invalid arg 'x-max-priority' for queue 'q'",     'queue.declare', 'make rabbitmq-maxpriority fit it'),
    (406, "inequivalent arg 'x-expires' for queue 'q'",     'queue.declare', 'make the rabbitmq-* settings fit it'),
    (406, 'something new',                                  'queue.declare', 'make the rabbitmq-* settings fit it'),
    (541, 'Feature `transient_nonexcl_queues` is deprecated', 'queue.declare', 'change rabbitmq-durable'),
    (403, 'ACCESS_REFUSED',   'queue.declare', 'grant the permission (configure), or set rabbitmq-declare: false'),
    (403, 'ACCESS_REFUSED',   'publishing',    'grant the permission (write) ('),
    (403, 'ACCESS_REFUSED',   'consuming',     'grant the permission (read) ('),
    (404, 'NOT_FOUND',        'consuming',     'is not there: create it, or set rabbitmq-declare: true'),
    (320, 'CONNECTION_FORCED', 'queue.purge',  'queue.purge of queue q failed: CONNECTION_FORCED'),
])
def test_a_refusal_names_the_setting(code: int, text: str, method: str, expected: str) -> None:
    line = explain(code, text, method, 'queue q')
    assert expected in line and text in line and 'queue q' in line


@pytest.mark.parametrize(('message', 'largest', 'expected'), [
    (Message('q', b'x'),                0, ''),
    (Message('q' * 255, b''),           0, ''),
    (Message('ä' * 127, b''),           0, ''),
    (Message('ä' * 128, b''),           0, 'no queue can be called'),
    (Message(LONG, b''),                0, 'no queue can be called'),
    (Message('a\nb', b''),              0, 'no queue can be called'),
    (Message('\udcff', b''),            0, 'no queue can be called'),
    (Message('q', b'', 255),            0, ''),
    (Message('q', b'', 256),            0, 'a priority must be'),
    (Message('q', b'', -1),             0, 'a priority must be'),
    (Message('q', b'12345'),            5, ''),
    (Message('q', b'123456'),           5, 'too large for the broker'),
])
def test_what_can_never_be_kept(message: Message, largest: int, expected: str) -> None:
    for messages in ([message], [Message('q', b''), message]):
        text = refusal(messages, largest)
        assert expected in text and bool(text) == bool(expected)


# parking

@pytest.mark.parametrize(('left', 'delay', 'held'), [
    (0.001, 2, 0.001), (1.5, 2, 1.5), (2, 2, 2), (9.9, 2, 2), (10, 10, 10), (59, 10, 10), (60, 60, 60), (299, 60, 60),
    (300, 300, 300), (1199, 300, 300), (1200, 1200, 1200), (28800, 1200, 1200), (10 ** 9, 1200, 1200),
])
def test_a_message_waits_in_the_longest_queue_that_fits_and_not_longer_than_it_must(left: float, delay: int,
                                                                                   held: float) -> None:
    queue, headers = place('q', NOW + left, NOW)
    due, seconds = times(headers, delay, NOW)
    assert queue == waiting_queue('q', delay)
    assert due == pytest.approx(NOW + left, abs=0.001) and seconds == pytest.approx(held, abs=0.002)


def test_eight_hours_are_a_few_dozen_moves() -> None:
    now, moves, due = NOW, 0, NOW + 28800
    while now < due:
        queue, headers = place('q', due, now)
        now += times(headers, int(queue.rpartition('.')[2]), now)[1] + 0.05     # a move takes its time
        moves += 1
    assert 24 <= moves <= 45 and now - due < 0.2


@pytest.mark.parametrize(('headers', 'held'), [
    (None,                                                  0),
    ({},                                                    0),
    ({UNTIL_HEADER: 'soon', DUE_HEADER: b'x'},              0),
    ({UNTIL_HEADER: True},                                  0),
    ({UNTIL_HEADER: int((NOW - 86400) * 1000)},             0),     # another clock is late, or this one was set
    ({UNTIL_HEADER: int((NOW + 86400) * 1000)},             60),    # another clock is early
    ({UNTIL_HEADER: 2 ** 63 - 1, DUE_HEADER: 2 ** 63 - 1},  60),    # somebody means harm
    ({UNTIL_HEADER: -2 ** 63},                              0),
])
def test_whatever_the_headers_say_nothing_is_held_longer_than_its_queue_holds(headers: dict[str, Any] | None,
                                                                            held: float) -> None:
    assert times(headers, 60, NOW)[1] == held


# copies

def delivered(body: bytes, tag: int = 1, redelivered: bool = False, **names: Any) -> Delivered:
    return Delivered(1, 'mqlite-1', tag, redelivered, '', 'q', Properties(**names), body)


def delivery(body: bytes, queue: str = 'q') -> RabbitDelivery:
    return RabbitDelivery(queue, delivered(body), body, '', None, None, None)     # type: ignore[arg-type]


@pytest.mark.parametrize(('headers', 'redelivered', 'lost'), [
    (None, False, 0), (None, True, 1), ({'x-delivery-count': 3}, True, 3), ({'x-delivery-count': 'x'}, True, 1),
])
def test_how_often_it_was_lost(headers: dict[str, Any] | None, redelivered: bool, lost: int) -> None:
    event = delivered(b'', 1, redelivered, headers=headers)
    assert RabbitDelivery('q', event, b'', '', None, None, None).lost == lost       # type: ignore[arg-type]


def test_one_copy_for_each_delivery_that_was_in_hand() -> None:
    memory, one, same, other = Memory(), delivery(b'1'), delivery(b'1'), delivery(b'2')
    memory.lose_link([one, same, other])
    assert memory.recognise('elsewhere', b'1', True) is None
    assert {memory.recognise('q', b'1', redelivered) for redelivered in (False, True)} == {one, same}
    assert memory.recognise('q', b'1', True) is None and len(memory) == 1
    memory.forget(other)
    memory.forget(other)
    assert memory.recognise('q', b'2', True) is None


def test_an_acknowledgement_that_may_not_have_arrived_needs_the_brokers_mark() -> None:
    memory, acked = Memory(), delivery(b'1')
    memory.acknowledged(acked)
    assert memory.recognise('q', b'1', True) is None        # the link lives: this is another message
    memory.lose_link([])
    assert memory.recognise('q', b'1', False) is None
    assert memory.recognise('q', b'1', True) is acked
    assert memory.recognise('q', b'1', True) is None


def test_what_is_in_hand_comes_before_what_was_acknowledged() -> None:
    memory, acked, held = Memory(), delivery(b'1'), delivery(b'1')
    memory.acknowledged(acked)
    memory.lose_link([held])
    assert [memory.recognise('q', b'1', True) for _ in range(3)] == [held, acked, None]


def test_memory_is_bounded_and_forgets() -> None:
    memory = Memory()
    for number in range(2 * MOST_ACKED):
        memory.acknowledged(delivery(b'%d' % number))
    memory.acknowledged(delivery(b'x' * (20 << 20)))
    memory.lose_link([delivery(b'%d' % number) for number in range(21_000)])
    assert len(memory) == 20_000
    memory.expire()
    assert len(memory) == 0 and memory.recognise('q', b'20999', True) is None


# bodies

@pytest.mark.parametrize('encoding', [None, '', 'identity', 'UTF-8', 'utf8', 'us-ascii', 'binary'])
def test_encodings_that_change_nothing(encoding: str | None) -> None:
    assert inflate(delivered(b'{}', content_encoding=encoding)) == (b'{}', '')


def test_every_queue_that_a_setting_names_is_declared() -> None:
    named = [setting.name for setting in SETTINGS if setting.kind in (QUEUE, QUEUE_NAME) and setting.status == HONOURED]
    assert sorted(QUEUE_SETTINGS) == sorted(named)


@pytest.mark.parametrize(('value', 'lost'), [
    (None, 0), (0, 0), (3, 3), (-1, 0), (True, 0), ('3', 0), (1.5, 0), (2**63 - 1, MOST_LOST)])
def test_how_often_a_message_was_lost_is_what_a_header_may_say(value: object, lost: int) -> None:
    assert times_lost({LOST_HEADER: value}) == lost and times_lost(None) == 0
