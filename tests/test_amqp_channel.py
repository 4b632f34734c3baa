"""One channel: requests and answers, publishing and confirms, content in frames of every cut, and the ends of it."""

from __future__ import annotations

from typing import Any

import pytest

from mqlite.amqp.channel import Channel, ChannelGone, unpack_deliver
from mqlite.amqp.codec import FRAME_BODY, ProtocolError, Unencodable, encode_frame
from mqlite.amqp.connection import Connection
from mqlite.amqp.events import (
    Answer,
    Cancelled,
    ChannelClosed,
    ChannelOpened,
    Confirmed,
    Delivered,
    Event,
    Failed,
    Flow,
    Got,
    Returned,
    TooLarge,
)
from mqlite.amqp.methods import NO_PROPERTIES, Properties, decode_method, encode_method
from tests.support.amqp import byte_by_byte, confirming, content, frames, header, method, methods, opened, with_channel

PERSISTENT = Properties(content_type='application/json', delivery_mode=2)
WITH_HEADERS = Properties(headers={'x-death': [{'count': 1}]}, message_id='m')
DELIVER = {'consumer_tag': 'c', 'delivery_tag': 5, 'redelivered': True, 'exchange': 'ex', 'routing_key': 'key'}


def failure(events: list[Event]) -> ProtocolError:
    last = events[-1]
    assert isinstance(last, Failed) and isinstance(last.error, ProtocolError)
    return last.error


# --- requests ---------------------------------------------------------------------------------------------------------

def test_requests_may_follow_open_at_once_and_are_answered_in_order() -> None:
    connection = opened()
    channel = connection.open_channel()
    channel.request('queue.declare', queue='q', durable=True, arguments={'x-max-priority': 5})
    channel.request('basic.qos', prefetch_count=10)
    channel.request('basic.get', queue='q')
    assert [name for name, _ in methods(connection.data_to_send())] == [
        'channel.open', 'queue.declare', 'basic.qos', 'basic.get']
    stream = (method(1, 'channel.open-ok') + method(1, 'queue.declare-ok', queue='q', message_count=3)
              + method(1, 'basic.qos-ok') + method(1, 'basic.get-empty'))
    assert connection.receive(stream) == [
        ChannelOpened(1),
        Answer(1, 'queue.declare', 'queue.declare-ok', {'queue': 'q', 'message_count': 3, 'consumer_count': 0}),
        Answer(1, 'basic.qos', 'basic.qos-ok', {}),
        Answer(1, 'basic.get', 'basic.get-empty', {'reserved1': ''})]


def test_nowait_waits_for_nothing() -> None:
    connection, channel = with_channel()
    channel.request('queue.purge', queue='q', nowait=True)
    channel.request('basic.qos')
    assert connection.receive(method(1, 'basic.qos-ok')) == [Answer(1, 'basic.qos', 'basic.qos-ok', {})]


@pytest.mark.parametrize('name', ['queue.declare-ok', 'basic.publish', 'channel.open', 'connection.close', 'tx.select'])
def test_what_is_not_a_request(name: str) -> None:
    _, channel = with_channel()
    with pytest.raises(TypeError, match='not a request'):
        channel.request(name)


def test_a_request_beyond_one_frame_is_refused_here() -> None:
    connection, channel = with_channel(frame_max=4096)
    with pytest.raises(Unencodable):
        channel.request('queue.declare', arguments={'a': 'x' * 4096})
    with pytest.raises(Unencodable):
        channel.publish('', 'q', b'', Properties(headers={'a': 'x' * 4096}))
    assert connection.data_to_send() == b''


def test_settling_deliveries() -> None:
    connection, channel = with_channel()
    channel.ack(2**64 - 1)
    channel.ack(7, multiple=True)
    channel.request('basic.nack', delivery_tag=8, requeue=True)
    channel.request('basic.reject', delivery_tag=9)
    assert methods(connection.data_to_send()) == [
        ('basic.ack', {'delivery_tag': 2**64 - 1, 'multiple': False}),
        ('basic.ack', {'delivery_tag': 7, 'multiple': True}),
        ('basic.nack', {'delivery_tag': 8, 'multiple': False, 'requeue': True}),
        ('basic.reject', {'delivery_tag': 9, 'requeue': False})]


