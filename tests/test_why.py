"""Why a message has not left: what holds a destination, how that is said, the control socket, and a daemon asked."""

from __future__ import annotations

import json
import os
import socket
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable

import pytest

from mqlite.control import QUESTION_LIMIT, SECONDS, ControlSocket, ask_workers, socket_base, worker_sockets
from mqlite.delivery import verdict
from mqlite.delivery.attempt import NoSession
from mqlite.delivery.capacity import Capacity
from mqlite.delivery.destination import Destination
from mqlite.delivery.explain import Question, about_message, what_holds
from mqlite.delivery.job import Job
from mqlite.delivery.route import Place, Route
from mqlite.message.document import Document
from mqlite.queues.contract import Delivery
from mqlite.settings import load
from mqlite.why_text import write_answer
from tests.support.command import run_here
from tests.support.daemon import ALERT, Daemon
from tests.support.database import Notes, execute, insert, make_database
from tests.support.loop import LoopBench
from tests.support.process import HOST, wait_until
from tests.support.sink import CapturingSink
from tests.support.world import Server, World

# what is asked about


@pytest.mark.parametrize(('text', 'fields', 'fits'), [
    ('You@B.example', {'recipient': 'you@b.EXAMPLE'},                          True),
    ('you@b.example', {'recipient': 'me@b.example'},                           False),
    ('B.example.',    {'recipient': 'you@b.example'},                          True),
    ('b.example',     {'recipient': 'you@a.b.example'},                        False),
    ('id7',           {'recipient': 'you@b.example', 'message-id': 'id7'},     True),
    ('ID7',           {'recipient': 'you@b.example', 'message-id': 'id7'},     False),
    ('b.example',     {'recipient': 7},                                        False),
    ('b.example',     {},                                                      False),
])
def test_what_a_question_is_about(text: str, fields: dict[str, Any], fits: bool) -> None:
    assert Question(text).fits(Document(fields)) is fits


@pytest.mark.parametrize('results', [None, 'x', [5], [{}]])
def test_a_message_of_any_form(results: object) -> None:
    assert about_message(Document({'recipient': 'you@b.example', 'results': results}))['recipient'] == 'you@b.example'


# what holds a destination


def busy(destination: Destination, carriers: int = 1, connecting: int = 0) -> None:
    destination.carriers, destination.connecting = carriers, connecting


def paced(destination: Destination) -> None:
    busy(destination)
    destination.limit(Capacity(messages=30.0), 100.0)
    destination.pace.take(100.0)


def connects(destination: Destination) -> None:
    destination.limit(Capacity(connects=6.0), 100.0)
    destination.connects.take(100.0)


def refusing(destination: Destination) -> None:
    busy(destination, 3)
    destination.window.refused(100.0, 3)


def down(destination: Destination) -> None:
    destination.trouble = NoSession(verdict.not_connected('mx port 25', False, 'Connection refused'))
    destination.backoff.failed(100.0, 0.5)


@pytest.mark.parametrize(('state', 'no_places', 'reasons'), [
    (lambda d: busy(d),                      False, []),
    (paced,                                  False, [('at most 30 messages per minute', 2.0)]),
    (connects,                               False, [('at most 6 attempts to connect per minute', 10.0)]),
    (lambda d: busy(d, 20),                  False, [('at most 20 connections', 0.0)]),
    (lambda d: busy(d, 5),                   False, [('5 connections until it has answered more messages', 0.0)]),
    (refusing,                               False, [('it refused more than 3 connections', 60.0)]),
    (lambda d: busy(d, 2, 2),                False, [('the first connections are being opened', 0.0)]),
    (down, False, [('it could not be reached (1 times in a row): mx port 25: Connection refused', 15.0)]),
    (lambda d: busy(d), True, [('no place for another connection: smtp-connections, smtp-connections-out', 0.0)]),
])
def test_what_holds_a_destination(state: Callable[[Destination], None], no_places: bool,
                                  reasons: list[tuple[str, float]]) -> None:
    destination = Destination(Place((('mx',),), 25, None), 0.0)
    destination.line.add(Job(Delivery('outbox', 1, b'', 0, 0), Document({'recipient': 'r@b.example', 'mime': 'x'}),
                             Route('b.example', 25, False)))
    destination.begin(100.0)
    state(destination)
    assert [(reason, round(left, 3)) for reason, left in what_holds(destination, 100.0, no_places)] == reasons


