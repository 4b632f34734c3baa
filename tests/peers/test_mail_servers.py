"""Delivery to mail servers of others: what each of their answers leads to, in the results and in the queues."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.peers import Certificate, SmtpSink
from tests.support.process import HOST, Process, free_port, wait_until
from tests.support.receivers import EximServer, PostfixServer

Expected = tuple[str, str, Any, str]  # state, result, code, the queue where it ends
KEPT: Expected = ('message', 'accepted', 250, 'success')

#   options of smtp-sink                       what comes of it
SINKS: list[tuple[tuple[str, ...], Expected]] = [
    ((),                                       KEPT),
    (('-e',),                                  KEPT),      # no ESMTP
    (('-p',),                                  KEPT),      # no PIPELINING
    (('-8',),                                  KEPT),      # no 8BITMIME
    (('-E',),                                  KEPT),      # no ENHANCEDSTATUSCODES
    (('-N',),                                  KEPT),      # no DSN
    (('-a',),                                  KEPT),      # no AUTH
    (('-P',),                                  KEPT),      # the greeting of a Cisco PIX
    (('-w', '1'),                              KEPT),      # a second before the answer to DATA
    (('-W', 'DATA:1'),                         KEPT),
    (('-H', '1'),                              KEPT),      # a second before it reads the message
    (('-T', '1024'),                           KEPT),      # a small window
    (('-f', 'CONNECT'),                        ('intro', 'error', 500, 'failure')),
    (('-f', 'EHLO'),                           KEPT),      # HELO will do
    (('-f', 'EHLO,HELO'),                      ('helo', 'error', 500, 'failure')),
    (('-f', 'MAIL'),                           ('mailfrom', 'error', 500, 'failure')),
    (('-f', 'RCPT'),                           ('rcptto', 'error', 500, 'failure')),
    (('-f', 'DATA'),                           ('data', 'error', 500, 'failure')),
    (('-f', '.'),                              ('message', 'error', 500, 'failure')),
    (('-B', '554 5.7.1 never', '-f', 'RCPT'),  ('rcptto', 'error', 554, 'failure')),
    (('-r', 'CONNECT'),                        ('intro', 'error', 450, 'retry')),
    (('-r', 'EHLO'),                           ('ehlo', 'error', 450, 'retry')),
    (('-r', 'MAIL'),                           ('mailfrom', 'error', 450, 'retry')),
    (('-r', 'RCPT'),                           ('rcptto', 'error', 450, 'retry')),
    (('-r', 'DATA'),                           ('data', 'error', 450, 'retry')),
    (('-r', '.'),                              ('message', 'error', 450, 'retry')),
    (('-b', '452 4.2.2 full', '-r', '.'),      ('message', 'error', 452, 'retry')),
    (('-q', 'CONNECT'),                        ('intro', 'lost', None, 'retry')),
    (('-q', 'EHLO'),                           ('ehlo', 'lost', None, 'retry')),
    (('-q', 'MAIL'),                           ('mailfrom', 'lost', None, 'retry')),
    (('-q', 'RCPT'),                           ('rcptto', 'lost', None, 'retry')),
    (('-q', 'DATA'),                           ('data', 'lost', None, 'retry')),
    (('-q', '.'),                              ('message', 'lost', None, 'retry')),
    (('-Q', 'CONNECT'),                        ('intro', 'error', 421, 'retry')),
    (('-Q', 'EHLO'),                           ('ehlo', 'error', 421, 'retry')),
    (('-Q', 'MAIL'),                           ('mailfrom', 'error', 421, 'retry')),
    (('-Q', 'RCPT'),                           ('rcptto', 'error', 421, 'retry')),
    (('-Q', 'DATA'),                           ('data', 'error', 421, 'retry')),
    (('-Q', '.'),                              ('message', 'error', 421, 'retry')),
]


@pytest.fixture(scope='module')
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    made = Daemon(tmp_path_factory.mktemp('daemon'), rabbitmq_success='success', rabbitmq_failure='failure',
                  rabbitmq_retry='retry', rabbitmq_results='', hostname='mqlite.example')
    with contextlib.closing(made.start()):
        yield made


def deliver(daemon: Daemon, port: int, **fields: object) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Send one message to the server at this port: the queue where it ended, its document, the last result."""
    document = {'envelope': 's@a.example', 'recipient': 'r@b.example', 'mime': 'Subject: x\n\nfrom mqlite\n',
                'smarthost': {'hostname': HOST, 'port': port}, 'retries': [3600], **fields}
    assert daemon.cli('queue', 'publish', 'outbox', input=json.dumps(document).encode()).returncode == 0
    found: list[tuple[str, dict[str, Any]]] = []

    def ended() -> bool:
        for queue in ('success', 'failure', 'retry'):
            lines = daemon.cli('queue', 'get', queue).stdout.splitlines()
            found.extend((queue, json.loads(line)) for line in lines)
        return bool(found)
    wait_until(ended, f'a result of {fields}', 60)
    [(queue, ended_as)] = found
    return queue, ended_as, ended_as['results'][-1]


def outcome(daemon: Daemon, port: int, **fields: object) -> Expected:
    queue, _, last = deliver(daemon, port, **fields)
    return last['state'], last['result'], last.get('code'), queue


@pytest.mark.parametrize(('options', 'expected'), SINKS, ids=[' '.join(row[0]) or 'plain' for row in SINKS])
def test_smtp_sink(tmp_path: Path, daemon: Daemon, options: tuple[str, ...], expected: Expected) -> None:
    sink = SmtpSink(tmp_path, *options)
    with contextlib.closing(sink):
        assert outcome(daemon, sink.port) == expected


