"""What the operator reads when a broker refuses something: one line that names the setting; and what clients get."""

from __future__ import annotations

import contextlib
import json
import smtplib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pika
import pytest

from tests.support.amqp_clients import Published, pika_publish, pika_read
from tests.support.broker import MAX_MESSAGE_SIZE, Broker
from tests.support.command import in_process
from tests.support.daemon import ALERT, Daemon
from tests.support.load import send
from tests.support.process import HOST, ROOT, free_port, wait_until
from tests.support.sink import CapturingSink

Start = Callable[..., Daemon]


@pytest.fixture
def empty(broker: Broker) -> Broker:
    """The broker without queues and without exchanges of a test."""
    broker.delete_queues()
    with channel(broker) as one:
        one.exchange_delete('mx')
    return broker


@contextlib.contextmanager
def channel(broker: Broker) -> Iterator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    yield connection.channel()
    connection.close()


queue = partial(in_process(ROOT), 'queue')      # it finds no configuration there


def refusal(*words: str, **settings: object) -> str:
    """The one line with which a `queue` command fails."""
    options = [f'--{name.replace("_", "-")}={value}' for name, value in settings.items()]
    done = queue(*(words or ('list',)), *options)
    lines = done.errors.splitlines()
    assert done.status == 1 and len(lines) == 1 and lines[0].startswith('mqlite: '), done
    return lines[0]


@pytest.mark.parametrize(('url', 'expected'), [
    ('amqp://guest:wrong@{host}:{port}/',        'check the user and the password in queue-address'),
    ('amqp://guest:guest@{host}:{port}/nowhere', 'check the virtual host in queue-address'),
    ('amqp://guest:guest@{host}:{free}/',        'Connection refused'),
    ('amqp://guest:guest@{host}:{tls}/',         'is this the port of a broker'),
    ('amqps://guest:guest@{host}:{tls}/',        'rabbitmq-verify'),
    ('amqps://guest:guest@{host}:{tls}/?cacertfile=/nowhere', 'check cacertfile'),
    ('amqps://guest:guest@{host}:{port}/',       'check the certificate'),
])
def test_a_broker_that_cannot_be_used(empty: Broker, url: str, expected: str) -> None:
    line = refusal(queue_address=url.format(host=HOST, port=empty.port, tls=empty.tls_port, free=free_port()))
    assert expected in line and 'wrong@' not in line


@pytest.mark.parametrize(('there', 'settings', 'expected'), [
    ({'durable': False},                                 {}, 'rabbitmq-durable'),
    ({'durable': True},         {'rabbitmq_durable': 'false'}, 'rabbitmq-durable'),
    ({'durable': True},             {'rabbitmq_maxpriority': 5}, 'rabbitmq-maxpriority'),
    ({'durable': True, 'arguments': {'x-max-priority': 9}}, {}, 'rabbitmq-maxpriority'),
    ({'durable': True},        {'rabbitmq_queue_type': 'quorum'}, 'rabbitmq-queue-type'),
    ({'durable': True, 'arguments': {'x-queue-mode': 'lazy'}}, {}, 'rabbitmq-lazy'),
    ({'durable': True, 'arguments': {'x-message-ttl': 5}},  {}, 'the rabbitmq-* settings'),
])
def test_a_queue_that_was_declared_otherwise(empty: Broker, there: dict[str, Any], settings: dict[str, object],
                                             expected: str) -> None:
    with channel(empty) as one:
        one.queue_declare('results', **there)
    line = refusal(queue_address=empty.url, **settings)
    assert 'queue results is there already' in line and f'make {expected} fit it' in line
    assert queue('list', f'--queue-address={empty.url}', '--rabbitmq-declare=false').status == 0


def test_an_exchange_that_is_not_there_or_another_one(empty: Broker) -> None:
    settings = {'queue_address': empty.url, 'rabbitmq_exchange': 'mx'}
    assert 'exchange mx is not there: create it, or set rabbitmq-declare: true' in refusal(
        **settings, rabbitmq_declare='false')
    with channel(empty) as one:
        one.exchange_declare('mx', 'topic', durable=True)
    assert 'make rabbitmq-exchange fit it' in refusal(**settings)


