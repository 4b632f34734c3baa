"""Delivery to smtp-sink with each of its failures: what every answer leads to, in the results and in the queues."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.peers import SmtpSink
from tests.support.process import HOST, free_port, wait_until

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
