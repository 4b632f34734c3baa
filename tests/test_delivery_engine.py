"""From the outbox to a server and to the queues of results, with the real store, resolver and client.

The clock jumps, and name servers and mail exchangers run on the engine's reactor, so that a day of retries takes
milliseconds and every time is exact.
"""

from __future__ import annotations

import json
import random
import ssl
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable

import pytest

from mqlite.database.live import Database
from mqlite.delivery import engine as engine_module
from mqlite.delivery import notify, report, retry, route
from mqlite.delivery.attempt import ADDRESSES_TRIED, Dialler
from mqlite.delivery.capacity import Limits
from mqlite.delivery.controls import Controls, read_names
from mqlite.delivery.engine import FAULT_SECONDS, Engine, EngineConfig
from mqlite.delivery.flood import read_floods
from mqlite.delivery.forced import read_errors
from mqlite.delivery.notify import NotifyConfig
from mqlite.delivery.pauses import SHORTEST_HOLD, read_pauses
from mqlite.delivery.protection import BROKEN_SECONDS, Protection
from mqlite.delivery.response_rules import ResponseRules
from mqlite.delivery.retry import RetryPolicy
from mqlite.delivery.route import Route, RouteConfig
from mqlite.dns.resolver import Resolver, ResolverConfig
from mqlite.host import OwnPlaces
from mqlite.loop import connect
from mqlite.loop.clock import VirtualClock
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import sleep
from mqlite.loop.tls import TlsContext, client_context
from mqlite.mail_log import MailLog
from mqlite.message.document import due_time
from mqlite.message.identifier import format_moment
from mqlite.queues.contract import Message
from mqlite.queues.embedded import EmbeddedStore
from mqlite.smtp.dsn import NOTHING, Request
from mqlite.smtp.shares import Shares
from tests.support import dns
from tests.support.database import Notes, execute, insert, make_database
from tests.support.database import row as database_row
from tests.support.dns import Nameserver, Query
from tests.support.exchanger import DROP, SILENCE, Exchanger
from tests.support.peers import Certificate, make_certificate
from tests.support.process import HOST

SECOND = '127.0.0.2'
QUEUES = {'results': 'results', 'success': 'success', 'failure': 'failure', 'retry': 'retry'}
INTERVALS = (600, 600, 1800, 1800, 3600, 3600, 7200)
ZONE: dict[tuple[str, str], list[bytes]] = {
    ('one.example', 'MX'): [dns.mx('one.example', 10, 'mx1.example')],
    ('two.example', 'MX'): [dns.mx('two.example', 20, 'mx2.example'), dns.mx('two.example', 10, 'mx1.example')],
    ('bare.example', 'A'): [dns.address('bare.example', HOST)],
    ('null.example', 'MX'): [dns.mx('null.example', 0, '')],
    ('nohost.example', 'MX'): [dns.mx('nohost.example', 10, 'gone.example')],
    ('half.example', 'MX'): [dns.mx('half.example', 10, 'gone.example'), dns.mx('half.example', 20, 'mx1.example')],
    ('lost.example', 'MX'): [dns.mx('lost.example', 10, 'broken.example'), dns.mx('lost.example', 20, 'gone.example')],
    ('six.example', 'A'): [dns.address('six.example', HOST)],
    ('six.example', 'AAAA'): [dns.address('six.example', '::1')],
    ('equal.example', 'MX'): [dns.mx('equal.example', 10, 'mx2.example'), dns.mx('equal.example', 10, 'mx1.example'),
                              dns.mx('equal.example', 30, 'mx1.example')],
    ('many.example', 'A'): [dns.address('many.example', f'127.9.9.{n}') for n in range(1, 41)],
    ('mx1.example', 'A'): [dns.address('mx1.example', HOST)],
    ('mx2.example', 'A'): [dns.address('mx2.example', SECOND)],
}
NAMES = {name for name, _ in ZONE}


def answer(query: Query) -> list[bytes]:
    if query.name == 'broken.example':
        return [dns.reply(query.id, query.name, query.type, rcode=dns.SERVFAIL)]
    records = ZONE.get((query.name, query.type), [])
    return [dns.reply(query.id, query.name, query.type, *records, rcode=0 if query.name in NAMES else dns.NXDOMAIN,
                      authority=[] if records else [dns.soa('example', 600, 600)])]


def read_orders(reactor: Reactor, path: str) -> ResponseRules:
    """The response rules of a database."""
    notes = Notes()
    return ResponseRules(Database(reactor, make_database(path), 600, notes))