def test_the_broker_ends_a_consumer() -> None:
    connection, _ = with_channel()
    assert connection.receive(method(1, 'basic.cancel', consumer_tag='c', nowait=True)) == [Cancelled(1, 'c')]
    assert connection.data_to_send() == b''
    assert connection.receive(method(1, 'basic.cancel', consumer_tag='d')) == [Cancelled(1, 'd')]
    assert methods(connection.data_to_send()) == [('basic.cancel-ok', {'consumer_tag': 'd'})]


def test_flow() -> None:
    connection, _ = with_channel()
    assert connection.receive(method(1, 'channel.flow', active=False)) == [Flow(1, False)]
    assert methods(connection.data_to_send()) == [('channel.flow-ok', {'active': False})]


# --- publishing -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('properties', [NO_PROPERTIES, PERSISTENT, WITH_HEADERS])
@pytest.mark.parametrize('size', [0, 1, 4087, 4088, 4089, 8176, 10000])
def test_a_publish_is_what_the_table_says(size: int, properties: Properties) -> None:
    connection, channel = with_channel(frame_max=4096)
    body = bytes(range(256)) * 40
    assert channel.publish('ex', 'key', body[:size], properties, mandatory=True) == 0
    parts = [body[at:min(at + 4088, size)] for at in range(0, size, 4088)]
    assert connection.data_to_send() == (
        method(1, 'basic.publish', exchange='ex', routing_key='key', mandatory=True)
        + content(1, *parts, properties=properties))


def test_ack_is_what_the_table_says() -> None:
    for multiple in (False, True):
        connection, channel = with_channel()
        channel.ack(2**63 + 5, multiple)
        assert connection.data_to_send() == method(1, 'basic.ack', delivery_tag=2**63 + 5, multiple=multiple)


def test_equal_publishes_differ_only_in_what_differs() -> None:
    connection, channel = with_channel()
    calls = [('', 'q', b'a', NO_PROPERTIES, False), ('', 'q', b'b', PERSISTENT, False),
             ('', 'q', b'b', PERSISTENT, True), ('q', '', b'b', PERSISTENT, False),
             ('', 'q', b'b', PERSISTENT._replace(priority=1), False)]
    for exchange, key, body, properties, mandatory in calls + calls:
        channel.publish(exchange, key, body, properties, mandatory)
        assert connection.data_to_send() == (
            method(1, 'basic.publish', exchange=exchange, routing_key=key, mandatory=mandatory)
            + content(1, body, properties=properties))


def test_a_name_that_does_not_fit_queues_nothing() -> None:
    connection, channel = confirming()
    with pytest.raises(Unencodable):
        channel.publish('', 'q' * 256, b'x')
    with pytest.raises(Unencodable):
        channel.publish('', 'q', b'x', Properties(priority=256))
    assert connection.data_to_send() == b''
    assert channel.publish('', 'q', b'x') == 1


# --- confirms ---------------------------------------------------------------------------------------------------------

def ack(tag: int, multiple: bool = False) -> bytes:
    return method(1, 'basic.ack', delivery_tag=tag, multiple=multiple)


def nack(tag: int, multiple: bool = False) -> bytes:
    return method(1, 'basic.nack', delivery_tag=tag, multiple=multiple)


# after five publishes: what the broker says, and the ranges (first, last, ok) that it settles
@pytest.mark.parametrize(('stream', 'ranges'), [
    (ack(1) + ack(2),                           [(1, 1, True), (2, 2, True)]),
    (ack(5, True),                              [(1, 5, True)]),
    (ack(0, True),                              [(1, 5, True)]),
    (ack(2, True) + ack(4, True),               [(1, 2, True), (3, 4, True)]),
    (ack(3) + ack(5, True),                     [(3, 3, True), (1, 2, True), (4, 5, True)]),
    (ack(2) + ack(4) + ack(4, True),            [(2, 2, True), (4, 4, True), (1, 1, True), (3, 3, True)]),
    (ack(5) + ack(1) + ack(0, True),            [(5, 5, True), (1, 1, True), (2, 4, True)]),
    (ack(3, True) + ack(2, True) + ack(3, True), [(1, 3, True)]),
    (nack(2) + ack(3, True),                    [(2, 2, False), (1, 1, True), (3, 3, True)]),
    (ack(1) + nack(5, True),                    [(1, 1, True), (2, 5, False)]),
])
def test_confirms_settle_ranges(stream: bytes, ranges: list[tuple[int, int, bool]]) -> None:
    for deliver in (Connection.receive, byte_by_byte):
        connection, channel = confirming()
        assert [channel.publish('', 'q', b'') for _ in range(5)] == [1, 2, 3, 4, 5]
        assert deliver(connection, stream) == [Confirmed(1, *settled) for settled in ranges]
        left = 5 - sum(last - first + 1 for first, last, _ in ranges)
        rest = [event for event in connection.receive(ack(0, True)) if isinstance(event, Confirmed)]
        assert sum(event.last - event.first + 1 for event in rest) == left


