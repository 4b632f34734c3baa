"""Channel 0: login, limits, the two ways to close, alarms, heartbeats, and a broker that says what it must not."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from mqlite.amqp.channel import ChannelGone
from mqlite.amqp.codec import HEARTBEAT, ProtocolError, encode_frame
from mqlite.amqp.connection import CAPABILITIES, Connection, heartbeat_policy
from mqlite.amqp.events import Blocked, ChannelOpened, Closed, Event, Failed, Opened, Unblocked
from mqlite.amqp.uri import Address
from mqlite.errors import ConfigError
from tests.support.amqp import (
    PROTOCOL_HEADER,
    START,
    byte_by_byte,
    captured,
    content,
    method,
    methods,
    opened,
    tune,
    with_channel,
)

LOGIN = Address(user='us\u00e9r', password='pä:ss', vhost='mail')


def failure(events: list[Event]) -> ProtocolError:
    """The error of the last event, which must be a protocol error."""
    last = events[-1]
    assert isinstance(last, Failed) and isinstance(last.error, ProtocolError)
    return last.error


# --- opening ----------------------------------------------------------------------------------------------------------

def test_the_dialogue_of_opening() -> None:
    connection = Connection(LOGIN, {'version': '1'})
    assert connection.data_to_send() == PROTOCOL_HEADER
    assert connection.receive(START) == []
    [(name, fields)] = methods(connection.data_to_send())
    assert (name, fields['mechanism'], fields['locale']) == ('connection.start-ok', 'PLAIN', 'en_US')
    assert fields['response'] == b'\0us\xc3\xa9r\0p\xc3\xa4:ss'
    assert fields['client_properties'] == {'product': 'mqlite', 'version': '1',
                                           'capabilities': dict.fromkeys(CAPABILITIES, True)}
    assert connection.receive(tune(100, 8192, 30)) == []
    assert methods(connection.data_to_send()) == [
        ('connection.tune-ok', {'channel_max': 100, 'frame_max': 8192, 'heartbeat': 30}),
        ('connection.open', {'virtual_host': 'mail', 'reserved1': '', 'reserved2': False})]
    assert connection.receive(method(0, 'connection.open-ok')) == [Opened({'product': 'RabbitMQ'}, 100, 8192, 30)]
    assert connection.data_to_send() == b''


@pytest.mark.parametrize('spare', [b'', b'\x08\0\0'])
def test_opening_byte_by_byte_and_with_bytes_to_spare(spare: bytes) -> None:
    stream = START + HEARTBEAT + tune() + method(0, 'connection.open-ok') + HEARTBEAT + spare
    whole = Connection(LOGIN).receive(stream)
    assert byte_by_byte(Connection(LOGIN), stream) == whole == [Opened({'product': 'RabbitMQ'}, 2047, 131072, 60)]


@pytest.mark.parametrize(('mechanism', 'response'), [
    ('PLAIN', b'\0us\xc3\xa9r\0p\xc3\xa4:ss'),
    ('AMQPLAIN', b'\5LOGINS\0\0\0\5us\xc3\xa9r\x08PASSWORDS\0\0\0\6p\xc3\xa4:ss'),
    ('EXTERNAL', b''),
])
def test_mechanisms(mechanism: str, response: bytes) -> None:
    connection = Connection(LOGIN._replace(mechanisms=('SCRAM', mechanism, 'PLAIN')))
    connection.data_to_send()
    connection.receive(method(0, 'connection.start', version_minor=9, mechanisms=b'PLAIN EXTERNAL AMQPLAIN'))
    [(_, fields)] = methods(connection.data_to_send())
    assert (fields['mechanism'], fields['response']) == (mechanism, response)
    connection.receive(method(0, 'connection.secure', challenge=b'again?'))
    assert methods(connection.data_to_send()) == [('connection.secure-ok', {'response': response})]
    assert connection.receive(tune() + method(0, 'connection.open-ok')) != []


def test_no_mechanism_in_common_is_a_matter_of_configuration() -> None:
    connection = Connection(LOGIN._replace(mechanisms=('EXTERNAL',)))
    connection.data_to_send()
    [event] = connection.receive(START)
    assert isinstance(event, Failed) and isinstance(event.error, ConfigError)
    assert 'AMQPLAIN, PLAIN' in str(event.error) and 'auth_mechanism' in str(event.error)
    assert connection.data_to_send() == b''


# (our channel-max, frame-max, heartbeat), the broker's, the outcome: 0 is no limit, the lower one counts.
# But 0 for our heartbeat is none, whatever the broker proposes.
@pytest.mark.parametrize(('ours', 'theirs', 'agreed'), [
    ((None, None, None),    (0, 0, 0),              (2047, 131072, 60)),
    ((None, None, None),    (10, 8192, 10),         (10, 8192, 10)),
    ((5, 4096, 5),          (2047, 131072, 60),     (5, 4096, 5)),
    ((0, None, 0),          (0, 4096, 0),           (65535, 4096, 0)),
    ((0, None, 0),          (65535, 2**32 - 1, 65535), (65535, 131072, 0)),
    ((None, None, 0),       (2047, 131072, 60),     (2047, 131072, 0)),
    ((None, None, 5),       (2047, 131072, 0),      (2047, 131072, 5)),
])
def test_limits(ours: tuple[Any, Any, Any], theirs: tuple[int, int, int], agreed: tuple[int, int, int]) -> None:
    connection = Connection(Address(channel_max=ours[0], frame_max=ours[1], heartbeat=ours[2]))
    connection.receive(START)
    connection.data_to_send()
    connection.receive(tune(*theirs))
    assert methods(connection.data_to_send())[0] == (
        'connection.tune-ok', dict(zip(('channel_max', 'frame_max', 'heartbeat'), agreed)))
    assert connection.receive(method(0, 'connection.open-ok')) == [Opened({'product': 'RabbitMQ'}, *agreed)]


def test_the_agreed_frame_max_counts_at_once() -> None:
    connection = Connection(Address())
    blocked = encode_frame(1, 0, b'x' * 4089)
    assert 'frame-max is 4096' in str(failure(connection.receive(START + tune(frame_max=4096) + blocked)))


@pytest.mark.parametrize(('stream', 'code', 'said'), [
    (b'AMQP\0\0\x08\0',                                             540, 'AMQP 0-0-8-0'),
    (method(0, 'connection.start', version_major=1, mechanisms=b'PLAIN'), 530, 'AMQP 1-0'),
    (tune(),                                                        503, 'connection.tune on channel 0 in state start'),
    (START + START,                                                 503, 'in state tune'),
    (START + method(0, 'connection.open-ok'),                       503, 'in state tune'),
    (START + tune(frame_max=4095),                                  530, 'the least allowed is 4096'),
    (START + tune() + tune(),                                       503, 'in state open'),
    (START + method(1, 'channel.open-ok'),                          504, 'channel 1, which is not open'),
    (START + method(0, 'connection.start-ok'),                      503, 'only a client'),
    (START + method(0, 'channel.close'),                            503, 'channel.close on channel 0'),
    (START + content(0, b'x'),                                      504, 'content on channel 0'),
    (START + encode_frame(8, 0, b'x'),                              501, 'heartbeat with a payload'),
    (START + encode_frame(8, 1, b''),                               504, 'channel 1'),
    (START + encode_frame(1, 0, b'\0\x0a\0\x1e\0'),                 502, 'octets'),
    (START + encode_frame(1, 0, b''),                               540, 'unknown method'),
])
def test_what_a_broker_must_not_say_while_opening(stream: bytes, code: int, said: str) -> None:
    for deliver in (Connection.receive, byte_by_byte):
        connection = Connection(Address())
        connection.data_to_send()
        error = failure(deliver(connection, stream))
        assert (error.code, said in str(error)) == (code, True), str(error)
        if stream.startswith(START):        # a broker that greeted is told why
            [(name, fields)] = methods(connection.data_to_send())
            assert (name, fields['reply_code'], fields['reply_text']) == ('connection.close', code, str(error))
        assert connection.data_to_send() == b''
        assert connection.receive(START) == connection.eof() == []


@pytest.mark.parametrize(('stream', 'said'), [
    (b'',                                               'before its greeting'),
    (b'\x15\x03\x03\0\2\2\x46',                         'TLS port'),
    (START,                                             'user name or the password is wrong'),
    (START + tune(),                                    'virtual host'),
    (START + tune() + method(0, 'connection.open-ok'),  'without a word'),
])
def test_a_broker_that_hangs_up(stream: bytes, said: str) -> None:
    connection = Connection(Address(password='pw'))
    connection.receive(stream)
    [event] = connection.eof()
    assert isinstance(event, Closed) and event.code == 0 and said in event.text and 'pw' not in event.text
    assert connection.data_to_send() == b'' and connection.eof() == []


def test_refused_login() -> None:
    connection = Connection(Address())
    refused = method(0, 'connection.close', reply_code=403, reply_text='ACCESS_REFUSED - Login was refused')
    assert connection.receive(START + refused) == [Closed(403, 'ACCESS_REFUSED - Login was refused', 0, 0)]
    assert methods(connection.data_to_send()) == [('connection.close-ok', {})]


def test_a_captured_challenge_is_refused_by_mechanism_not_by_crash() -> None:
    [event] = Connection(Address(mechanisms=('EXTERNAL',))).receive(captured('challenge')[1])
    assert isinstance(event, Failed) and isinstance(event.error, ConfigError)


# --- closing ----------------------------------------------------------------------------------------------------------

def test_we_close() -> None:
    connection, channel = with_channel()
    connection.close(320, 'bye')
    assert methods(connection.data_to_send()) == [
        ('connection.close', {'reply_code': 320, 'reply_text': 'bye', 'class_id': 0, 'method_id': 0})]
    with pytest.raises(ChannelGone):
        channel.publish('', 'q', b'')
    late = content(1, b'x') + method(0, 'connection.blocked') + HEARTBEAT + method(7, 'basic.ack')
    assert connection.receive(late) == []
    assert connection.receive(method(0, 'connection.close-ok')) == [Closed(200, '', 0, 0)]
    connection.close()
    connection.heartbeat()
    assert connection.data_to_send() == b''


def test_both_close_at_once() -> None:
    connection = opened()
    connection.close()
    assert connection.receive(method(0, 'connection.close', reply_code=320, reply_text='me too')) == [
        Closed(320, 'me too', 0, 0)]
    assert methods(connection.data_to_send())[-1][0] == 'connection.close-ok'


def test_the_broker_closes_and_unsent_publishes_are_dropped() -> None:
    connection, channel = with_channel()
    channel.publish('', 'q', b'x')
    close = method(0, 'connection.close', reply_code=320, reply_text='CONNECTION_FORCED', class_id=60, method_id=40)
    assert connection.receive(close + method(1, 'basic.cancel')) == [Closed(320, 'CONNECTION_FORCED', 60, 40)]
    assert methods(connection.data_to_send()) == [('connection.close-ok', {})]
    assert channel.state == 'closed'
    with pytest.raises(ChannelGone):
        connection.open_channel()


def test_events_before_a_broken_frame_still_count() -> None:
    connection = opened()
    events = connection.receive(method(0, 'connection.blocked', reason='low') + b'\1\0\0\0\0\0\0?')
    assert events[0] == Blocked('low') and failure(events).code == 501 and len(events) == 2


def test_a_connection_that_ended_leaves_nothing_behind() -> None:
    gc.disable()        # so that only reference counts free it, and a cycle shows
    try:
        connection, channel = with_channel()
        events = connection.receive(method(1, 'basic.deliver') + content(1, b'x') + method(0, 'connection.close'))
        gone = weakref.ref(connection), weakref.ref(channel)
        del connection, channel
        assert (gone[0](), gone[1]()) == (None, None) and len(events) == 2
    finally:
        gc.enable()


# --- in use -----------------------------------------------------------------------------------------------------------

def test_alarms() -> None:
    connection = opened()
    assert connection.receive(method(0, 'connection.blocked', reason='low on memory')) == [Blocked('low on memory')]
    assert connection.blocked
    assert connection.receive(method(0, 'connection.unblocked')) == [Unblocked()]
    assert not connection.blocked


def test_channel_numbers_are_used_again_and_run_out() -> None:
    connection = opened(channel_max=2)
    first, second = connection.open_channel(), connection.open_channel()
    assert (first.number, second.number) == (1, 2)
    assert connection.receive(method(2, 'channel.open-ok') + method(1, 'channel.open-ok')) == [
        ChannelOpened(2), ChannelOpened(1)]
    with pytest.raises(ChannelGone, match='all 2'):
        connection.open_channel()
    connection.receive(method(1, 'channel.close', reply_code=404))
    assert connection.open_channel().number == 1


def test_no_channel_before_the_connection_is_open() -> None:
    with pytest.raises(ChannelGone):
        Connection(Address()).open_channel()


def test_heartbeat_is_sent_when_it_may_be() -> None:
    connection = Connection(Address())
    connection.data_to_send()
    connection.heartbeat()
    assert connection.data_to_send() == b''
    connection = opened()
    connection.heartbeat()
    assert connection.data_to_send() == b'\x08\0\0\0\0\0\0\xce'


@pytest.mark.parametrize(('interval', 'sent_ago', 'received_ago', 'action', 'wait'), [
    (0,  1e9,   1e9,   'wait', float('inf')),
    (60, 0.0,   0.0,   'wait', 30.0),
    (60, 29.5,  0.0,   'wait', 0.5),
    (60, 30.0,  0.0,   'send', 30.0),
    (60, 0.0,   119.0, 'wait', 1.0),
    (60, 40.0,  119.0, 'send', 1.0),
    (60, 0.0,   120.0, 'dead', 0.0),
    (60, 500.0, 500.0, 'dead', 0.0),
    (1,  0.25,  0.0,   'wait', 0.25),
])
def test_heartbeat_policy(interval: int, sent_ago: float, received_ago: float, action: str, wait: float) -> None:
    assert heartbeat_policy(interval, sent_ago, received_ago) == (action, wait)