def test_smtp_sink_that_answers_in_the_middle_of_the_message(tmp_path: Path, daemon: Daemon) -> None:
    """Whether its 550 is here before the final dot has gone is the kernel's choice."""
    with contextlib.closing(SmtpSink(tmp_path, '-A', '0')) as sink:
        state, *rest = outcome(daemon, sink.port)
    assert state in ('data', 'message') and rest == ['error', 550, 'failure']


def test_smtp_sink_that_is_gone(daemon: Daemon) -> None:
    assert outcome(daemon, free_port()) == ('connect', 'error', None, 'retry')


@pytest.fixture(scope='module')
def postfix() -> Iterator[PostfixServer]:
    with contextlib.closing(PostfixServer()) as made:
        yield made


@pytest.mark.parametrize(('fields', 'expected'), [
    ({},                                          KEPT),
    ({'mime': 'Subject: ü\n\n' + 'é' * 900},      KEPT),
    ({'mime': 'Subject: x\n\n.\n..\n.\n'},        KEPT),
    ({'recipient': 'gone@b.example'},             ('rcptto', 'error', 550, 'failure')),
    ({'recipient': 'later@b.example'},            ('rcptto', 'error', 450, 'retry')),
    ({'envelope': 'spam@a.example'},              ('data', 'error', 554, 'failure')),
    ({'envelope': 'slow@a.example'},              ('message', 'error', 452, 'retry')),
    ({'dsn': {'notify': 'NEVER'}},                KEPT),
    ({'security': 'required'},                    ('starttls', 'error', None, 'retry')),
])
def test_postfix(daemon: Daemon, postfix: PostfixServer, fields: dict[str, object], expected: Expected) -> None:
    queue, document, last = deliver(daemon, postfix.port, **fields)
    assert (last['state'], last['result'], last.get('code'), queue) == expected
    if expected == KEPT:
        name = last['description'].rpartition('queued as ')[2]
        wait_until(lambda: f'{name}: to=<r@b.example>' in postfix.log, 'Postfix to say that it took the message')
        assert last['status'] == '2.0.0' and last['mta'] == 'postfix.example' and last['dsn'] is True


def test_exim(daemon: Daemon, certificate: Certificate) -> None:
    with contextlib.closing(EximServer(certificate)) as exim:
        exim.start()
        queue, _, last = deliver(daemon, exim.port)
        assert (last['state'], last['result'], last['code'], queue) == KEPT
        assert last['cipher']['version'].startswith('TLS') and last['certificate']['self-signed'] is True
        assert '<s@a.example>' in exim.kept()
        assert outcome(daemon, exim.port, security='verified') == ('handshake', 'error', None, 'retry')


AIOSMTPD = """\
import asyncio, sys
from aiosmtpd.controller import Controller

class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith('gone'):
            return '550 5.1.1 gone'
        envelope.rcpt_tos.append(address)
        return '250 OK'

    async def handle_DATA(self, server, session, envelope):
        print(envelope.mail_from, envelope.rcpt_tos, envelope.content, flush=True)
        return '451 4.3.0 later' if envelope.mail_from.startswith('slow') else '250 2.0.0 kept'

controller = Controller(Handler(), hostname='127.0.0.1', port=int(sys.argv[1]))
controller.start()
asyncio.new_event_loop().run_forever()
"""


def test_aiosmtpd(tmp_path: Path, daemon: Daemon) -> None:
    port = free_port()
    process = Process([sys.executable, '-c', AIOSMTPD, str(port)], tmp_path)
    with contextlib.closing(process):
        process.wait_listening(port)
        assert outcome(daemon, port) == KEPT
        assert r"s@a.example ['r@b.example'] b'Subject: x\r\n\r\nfrom mqlite\r\n'" in process.output()
        assert outcome(daemon, port, recipient='gone@b.example') == ('rcptto', 'error', 550, 'failure')
        assert outcome(daemon, port, envelope='slow@a.example') == ('message', 'error', 451, 'retry')


HARAKA_PLUGIN = """\
exports.hook_rcpt = (next, connection, [address]) => next(
    address.user === 'gone' ? DENY : address.user === 'later' ? DENYSOFT : OK, 'says the plugin');
exports.hook_queue = (next, connection) => {
    connection.transaction.message_stream.get_data((data) => { console.log(`took ${data}`); next(OK); });
};
"""


@pytest.fixture(scope='module')
def haraka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Process]]:
    """From the npm registry, in a folder of its own."""
    folder, port = tmp_path_factory.mktemp('haraka'), free_port()
    done = subprocess.run(['npm', 'install', '--silent', '--no-audit', '--no-fund', 'Haraka@3.3.4'], cwd=folder,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    assert done.returncode == 0, done.stdout.decode()
    (folder / 'config').mkdir()
    (folder / 'plugins').mkdir()
    (folder / 'config' / 'smtp.ini').write_text(f'listen={HOST}:{port}\nnodes=0\n')
    (folder / 'config' / 'plugins').write_text('check\n')
    (folder / 'config' / 'me').write_text('haraka.example\n')
    (folder / 'plugins' / 'check.js').write_text(HARAKA_PLUGIN)
    process = Process(['node', folder / 'node_modules' / 'Haraka' / 'bin' / 'haraka', '-c', folder], folder)
    with contextlib.closing(process):
        process.wait_listening(port)
        yield port, process


def test_haraka(daemon: Daemon, haraka: tuple[int, Process]) -> None:
    port, process = haraka
    assert outcome(daemon, port) == KEPT
    process.wait_printed('from mqlite')
    assert outcome(daemon, port, recipient='gone@b.example') == ('rcptto', 'error', 550, 'failure')
    assert outcome(daemon, port, recipient='later@b.example') == ('rcptto', 'error', 450, 'retry')
