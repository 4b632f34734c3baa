"""The commands of an outgoing transaction, by what the server offers; and what cannot go to it at all."""

from __future__ import annotations

import pytest

from mqlite.smtp.dsn import Request
from mqlite.smtp.envelope import Envelope, as_sent

ALL = {'SIZE': '', '8BITMIME': '', 'DSN': '', 'SMTPUTF8': ''}
REQUEST = Request(('NEVER',), 'HDRS', 'e+', 'ö@b')


@pytest.mark.parametrize(('envelope', 'extensions', 'mime', 'mail', 'rcpt'), [
    (Envelope('', 'r@b'),                      {},  b'\xe9', '<>',                               '<r@b>'),
    (Envelope('s@a', 'r@b'),                   ALL, b'x',    '<s@a> SIZE=1',                     '<r@b>'),
    (Envelope('s@a', 'r@b'),                   ALL, None,    '<s@a> BODY=8BITMIME',              '<r@b>'),
    (Envelope('s@a', 'r@b', REQUEST),          {},  b'x',    '<s@a>',                            '<r@b>'),
    (Envelope('s@a', 'r@b', REQUEST),          ALL, b'x',    '<s@a> SIZE=1 RET=HDRS ENVID=e+2B',
     r'<r@b> NOTIFY=NEVER ORCPT=utf-8;\x{F6}@b'),
    (Envelope('s@a', 'é@b', REQUEST),          ALL, b'x',    '<s@a> SIZE=1 SMTPUTF8 RET=HDRS ENVID=e+2B',
     '<é@b> NOTIFY=NEVER ORCPT=utf-8;ö@b'),
    (Envelope('é@a', 'r@b'),                   ALL, b'\xff', '<é@a> SIZE=1 BODY=8BITMIME SMTPUTF8', '<r@b>'),
    (Envelope('s@a', 'r@b', REQUEST, require_tls=True), {**ALL, 'REQUIRETLS': ''}, b'x',
     '<s@a> SIZE=1 REQUIRETLS RET=HDRS ENVID=e+2B', r'<r@b> NOTIFY=NEVER ORCPT=utf-8;\x{F6}@b'),
    (Envelope('s@a', 'r@b', utf8_header=True), ALL, b'\xff', '<s@a> SIZE=1 BODY=8BITMIME SMTPUTF8', '<r@b>'),
])
def test_commands(envelope: Envelope, extensions: dict[str, str], mime: bytes | None, mail: str, rcpt: str) -> None:
    assert envelope.obstacle(extensions) is None
    assert envelope.mail_command(extensions, mime).decode() == f'MAIL FROM:{mail}\r\n'
    assert envelope.rcpt_command(extensions).decode() == f'RCPT TO:{rcpt}\r\n'


@pytest.mark.parametrize(('envelope', 'status'), [
    (Envelope('é@a', 'r@b'), '5.6.7'), (Envelope('s@a', 'r@é'), '5.6.7'), (Envelope('s@a', 'é@b', utf8_header=True),
                                                                           '5.6.7'),
    (Envelope('s@a', 'r@b', utf8_header=True), '5.6.9')])
def test_what_needs_smtputf8(envelope: Envelope, status: str) -> None:
    obstacle = envelope.obstacle({'8BITMIME': ''})
    assert obstacle is not None and (obstacle.code, obstacle.status) == (550, status) and 'SMTPUTF8' in obstacle.text
    assert envelope.obstacle(ALL) is None


def test_what_needs_requiretls() -> None:
    obstacle = Envelope('é@a', 'r@b', require_tls=True).obstacle(ALL)
    assert obstacle is not None and (obstacle.code, obstacle.status) == (550, '5.7.30')


@pytest.mark.parametrize(('address', 'sent'), [
    ('', ''), ('a@B.example', 'a@B.example'), ('a@[192.0.2.1]', 'a@[192.0.2.1]'),
    ('A@Bücher.example', 'A@xn--bcher-kva.example'), ('a@例子.测试', 'a@xn--fsqu00a.xn--0zwm56d'),
    ('é@bücher.example', 'é@bücher.example'),           # SMTPUTF8 is needed anyway
    ('a@straße.example', 'a@straße.example'),           # what its A-label is depends on whom one asks
    (f'a@{"é" * 60}.example', f'a@{"é" * 60}.example'),
])
def test_as_sent(address: str, sent: str) -> None:
    assert as_sent(address) == sent