class Bench:
    """Engine, store, name server, and an exchanger at HOST; the port is the same for all exchangers."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, tls: TlsContext | None = None,
                 **settings: Any) -> None:
        self.errors: list[str] = []
        self.reactor = Reactor(VirtualClock(), lambda error, where: self.errors.append(f'{error!r} {where}'))
        self.clock = self.reactor.clock
        self.exchanger = Exchanger(self.reactor, b'PIPELINING', b'8BITMIME', tls=tls)
        monkeypatch.setattr(route, 'SMTP_PORT', self.exchanger.port)
        self.nameserver = Nameserver(self.reactor, answer)
        resolver = Resolver(self.reactor, ResolverConfig(
            (self.nameserver.address,), 5.0, 1.0, 2, False, hosts_file=str(folder / 'hosts'),
            resolv_file=str(folder / 'resolv.conf')), random.Random(1))
        self.store = EmbeddedStore(self.reactor, str(folder / 'queue'), print, poll_seconds=1e8)
        self.dialler = Dialler(self.reactor, resolver, 'me.example',
                               Protection(self.clock, client_context(), settings.get('verifying') or client_context()),
                               controls=(controls := settings.get('controls') or Controls()),
                               is_own=settings.get('is_own'))
        self.config = EngineConfig(
            'outbox', settings.get('queues', QUEUES),
            RetryPolicy(INTERVALS, settings.get('max_attempts', 0), settings.get('max_seconds', 86400.0)),
            RouteConfig(None, settings.get('smarthost'), settings.get('sources', ()), settings.get('is_mappable')),
            Shares().outgoing, controls=controls,
            notify=NotifyConfig('me.example', settings.get('dsn', ''), settings.get('notices', NOTHING)),
            orders=read_orders(self.reactor, settings['orders']) if 'orders' in settings else None)
        self.engine = Engine(self.reactor, self.store, self.dialler, self.config, settings.get('log'))
        self.run_until(self.store.open())
        self.engine.start()

    def run_until(self, work: Any) -> Any:
        return self.reactor.run(work)

    def run(self, seconds: float = 1.0) -> None:
        self.run_until(sleep(self.reactor, seconds))

    def publish(self, fields: Any = None, due: float | None = None, **more: Any) -> None:
        """A document, or a body, as `queue publish` and other programs do it: when it is due stands in it."""
        if not isinstance(fields, (bytes, list)):
            fields = {'envelope': 's@a.example', 'recipient': 'r@one.example', 'mime': 'Subject: x\n\nü',
                      **(fields or {}), **more}
        body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()

        async def kept() -> None:
            await self.store.publish([Message('outbox', body, 0, due_time(body) if due is None else due)])
        self.run_until(kept())

    def take(self, queue: str) -> list[dict[str, Any]]:
        """What is on a queue; it is empty after that."""
        async def all_of_it() -> list[dict[str, Any]]:
            deliveries = await self.store.fetch(queue, 1000)
            for delivery in deliveries:
                await self.store.settle(delivery, [])
            return [json.loads(delivery.body) for delivery in deliveries]
        return self.run_until(all_of_it())  # type: ignore[no-any-return]

    def final(self, queue: str = 'results') -> dict[str, Any]:
        """The one document on the queue."""
        [document] = self.take(queue)
        return document

    def last(self, *names: str) -> tuple[Any, ...]:
        """Of the last attempt of the one document in the results."""
        entry = self.final()['results'][-1]
        return tuple(entry.get(name) for name in names)

    def counts(self) -> dict[str, int]:
        """Messages of all queues."""
        rows = self.run_until(self.store.list_queues())
        return {row.name: row.ready + row.waiting + row.taken for row in rows}

    def moments(self, document: dict[str, Any], begin: float) -> list[int]:
        """Seconds from the beginning to each result."""
        return [round(parse(entry['time']) - begin) for entry in document['results']]

    def close(self) -> None:
        self.run_until(self.engine.stop(1.0))
        self.run_until(self.store.close())
        self.exchanger.close()
        self.nameserver.close()
        self.run(0.1)
        self.reactor.close()


def parse(moment: str) -> float:
    return due_time(json.dumps({'nextattempt': {'time': moment}}).encode())


Make = Callable[..., Bench]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closing: ExitStack) -> Make:
    def start(tls: TlsContext | None = None, **settings: Any) -> Bench:
        bench = Bench(tmp_path, monkeypatch, tls, **settings)
        closing.callback(bench.close)
        return bench
    return start


@pytest.fixture
def bench(make: Make) -> Bench:
    return make()


def in_seconds(bench: Bench, seconds: float) -> str:
    return format_moment(bench.clock.time() + seconds)


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


# documents in the manner of MailerQ


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


@pytest.mark.parametrize(('fields', 'moments'), [
    ({},                              [0, 600, 1200, 3000, 4800, 8400, 12000, 19200, 26400]),
    ({'retries': [5, 10]},            [0, 5, 15, 25, 35, 45, 55, 65, 75]),
    ({'retries': ['60']},             [0, 60, 120, 180, 240, 300, 360, 420, 480]),
])
def test_retries(bench: Bench, fields: dict[str, Any], moments: list[int]) -> None:
    bench.exchanger.script['RCPT'] = [b'450 4.2.1 greylisted'] * 8
    begin = bench.clock.time()
    bench.publish(fields, custom='kept')
    bench.run(27000)
    document = bench.final()
    assert bench.moments(document, begin) == moments
    assert [entry['result'] for entry in document['results']] == ['error'] * 8 + ['accepted']
    assert document['results'][0]['code'] == 450 and document['custom'] == 'kept'
    retried = bench.take('retry')
    assert [len(told['results']) for told in retried] == list(range(1, 9))
    assert [parse(told['nextattempt']['time']) - begin for told in retried] == moments[1:]
    assert not any('mime' in told for told in retried)
    assert bench.counts() == {'success': 1} and bench.errors == []
    assert bench.exchanger.messages[0][2] == b'Subject: x\r\n\r\n\xc3\xbc\r\n'


@pytest.mark.parametrize(('settings', 'fields', 'attempts'), [
    ({}, {'maxattempts': 3}, 3), ({}, {'maxattempts': '1'}, 1), ({'max_attempts': 2}, {}, 2),
    ({'max_attempts': 2}, {'maxattempts': 4}, 4)])
def test_maxattempts(make: Make, settings: dict[str, Any], fields: dict[str, Any], attempts: int) -> None:
    bench = make(**settings)
    bench.exchanger.script['CONNECT'] = b'421 busy'
    bench.publish(fields)
    bench.run(100_000)
    document = bench.final()
    assert [(entry['state'], entry['code']) for entry in document['results']] == [('intro', 421)] * attempts
    assert bench.counts() == {'failure': 1, **({'retry': attempts - 1} if attempts > 1 else {})}


def test_a_document_whose_attempts_are_used_up_is_not_tried(bench: Bench) -> None:
    bench.publish(maxattempts=2, results=[{'time': in_seconds(bench, -10)}, {}])
    bench.run()
    assert bench.last('state', 'result') == ('process', 'timeout')
    assert bench.exchanger.commands == []


@pytest.mark.parametrize(('seconds', 'moments'), [
    (1000, [0, 600, 1000]), (1200, [0, 600, 1200]), (1201, [0, 600, 1200, 1201]), (100, [0, 100])])
def test_maxdelivertime_between_attempts(bench: Bench, seconds: int, moments: list[int]) -> None:
    """Given up at that moment, not at the next attempt's; and with the reason."""
    bench.exchanger.script['.'] = DROP
    begin = bench.clock.time()
    bench.publish(maxdelivertime=in_seconds(bench, seconds))
    bench.run(seconds + 1)
    document = bench.final()
    assert bench.moments(document, begin) == moments
    states = [(entry['state'], entry['result']) for entry in document['results']]
    assert states == [('message', 'lost')] * (len(moments) - 1) + [('process', 'timeout')]
    assert bench.counts() == {'failure': 1, 'retry': len(moments) - 1}


def test_maxdelivertime_in_the_past(bench: Bench) -> None:
    bench.publish(maxdelivertime=in_seconds(bench, -1), nextattempt={'time': in_seconds(bench, 500)}, due=0.0)
    bench.run()
    assert bench.last('state', 'result') == ('process', 'timeout')
    assert bench.exchanger.commands == []


def test_maxdelivertime_during_an_attempt(bench: Bench) -> None:
    bench.exchanger.script['DATA'] = SILENCE
    begin = bench.clock.time()
    bench.publish(maxdelivertime=in_seconds(bench, 60))
    bench.run(400)
    assert bench.moments(bench.final(), begin) == [120, 120]


def test_the_configured_delivery_time(bench: Bench) -> None:
    bench.exchanger.script['MAIL'] = b'451 later'
    begin = bench.clock.time()
    bench.publish()
    bench.run(86399)
    assert 'results' not in bench.counts()
    bench.run(2)
    moments = bench.moments(bench.final(), begin)
    assert moments == [0, 600, 1200, 3000, 4800, 8400, *range(12000, 86400, 7200), 86400]


@pytest.mark.parametrize('due', [None, 0.0])
def test_nextattempt(bench: Bench, due: float | None) -> None:
    """Whether the publisher knows of due times or not."""
    bench.publish(nextattempt={'time': in_seconds(bench, 5000)}, due=due)
    bench.run(4999)
    assert bench.exchanger.commands == [] and bench.counts() == {'outbox': 1}
    bench.run(1.5)
    assert bench.last('result') == ('accepted',)


@pytest.mark.parametrize('nextattempt', [None, {}, {'time': None}, {'time': '2001-01-01 00:00:00'}])
def test_nextattempt_that_holds_nothing_up(bench: Bench, nextattempt: object) -> None:
    bench.publish(nextattempt=nextattempt)
    bench.run()
    assert bench.last('result') == ('accepted',)