def test_wherever_it_is(closing: ExitStack) -> None:
    world = World({'one': Server(seconds=10.0, most=2), 'dead': Server(down=True)}, connections=5)
    closing.callback(world.close)
    world.engine.start()
    world.network.dns_seconds = 5.0
    named: dict[str, Any] = {'message-id': 'id1'}
    world.publish('1@one', **named)

    def explain(text: str) -> dict[str, Any]:
        facts = world.engine.explain(Question(text), 2)
        assert json.loads(json.dumps(facts)) == facts
        return facts

    world.run(1)
    assert [message['where'] for message in explain('id1')['messages']] == ['its servers are looked up']
    for number in range(2, 8):
        world.publish(f'{number}@one')
    world.publish('1@dead')
    world.run(10)
    facts = explain('one')
    assert facts['count'] == 7 and [message['where'] for message in facts['messages']] == ['it is being sent'] * 2
    assert explain('1@one')['messages'][0] == {
        'recipient': '1@one', 'id': 'id1', 'attempts': 0, 'where': 'it is being sent', 'to': '192.0.2.2',
        'seconds': 6.0, 'servers': 'one port 25'}
    [one] = facts['destinations']
    assert (one['waiting'], one['connections']) == (5, 2) and one['held by'][0]['reason'].startswith('it refused more')
    assert explain('dead')['destinations'][0]['connecting for'] == 5.0
    world.run(30)
    facts = explain('1@dead')
    assert facts['lately'][0]['result'] == 'timeout' and facts['lately'][0]['again']
    assert 'it could not be reached' in facts['destinations'][0]['held by'][0]['reason']
    assert explain('nobody@one')['count'] == 0 == len(explain('nobody@one')['lately'])


# how it is said


LAST = {'time': '2030-01-01 00:00:00', 'state': 'rcptto', 'result': 'error', 'code': 450, 'status': '4.2.1',
        'description': 'later', 'to': '192.0.2.1'}
WORKER = {'messages': [], 'count': 0, 'destinations': [], 'pauses': [], 'errors': [], 'lately': []}
FULL = {
    'messages': [{'recipient': 'you@b.example', 'id': 'id7', 'attempts': 1, 'last': LAST, 'where': 'it is being sent',
                  'to': '192.0.2.1', 'seconds': 3.5}],
    'count': 3, 'pauses': ['tag news'], 'errors': ['553 5.1.1 no (domain b.example)'],
    'suppressed': '550  no',
    'destinations': [{'servers': ['mx1', 'mx2'], 'port': 25, 'from': '192.0.2.9', 'waiting': 2, 'connections': 4,
                      'connecting': 1, 'connecting for': 12.0, 'idle': 1, 'outside': 40.0,
                      'flood': {'name': 'too many', 'seconds': 55.0},
                      'limits': {'connections': 20, 'messages per minute': 0.0},
                      'held by': [{'reason': 'at most 5 connections', 'seconds': 0.0},
                                  {'reason': 'at most 30 messages per minute', 'seconds': 1.5}]}],
    'lately': [{'recipient': 'me@b.example', **LAST, 'again': None},
               {'recipient': 'you@b.example', **LAST, 'again': 'T'}],
}


def test_all_that_is_known() -> None:
    queue = {'count': 30, 'messages': [{'recipient': 'x@b.example', 'attempts': 0, 'where': 'ready'}]}
    assert write_answer('b.example', [WORKER, FULL], queue, ['one thing is not known']) == '''b.example
  it is suppressed: 550  no
  on pause: tag news (`resume` ends it)
  forced to fail: 553 5.1.1 no (domain b.example)
  servers: mx1, mx2 port 25 from 192.0.2.9
    4 connections, 1 idle, 1 being opened for 12 s; 2 messages wait for them
    limits: connections 20 (flood response 'too many', for 55 s)
    held: at most 5 connections
    held: at most 30 messages per minute, for 1.5 s
    more were put back until their turn, the last one, for 40 s
  3 in hand:
    you@b.example (id7): it is being sent, since 3.5 s, to 192.0.2.1; attempts: 1, the last one: \
2030-01-01 00:00:00 rcptto/error (192.0.2.1): 450 4.2.1 later
    and 2 more
  30 on the outbox:
    x@b.example: ready
    and 29 more
  failed lately:
    me@b.example: 2030-01-01 00:00:00 rcptto/error (192.0.2.1): 450 4.2.1 later; given up
    you@b.example: 2030-01-01 00:00:00 rcptto/error (192.0.2.1): 450 4.2.1 later; tried again after T
  (one thing is not known)
'''


@pytest.mark.parametrize('queue', [None, {'count': 0, 'messages': []}])
def test_nothing_is_known(queue: Any) -> None:
    assert write_answer('x', [WORKER], queue, []) == \
        'x\n  nothing is known of it: no message to it is on the outbox, and none has failed lately\n'


# the control socket


@pytest.fixture
def loop() -> Any:
    bench = LoopBench()
    yield bench
    bench.close()


def listen(loop: LoopBench, base: str, number: int = 1) -> ControlSocket:
    made = ControlSocket(loop.reactor, base, number, lambda question: {'asked': question, 'by': number}, Notes())
    loop._closing.callback(made.close)
    return made


def test_every_worker_is_asked(loop: LoopBench, tmp_path: Path) -> None:
    base = str(tmp_path / 'queue[1].db-control')
    listen(loop, base, 1)
    listen(loop, base, 2)
    paths = worker_sockets(base)
    assert [stat.S_IMODE(os.stat(path).st_mode) for path in paths] == [0o600, 0o600]
    answers = loop.run(ask_workers(loop.reactor, [*paths, str(tmp_path / 'none')], {'why': 'ü'}))
    assert answers == [{'asked': {'why': 'ü'}, 'by': 1}, {'asked': {'why': 'ü'}, 'by': 2}]