@pytest.mark.parametrize('stream', [
    ack(6), ack(6, True), ack(0), ack(1) + ack(1), ack(3) + ack(3), ack(2, True) + ack(1), nack(6),
    ack(2**64 - 1, True)])
def test_confirms_of_what_is_not_open(stream: bytes) -> None:
    connection, channel = confirming()
    for _ in range(5):
        channel.publish('', 'q', b'')
    assert failure(connection.receive(stream)).code == 406


def test_confirms_out_of_order_leave_nothing_behind() -> None:
    connection, channel = confirming()
    for _ in range(1000):
        channel.publish('', 'q', b'')
    for tag in range(1000, 0, -1):
        assert connection.receive(ack(tag)) == [Confirmed(1, tag, tag, True)]
    assert channel._settled_beyond == set()
    assert channel.publish('', 'q', b'') == 1001


def test_confirm_without_confirm_mode() -> None:
    connection, channel = with_channel()
    channel.publish('', 'q', b'')
    assert failure(connection.receive(ack(0, True))).code == 406


def test_ack_with_unused_bits_set() -> None:
    connection, channel = confirming()
    channel.publish('', 'q', b'')
    channel.publish('', 'q', b'')
    single = encode_frame(1, 1, b'\0\x3c\0\x50\0\0\0\0\0\0\0\2\xfe')
    assert connection.receive(single) == [Confirmed(1, 2, 2, True)]


@pytest.mark.parametrize('size', [4, 12, 14])
def test_ack_of_another_size(size: int) -> None:
    connection, channel = confirming()
    channel.publish('', 'q', b'')
    assert failure(connection.receive(encode_frame(1, 1, b'\0\x3c\0\x50' + b'\0' * (size - 4)))).code == 502


# --- content coming in ------------------------------------------------------------------------------------------------

RETURN = {'reply_code': 312, 'reply_text': 'NO_ROUTE', 'exchange': 'ex', 'routing_key': 'key'}
GET_OK = {'delivery_tag': 6, 'redelivered': False, 'exchange': 'ex', 'routing_key': 'key', 'message_count': 3}


@pytest.mark.parametrize('parts', [(), (b'x',), (b'one', b'two'), (b'', b'after nothing'), tuple([b'.' * 999] * 50)],
                         ids=len)
@pytest.mark.parametrize('properties', [NO_PROPERTIES, PERSISTENT, WITH_HEADERS])
def test_content_whole_byte_by_byte_and_with_bytes_to_spare(properties: Properties, parts: tuple[bytes, ...]) -> None:
    body, inside = b''.join(parts), content(1, *parts, properties=properties)
    stream = (method(1, 'basic.deliver', **DELIVER) + inside + method(1, 'basic.return', **RETURN) + inside
              + method(1, 'basic.get-ok', **GET_OK) + inside)
    for deliver in (Connection.receive, byte_by_byte):
        for spare in (b'', stream[:40]):
            connection, channel = with_channel()
            channel.request('basic.get', queue='q')
            assert deliver(connection, stream + spare) == [
                Delivered(1, 'c', 5, True, 'ex', 'key', properties, body),
                Returned(1, 312, 'NO_ROUTE', 'ex', 'key', properties, body),
                Got(1, 6, False, 'ex', 'key', 3, properties, body)]


def test_two_channels_interleave_their_content() -> None:
    connection = opened()
    for number in (1, 2):
        connection.open_channel()
        connection.receive(method(number, 'channel.open-ok'))
    deliver = [method(number, 'basic.deliver', consumer_tag=f'c{number}') for number in (1, 2)]
    first, second = [[header(number, 4), *(encode_frame(FRAME_BODY, number, part) for part in (b'ab', b'cd'))]
                     for number in (1, 2)]
    stream = deliver[0] + deliver[1] + b''.join(one + other for one, other in zip(first, second))
    assert connection.receive(stream) == [
        Delivered(number, f'c{number}', 0, False, '', '', NO_PROPERTIES, b'abcd') for number in (1, 2)]


