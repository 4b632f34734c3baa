"""From the outbox to a server and to the queues of results: deliveries, shared connections, our own mistakes, the end.

The other files of this name: documents, retries, results, servers, sources, controls, TLS.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from mqlite.delivery import engine as engine_module
from mqlite.delivery import notify, report, retry
from mqlite.delivery.engine import FAULT_SECONDS, Engine
from mqlite.mail_log import MailLog
from mqlite.queues.contract import Message
from tests.support import engine
from tests.support.engine import Bench, Make
from tests.support.exchanger import DROP, SILENCE
from tests.support.process import HOST

bench, make = engine.bench, engine.make  # fixtures


def test_delivered(bench: Bench) -> None:
    bench.publish(tags=['a', 'b'], campaign={'id': 7}, key=None, mime='Subject: x\n.\r\r\n.ü\udcff')
    bench.run()
    assert bench.exchanger.messages == [(b'MAIL FROM:<s@a.example> BODY=8BITMIME', [b'RCPT TO:<r@one.example>'],
                                         b'Subject: x\r\n..\r\n\r\n..\xc3\xbc\xff\r\n')]
    document = bench.final()
    [entry] = document.pop('results')
    assert document.pop('extracted') == {
        'from': '', 'to': [], 'subject': 'x', 'headers': {'subject': 'x'},
        'envelope': {'domain': 'a.example', 'local': 's'}, 'recipient': {'domain': 'one.example', 'local': 'r'}}
    assert document == {'envelope': 's@a.example', 'recipient': 'r@one.example', 'tags': ['a', 'b'],
                        'campaign': {'id': 7}, 'key': None}
    assert (entry['state'], entry['result']) == ('message', 'accepted')
    assert {name: entry[name] for name in ('mta', 'to', 'messages', 'code', 'status', 'description', 'dsn')} == {
        'mta': 'mx.example', 'to': HOST, 'messages': 1, 'code': 250, 'status': '2.0.0', 'description': 'kept',
        'dsn': False}
    assert entry['sent'] == {'connection': bench.exchanger.clients[0].received, 'data': 28}
    assert bench.counts() == {'success': 1}


@pytest.mark.parametrize('envelope', [{'envelope': None}, {'envelope': ''}])
def test_the_null_sender(bench: Bench, envelope: dict[str, Any]) -> None:
    bench.publish(envelope)
    bench.run()
    assert bench.exchanger.messages[0][0].startswith(b'MAIL FROM:<> ')


def test_many_share_connections(bench: Bench) -> None:
    for number in range(60):
        bench.publish(recipient=f'r{number}@one.example')
    bench.run()
    assert sorted(bench.exchanger.recipients) == sorted(f'r{n}@one.example' for n in range(60))
    assert bench.exchanger.most_open <= 20
    assert bench.counts() == {'results': 60, 'success': 60}


# many for one server


def crowd(bench: Bench, count: int) -> list[str]:
    """More messages than there are connections, published together."""
    recipients = [f'r{number}@one.example' for number in range(count)]
    bodies = [json.dumps({'envelope': 's@a.example', 'recipient': recipient, 'mime': 'x'}).encode()
              for recipient in recipients]

    async def kept() -> None:
        await bench.store.publish([Message('outbox', body) for body in bodies])
    bench.run_until(kept())
    return recipients


@pytest.mark.parametrize(('script', 'failed'), [
    ({},                                                    0),
    ({'.': [b'550 no']},                                    1),
    ({'RCPT': [b'550 no', b'250 ok', b'550 no']},           2),
    ({'.': [b'421 too many messages' + DROP] * 3},          3),
    ({'MAIL': [b'250 ok'] * 150 + [b'421 bye' + DROP]},     0),
    ({'.': [b'250 ok'] * 5 + [DROP] * 2},                   2),
])
def test_messages_behind_each_other(bench: Bench, script: dict[str, list[bytes]], failed: int) -> None:
    recipients = crowd(bench, 200)  # with 150 under way all connections are there
    bench.exchanger.script.update(script)
    bench.run(10.0)
    taken = bench.exchanger.recipients
    assert len(set(taken)) == len(taken) == len(recipients) - failed
    assert len(bench.take('success')) == len(taken) and len(bench.take('failure') + bench.take('retry')) == failed


@pytest.mark.parametrize('answer', [SILENCE, DROP])
def test_a_server_that_takes_nothing_behind_a_final_dot_is_remembered(bench: Bench, answer: bytes) -> None:
    crowd(bench, 200)
    bench.exchanger.script['MAIL'] = [b'250 ok'] * 120 + [answer]
    bench.run(400.0)  # a server that is silent has 300 s
    assert len(bench.take('success')) == 200
    assert [destination.announces for destination in bench.engine._scheduler._destinations] == [False]


def test_stopped_behind_each_other(bench: Bench) -> None:
    recipients = crowd(bench, 60)
    bench.exchanger.script['.'] = [b'250 ok'] * 20 + [SILENCE] * 40
    bench.run()
    bench.run_until(bench.engine.stop(1.0))
    bench.run()
    counts = bench.counts()
    assert counts['outbox'] == len(recipients) - len(bench.exchanger.messages) == 60 - counts['success']


# our own mistakes, and the end


def break_once(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, times: int = 1) -> None:
    """The function raises so many times."""
    works, left = getattr(module, name), [KeyError('oops')] * times

    def broken(*args: Any) -> Any:
        if left:
            raise left.pop()
        return works(*args)
    monkeypatch.setattr(module, name, broken)


@pytest.mark.parametrize(('module', 'name', 'reply', 'attempts'), [
    (engine_module, 'choose', b'250 ok', 1),
    (retry, 'is_over', b'250 ok', 1),
    (retry, 'next_attempt', b'450 later', 2),
    (report, 'again', b'450 later', 2),
])
def test_a_mistake_of_ours_defers(bench: Bench, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, reply: bytes,
                                  attempts: int) -> None:
    break_once(monkeypatch, module, name)
    bench.exchanger.script['.'] = [reply]
    bench.publish()
    bench.run(FAULT_SECONDS - 1)
    assert bench.counts() == {'outbox': 1} and len(bench.errors) == 1 and 'oops' in bench.errors[0]
    bench.run(2)
    assert bench.last('result') == ('accepted',)
    assert bench.exchanger.verbs.count('DATA') == attempts and len(bench.errors) == 1


@pytest.mark.parametrize(('module', 'name'), [(retry, 'next_attempt'), (report, 'final'), (notify, 'about_final')])
def test_a_mistake_of_ours_after_the_delivery_does_not_send_again(bench: Bench, monkeypatch: pytest.MonkeyPatch,
                                                                  module: Any, name: str) -> None:
    break_once(monkeypatch, module, name, 99)
    bench.publish()
    bench.run(100_000)
    assert len(bench.exchanger.messages) == 1 and len(bench.errors) == 1
    assert bench.counts() == {'results': 1, 'success': 1}
    document = bench.final()
    assert document['results'][0]['result'] == 'accepted' and 'r@one.example' in document['invalid']


@pytest.mark.parametrize(('module', 'name'), [(report, 'unreadable'), (notify, 'about_final')])
def test_a_mistake_of_ours_with_a_document_that_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch, module: Any,
                                                           name: str) -> None:
    break_once(monkeypatch, module, name)
    bench.publish(retries='often')
    bench.run(FAULT_SECONDS - 1)
    assert bench.counts() == {'outbox': 1} and len(bench.errors) == 1
    bench.run(2)
    assert bench.last('state', 'result') == ('process', 'invalid')


def test_a_mistake_in_a_line_of_the_log_costs_no_mail(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several messages that are answered in one turn, it concerns one."""
    bench = make(log=MailLog('/dev/null', '{$email.recipient}', print))
    break_once(monkeypatch, MailLog, 'write')
    for number in range(3):
        bench.publish(recipient=f'{number}@one.example')
    bench.run(100_000)
    assert len(bench.exchanger.messages) == 3 and len(bench.errors) == 1
    assert bench.counts() == {'results': 3, 'success': 3}


