"""The logs of mail: lines, files that are rotated or cannot be written, and what the settings make of them."""

from __future__ import annotations

import os
import re
import smtplib
from pathlib import Path
from typing import Callable

import pytest

from mqlite.errors import ConfigError
from mqlite.log import Log
from mqlite.mail_log import MailLog, open_mail_log
from mqlite.message.identifier import Identifiers
from mqlite.receive import Receiver, ReceiverConfig
from mqlite.settings import Settings, load
from mqlite.smtp.session import Address, Limits, Session
from tests.support.daemon import Daemon
from tests.support.process import HOST, wait_until
from tests.support.sink import CapturingSink
from tests.support.smtp import NAME, Bench


def made(path: Path, line_format: str = '{$x}') -> tuple[MailLog, list[str]]:
    faults: list[str] = []
    return MailLog(str(path), line_format, faults.append), faults


def settings(**given: object) -> Settings:
    chosen, problems = load('', '', {}, [(name.replace('_', '-'), str(value)) for name, value in given.items()])
    assert problems == []
    return chosen


def test_a_line_is_a_line(tmp_path: Path) -> None:
    log, faults = made(tmp_path / 'log', '<{$x}>\n')
    log.write({'x': 'a\r\n[2026-01-01 00:00:00] forged\x1b[2J\0\u2028ü\udcff'})
    assert (tmp_path / 'log').read_text() == (
        '<a\\x0d\\x0a[2026-01-01 00:00:00] forged\\x1b[2J\\x00\\x2028ü\\xdcff>\\x0a\n')
    assert faults == []


def test_rotation(tmp_path: Path) -> None:
    log, _ = made(tmp_path / 'log')
    log.write({'x': 1})
    (tmp_path / 'log').rename(tmp_path / 'log.1')
    log.write({'x': 2})
    (tmp_path / 'log').unlink()
    log.write({'x': 3})
    assert [(tmp_path / name).read_text() for name in ('log.1', 'log')] == ['1\n', '3\n']


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    """Its directory goes, and comes back: lines are lost, one complaint each time, and it recovers."""
    folder = tmp_path / 'folder'
    folder.mkdir()
    log, faults = made(folder / 'log')
    log.write({'x': 1})
    for _ in range(2):
        folder.rename(tmp_path / 'away')
        log.write({'x': 2})
        log.write({'x': 3})
        folder.mkdir()
        log.write({'x': 4})
        assert (folder / 'log').read_text() == '4\n'
        os.remove(folder / 'log')
        folder.rmdir()
        (tmp_path / 'away').rename(folder)
    assert [re.sub('.*: ', '', fault) for fault in faults] == [f"'{folder / 'log'}'; lines are lost"] * 2


def test_a_full_disk() -> None:
    log, faults = made(Path('/dev/full'))
    log.write({'x': 1})
    log.write({'x': 2})
    assert faults == ['cannot write the log /dev/full: [Errno 28] No space left on device; lines are lost']


def test_a_format_that_fails_when_it_is_used(tmp_path: Path) -> None:
    log, faults = made(tmp_path / 'log', '{1 / $x}')
    for x in (0, 0, 2):
        log.write({'x': x})
    assert faults == [f'cannot write the log {tmp_path / "log"}: division by zero; lines are lost']
    assert (tmp_path / 'log').read_text() == '0.5\n'


def test_no_log() -> None:
    assert open_mail_log(settings(), 'send', print) is None
    assert open_mail_log(settings(send_log_prefix='x', received_log_file=''), 'received', print) is None


@pytest.mark.parametrize(('given', 'name'), [
    ({'send_log_file': '{}/a.log'}, 'a.log'),
    ({'send_log_directory': '{}'}, 'send.log'),
    ({'send_log_directory': '{}', 'send_log_prefix': 'b.log'}, 'b.log'),
    ({'send_log_file': '{}/a.log', 'send_log_directory': '/nowhere', 'send_log_prefix': 'b.log'}, 'a.log'),
])
def test_the_name_of_a_log(tmp_path: Path, given: dict[str, str], name: str) -> None:
    log = open_mail_log(settings(**{key: value.format(tmp_path) for key, value in given.items()}), 'send', print)
    assert log is not None
    log.write({'email': {'recipient': 'b@c'}, 'result': {'state': 'dns', 'result': 'error'}, 'date': 'D', 'attempt': 1})
    assert (tmp_path / name).read_text() == '[D] dns:error 1 <> <b@c> [] []    \n'


