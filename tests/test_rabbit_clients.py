"""The programs of others around an outbox on RabbitMQ: pika, py-amqp and aio-pika publish JSON and read results."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.amqp_clients import CLIENTS, Published
from tests.support.broker import Broker
from tests.support.daemon import Daemon
from tests.support.load import send
from tests.support.process import HOST, wait_until
from tests.support.sink import CapturingSink

Start = Callable[..., Daemon]


def moment(seconds: float) -> str:
    return time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(time.time() + seconds))


@pytest.fixture
def daemon(start_daemon: Start, broker: Broker, sink: CapturingSink) -> Daemon:
    broker.delete_queues()
    return start_daemon(queue_address=broker.url, smtp_sink_address=HOST, smtp_sink_port=sink.port,
                        rabbitmq_maxpriority=10, rabbitmq_failure='failure', rabbitmq_retry='retry',
                        rabbitmq_success='success')


def read(name: str, broker: Broker, queue: str, count: int) -> list[Published]:
    """So many messages from a queue. AssertionError when they do not come, or more do."""
    found: list[Published] = []

    def enough() -> bool:
        found.extend(CLIENTS[name].read(broker.url, queue))
        return len(found) >= count
    wait_until(enough, f'{count} messages on {queue}')
    assert len(found) == count
    return found


def documents(messages: list[Published]) -> list[dict[str, Any]]:
    return [json.loads(gzip.decompress(message.body) if message.content_encoding == 'gzip' else message.body)
            for message in messages]


@pytest.mark.parametrize('name', list(CLIENTS))
def test_json_plain_and_gzip_with_and_without_priority(daemon: Daemon, broker: Broker, sink: CapturingSink,
                                                       name: str) -> None:
    kinds = [(encoding, priority) for encoding in (None, 'gzip') for priority in (None, 7)]
    asked = []
    for number, (encoding, priority) in enumerate(kinds):
        fields = {'envelope': f'{number}@example.org', 'recipient': f'{number}@example.com',
                  'mime': f'Subject: {number}\r\n\r\nHellö.\r\n', 'kind': [encoding, priority], 'tags': ['a', 'b']}
        body = json.dumps(fields).encode()
        asked.append((fields, Published(gzip.compress(body) if encoding else body, encoding, priority)))
    CLIENTS[name].publish(broker.url, 'outbox', [message for _, message in asked])
    arrived = {one.recipients[0]: one for one in sink.wait_for(len(kinds))}
    results = read(name, broker, 'results', len(kinds))
    assert {(one.content_type, one.delivery_mode, one.content_encoding) for one in results} == {
        ('application/json', 2, None)}
    by_recipient = {document['recipient']: document for document in documents(results)}
    for fields, _ in asked:
        mail = arrived[f'RCPT TO:<{fields["recipient"]}>'.encode()]
        assert mail.mail.startswith(f'MAIL FROM:<{fields["envelope"]}>'.encode())
        assert mail.message == str(fields['mime']).encode()
        result = by_recipient[str(fields['recipient'])]
        [attempt] = result.pop('results')
        assert result.pop('extracted')['headers']
        assert result == {key: value for key, value in fields.items() if key != 'mime'}
        assert (attempt['state'], attempt['result'], attempt['code'], attempt['to']) == ('message', 'accepted', 250,
                                                                                       HOST)
        assert 'redelivered' not in attempt
    assert len(read(name, broker, 'success', len(kinds))) == len(kinds) and not read(name, broker, 'failure', 0)


#   what a document asks for beside envelope, recipient and mime               where the result is, and what it says
ASKED: tuple[tuple[dict[str, Any], str, tuple[str, str]], ...] = (
    ({'envelope': None},                                                        'success', ('message', 'accepted')),
    ({'envelope': ''},                                                          'success', ('message', 'accepted')),
    ({'keepmime': True},                                                        'success', ('message', 'accepted')),
    ({'anything': {'else': [1, 2.5, None, 'é']}, 'tags': ['x'], 'results': []}, 'success', ('message', 'accepted')),
    ({'nextattempt': {'time': '2020-01-01 00:00:00'}},                          'success', ('message', 'accepted')),
    ({'queues': {'results': None, 'success': 'mine'}},                          'mine',    ('message', 'accepted')),
    ({'recipient': 'nobody'},                                                   'failure', ('process', 'invalid')),
    ({'recipient': None},                                                       'failure', ('process', 'invalid')),
    ({'maxdelivertime': '2020-01-01 00:00:00'},                                 'failure', ('process', 'timeout')),
)
ASKED_LATER: tuple[tuple[dict[str, Any], str, tuple[str, str]], ...] = (
    ({'maxattempts': 1},  'failure', ('rcptto', 'error')),
    ({'retries': [3600]}, 'retry',   ('rcptto', 'error')),
)


def ask(broker: Broker, asked: tuple[tuple[dict[str, Any], str, tuple[str, str]], ...]) -> dict[int, dict[str, Any]]:
    """Publish, and read every result from the queue where it is to be; each must say what it is to say."""
    published = [{'envelope': 'a@example.org', 'recipient': f'{number}@example.com', 'mime': 'Subject: x\r\n\r\ny\r\n',
                  'number': number, **fields} for number, (fields, _, _) in enumerate(asked)]
    CLIENTS['pika'].publish(broker.url, 'outbox', [Published(json.dumps(document).encode()) for document in published])
    found: dict[int, dict[str, Any]] = {}
    for queue in sorted({queue for _, queue, _ in asked}):
        results = documents(read('pika', broker, queue, [row[1] for row in asked].count(queue)))
        found.update({document['number']: document for document in results})
    for number, (_, _, expected) in enumerate(asked):
        attempt = found[number]['results'][-1]
        assert (attempt['state'], attempt['result']) == expected, found[number]
        given = {key: value for key, value in published[number].items()
                 if key not in ('results', 'nextattempt') and (key != 'mime' or published[number].get('keepmime'))}
        assert {key: value for key, value in found[number].items()
                if key not in ('results', 'nextattempt', 'extracted')} == given
    return found


def test_what_the_properties_ask_for(daemon: Daemon, broker: Broker, sink: CapturingSink) -> None:
    ask(broker, ASKED)
    assert sorted(one.mail[:12] for one in sink.transactions)[:2] == [b'MAIL FROM:<>'] * 2
    assert len(read('pika', broker, 'results', len(ASKED) - 1)) == len(ASKED) - 1       # one wanted none
    sink.script = {'RCPT': b'450 4.2.1 later', 'DATA': b'503 5.5.1 no recipients'}
    found = ask(broker, ASKED_LATER)
    assert moment(3500) < found[1]['nextattempt']['time'] < moment(3700)
    assert broker.depth('outbox.wait.1200') == 1


def test_a_message_waits_for_its_time(daemon: Daemon, broker: Broker, sink: CapturingSink) -> None:
    base = {'envelope': 'a@example.org', 'mime': 'Subject: x\n\ny'}
    late = {**base, 'recipient': 'late@example.com', 'nextattempt': {'time': moment(3)}}
    never = {**base, 'recipient': 'never@example.com', 'nextattempt': {'time': moment(86400)}}
    soon = {**base, 'recipient': 'soon@example.com'}
    CLIENTS['pika'].publish(broker.url, 'outbox', [Published(json.dumps(one).encode()) for one in (late, never, soon)])
    assert [one.recipients for one in sink.wait_for(2)] == [[b'RCPT TO:<soon@example.com>'],
                                                          [b'RCPT TO:<late@example.com>']]
    assert moment(0) >= late['nextattempt']['time']     # type: ignore[index]
    read('pika', broker, 'results', 2)
    daemon.stop()                                       # the heads that a daemon holds are not counted: AMQP hides them
    listed = daemon.cli('queue', 'list').stdout.decode().split()
    assert listed[listed.index('outbox'):][:3] == ['outbox', '0', '1']


def test_poison_goes_to_the_failure_queue_with_the_reason(daemon: Daemon, broker: Broker) -> None:
    poison = (
        (b'{"recipient": ',                   None,   'not valid JSON'),
        (b'[]',                               None,   'not a JSON object'),
        (b'[' * 100_000,                      None,   'JSON'),
        (b'\x1f\x8b nonsense',                'gzip', 'the body is not'),
        (gzip.compress(b'{"a": 1}')[:-4],     'gzip', 'cut off'),
        (gzip.compress(b'{}') * 2,            'gzip', 'something follows'),
        (gzip.compress(bytes(257 << 20), 1),  'gzip', 'inflates to more than'),
        (b'{}',                               'br',   "'br' is not known"),
    )
    for body, encoding, reason in poison:
        CLIENTS['pika'].publish(broker.url, 'outbox', [Published(body, encoding)])
        [document] = documents(read('pika', broker, 'failure', 1))
        [attempt] = document['results']
        assert (attempt['state'], attempt['result']) == ('process', 'invalid') and reason in attempt['description']
    assert not broker.depth('outbox')


def test_what_is_received_and_all_results_can_be_gzip(start_daemon: Start, broker: Broker,
                                                      sink: CapturingSink) -> None:
    broker.delete_queues()
    daemon = start_daemon(queue_address=broker.url, smtp_sink_address=HOST, smtp_sink_port=sink.port,
                          rabbitmq_encoding='gzip', rabbitmq_inbox='inbox')
    send(daemon.port)
    [kept] = read('py-amqp', broker, 'inbox', 1)
    [document] = documents([kept])
    assert kept.content_encoding == 'gzip' and document['recipient'] == 'recipient@example.com'
    CLIENTS['py-amqp'].publish(broker.url, 'outbox', [kept._replace(redelivered=False)])
    [result] = read('py-amqp', broker, 'results', 1)
    assert result.content_encoding == 'gzip' and documents([result])[0]['message-id'] == document['message-id']
    CLIENTS['py-amqp'].publish(broker.url, 'results', [result])
    assert daemon.take('results', 1)[0]['message-id'] == document['message-id']     # queue get inflates


def test_priorities_overtake(start_daemon: Start, broker: Broker, sink: CapturingSink) -> None:
    broker.delete_queues()
    daemon = start_daemon(queue_address=broker.url, smtp_sink_address=HOST, smtp_sink_port=sink.port,
                          rabbitmq_maxpriority=10, rabbitmq_qos=1)
    daemon.stop()
    fields = {'envelope': 'a@example.org', 'mime': 'x'}
    CLIENTS['aio-pika'].publish(broker.url, 'outbox', [
        Published(json.dumps({**fields, 'recipient': f'{priority}@example.com'}).encode(), None, priority)
        for priority in (1, 5, 9, 3)])
    daemon.start()
    arrived = [one.recipients[0] for one in sink.wait_for(4)]
    assert arrived == [b'RCPT TO:<%d@example.com>' % priority for priority in (9, 5, 3, 1)]


def test_a_message_that_somebody_had_before_is_marked(daemon: Daemon, broker: Broker, sink: CapturingSink) -> None:
    """The daemon dies with the message in its hands, after the server has taken it."""
    sink.script['.'] = [b'<silence>']
    send(daemon.port)
    sink.wait_for(1)
    daemon.kill()
    daemon.start()
    sink.wait_for(2)
    [result] = documents(read('pika', broker, 'results', 1))
    assert result['results'][0]['redelivered'] is True