@pytest.mark.parametrize(('dsn', 'mail', 'rcpt'), [
    (None,                                b' RET=HDRS',         b' NOTIFY=FAILURE,DELAY'),
    ({'notify': 'NEVER', 'envid': 'x y'}, b' RET=HDRS ENVID=x+20y', b' NOTIFY=NEVER'),
    ({'ret': 'FULL', 'orcpt': 'o@a'},     b' RET=FULL',         b' NOTIFY=FAILURE,DELAY ORCPT=rfc822;o@a'),
])
def test_notices_are_asked_of_a_server_that_makes_them(make: Make, dsn: object, mail: bytes, rcpt: bytes) -> None:
    bench = make(notices=Request(('FAILURE', 'DELAY'), 'HDRS'))
    bench.exchanger.extensions.append(b'DSN')
    bench.publish(dsn=dsn)
    bench.run()
    assert bench.exchanger.messages[0][:2] == (b'MAIL FROM:<s@a.example> BODY=8BITMIME' + mail,
                                               [b'RCPT TO:<r@one.example>' + rcpt])
    assert bench.final()['dsn'] == dsn


def test_notices_that_nobody_can_be_asked_for(bench: Bench) -> None:
    bench.publish(dsn={'notify': 'SOMETIMES'})
    bench.run()
    assert bench.last('state', 'result', 'description') == (
        'process', 'invalid', '"dsn": NOTIFY=NEVER, or some of SUCCESS,FAILURE,DELAY')


@pytest.mark.parametrize(('queues', 'reply', 'counts'), [
    (None, b'250 ok',                                     {'results': 1, 'success': 1}),
    ({}, b'550 no',                                       {'results': 1, 'failure': 1}),
    ({'results': 'mine'}, b'250 ok',                      {'mine': 1, 'success': 1}),
    ({'results': None, 'success': 'mine'}, b'250 ok',     {'mine': 1}),
    ({'results': None, 'failure': 'mine'}, b'550 no',     {'mine': 1}),
    ({'results': None, 'success': None}, b'250 ok',       {}),
    ({'retry': 'mine'}, b'450 later',                     {'outbox': 1, 'mine': 1}),
    ({'retry': None}, b'450 later',                       {'outbox': 1}),
    ('nonsense', b'250 ok',                               {'results': 1, 'success': 1}),
    ({'results': 'a\ud800'}, b'250 ok',                   {'results': 1, 'success': 1}),
    ({'results': 'x' * 300}, b'250 ok',                   {'results': 1, 'success': 1}),
])
def test_queues(bench: Bench, queues: object, reply: bytes, counts: dict[str, int]) -> None:
    bench.exchanger.script['.'] = reply
    bench.publish(queues=queues)
    bench.run()
    assert bench.counts() == counts and bench.errors == []


@pytest.mark.parametrize(('reply', 'queues'), [(b'250 ok', ['results', 'success']), (b'550 no', ['results', 'failure']),
                                               (b'450 later', ['retry'])])
@pytest.mark.parametrize('keep', [True, False])
def test_keepmime(bench: Bench, reply: bytes, queues: list[str], keep: bool) -> None:
    bench.exchanger.script['.'] = reply
    bench.publish(keepmime=keep)
    bench.run()
    for queue in queues:
        document = bench.final(queue)
        assert document.get('mime') == ('Subject: x\n\nü' if keep else None)
        assert document['keepmime'] is keep


def test_what_cannot_be_converted_is_sent_when_forced(bench: Bench) -> None:
    bench.publish(data=5, headers=[], dkim={'domain': 'x'}, inlinecss=True, security='optional', force=True)
    bench.run()
    assert bench.counts() == {'results': 1, 'success': 1}


def test_a_refusal_is_final(bench: Bench) -> None:
    bench.exchanger.script['RCPT'] = b'550-5.1.1 no such\r\n550 5.1.1 user'
    bench.publish()
    bench.run()
    assert bench.last('state', 'result', 'code', 'status', 'description') == (
        'rcptto', 'error', 550, '5.1.1', 'no such user')
    assert bench.counts() == {'failure': 1}
    bench.run(100_000)
    assert bench.exchanger.verbs.count('RCPT') == 1


# documents that cannot be sent


POISON: Sequence[tuple[Any, str]] = [
    (b'', 'JSON'), (b'{', 'JSON'), (b'\xff\xfe', 'JSON'), (b'[]', 'object'), (b'5', 'object'), (b'null', 'object'),
    (b'{"recipient": NaN}', 'JSON'), (b'{"x": 1e999}', 'JSON'), (b'[' * 100_000, 'JSON'),
    (b'{"a":' * 5000 + b'1' + b'}' * 5000, ''), (b'{"x": %s}' % (b'9' * 10_000), 'JSON'),
    ({'recipient': None}, 'recipient'), ({'recipient': 'nobody'}, 'recipient'), ({'recipient': 7}, 'recipient'),
    ({'recipient': ['r@one.example']}, 'recipient'), ({'recipient': 'r@one.example>\r\nDATA'}, 'recipient'),
    ({'recipient': 'r\0@one.example'}, 'recipient'), ({'recipient': 'r@' + 'x' * 300}, 'recipient'),
    ({'envelope': 'x'}, 'envelope'), ({'envelope': False}, 'envelope'), ({'envelope': {'a': 1}}, 'envelope'),
    ({'mime': None}, 'mime'), ({'mime': ''}, 'mime'), ({'mime': 5}, 'mime'), ({'mime': ['x']}, 'mime'),
    ({'mime': '\ud800'}, 'mime'),
    ({'nextattempt': 'x'}, 'nextattempt'), ({'nextattempt': {'time': 5}}, 'nextattempt'),
    ({'nextattempt': {'time': '2030-01-01'}}, 'nextattempt'), ({'nextattempt': []}, 'nextattempt'),
    ({'maxdelivertime': 5}, 'maxdelivertime'), ({'maxdelivertime': '2030-13-01 00:00:00'}, 'maxdelivertime'),
    ({'maxattempts': -1}, 'maxattempts'), ({'maxattempts': 1.5}, 'maxattempts'), ({'maxattempts': '²'}, 'maxattempts'),
    ({'maxattempts': True}, 'maxattempts'), ({'maxattempts': 10 ** 30}, 'maxattempts'),
    ({'retries': 5}, 'retries'), ({'retries': []}, 'retries'), ({'retries': [None]}, 'retries'),
    ({'priority': 'high'}, 'priority'), ({'ips': [5]}, 'ips'), ({'smarthost': 5}, 'smarthost'),
    ({'smarthost': {'hostname': 'x', 'port': -1}}, 'smarthost'),
    ({'results': 'x'}, 'results'), ({'results': [5]}, 'results'), ({'results': [{}]}, 'results'),
    ({'results': 'x', 'maxdelivertime': '2099-01-01 00:00:00'}, 'results'),
    ({'dkim': {'domain': 'x'}}, 'dkim'), ({'security': 'much', 'force': True}, 'security'),
    ({'smarthost': {'hostname': 'x', 'username': ['y']}}, 'smarthost'),
]