@pytest.mark.parametrize(('given', 'complaint'), [
    ({'send_log_file': '/nowhere/log'},
     'cannot write the log /nowhere/log: No such file or directory; check send-log-file'),
    ({'send_log_file': '/dev/null', 'send_log_format': '{if}'}, 'send-log-format: line 1: {if}... is no tag'),
])
def test_what_the_operator_is_told(given: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        open_mail_log(settings(**given), 'send', print)


def test_received(tmp_path: Path) -> None:
    """MailerQ's own format; a line per recipient, and none for what was refused."""
    log = open_mail_log(settings(received_log_file=tmp_path / 'log'), 'received', print)
    with Bench() as bench:
        receiver = Receiver(bench.clock, bench.store, Identifiers('id', 0, 0), ReceiverConfig(NAME, 'inbox', True), log)
        session = Session(NAME, '192.0.2.7', 4242, ('192.0.2.1', 25), True, Limits())
        session.begin(Address(''))
        session.recipients = [Address('b@example.org'), Address('c@example.org')]
        bench.run(receiver.receive(session, b'x\r\n'))
        bench.store.trouble = 'no'
        bench.run(receiver.receive(session, b'x\r\n'))
        assert len(bench.documents()) == 2
    assert (tmp_path / 'log').read_text() == (
        '[2023-11-14 22:13:20] id00-1-1 <> <b@example.org> [192.0.2.7] [192.0.2.1]\n'
        '[2023-11-14 22:13:20] id00-1-2 <> <c@example.org> [192.0.2.7] [192.0.2.1]\n')


def test_other_variables_of_received(tmp_path: Path) -> None:
    log, _ = made(tmp_path / 'log', '{$time} {$report} {$json.x_y} {$json.mime}')
    with Bench() as bench:
        receiver = Receiver(bench.clock, bench.store, Identifiers('id', 0, 0), ReceiverConfig(NAME, '', True), log)
        session = Session(NAME, '192.0.2.7', 4242, ('192.0.2.1', 25), True, Limits())
        session.begin(Address('a@example.org'))
        session.recipients = [Address('b@example.org'), Address('c@example.org', local=True)]
        bench.run(receiver.receive(session, b'X-MQ-x-y: z\r\nContent-Type: multipart/report; report-type='
                                            b'delivery-status; boundary=b\r\n\r\n--b\r\n'
                                            b'Content-Type: message/delivery-status\r\n\r\n--b--\r\n'))
    assert (tmp_path / 'log').read_text() == '1700000000 false z \n1700000000 true z \n'


def test_in_and_out_in_one_file(start_daemon: Callable[..., Daemon], sink: CapturingSink, tmp_path: Path) -> None:
    lines = tmp_path / 'mail.log'
    daemon = start_daemon(smtp_sink_address=HOST, smtp_sink_port=sink.port, received_log_file=lines,
                          send_log_file=lines)
    with smtplib.SMTP(HOST, daemon.port, timeout=10) as client:
        client.sendmail('a@example.org', ['b@example.org'], 'Subject: x\n\nhello\n')
    wait_until(lambda: lines.read_text().count('\n') == 2, 'two lines')
    received, sent = lines.read_text().splitlines()
    assert re.fullmatch(r'\[[-: 0-9]{19}\] \S+ <a@example.org> <b@example.org> \[127.0.0.1\] \[127.0.0.1\]', received)
    assert re.fullmatch(r'\[[-: 0-9]{19}\] message:accepted 1 <a@example.org> <b@example.org> \[127.0.0.1\] '
                        r'\[127.0.0.1\]  250 \S* .*', sent)


def test_the_error_log(tmp_path: Path) -> None:
    log = Log([str(tmp_path / 'all')], str(tmp_path / 'errors'))
    log.info('one')
    log.warning('two')
    log.critical('three')
    assert [line.rsplit(' ', 1)[1] for line in (tmp_path / 'all').read_text().splitlines()] == ['one', 'two', 'three']
    assert [line.rsplit(' ', 1)[1] for line in (tmp_path / 'errors').read_text().splitlines()] == ['two', 'three']
    with pytest.raises(ConfigError, match='check error-log'):
        Log([], '/nowhere/log')
