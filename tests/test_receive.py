"""From received bytes to kept messages: what the documents hold, what the reply says, and when it is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from mqlite.errors import PermanentError
from mqlite.loop.reactor import Reactor
from mqlite.message.document import Document
from mqlite.message.headers import Trace
from mqlite.message.identifier import Identifiers
from mqlite.queues.contract import QueueError
from mqlite.receive import Receiver, ReceiverConfig
from mqlite.smtp.reply import LINES_LIMIT, ReplyReader
from mqlite.smtp.session import Address, Limits, Objection, Session
from tests.support.smtp import NAME, Bench, MemoryStore, without_received

RECEIVED = (b'Received: from client.example ([192.0.2.7])\r\n\tby mx.example (mqlite) with ESMTP id id00-1\r\n'
            b'\tfor <b@example.org>;\r\n\tTue, 14 Nov 2023 22:13:20 +0000\r\n')


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Bench() as made:
        yield made


def session(*recipients: str, may_relay: bool = True, sender: str = 'a@client.example', esmtp: bool = True) -> Session:
    """One whose DATA has just ended."""
    made = Session(NAME, '192.0.2.7', 4242, ('192.0.2.1', 25), may_relay, Limits())
    made.hello('client.example', esmtp)
    made.begin(Address(sender))
    made.recipients = [Address(recipient) for recipient in recipients or ['b@example.org']]
    return made


def receiver(bench: Bench, inbox: str = 'inbox', extract: bool = True) -> Receiver:
    return Receiver(bench.clock, bench.store, Identifiers('id', 0, 0), ReceiverConfig(NAME, inbox, extract))


def receive(bench: Bench, data: bytes, *recipients: str, **options: Any) -> bytes:
    return answer_of(bench.run(bench.receiver.receive(session(*recipients, **options), data)))


def answer_of(outcome: bytes | Objection) -> bytes:
    return outcome.answer if isinstance(outcome, Objection) else outcome


def test_the_document(bench: Bench) -> None:
    answer = receive(bench, b'Subject: x\r\n\r\nbody \xff\r\n')
    assert answer == (b'250-Ok, your message has been queued using the following identifiers:\r\n'
                      b'250 id00-1 for b@example.org\r\n')
    assert bench.documents() == [{
        'envelope': 'a@client.example', 'recipient': 'b@example.org', 'message-id': 'id00-1', 'hostname': NAME,
        'received': '2023-11-14 22:13:20',
        'connection': {'local-ip': '192.0.2.1', 'local-port': 25, 'remote-ip': '192.0.2.7', 'remote-port': 4242,
                       'secure': False},
        'mime': RECEIVED.decode() + 'Subject: x\r\n\r\nbody \udcff\r\n',
    }]
    [message] = bench.store.queues['inbox']
    assert (message.due, message.priority) == (0.0, 0)
    assert Document.decode(message.body).take_mime() == RECEIVED + b'Subject: x\r\n\r\nbody \xff\r\n'


def test_one_document_per_recipient_who_need_not_know_of_each_other(bench: Bench) -> None:
    answer = receive(bench, b'', 'b@example.org', 'c@example.org', 'b@example.org', sender='', esmtp=False)
    assert answer.splitlines()[1:] == [b'250-id00-1-1 for b@example.org', b'250-id00-1-2 for c@example.org',
                                       b'250 id00-1-3 for b@example.org']
    documents = bench.documents()
    assert [document['recipient'] for document in documents] == ['b@example.org', 'c@example.org', 'b@example.org']
    assert [document['message-id'] for document in documents] == ['id00-1-1', 'id00-1-2', 'id00-1-3']
    assert {document['envelope'] for document in documents} == {''}
    for document in documents:
        assert 'example.org' not in document['mime'] and 'with SMTP id id00-1;' in document['mime']


@pytest.mark.parametrize('count', [1, 60, 80, 1000, 10000])
def test_the_reply_has_a_bound(bench: Bench, count: int) -> None:
    """Exim reads a reply into 4096 octets and takes a longer one for a failure; our own client has a bound too."""
    recipients = [f'somebody{n}@example.org' for n in range(count)]
    answer = receive(bench, b'', *recipients)
    assert len(answer) < 3400
    reader = ReplyReader()
    *_, found = (reader.feed(line) for line in answer.splitlines(keepends=True))
    assert found is not None and found.code == 250 and len(found.lines) < LINES_LIMIT
    assert found.lines[1].endswith(' for somebody0@example.org')
    if count <= 60:
        assert len(found.lines) == count + 1
    else:
        listed = len(found.lines) - 2
        assert found.lines[-1] == f'id00-1-{listed + 1} to id00-1-{count} for the other recipients, in their order'
    assert len(bench.documents()) == count


def test_the_clock_is_looked_at(bench: Bench) -> None:
    receive(bench, b'')
    bench.run(bench.quiet(3600.5))
    receive(bench, b'')
    first, second = bench.documents()
    assert (first['received'], second['received']) == ('2023-11-14 22:13:20', '2023-11-14 23:13:20')
    assert 'Tue, 14 Nov 2023 23:13:20 +0000' in second['mime']


# x-mq-*

X_MQ = [b'envelope: f@g', b'ip: 192.0.2.9', b'pool: p', b'tag: t', b'delayed: 2030-01-01 00:00:00',
        b'maxdelivertime: x',
        b'maxattempts: 1', b'retries: 1', b'inlinecss: 1', b'keepmime: 1', b'results-queue: q', b'failure-queue: q',
        b'success-queue: q', b'retry-queue: q', b'smarthost-hostname: h', b'smarthost-port: 1',
        b'smarthost-username: u',
        b'smarthost-password: p', b'dsn-notify: NEVER', b'dsn-ret: FULL', b'dsn-orcpt: o', b'dsn-envid: e',
        b'custom: c',
        b'queues: q', b'priority: 9', b'nextattempt: n', b'recipient: r@s', b'connection: c', b'mime: m',
        b'two words: w', b'x']


@pytest.mark.parametrize('line', X_MQ)
def test_x_mq_of_a_stranger_is_taken_out_and_not_obeyed(bench: Bench, line: bytes) -> None:
    plain = receive(bench, b'Subject: x\r\n\r\n', may_relay=False)
    answer = receive(bench, b'X-mq-' + line + b'\r\nSubject: x\r\n\r\n', may_relay=False)
    assert plain[:3] == answer[:3] == b'250'
    without, with_header = bench.documents()
    for document in (without, with_header):
        del document['message-id']
        document['mime'] = without_received(document['mime'])
    assert without == with_header
    assert {message.due for message in bench.store.queues['inbox']} == {0.0}


def test_x_mq_of_who_may_relay_is_obeyed(bench: Bench) -> None:
    answer = receive(bench, b'x-mq-envelope: f@g\r\nx-mq-delayed: 2030-01-01 00:00:00\r\nx-mq-priority: 7\r\n'
                            b'x-mq-results-queue: mine\r\nx-mq-recipient: other@example.org\r\n\r\n', 'b@c', 'd@e')
    assert answer[:3] == b'250'
    for message, document in zip(bench.store.queues['inbox'], bench.documents()):
        assert (message.due, message.priority) == (1893456000.0, 7)
        assert document['envelope'] == 'f@g' and document['queues']['results'] == 'mine'
        assert without_received(document['mime']) == b'\r\n'
    assert [document['recipient'] for document in bench.documents()] == ['b@c', 'd@e']


@pytest.mark.parametrize('line',
                         [b'delayed: tomorrow', b'delayed: \xff\x1b[2J<b>', b'priority: high',
                          b'nextattempt: x\r\nx-mq-delayed: y'])
def test_x_mq_that_cannot_be_is_refused(bench: Bench, line: bytes) -> None:
    answer = receive(bench, b'x-mq-' + line + b'\r\n\r\n')
    assert answer.startswith(b'550 5.6.0 "') and answer[:-2].isascii() and answer[:-2].decode().isprintable()
    assert bench.store.queues == {}


def test_without_extraction_the_headers_stay(bench: Bench) -> None:
    bench.run(receiver(bench, extract=False).receive(session(), b'x-mq-tag: t\r\n\r\n'))
    [document] = bench.documents()
    assert 'tags' not in document and without_received(document['mime']) == b'x-mq-tag: t\r\n\r\n'


# 250 means kept

def test_nothing_is_said_before_it_is_kept(bench: Bench) -> None:
    async def keep() -> None:
        bench.store.held = True
        task = bench.reactor.spawn(bench.receiver.receive(session(), b''))
        await bench.quiet(1000)
        assert not task.done
        bench.store.keep_all()
        assert answer_of(await task)[:3] == b'250'

    bench.run(keep())


@pytest.mark.parametrize(('error', 'answer'), [
    (QueueError('disk full'), b'452 4.3.1 The queue cannot take messages now, try again later\r\n'),
    (PermanentError('a message of more than 9 bytes cannot be kept'),
     b'550 5.6.0 a message of more than 9 bytes cannot be kept\r\n'),
    (PermanentError('hostile\r\n250 Ok\0'), b'550 5.6.0 hostile\\x0d\\x0a250 Ok\\x00\r\n'),
])
def test_what_the_store_cannot_keep(bench: Bench, error: Exception, answer: bytes) -> None:
    bench.store.error = error
    assert receive(bench, b'') == answer
    bench.store.error = None
    assert receive(bench, b'')[:3] == b'250'
    assert len(bench.documents()) == 1


def test_while_the_store_is_in_trouble_nothing_is_tried(bench: Bench) -> None:
    bench.store.trouble = 'disk full'
    assert receive(bench, b'')[:9] == b'452 4.3.1'
    assert bench.store.queues == {}


def test_without_an_inbox_it_is_discarded(bench: Bench) -> None:
    answer = answer_of(bench.run(receiver(bench, inbox='').receive(session(), b'')))
    assert answer.endswith(b'250 id00-1 for b@example.org\r\n') and bench.store.queues == {}


DSN = (b'Content-Type: multipart/report; boundary=x\r\n\r\n'
       b'--x\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n--x--\r\n')
LETTER = b'Subject: x\r\n\r\nhello\r\n'


@pytest.mark.parametrize(('inbox', 'local', 'reports', 'data', 'of_local', 'of_other'), [
    ('inbox', 'local', 'reports', LETTER, 'local',   'inbox'),
    ('inbox', 'local', 'reports', DSN,    'reports', 'inbox'),
    ('inbox', 'local', '',        DSN,    'local',   'inbox'),
    ('inbox', '',      'reports', DSN,    'reports', 'inbox'),
    ('inbox', '',      'reports', LETTER, 'inbox',   'inbox'),
    ('inbox', '',      '',        DSN,    'inbox',   'inbox'),
    ('',      'local', 'reports', DSN,    'reports', ''),
    ('',      'local', 'reports', LETTER, 'local',   ''),
    ('',      '',      'reports', LETTER, '',        ''),
    ('',      '',      '',        LETTER, '',        ''),
])
def test_which_queue(bench: Bench, inbox: str, local: str, reports: str, data: bytes, of_local: str, of_other: str,
                     ) -> None:
    receiver = Receiver(bench.clock, bench.store, Identifiers('id', 0, 0),
                        ReceiverConfig(NAME, inbox, True, local, reports))
    to_all = session('other@example.org', 'a@local.example', 'b@local.example', 'last@example.org')
    for recipient in to_all.recipients or []:
        recipient.local = recipient.email.endswith('local.example')
    assert answer_of(bench.run(receiver.receive(to_all, data)))[:3] == b'250'
    found = {document['recipient']: queue for queue in bench.store.queues for document in bench.documents(queue)}
    assert [found.get(recipient.email, '') for recipient in to_all.recipients or []] == [
        of_other, of_local, of_local, of_other]


def test_a_program_on_this_host(bench: Bench) -> None:
    """The sendmail command has no session; its Received line names no client."""
    origin = {'cli': {'command': 'mqlite', 'arguments': [], 'user': 'u'}}
    trace = Trace('', '', 'local')
    messages = bench.receiver.prepare('', [Address('b@example.org')], b'\r\n', trace, origin, trusted=True)
    assert bench.store.queues == {}
    bench.run(bench.receiver.keep(messages))
    [document] = bench.documents()
    assert document['message-id'] == 'id00-1' and document['cli']['user'] == 'u'
    assert document['mime'].startswith('Received: by mx.example (mqlite) with local id id00-1\r\n\tfor <b@')


# the store of these tests

def test_the_store_keeps_the_contract() -> None:
    """Take, settle and release, as far as tests that use it rely on it."""
    reactor = Reactor()
    store = MemoryStore(reactor)

    async def use() -> None:
        receiver = Receiver(reactor.clock, store, Identifiers('id', 0, 0), ReceiverConfig(NAME, 'inbox', True))
        await receiver.receive(session('b@c', 'd@e', 'f@g'), b'')
        first, second = await store.fetch('inbox', 2)
        assert first.tag != second.tag and json.loads(first.body)['recipient'] == 'b@c'
        await store.settle(first, [])
        store.release(second)
        assert [(row.name, row.ready) for row in await store.list_queues()] == [('inbox', 2)]
        assert await store.purge('inbox') == 2 and await store.list_queues() == []

    reactor.run(use())
    reactor.close()