def test_files_of_processes_that_are_gone_are_taken_away(loop: LoopBench, tmp_path: Path) -> None:
    base = str(tmp_path / 'control')
    gone, alive = f'{base}.{2 ** 22 + 1}.1', f'{base}.{os.getpid()}.9'
    for path in (gone, alive):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
    listen(loop, base)
    assert gone not in worker_sockets(base) and alive in worker_sockets(base)
    assert len(loop.run(ask_workers(loop.reactor, worker_sockets(base), {}))) == 1, 'nobody answers on the other one'


@pytest.mark.parametrize('sent', [b'', b'x\n', b'[]\n', b'{"a": \xff}\n', b'x' * (QUESTION_LIMIT + 100)])
def test_what_is_no_question(loop: LoopBench, tmp_path: Path, sent: bytes) -> None:
    """It ends the conversation, and nothing else; so does silence."""
    base = str(tmp_path / 'control')
    listen(loop, base)
    [path] = worker_sockets(base)

    async def speak() -> bytes:
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        client.setblocking(False)
        client.sendall(sent)
        begin, heard = loop.reactor.now(), b''
        while loop.reactor.now() < begin + SECONDS + 1:
            await loop.wait(0.5)
            try:
                heard = client.recv(100)
                break
            except BlockingIOError:
                continue
        client.close()
        return heard
    assert loop.run(speak()) == (b'{}\n' if sent == b'[]\n' else b'')
    assert len(loop.run(ask_workers(loop.reactor, [path], {}))) == 1


def test_where_no_socket_can_be(loop: LoopBench, tmp_path: Path) -> None:
    notes = Notes()
    ControlSocket(loop.reactor, str(tmp_path / 'no' / 'such'), 1, lambda question: {}, notes).close()
    assert 'check control-socket' in notes.lines[0]


@pytest.mark.parametrize(('text', 'base'), [
    ('',                                                            'mqlite.db-control'),
    ('queue-address: sqlite:///var/q.db',                           '/var/q.db-control'),
    ('queue-address: sqlite:///var/q.db\ncontrol-socket: /run/c',   '/run/c'),
    ('queue-address: amqp://a\nlock: /run/mqlite.pid',              '/run/mqlite.pid-control'),
    ('queue-address: amqp://a',                                     ''),
])
def test_where_the_sockets_are(text: str, base: str) -> None:
    assert socket_base(load(text, 'x', {}, [])[0]) == base


# a daemon


def test_a_daemon_is_asked(start_daemon: Callable[..., Daemon], sink: CapturingSink, tmp_path: Path) -> None:
    sink.script['RCPT'] = [b'450 4.2.1 greylisted']
    path = str(tmp_path / 'config.db')
    make_database(path).close()
    execute(path, insert('flood_responses', name='grey', pattern='greylisted', type='substr', pause=900))
    daemon = start_daemon(program=ALERT, smtp_sink_address=HOST, smtp_sink_port=sink.port, processes=2,
                          database_address=f'sqlite://{tmp_path}/config.db')

    def why(text: str) -> str:
        ended = daemon.cli('why', text)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.decode()

    line = json.dumps({'recipient': 'you@b.example', 'mime': 'x', 'message-id': 'id7'}).encode()
    assert daemon.cli('queue', 'publish', 'outbox', input=line).returncode == 0
    wait_until(lambda: 'waits for its next attempt' in why('id7'), 'the attempt')
    for text in ('you@b.example', 'B.EXAMPLE', 'id7'):
        answer = why(text)
        assert 'waits for its next attempt' in answer and 'rcptto/error' in answer and '450 4.2.1 greylisted' in answer
    assert "held: nothing is sent after an answer: flood response 'grey', for " in why(HOST)
    assert 'nothing is known' in why('me@c.example')
    assert daemon.cli('pause', 'domain', 'b.example').returncode == 0
    wait_until(lambda: 'on pause: domain b.example' in why('b.example'), 'the daemon to see it')
    execute(path, insert('errors', target='b.example', code=553, description='cancelled'))
    wait_until(lambda: 'forced to fail: 553 cancelled (domain b.example)' in why('b.example'), 'the daemon to see it')
    found = json.loads(daemon.cli('why', 'b.example', '--json').stdout)
    assert len(found['workers']) == 2 and found['queue']['count'] == 1 and found['trouble'] == []
    daemon.stop()
    assert worker_sockets(f'{daemon.folder}/queue.db-control') == []
    answer = why('id7')
    assert 'attempts: 1' in answer and 'no daemon answers' in answer


@pytest.mark.parametrize('words', [(), ('a', 'b')])
def test_wrong_usage(tmp_path: Path, words: tuple[str, ...]) -> None:
    ended = run_here(tmp_path, 'why', *words)
    assert ended.status == 2 and 'usage: why' in ended.errors