@pytest.mark.parametrize(('permissions', 'settings', 'words', 'expected'), [
    ({'configure': '^$'}, {},                            ('list',),
     'queue outbox: grant the permission (configure), or set rabbitmq-declare: false'),
    ({'configure': '^$'}, {'rabbitmq_declare': 'false'}, ('list',),
     'queue outbox.wait.1200: grant the permission (configure)'),
    ({'read': '^$'},      {},                            ('get', 'outbox'),
     'queue outbox: grant the permission (read)'),
])
def test_a_missing_permission(empty: Broker, permissions: dict[str, str], settings: dict[str, str],
                              words: tuple[str, ...], expected: str) -> None:
    empty.add_user('limited')
    empty.evaluate('rabbit_auth_backend_internal:delete_user(<<"limited">>, <<"tests">>).')
    empty.add_user('limited', **permissions)
    try:
        url = empty.url.replace('guest:guest', 'limited:limited')
        assert expected in refusal(*words, queue_address=url, **settings)
    finally:
        empty.evaluate('rabbit_auth_backend_internal:delete_user(<<"limited">>, <<"tests">>).')


def test_the_daemon_goes_on_trying(start_daemon: Start, empty: Broker, sink: CapturingSink) -> None:
    with channel(empty) as one:
        one.queue_declare('outbox', durable=False)
    daemon = start_daemon(program=ALERT, queue_address=empty.url, smtp_sink_address=HOST, smtp_sink_port=sink.port)
    assert refused(daemon)[0] == 452
    assert daemon.output().count('queue outbox is there already, declared otherwise: make rabbitmq-durable fit') == 1
    empty.delete_queue('outbox')
    wait_until(lambda: 'connected to' in daemon.output(), 'the daemon to be served')
    send(daemon.port)
    sink.wait_for(1)


@pytest.mark.parametrize('permission', ['read', 'write'])
def test_a_permission_that_the_daemon_lacks(start_daemon: Start, empty: Broker, permission: str) -> None:
    empty.add_user('limited', **{permission: '^$'})
    try:
        daemon = start_daemon(queue_address=empty.url.replace('guest:guest', 'limited:limited'))
        assert refused(daemon)[0] == 452
        wait_until(lambda: f'grant the permission ({permission})' in daemon.output(), 'the reason')
        daemon.stop()
    finally:
        empty.evaluate('rabbit_auth_backend_internal:delete_user(<<"limited">>, <<"tests">>).')


def refused(daemon: Daemon, message: bytes = b'Subject: x\r\n\r\nx\r\n') -> tuple[int, bytes]:
    with pytest.raises(smtplib.SMTPResponseException) as refusal:
        send(daemon.port, message)
    text = refusal.value.smtp_error
    return refusal.value.smtp_code, text.encode() if isinstance(text, str) else text


def test_a_queue_that_takes_no_message(start_daemon: Start, empty: Broker, sink: CapturingSink) -> None:
    """A full one; one that was deleted, which we declare again; one that we must not declare."""
    daemon = start_daemon(queue_address=empty.url, rabbitmq_inbox='inbox')
    empty.set_policy('full', '^inbox$', '{"max-length": 1, "overflow": "reject-publish"}')
    wait_until(lambda: not _sent(daemon), 'the queue to be full')
    assert 'refused a message for queue inbox: the queue is full' in daemon.output()
    empty.clear_policy('full')
    empty.delete_queue('inbox')
    assert refused(daemon)[0] == 452
    assert daemon.output().count('there is no queue inbox on the broker') == 1
    wait_until(lambda: _sent(daemon), 'the queue to be there again')
    daemon.stop()
    strict = start_daemon(queue_address=empty.url, rabbitmq_inbox='inbox', rabbitmq_declare='false')
    empty.delete_queue('inbox')
    assert [refused(strict)[0] for _ in range(3)] == [452] * 3
    assert strict.output().count('there is no queue inbox on the broker: create it, or correct the name') == 1


def _sent(daemon: Daemon) -> bool:
    with contextlib.suppress(smtplib.SMTPResponseException):
        send(daemon.port)
        return True
    return False


