"""What is told of a delivery, and where: queues of results, notices (RFC 3461), mails, the send log."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqlite.mail_log import MailLog
from mqlite.smtp.dsn import Request
from tests.support import engine
from tests.support.engine import Bench, Make, in_seconds

bench, make = engine.bench, engine.make  # fixtures


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


def test_a_refusal_is_final(bench: Bench) -> None:
    bench.exchanger.script['RCPT'] = b'550-5.1.1 no such\r\n550 5.1.1 user'
    bench.publish()
    bench.run()
    assert bench.last('state', 'result', 'code', 'status', 'description') == (
        'rcptto', 'error', 550, '5.1.1', 'no such user')
    assert bench.counts() == {'failure': 1}
    bench.run(100_000)
    assert bench.exchanger.verbs.count('RCPT') == 1


# notices and notifications


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
