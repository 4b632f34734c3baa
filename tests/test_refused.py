"""Copies of messages that were received and refused: which, what they say, and that nothing depends on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable

import pytest

from mqlite.message.document import Document
from mqlite.queues.contract import QueueError
from mqlite.refused import PENDING_BYTES, RefusedMail
from mqlite.smtp.reply import reply
from mqlite.smtp.session import Address, Limits, Session
from tests.support.daemon import Daemon
from tests.support.load import connect
from tests.support.smtp import NAME, Bench

ANSWER = b'550-5.7.1 No\r\n550 5.7.1 spam\r\n'


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Bench() as made:
        yield made


def session(*recipients: str) -> Session:
    made = Session(NAME, '192.0.2.7', 4242, ('192.0.2.1', 25), True, Limits())
    made.hello('client.example', True)
    made.begin(Address('a@client.example'))
    made.recipients = [Address(recipient) for recipient in recipients or ['b@example.org']]
    return made


@pytest.fixture
def refused(bench: Bench) -> RefusedMail:
    return RefusedMail(bench.reactor, bench.store, 'refused', NAME, bench.notes.append)


def test_the_document(bench: Bench, refused: RefusedMail) -> None:
    refused.keep(session(), b'x-mq-tag: t\r\n\r\nbody \xff\n', ANSWER)
    bench.run(bench.quiet())
    assert bench.documents('refused') == [{
        'envelope': 'a@client.example', 'recipient': 'b@example.org', 'hostname': NAME,
        'received': '2023-11-14 22:13:20',
        'connection': {'local-ip': '192.0.2.1', 'local-port': 25, 'remote-ip': '192.0.2.7', 'remote-port': 4242,
                       'secure': False},
        'refused': {'code': 550, 'status': '5.7.1', 'description': 'No spam'},
        'mime': 'x-mq-tag: t\r\n\r\nbody \udcff\n',
    }]
    [message] = bench.store.queues['refused']
    assert Document.decode(message.body).recipient == 'b@example.org'


def test_of_several_recipients_all_are_named_in_one_document(bench: Bench, refused: RefusedMail) -> None:
    refused.keep(session('b@example.org', 'c@example.org'), b'\r\n', ANSWER)
    bench.run(bench.quiet())
    [document] = bench.documents('refused')
    assert document['recipient'] == 'b@example.org' and document['recipients'] == ['b@example.org', 'c@example.org']


@pytest.mark.parametrize('answer', [b'5', b'550-5.7.1 No\r\n', b'550 \xff\r\n551 x\r\n', b'5xx no'])
def test_a_reply_that_is_none_is_kept_as_it_is(bench: Bench, refused: RefusedMail, answer: bytes) -> None:
    refused.keep(session(), b'\r\n', answer)
    bench.run(bench.quiet())
    [document] = bench.documents('refused')
    assert document['refused'] == {'code': 550, 'status': '', 'description': answer.decode('utf-8', 'replace')}


def test_what_comes_again_is_not_kept(bench: Bench, refused: RefusedMail) -> None:
    refused.keep(session(), b'\r\n', reply('plugin-trouble'))
    bench.run(bench.quiet())
    assert bench.store.queues == {}


def test_a_queue_that_takes_nothing_is_said_once_until_it_does(bench: Bench, refused: RefusedMail) -> None:
    def keep() -> None:
        refused.keep(session(), b'\r\n', ANSWER)
        bench.run(bench.quiet())

    bench.store.error = QueueError('disk full')
    keep()
    keep()
    assert bench.notes == ['a refused message could not be kept on refused: disk full']
    bench.store.error = None
    keep()
    bench.store.error = QueueError('disk full')
    keep()
    assert len(bench.notes) == 2 and len(bench.documents('refused')) == 1


def test_a_flood_is_bounded_in_memory(bench: Bench, refused: RefusedMail) -> None:
    bench.store.held = True
    large = b'x' * (PENDING_BYTES // 2 + 1)
    for _ in range(5):
        refused.keep(session(), large, ANSWER)
    bench.run(bench.quiet())
    bench.store.keep_all()
    bench.store.held = False
    bench.run(bench.quiet())
    assert len(bench.documents('refused')) == 1 and len(bench.notes) == 1       # two are too many
    refused.keep(session(), b'\r\n', ANSWER)
    bench.run(bench.quiet())
    assert len(bench.documents('refused')) == 2                                 # what was pending has been given back


@pytest.mark.parametrize(('data', 'reply_code', 'kept'), [
    (b'Subject: x\r\n\r\nbare \n\r\n.',              b'550', 1),
    (b'x-mq-delayed: tomorrow\r\n\r\nx\r\n.',        b'550', 1),
    (b'Subject: x\r\n\r\n' + b'large\r\n' * 99 + b'.', b'552', 0),
    (b'Subject: x\r\n\r\nfine\r\n.',                 b'250', 0),
    (b'Received: x\r\n' * 4 + b'\r\nx\r\n.',        b'554', 1),
])
def test_the_server_keeps_what_it_has_received_and_refused(data: bytes, reply_code: bytes, kept: int) -> None:
    async def client() -> None:
        stream = await server.client()
        await server.talk(stream, b'EHLO client.example', b'MAIL FROM:<a@client.example>', b'RCPT TO:<b@example.org>',
                          b'DATA')
        assert await server.talk(stream, data) == reply_code

    with Bench(size=500, hops=3) as server:
        server.run(client())
        assert len(server.documents('refused')) == kept


def test_by_a_plugin(start_daemon: Callable[..., Daemon], tmp_path: Any) -> None:
    (tmp_path / 'judge.py').write_text(
        'def mq_smtp_in_data(context, connection, data):\n'
        '    if b"spam" in bytes(data):\n'
        '        connection.reject(554, "5.7.1", "No spam")\n'
        'def mq_smtp_in_message(context, connection, message):\n'
        '    if "trap" in message.recipient.email:\n'
        '        connection.reject(550, "5.1.1", "No trap")\n')
    daemon = start_daemon(plugin_directory=tmp_path, rabbitmq_refused='refused', rabbitmq_inbox='inbox')
    with connect(daemon.port) as client:
        client.ehlo('client.example')
        for recipient, text in (('b@example.org', 'spam'), ('trap@example.org', 'ham'), ('b@example.org', 'ham')):
            client.mail('a@example.org')
            client.rcpt(recipient)
            client.data(f'Subject: {text}\r\n\r\n{text}\r\n')
    assert [(document['recipient'], document['refused']['description']) for document in daemon.take('refused', 2)] == [
        ('b@example.org', 'No spam'), ('trap@example.org', 'No trap')]
    assert len(daemon.take('inbox', 1)) == 1