@pytest.mark.parametrize('fields', [
    DELIVER, dict(DELIVER, consumer_tag='', exchange='', routing_key=''), dict(DELIVER, delivery_tag=2**64 - 1),
    dict(DELIVER, redelivered=False, exchange='ü' * 127, routing_key='\udcff' * 255, consumer_tag='t' * 255),
])
def test_the_fast_form_of_deliver_equals_the_table(fields: dict[str, Any]) -> None:
    payload = encode_method('basic.deliver', fields)
    data = b'before' + payload + b'\xcebehind' * 99
    begin, stop = 6, 6 + len(payload)
    row, decoded = decode_method(data, begin, stop)
    assert unpack_deliver(data, begin + 4, stop) == tuple(decoded.values()) == tuple(fields.values())
    for cut in range(begin + 4, stop):      # what is cut, or goes on, is an error in both
        for wrong, end in ((data, cut), (data[:cut], cut), (data, stop + 1)):
            with pytest.raises(ProtocolError) as caught:
                unpack_deliver(wrong, begin + 4, end)
            assert caught.value.code == 502
            with pytest.raises(ProtocolError):
                decode_method(wrong, begin, end)


def test_the_fast_form_ignores_unused_bits_as_the_table_does() -> None:
    payload = b'\0\x3c\0\x3c\0\0\0\0\0\0\0\0\1\xfe\0\0'
    assert unpack_deliver(payload, 4, len(payload)) == tuple(decode_method(payload, 0, len(payload))[1].values())


@pytest.mark.parametrize('made', ['basic.deliver', 'basic.return', 'basic.get-ok'])
def test_content_beyond_the_bound_is_dropped_and_the_channel_goes_on(made: str) -> None:
    connection, channel = with_channel(max_body=10)
    channel.request('basic.get')
    fields = {'basic.deliver': DELIVER, 'basic.return': RETURN, 'basic.get-ok': GET_OK}[made]
    events = connection.receive(method(1, made, **fields) + content(1, b'123456', b'78901', properties=PERSISTENT)
                                + method(1, 'basic.deliver', **DELIVER) + content(1, b'1234567890'))
    assert isinstance(events[0], TooLarge) and (events[0].size, events[0].channel) == (11, 1)
    assert (events[0].message.body, events[0].message.properties) == (b'', PERSISTENT)
    assert events[1:] == [Delivered(1, 'c', 5, True, 'ex', 'key', NO_PROPERTIES, b'1234567890')]


def test_content_of_absurd_size_costs_nothing() -> None:
    connection, _ = with_channel()
    assert connection.receive(method(1, 'basic.deliver', **DELIVER) + header(1, 2**64 - 1)) == []
    assert connection.receive(encode_frame(FRAME_BODY, 1, b'x' * 100_000) * 20) == []


DELIVERY = method(1, 'basic.deliver', **DELIVER)


@pytest.mark.parametrize(('stream', 'code', 'said'), [
    (header(1, 1),                                              505, 'content header on channel 1'),
    (encode_frame(FRAME_BODY, 1, b'x'),                         505, 'content body on channel 1'),
    (DELIVERY + encode_frame(FRAME_BODY, 1, b'x'),              505, 'content body'),
    (DELIVERY + DELIVERY,                                       505, 'a method on channel 1 where content'),
    (DELIVERY + header(1, 1) + header(1, 1),                    505, 'content header'),
    (DELIVERY + header(1, 1) + method(1, 'basic.cancel'),       505, 'a method'),
    (DELIVERY + header(1, 0) + encode_frame(FRAME_BODY, 1, b''), 505, 'content body'),
    (DELIVERY + header(1, 1) + encode_frame(FRAME_BODY, 1, b'xx'), 501, 'beyond the 1 octets'),
    (DELIVERY + encode_frame(2, 1, b'\0\x3c\0\0\0'),            502, 'less than 14'),
    (DELIVERY + encode_frame(2, 1, b'\0\x3c\0\0' + b'\0' * 8),  502, 'octets'),
    (DELIVERY + encode_frame(2, 1, b'\0\x32\0\0' + b'\0' * 10), 501, 'class 50'),
    (DELIVERY + encode_frame(2, 1, b'\0\x3c\0\0' + b'\0' * 9 + b'\1'), 502, 'flags'),
    (encode_frame(1, 1, b'\0\x3c\0\x3c\5'),                     502, 'basic.deliver'),
    (encode_frame(8, 1, b''),                                   501, 'heartbeat on channel 1'),
    (method(1, 'queue.declare-ok'),                             503, 'where nothing waits'),
    (method(1, 'channel.open-ok'),                              503, 'where nothing waits'),
    (method(1, 'basic.get-ok'),                                 503, 'where nothing waits'),
    (method(1, 'channel.close-ok'),                             503, 'where nothing waits'),
    (method(1, 'connection.blocked'),                           503, 'where nothing waits'),
    (method(1, 'basic.publish'),                                503, 'only a client'),
    (method(1, 'basic.reject'),                                 503, 'only a client'),
    (method(2, 'basic.cancel'),                                 504, 'channel 2'),
    (encode_frame(1, 1, b'\0\x3c\1\1'),                         540, '003c0101'),
    (encode_frame(1, 1, b'\0\x3c'),                             540, '003c'),
])
def test_what_a_broker_must_not_say_on_a_channel(stream: bytes, code: int, said: str) -> None:
    for deliver in (Connection.receive, byte_by_byte):
        connection, channel = with_channel()
        channel.publish('', 'unsent', b'')
        events = deliver(connection, stream)
        assert len(events) == 1 or isinstance(events[0], Delivered)
        error = failure(events)
        assert (error.code, said in str(error)) == (code, True), str(error)
        assert [name for name, _ in methods(connection.data_to_send())] == ['connection.close']
        assert channel.state == 'closed'