@pytest.mark.parametrize(('fields', 'words'), POISON, ids=[str(row[0])[:50] for row in POISON])
def test_poison(bench: Bench, fields: Any, words: str) -> None:
    """To the results and failure queues, once, with the reason; nothing is sent."""
    bench.publish(fields)
    bench.run(100_000)
    assert bench.counts() == {'results': 1, 'failure': 1} and bench.errors == []
    document = bench.final()
    assert document == bench.final('failure')
    last = document['results'][-1]
    no_data = isinstance(fields, dict) and fields.get('mime', 'x') in (None, '')
    assert (last['state'], last['result']) == (('storage', 'error') if no_data else ('process', 'invalid'))
    assert words in last['description']
    assert document.get('recipient') == fields.get('recipient', 'r@one.example') if isinstance(fields, dict) \
        else 'invalid' in document
    assert bench.exchanger.commands == []


@pytest.mark.parametrize(('fields', 'state', 'words'), [
    ({'data': 5}, 'personalize', '"data" must be an object'),
    ({'data': {}, 'mime': 'Subject: {if}\n\n'}, 'personalize', 'line 1: {if}... is no tag'),
    ({'headers': {'remove': 5}}, 'rewrite', '"headers.remove" must be a name or an array of names'),
    ({'mime': {'content': {'blocks': []}}}, 'responsive', '"mime.content" must be HTML as a text'),
    ({'mime': {'text': '{1/0}'}, 'data': {}}, 'personalize', 'division by zero'),
])
def test_what_cannot_be_converted(bench: Bench, fields: Any, state: str, words: str) -> None:
    bench.publish(fields)
    bench.run()
    entry = bench.final()['results'][-1]
    assert (entry['state'], entry['result']) == (state, 'error')
    assert words in entry['description']
    assert bench.exchanger.commands == []


def test_conversions(bench: Bench) -> None:
    """Each attempt makes the message anew, and what comes back is the document as it was."""
    bench.exchanger.script['RCPT'] = [b'450 4.2.1 later']
    asked: dict[str, Any] = {'data': {'name': 'Jo'}, 'headers': {'append': {'x-a': 'b'}}}
    bench.publish(mime='Subject: Hi {$name}\n\nto {$recipient}', retries=[60], keepmime=True, **asked)
    bench.run(61)
    assert [message for _, _, message in bench.exchanger.messages] == [
        b'Subject: Hi Jo\r\nx-a: b\r\n\r\nto r@one.example\r\n']
    document = bench.final()
    assert {name: document[name] for name in asked} == asked
    assert document['mime'] == 'Subject: Hi {$name}\n\nto {$recipient}'


def test_poison_does_not_stop_the_others(bench: Bench) -> None:
    for fields in [row[0] for row in POISON] + [{}]:
        bench.publish(fields)
    bench.run()
    assert bench.exchanger.recipients == ['r@one.example'] and bench.counts()['failure'] == len(POISON)


def test_a_body_that_the_store_could_not_read(bench: Bench) -> None:
    bench.run_until(bench.engine.stop(0))
    bench.publish()
    [delivery] = bench.run_until(bench.store.fetch('outbox', 1))
    delivery.fault = 'the gzip data is broken'
    bench.engine._on_delivery(delivery)
    bench.run()
    assert bench.last('state', 'result', 'description') == ('process', 'invalid', 'the gzip data is broken')


# to which server


@pytest.mark.parametrize(('recipient', 'state', 'result', 'final'), [
    ('r@one.example',         'message', 'accepted', True),
    ('r@ONE.Example',         'message', 'accepted', True),
    ('r@bare.example',        'message', 'accepted', True),
    ('r@half.example',        'message', 'accepted', True),
    ('r@[127.0.0.1]',         'message', 'accepted', True),
    ('r@null.example',        'dns',     'error',    True),
    ('r@nothing.example',     'dns',     'error',    True),
    ('r@nohost.example',      'dns',     'error',    True),
    ('r@broken.example',      'dns',     'timeout',  False),
    ('r@lost.example',        'dns',     'timeout',  False),
    ('r@[127.0.0.3]',         'connect', 'error',    False),
])
def test_mail_exchangers(bench: Bench, recipient: str, state: str, result: str, final: bool) -> None:
    bench.publish(recipient=recipient)
    bench.run(50)
    counts = bench.counts()
    assert set(counts) == ({'results', 'success' if result == 'accepted' else 'failure'} if final
                           else {'outbox', 'retry'})
    document = bench.final('results' if final else 'retry')
    assert [(entry['state'], entry['result']) for entry in document['results']] == [(state, result)]
    assert ('to' in document['results'][0]) is (result == 'accepted')


@pytest.mark.parametrize('first', ['refuses connections', b'421 busy', b'554 go away', b'what?', DROP, SILENCE])
def test_the_next_exchanger_when_the_first_is_down(bench: Bench, first: Any) -> None:
    second = Exchanger(bench.reactor, address=SECOND, port=bench.exchanger.port)
    if isinstance(first, str):
        bench.exchanger.refuse_connections()
    else:
        bench.exchanger.script['CONNECT'] = first
    bench.publish(recipient='r@two.example')
    bench.run(400)
    second.close()
    assert bench.last('state', 'to') == ('message', SECOND) and second.recipients == ['r@two.example']


@pytest.mark.parametrize(('replies', 'state', 'code', 'final'), [
    ((b'554 never', b'550 no'), 'intro', 550, True), ((b'554 never', b'421 busy'), 'intro', 421, False),
    ((b'421 busy', b'554 never'), 'intro', 421, False)])
def test_the_most_hopeful_result_counts(bench: Bench, replies: tuple[bytes, bytes], state: str, code: int,
                                        final: bool) -> None:
    second = Exchanger(bench.reactor, address=SECOND, port=bench.exchanger.port)
    bench.exchanger.script['CONNECT'], second.script['CONNECT'] = replies
    bench.publish(recipient='r@two.example')
    bench.run()
    second.close()
    entry = bench.final('results' if final else 'retry')['results'][-1]
    assert (entry['state'], entry['code']) == (state, code)