def test_a_message_that_is_too_large_for_the_broker(start_daemon: Start, empty: Broker, sink: CapturingSink) -> None:
    daemon = start_daemon(queue_address=empty.url, smtp_sink_address=HOST, smtp_sink_port=sink.port,
                          smtp_maxsize=100_000_000)
    large = b'Subject: large\r\n\r\n' + b'x' * 70 + (b'\r\n' + b'x' * 70) * (MAX_MESSAGE_SIZE // 72) + b'\r\n'
    for _ in range(2):
        code, text = refused(daemon, large)
        assert 550 <= code <= 552 and b'too large for the broker' in text
        wait_until(lambda: _sent(daemon), 'the link to be back')
    assert daemon.output().count('is gone') == 1        # the second one does not cost the link
    assert 'lower smtp-maxsize, or raise its max_message_size' in daemon.output()


def test_results_whose_queue_is_not_there(start_daemon: Start, empty: Broker, sink: CapturingSink) -> None:
    """They go to the queue of all results, once each; where that is not there either, they wait for it."""
    with channel(empty) as one:
        for queue in ('outbox', *(f'outbox.wait.{delay}' for delay in (1200, 300, 60, 10, 2))):
            one.queue_declare(queue, durable=True)
    daemon = start_daemon(queue_address=empty.url, smtp_sink_address=HOST, smtp_sink_port=sink.port,
                          rabbitmq_declare='false')
    base = {'envelope': 'a@example.org', 'mime': 'x'}
    documents = [{**base, 'recipient': 'a@example.com', 'queues': {'results': None, 'success': 'nowhere'}},
                 {**base, 'recipient': 'b@example.com', 'queues': {'success': 'nowhere'}}]
    pika_publish(empty.url, 'outbox', [Published(json.dumps(document).encode()) for document in documents])
    sink.wait_for(2)
    wait_until(lambda: 'there is no queue results on the broker; what is meant for it waits' in daemon.output(), 'it')
    with channel(empty) as one:
        one.queue_declare('results', durable=True)
    results: list[Published] = []

    def both() -> bool:
        results.extend(pika_read(empty.url, 'results'))
        return len(results) >= 2
    wait_until(both, 'the results')
    assert sorted(json.loads(result.body)['recipient'] for result in results) == ['a@example.com', 'b@example.com']
    wait_until(lambda: not empty.depth('outbox'), 'the outbox to run empty')
    assert len(sink.transactions) == 2
    assert 'no queue nowhere on the broker; what is meant for it goes to results' in daemon.output()


@pytest.mark.parametrize('settings', [
    {'rabbitmq_queue_type': 'quorum'},
    {'rabbitmq_exchange': 'mx'},
    {'rabbitmq_lazy': 'true', 'rabbitmq_encoding': 'gzip'},
    {'rabbitmq_durable': 'false', 'rabbitmq_persistent': 'false', 'rabbitmq_maxpriority': 3},
    {'queue_address': 'amqps://guest:guest@{host}:{tls}/?cacertfile={folder}/ca.crt'},
    {'queue_address': 'amqps://guest:guest@localhost:{tls}/', 'rabbitmq_verify': 'false'},
    {'queue_address': 'amqps://localhost:{tls}/?cacertfile={folder}/ca.crt&certfile={folder}/client.crt'
                      '&keyfile={folder}/client.key&auth_mechanism=external'},
    {'queue_address': 'amqp://guest:guest@{host}:{free};{host}:{port}/?auth_mechanism=amqplain'},
], ids=lambda settings: ' '.join(settings) + ' ' + str(settings.get('queue_address', ''))[:24])
def test_mail_goes_through_and_retries_wait(start_daemon: Start, empty: Broker, sink: CapturingSink,
                                            settings: dict[str, str]) -> None:
    address = settings.get('queue_address', empty.url).format(
        host=HOST, port=empty.port, tls=empty.tls_port, folder=empty.folder, free=free_port())
    daemon = start_daemon(**{**settings, 'queue_address': address, 'smtp_sink_address': HOST,
                             'smtp_sink_port': sink.port, 'retry_interval': 1})
    retried = 'queue_address' not in settings       # how a message waits has nothing to do with how we log in
    if retried:
        sink.script = {'RCPT': [b'450 4.2.1 later'], 'DATA': [b'503 5.5.1 no recipients']}
    send(daemon.port)
    sink.wait_for(1)
    [result] = daemon.take('results', 1)
    assert [attempt['state'] for attempt in result['results']] == ['rcptto', 'message'][not retried:]
    wait_until(lambda: not empty.depth('outbox'), 'the outbox to run empty')