def test_an_answer_to_another_request() -> None:
    connection, channel = with_channel()
    channel.request('basic.qos')
    assert 'basic.qos waits' in str(failure(connection.receive(method(1, 'queue.purge-ok'))))


# --- the ends of a channel --------------------------------------------------------------------------------------------

CLOSE = method(1, 'channel.close', reply_code=406, reply_text='PRECONDITION_FAILED', class_id=50, method_id=10)


def uses(channel: Channel) -> list[Any]:
    return [lambda: channel.publish('', 'q', b''), lambda: channel.ack(1), lambda: channel.request('basic.qos'),
            channel.close]


def test_the_broker_closes_a_channel_in_the_middle_of_requests() -> None:
    connection, channel = with_channel()
    channel.request('queue.declare', queue='q')
    channel.request('basic.qos')
    connection.data_to_send()
    assert connection.receive(CLOSE) == [ChannelClosed(1, 406, 'PRECONDITION_FAILED', 50, 10)]
    assert methods(connection.data_to_send()) == [('channel.close-ok', {})]
    for use in uses(channel):
        with pytest.raises(ChannelGone, match='channel 1 is closed'):
            use()
    assert failure(connection.receive(method(1, 'basic.qos-ok'))).code == 504


def test_a_channel_refused_at_once() -> None:
    connection = opened()
    connection.open_channel()
    assert connection.receive(CLOSE) == [ChannelClosed(1, 406, 'PRECONDITION_FAILED', 50, 10)]


def test_we_close_and_what_still_comes_is_dropped() -> None:
    connection, channel = with_channel()
    channel.close(200, 'enough')
    assert methods(connection.data_to_send()) == [
        ('channel.close', {'reply_code': 200, 'reply_text': 'enough', 'class_id': 0, 'method_id': 0})]
    for use in uses(channel):
        with pytest.raises(ChannelGone, match='closing'):
            use()
    late = DELIVERY + content(1, b'late') + method(1, 'basic.cancel', consumer_tag='c') + method(1, 'basic.qos-ok')
    assert connection.receive(late) == []
    assert connection.receive(method(1, 'channel.close-ok')) == [ChannelClosed(1, 200, '', 0, 0)]
    assert connection.data_to_send() == b''
    assert connection.open_channel().number == 1


def test_both_close_a_channel_at_once() -> None:
    connection, channel = with_channel()
    channel.close()
    connection.data_to_send()
    assert connection.receive(CLOSE) == []
    assert methods(connection.data_to_send()) == [('channel.close-ok', {})]
    assert connection.receive(method(1, 'channel.close-ok')) == [ChannelClosed(1, 200, '', 0, 0)]


def test_ack_waits_for_the_channel() -> None:
    with pytest.raises(ChannelGone, match='opening'):
        opened().open_channel().ack(1)


def test_one_write_for_many_publishes() -> None:
    connection, channel = with_channel()
    for number in range(100):
        channel.publish('', 'q', b'%d' % number, PERSISTENT)
    assert len(frames(connection.data_to_send())) == 300