def test_so_many_addresses_are_tried(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    open_at = bench.dialler._open_at

    async def note(place: Any, domain: str, host: str, address: str) -> Any:
        tried.append(address)
        return await open_at(place, domain, host, address)

    monkeypatch.setattr(bench.dialler, '_open_at', note)
    bench.publish(recipient='r@many.example')
    bench.run()
    assert len(set(tried)) == ADDRESSES_TRIED and bench.counts() == {'outbox': 1, 'retry': 1}


def test_smarthosts(make: Make) -> None:
    bench = make(smarthost=Route('nothing.example', 25, True))
    bench.publish(recipient='r@nowhere.example', smarthost={'hostname': 'mx1.example', 'port': bench.exchanger.port})
    bench.publish(recipient='r@one.example')
    bench.run()
    assert bench.exchanger.recipients == ['r@nowhere.example']
    assert bench.final('failure')['results'][0]['state'] == 'dns'


@pytest.mark.parametrize(('reply', 'last', 'counts'), [
    (b'235 2.7.0 ok',   ('message', 'accepted', 250, 'PLAIN'),  {'success': 1}),
    (b'535 5.7.8 no',   ('authplain', 'error', 535, None),      {'outbox': 1}),
    (b'454 4.7.0 no',   ('authplain', 'error', 454, None),      {'outbox': 1}),
])
def test_a_smarthost_that_wants_a_login(bench: Bench, reply: bytes, last: tuple[object, ...],
                                        counts: dict[str, int]) -> None:
    """A wrong password is for the operator to mend, and no reason to give a message back."""
    bench.exchanger.extensions.append(b'AUTH PLAIN')
    bench.exchanger.script['AUTH'] = reply
    login = {'hostname': 'mx1.example', 'port': bench.exchanger.port, 'username': 'us', 'password': 'secret'}
    bench.publish(smarthost=login)
    bench.publish(smarthost={**login, 'username': ''}, recipient='r@two.example')
    bench.run()
    done = {document['recipient']: document['results'][-1]
            for queue in ('results', 'retry') for document in bench.take(queue)}
    entry = done['r@one.example']
    assert tuple(entry.get(name) for name in ('state', 'result', 'code', 'authentication')) == last
    assert done['r@two.example']['result'] == 'accepted' and 'authentication' not in done['r@two.example']
    assert bench.exchanger.commands.count(b'AUTH PLAIN AHVzAHNlY3JldA==') == 1
    counts['success'] = counts.get('success', 0) + 1
    assert bench.counts() == counts


def test_no_login_in_clear_where_tls_is_broken(make: Make, certificate: Certificate) -> None:
    """Whoever breaks the handshake does not learn the password."""
    broken = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # without a certificate no handshake succeeds
    bench = make(broken)
    bench.exchanger.extensions.append(b'AUTH PLAIN')
    bench.exchanger.script['AUTH'] = b'235 ok'
    server = {'hostname': 'mx1.example', 'port': bench.exchanger.port}
    bench.publish(smarthost={**server, 'username': 'us', 'password': 'secret'})
    bench.publish(smarthost=server, recipient='r@two.example')
    bench.run()
    assert [document['results'][0]['state'] for document in bench.take('retry')] == ['handshake']
    assert bench.exchanger.recipients == ['r@two.example'] and 'AUTH' not in bench.exchanger.verbs


# ourselves


@pytest.mark.parametrize(('recipient', 'own', 'tried', 'state', 'status'), [
    ('r@one.example',   HOST,   [],     'dns',     '5.4.6'),   # the only exchanger
    ('r@two.example',   HOST,   [],     'dns',     '5.4.6'),   # the best one; the other one would send it to us
    ('r@two.example',   SECOND, [HOST], 'message', '2.0.0'),   # the second one
    ('r@[127.0.0.1]',   HOST,   [],     'dns',     '5.4.6'),
    ('r@half.example',  HOST,   [],     'dns',     '5.4.6'),   # the first one has no address
])
def test_mail_does_not_go_round_in_a_circle(make: Make, recipient: str, own: str, tried: list[str], state: str,
                                            status: str) -> None:
    bench = make(is_own=lambda address, port: address == own)
    bench.publish(recipient=recipient)
    bench.run()
    assert [client.peer[0] for client in bench.exchanger.clients] == tried
    entry = bench.final()['results'][-1]
    assert (entry['state'], entry['status']) == (state, status)
    assert status != '5.4.6' or 'loops back to us' in entry['description']


@pytest.mark.parametrize(('first', 'queue'), [('mx2.example', 'failure'), ('mx1.example', 'success')])
def test_of_equal_exchangers_the_other_one_is_not_better_than_we(make: Make, monkeypatch: pytest.MonkeyPatch,
                                                                 first: str, queue: str) -> None:
    """Where we are looked at first, nobody is left; where not, the other one may take it."""
    monkeypatch.setattr('mqlite.delivery.attempt.random.sample',
                        lambda group, count: sorted(group, key=lambda host: host != first))
    bench = make(is_own=lambda address, port: address == SECOND)
    bench.publish(recipient='r@equal.example')
    bench.run()
    assert bench.counts() == {'results': 1, queue: 1}


def test_a_better_exchanger_that_is_down_is_waited_for(make: Make) -> None:
    """We are the second one, and hold the mail for the first."""
    bench = make(is_own=lambda address, port: address == SECOND)
    bench.exchanger.refuse_connections()
    bench.publish(recipient='r@two.example')
    bench.run()
    assert bench.final('retry')['results'][-1]['state'] == 'connect' and bench.counts() == {'outbox': 1}


@pytest.mark.parametrize(('places', 'address', 'port', 'own'), [
    ([('192.0.2.1', 25)],          '192.0.2.1',   25, True),
    ([('192.0.2.1', 25)],          '192.0.2.1',   26, False),
    ([('192.0.2.1', 25)],          '192.0.2.2',   25, False),
    ([('0.0.0.0', 25)],            '127.0.0.1',   25, True),
    ([('0.0.0.0', 25)],            '127.8.8.8',   25, True),
    ([('0.0.0.0', 25)],            '127.0.0.1',   26, False),
    ([('0.0.0.0', 25)],            '192.0.2.1',   25, False),
    ([('0.0.0.0', 25)],            '::1',         25, False),
    ([('::', 25)],                 '::1',         25, True),
    ([],                           '127.0.0.1',   25, False),
])
def test_what_is_ourselves(places: list[tuple[str, int]], address: str, port: int, own: bool) -> None:
    assert OwnPlaces(places)(address, port) is own


# servers that cannot be reached


def test_servers_without_an_address_are_no_reason_to_wait(bench: Bench) -> None:
    for _ in range(2):
        bench.publish(recipient='r@nohost.example')
        bench.run()
        assert bench.last('state', 'result') == ('dns', 'error')


def test_a_server_that_is_down_is_not_tried_for_every_message(bench: Bench) -> None:
    """The attempt for the first counts for those that come a moment later, and all are tried again in their time."""
    bench.exchanger.refuse_connections()
    for number in range(30):
        bench.publish(recipient=f'r{number}@one.example')
        bench.run(0.01)
    retried = bench.take('retry')
    assert len(retried) == 30 and bench.counts() == {'outbox': 30}
    descriptions = [document['results'][0]['description'] for document in retried]
    assert sum('the last attempt' in text for text in descriptions) > 25 and bench.exchanger.clients == []
    assert {document['results'][0]['state'] for document in retried} == {'connect'}
    revived = Exchanger(bench.reactor, port=bench.exchanger.port)
    bench.run(601)
    assert len(revived.messages) == 30 and bench.counts() == {'results': 30, 'success': 30}
    revived.close()


def test_an_attempt_for_others_is_nobodys_last(bench: Bench) -> None:
    bench.exchanger.script['CONNECT'] = b'421 busy'
    bench.publish()
    bench.run()
    bench.publish(maxattempts=1)
    bench.run()
    assert bench.counts() == {'outbox': 2, 'retry': 1}
    del bench.exchanger.script['CONNECT']
    bench.run(20)
    assert bench.last('result') == ('accepted',)


def test_a_server_that_turns_us_away_for_good_does_not_do_so_for_messages_to_come(bench: Bench) -> None:
    bench.exchanger.script['CONNECT'] = [b'554 go away']
    bench.publish()
    bench.run()
    bench.publish()
    bench.run()
    assert bench.counts() == {'results': 1, 'failure': 1, 'outbox': 1}
    bench.run(20)
    assert bench.counts() == {'results': 2, 'failure': 1, 'success': 1}


def test_the_neighbour_of_a_server_that_is_down_does_not_wait_for_it(bench: Bench) -> None:
    """The first connection has found out; the others do not try it again and again."""
    second = Exchanger(bench.reactor, address=SECOND, port=bench.exchanger.port)
    second.script['.'] = b'250 kept' + DROP
    bench.exchanger.refuse_connections()
    tried: list[str] = []
    open_at = bench.dialler._open_at

    async def note(place: Any, domain: str, host: str, address: str) -> Any:
        tried.append(address)
        return await open_at(place, domain, host, address)

    bench.dialler._open_at = note  # type: ignore[method-assign]
    for number in range(10):
        bench.publish(recipient=f'r{number}@two.example')
        bench.run()
    assert tried == [HOST, *[SECOND] * 10] and bench.counts() == {'results': 10, 'success': 10}
    bench.run(60)
    bench.publish(recipient='r@two.example')
    bench.run()
    assert tried[-2:] == [HOST, SECOND]
    second.close()


# from which address


@pytest.mark.parametrize(('ips', 'state', 'result', 'sources'), [
    (['127.0.0.4'],                             'message', 'accepted', {'127.0.0.4'}),
    (['127.0.0.4', '127.0.0.5'],                'message', 'accepted', {'127.0.0.4', '127.0.0.5'}),
    (['192.0.2.77', '127.0.0.4', '::1'],        'message', 'accepted', {'127.0.0.4'}),
    (['localhost', '127.0.0.4'],                'message', 'accepted', {'127.0.0.4'}),
    ('not an array',                            'message', 'accepted', {'127.0.0.6'}),
    (None,                                      'message', 'accepted', {'127.0.0.6'}),
    (['192.0.2.77', '192.0.2.78'],              'bind',    'error',    {None}),
    ([],                                        'bind',    'error',    {None}),
    (['localhost'],                             'bind',    'error',    {None}),
    (['::1'],                                   'process', 'error',    {None}),
])
def test_ips(make: Make, ips: object, state: str, result: str, sources: set[str | None]) -> None:
    """They take turns, those that are not ours are passed over, and when none is left the delivery has failed."""
    bench = make(sources=('127.0.0.6',))
    bench.exchanger.script['.'] = b'250 kept' + DROP  # so that each message has a connection of its own
    for _ in range(4):
        bench.publish(ips=ips)
        bench.run()
    entries = [document['results'][-1] for document in bench.take('results')]
    assert [(entry['state'], entry['result']) for entry in entries] == [(state, result)] * 4
    assert {entry.get('from') for entry in entries} == sources


@pytest.mark.parametrize(('fields', 'state', 'source'), [
    ({'pool': 'news'},                                               'message', '127.0.0.4'),
    ({'pool': 'news', 'ips': ['127.0.0.5']},                         'message', '127.0.0.5'),
    ({'pool': 'unknown'},                                            'bind',    None),
    ({'pool': 5},                                                    'process', None),
    ({'connection': {'local-ip': '127.0.0.7'}},                      'message', '127.0.0.7'),
    ({'connection': {'local-ip': '127.0.0.8'}},                      'message', '127.0.0.6'),
    ({'connection': {'local-ip': '127.0.0.7'}, 'pool': 'news'},      'message', '127.0.0.4'),
    ({'connection': {'local-ip': 'x'}},                              'message', '127.0.0.6'),
    ({'connection': 7},                                              'message', '127.0.0.6'),
])
def test_pools_and_addresses_that_mail_came_in_on(make: Make, fields: dict[str, Any], state: str,
                                                  source: str | None) -> None:
    controls = Controls()
    controls.pools = {'news': ('127.0.0.4',)}
    bench = make(sources=('127.0.0.6',), controls=controls, is_mappable=lambda address: address == '127.0.0.7')
    bench.publish(fields)
    bench.run()
    assert bench.last('state', 'from') == (state, source)


def test_the_name_of_a_local_address(make: Make) -> None:
    controls = Controls()
    controls.names = read_names([database_row('mtanames', ip='127.0.0.4', name='four.example'),
                                 database_row('mtanames', ip='127.0.0.5', name='no name\r\nQUIT')]).items
    bench = make(controls=controls)
    for address in ('127.0.0.4', '127.0.0.5'):
        bench.publish(ips=[address])
        bench.run()
    assert [line for line in bench.exchanger.commands if line.startswith(b'EHLO')] == [
        b'EHLO four.example', b'EHLO me.example']


def test_the_address_of_a_server_on_pause(make: Make) -> None:
    """Another server of the domain is used; where there is none, its messages wait on the outbox."""
    controls = Controls()
    controls.pauses = read_pauses([database_row('paused', target=HOST)]).items
    bench = make(controls=controls)
    second = Exchanger(bench.reactor, address=SECOND, port=bench.exchanger.port)
    bench.publish(recipient='r@two.example')
    bench.publish(recipient='r@one.example')
    bench.run(5)
    assert bench.exchanger.commands == [] and second.recipients == ['r@two.example']
    assert bench.counts() == {'outbox': 1, 'results': 1, 'success': 1}
    controls.pauses = read_pauses([]).items
    bench.run(SHORTEST_HOLD)
    assert bench.exchanger.recipients == ['r@one.example']
    controls.pauses = read_pauses([database_row('paused', target=HOST)]).items
    controls.on_intercepts()
    bench.publish(recipient='r@one.example')
    bench.run(2)
    assert len(bench.exchanger.messages) == 1 and bench.exchanger.open == 0, 'connections are not used any more'
    second.close()


def test_the_address_of_a_server_that_is_to_fail(make: Make) -> None:
    """Another server of the domain is used; where there is none, its messages fail, all of them at once. A local
    address that may not go there is no reason for another one not to."""
    controls = Controls()
    controls.errors = read_errors([database_row('errors', target=HOST, code=554, extended='5.7.1')]).items
    bench = make(controls=controls)
    second = Exchanger(bench.reactor, address=SECOND, port=bench.exchanger.port)
    for recipient in ('r@two.example', 'r@one.example', 's@one.example'):
        bench.publish(recipient=recipient)
    bench.run(5)
    bench.publish(recipient='t@one.example')
    bench.run(1)
    assert bench.exchanger.commands == [] and second.recipients == ['r@two.example']
    assert bench.counts() == {'results': 4, 'success': 1, 'failure': 3}
    last = [document['results'][-1] for document in bench.take('failure')]
    assert {(entry['state'], entry['code'], entry['status']) for entry in last} == {('process', 554, '5.7.1')}
    controls.errors = read_errors([database_row('errors', target=HOST, localip='127.0.0.4')]).items
    bench.publish(recipient='r@one.example', ips=['127.0.0.4', '127.0.0.5'])
    bench.publish(recipient='s@one.example', ips=['127.0.0.4'])
    bench.run(5)
    assert bench.exchanger.recipients == ['r@one.example'] and bench.counts() == {
        'results': 6, 'success': 2, 'failure': 1}
    controls.errors = read_errors([database_row('errors', target=HOST)]).items
    controls.on_intercepts()
    bench.run(2)
    assert bench.exchanger.open == 0, 'connections are not used any more'
    second.close()


@pytest.mark.parametrize(('domain', 'at_second'), [('equal.example', 1), ('two.example', 0)])
def test_the_limits_of_the_address_of_a_server(make: Make, domain: str, at_second: int) -> None:
    """Equal servers share. One of a worse preference gets nothing because the better one may not have more, but when
    that is down it does."""
    controls = Controls()
    controls.limits = Limits([database_row('capacity', ip_maxconnections=1)])
    bench = make(controls=controls)
    second = Exchanger(bench.reactor, address=SECOND, port=bench.exchanger.port)
    for exchanger in (bench.exchanger, second):
        exchanger.script['RCPT'] = [SILENCE]
    for number in range(4):
        bench.publish(recipient=f'{number}@{domain}')
    bench.run(10)
    assert (bench.exchanger.open, second.open) == (1, at_second)
    bench.run(1000)
    assert (bench.exchanger.most_open, second.most_open) == (1, at_second)
    assert len(bench.exchanger.messages + second.messages) == 4
    bench.exchanger.refuse_connections()
    second.script.clear()
    bench.publish(recipient=f'4@{domain}')
    bench.run(5)
    assert second.recipients[-1] == f'4@{domain}'
    second.close()


def test_a_flood_response(make: Make) -> None:
    """In the conversation, and in place of a greeting."""
    controls = Controls()
    rows = [database_row('flood_responses', pattern='^4.. 4[.]7[.]0 ', type='regex', pause=60)]
    controls.floods = read_floods(rows).items
    bench = make(controls=controls)
    begin = bench.clock.time()
    bench.exchanger.script['RCPT'] = [b'450 4.7.0 rate limited']
    bench.publish(recipient='r@one.example')
    bench.run(5)
    bench.publish(recipient='s@one.example')
    bench.run(50)
    assert len(bench.exchanger.clients) == 1 and bench.exchanger.open == 0 and bench.exchanger.messages == []
    bench.run(10)
    assert bench.moments(bench.final(), begin)[0] in (60, 61)
    bench.exchanger.script['CONNECT'] = [b'421 4.7.0 too many']
    bench.run(6)  # until the connection is not kept any more
    bench.publish(recipient='t@one.example')
    bench.run(5)
    bench.publish(recipient='u@one.example')
    bench.run(50)
    assert len(bench.exchanger.clients) == 3 and bench.exchanger.recipients == ['s@one.example']
    bench.run(10)
    assert bench.exchanger.recipients == ['s@one.example', 'u@one.example']


def test_the_other_family_is_not_held_against_a_server(bench: Bench) -> None:
    bench.publish(recipient='r@six.example', ips=['127.0.0.4'])
    bench.run()
    assert bench.last('state', 'from', 'to') == ('message', '127.0.0.4', HOST)


def test_no_free_port_is_no_verdict(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local address that is ours, but cannot be used now."""
    listener = Exchanger(bench.reactor, address='127.0.0.4', port=bench.exchanger.port)

    def bind(sock: Any, source: str) -> None:
        try:
            sock.bind((source, listener.port))  # in use
        except OSError as error:
            raise connect.CannotBind('cannot send') from error

    monkeypatch.setattr(connect, '_bind', bind)
    bench.publish(ips=['127.0.0.4'])
    bench.run()
    listener.close()
    assert bench.final('retry')['results'][-1]['state'] == 'bind' and bench.counts() == {'outbox': 1}


# TLS


@pytest.fixture
def server_tls(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


def test_with_tls(make: Make, server_tls: ssl.SSLContext) -> None:
    bench = make(tls=server_tls)
    bench.publish()
    bench.run()
    cipher, certificate, result = bench.last('cipher', 'certificate', 'result')
    assert result == 'accepted'
    assert cipher == {'name': 'TLS_AES_256_GCM_SHA384', 'bits': 256, 'algbits': 256, 'version': 'TLSv1.3', 'id': 0x1302}
    assert {name: certificate[name] for name in ('version', 'verified', 'result', 'self-signed')} == {
        'version': 3, 'verified': False, 'result': 'not checked', 'self-signed': True}
    assert certificate['subject'] == certificate['issuer'] and certificate['notbefore'] < certificate['notafter']


@pytest.mark.parametrize(('security', 'host', 'trusted', 'entry'), [
    ('optional',      'mx1.example', True,  ('message', 'accepted', False)),
    ('opportunistic', 'mx1.example', False, ('message', 'accepted', True)),
    ('required',      'mx1.example', False, ('message', 'accepted', True)),
    ('verified',      'mx1.example', False, ('handshake', 'error', False)),     # nobody vouches for it
    ('verified',      'mx1.example', True,  ('handshake', 'error', False)),     # the name system said it, and lies
    ('verified',      'one.example', True,  ('message', 'accepted', True)),
])
def test_levels_of_security(make: Make, tmp_path: Path, security: str, host: str, trusted: bool,
                            entry: tuple[str, str, bool]) -> None:
    certificate = make_certificate(tmp_path, host)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.certificate, certificate.key)
    verifying = client_context(verify=True)
    if trusted:
        verifying.load_verify_locations(certificate.certificate)
    bench = make(tls=server, verifying=verifying, max_attempts=1)
    bench.publish(security=security)
    bench.run()
    last = bench.final()['results'][-1]
    assert (last['state'], last['result'], 'cipher' in last) == entry
    if 'cipher' in last:
        assert last['certificate']['verified'] is (security == 'verified')
    assert len(bench.exchanger.clients) == 1, 'no second try in clear'


@pytest.mark.parametrize('security', ['required', 'verified'])
@pytest.mark.parametrize('reply', ['no STARTTLS', b'454 not now', b'554 never', b'220 go' + DROP])
def test_what_must_be_protected_never_goes_in_clear(make: Make, server_tls: ssl.SSLContext, security: str,
                                                    reply: Any) -> None:
    """It waits for better times, as whoever strips STARTTLS may be on the way only now."""
    bench = make(tls=None if reply == 'no STARTTLS' else server_tls, max_attempts=2)
    bench.exchanger.script['STARTTLS'] = reply if isinstance(reply, bytes) else b''
    bench.publish(security=security)
    bench.run(700)
    document = bench.final()
    assert len(document['results']) == 2 and bench.exchanger.messages == []
    assert all(entry['state'] in ('starttls', 'handshake') for entry in document['results'])
    assert 'MAIL' not in bench.exchanger.verbs


def test_a_server_whose_tls_is_broken_is_spared_it_for_a_while(make: Make, server_tls: ssl.SSLContext) -> None:
    bench = make(tls=server_tls)
    bench.exchanger.script['STARTTLS'] = b'454 not now'
    for seconds in (60, BROKEN_SECONDS, 60):
        bench.publish()
        bench.run(seconds)
        assert bench.last('result', 'cipher') == ('accepted', None)
    assert bench.exchanger.verbs.count('STARTTLS') == 2 and len(bench.exchanger.clients) == 5


def test_only_the_server_whose_tls_is_broken_is_spared_it(make: Make, server_tls: ssl.SSLContext) -> None:
    bench = make(tls=server_tls)
    bench.exchanger.script['STARTTLS'] = b'454 not now'
    other = Exchanger(bench.reactor, tls=server_tls)  # at the same address
    for port, secured in ((bench.exchanger.port, False), (other.port, True)):
        bench.publish(smarthost={'hostname': HOST, 'port': port})
        bench.run()
        assert ('cipher' in bench.final()['results'][0]) is secured
    other.close()


@pytest.mark.parametrize('reply', [b'454 not now', b'554 never', b'220 go\r\n250 evil', b'220 go' + DROP, SILENCE])
def test_broken_tls_is_followed_by_an_attempt_in_clear(make: Make, server_tls: ssl.SSLContext, reply: bytes) -> None:
    bench = make(tls=server_tls)
    bench.exchanger.script['STARTTLS'] = reply
    bench.publish()
    bench.run(301)
    assert bench.last('result', 'cipher') == ('accepted', None)
    assert bench.exchanger.verbs.count('EHLO') == 2 and len(bench.exchanger.clients) == 2


def test_in_clear_only_once(make: Make, server_tls: ssl.SSLContext) -> None:
    bench = make(tls=server_tls)
    bench.exchanger.script.update({'STARTTLS': b'454 not now', 'EHLO': [
        b'250-mx.example\r\n250 STARTTLS', b'451 later']})
    bench.publish()
    bench.run()
    assert bench.final('retry')['results'][-1]['state'] == 'ehlo' and len(bench.exchanger.clients) == 2


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


# the send log


def test_a_line_for_each_attempt(make: Make, tmp_path: Path) -> None:
    lines = tmp_path / 'send.log'
    bench = make(log=MailLog(str(lines), '{$date} {$attempt} {$email.campaign.id} {$email.mime}{$result.state}:'
                             '{$result.result} {$result.code} {$result.description} {$time > 0}', print))
    bench.exchanger.script['RCPT'] = [b'450 4.2.1 later\x1b']
    first = in_seconds(bench, 0)
    bench.publish(campaign={'id': 7}, retries=[60])
    bench.run(61)
    bench.publish(b'{"results": 5, "campaign": {"id": 8}}')
    bench.publish(b'[]')
    bench.run()
    assert lines.read_text().splitlines() == [
        f'{first} 1 7 rcptto:error 450 later\\x1b true',
        f'{in_seconds(bench, -2)} 2 7 message:accepted 250 kept true',
        f'{in_seconds(bench, -1)} 1 8 process:invalid  "results" must be an array of objects true',
        f'{in_seconds(bench, -1)} 1  process:invalid  not a JSON object true']
    assert len(bench.take('results')) == 3


def test_a_line_with_what_is_extracted(make: Make, tmp_path: Path) -> None:
    lines = tmp_path / 'send.log'
    bench = make(log=MailLog(str(lines), '{$email.extracted.subject} {$email.extracted.headers.x_a}', print))
    bench.publish(mime='Subject: =?utf-8?q?gr=C3=BCn?=\nX-a: b\n\n')
    bench.run()
    assert lines.read_text() == 'grün b\n'


def test_a_server_that_takes_seven_bits_only(bench: Bench) -> None:
    bench.exchanger.extensions.remove(b'8BITMIME')
    bench.publish(mime='Subject: x\n\ngrün und mehr\n', keepmime=True)
    bench.run()
    assert bench.exchanger.messages == [(
        b'MAIL FROM:<s@a.example>', [b'RCPT TO:<r@one.example>'],
        b'Subject: x\r\nContent-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\n\r\n'
        b'gr=C3=BCn und mehr\r\n')]
    assert bench.final()['mime'] == 'Subject: x\n\ngrün und mehr\n'


# notifications


def test_a_failure_is_told_by_mail(make: Make) -> None:
    """The dsn queue is the outbox here, so the notification leaves at once, with the null sender; and is the last."""
    bench = make(dsn='outbox')
    bench.exchanger.script['RCPT'] = [b'550 5.1.1 nobody here', b'550 5.1.1 nor here']
    bench.publish(envelope='s@two.example')
    bench.run()
    bench.publish(envelope='s@two.example', recipient='', dsn={'ret': 'FULL'})
    bench.run()
    assert bench.exchanger.messages == []
    results = bench.take('results')
    assert [(document['envelope'], document['recipient']) for document in results] == [
        ('s@two.example', 'r@one.example'), ('', 's@two.example'), ('s@two.example', '')]
    bench.publish(envelope='s@two.example', retries='often')
    bench.run()
    [(mail, [rcpt], message)] = bench.exchanger.messages
    assert (mail, rcpt) == (b'MAIL FROM:<>', b'RCPT TO:<s@two.example>')
    assert b'\r\nDiagnostic-Code: x-mqlite; "retries" must be an array of seconds\r\n' in message


def test_a_delay_is_told_once(make: Make) -> None:
    bench = make(dsn='dsn')
    bench.exchanger.script['RCPT'] = b'450 4.2.1 later'
    bench.publish(dsn={'notify': 'DELAY,FAILURE'})
    bench.run(4 * 3600 - 300)
    assert bench.take('dsn') == []
    bench.run(23 * 3600)
    first, second = (document['mime'] for document in bench.take('dsn'))
    assert 'Action: delayed' in first
    assert 'Action: failed' in second


def test_a_success_is_told_where_the_server_does_not(make: Make) -> None:
    bench = make(dsn='dsn')
    bench.publish(dsn={'notify': 'SUCCESS'})
    bench.run()
    assert 'Action: relayed' in bench.final('dsn')['mime']


# what the operator orders for certain answers


def test_an_answer_that_is_to_be_taken_otherwise(make: Make, tmp_path: Path) -> None:
    """A 550 that means no more than 450: tried again when the rule says so, and from another address."""
    path = str(tmp_path / 'database.db')
    make_database(path).close()
    orders = [('retry', '', 90), ('setresult', 'class', 'reputation'), ('setip', '', SECOND)]
    execute(path, insert('response_patterns', id=1, pattern='reputation', type='substr', domain='one.example'),
            *(insert('response_actions', id=number, action=kind, property=name, value=value)
              for number, (kind, name, value) in enumerate(orders, 1)),
            *(insert('response_patterns_actions', response_pattern=1, response_action=number) for number in (1, 2, 3)))
    bench = make(orders=path)
    bench.exchanger.script['RCPT'] = [b'550 5.7.1 bad reputation']
    begin = bench.clock.time()
    bench.publish()
    bench.run(100)
    document = bench.final()
    first, last = document['results']
    assert bench.moments(document, begin) == [0, 90]
    assert (first['class'], first['code'], 'class' in last, last['result']) == ('reputation', 550, False, 'accepted')
    assert document['ips'] == [SECOND] and last['from'] == SECOND