def test_a_mistake_with_one_result_leaves_the_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    break_once(monkeypatch, bench.store, 'settle')
    for number in range(3):
        bench.publish(recipient=f'{number}@one.example')
    bench.run(5)
    assert bench.counts() == {'outbox': 1, 'results': 2, 'success': 2} and len(bench.errors) == 1


def test_a_mistake_in_the_attempt_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    break_once(monkeypatch, bench.dialler, 'open')
    bench.publish()
    bench.run(599)
    assert bench.final('retry')['results'][-1]['state'] == 'process' and len(bench.errors) == 1
    bench.run(2)
    assert bench.last('result') == ('accepted',)


def test_a_result_that_the_store_can_never_keep(bench: Bench) -> None:
    """A queue whose name passes for one in a document, and not in the store."""
    bench.publish(queues={'results': 'a\u2028b'})
    bench.run(100_000)
    assert bench.counts() == {'results': 1, 'success': 1} and len(bench.errors) == 1
    assert bench.last('result') == ('accepted',) and len(bench.exchanger.messages) == 1


def test_stop_and_start(bench: Bench) -> None:
    """What was not finished is on the outbox as it was, and goes out with the next engine."""
    bench.exchanger.script['DATA'] = SILENCE
    for _ in range(25):
        bench.publish()
    bench.run()
    bench.run_until(bench.engine.stop(5.0))
    assert bench.counts() == {'outbox': 25} and bench.errors == []
    del bench.exchanger.script['DATA']
    bench.engine = Engine(bench.reactor, bench.store, bench.dialler, bench.config)
    bench.engine.start()
    bench.run()
    assert len(bench.exchanger.messages) == 25 and bench.counts() == {'results': 25, 'success': 25}


def test_nothing_is_taken_after_the_stop(bench: Bench) -> None:
    bench.run_until(bench.engine.stop(5.0))
    bench.publish()
    bench.run()
    assert bench.counts() == {'outbox': 1} and bench.exchanger.commands == []
