"""Delivery to smtp-sink with each of its failures: what every answer leads to, in the results and in the queues."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from tests.support.daemon import Daemon
from tests.support.outcomes import KEPT, Outcome, deliver, make_sender
from tests.support.peers import SmtpSink
from tests.support.process import free_port

Row = tuple[tuple[str, ...], tuple[str, str, Optional[int], str]]

#   options of smtp-sink                       what comes of it
SINKS: list[Row] = [
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
    with contextlib.closing(make_sender(tmp_path_factory.mktemp('daemon')).start()) as made:
        yield made


def outcome(daemon: Daemon, port: int) -> Outcome:
    """That of one message to the server at this port."""
    return deliver(daemon, port, {'it': {}})['it'].outcome


@pytest.mark.parametrize(('options', 'expected'), SINKS, ids=[' '.join(row[0]) or 'plain' for row in SINKS])
def test_smtp_sink(tmp_path: Path, daemon: Daemon, options: tuple[str, ...], expected: Outcome) -> None:
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
