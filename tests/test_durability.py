"""What was promised is kept: the daemon is killed, stopped, run twice; its disk is full, its queue file locked."""

from __future__ import annotations

import contextlib
import resource
import signal
import smtplib
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests.support.daemon import Daemon, run_cli
from tests.support.load import Load, connect, load_identifiers, send
from tests.support.process import HOST, free_port, wait_until
from tests.support.sink import SILENCE, CapturingSink

Start = Callable[..., Daemon]

# The same program, but less patient with a locked queue file, and looking for dead processes more often.
IMPATIENT = (sys.executable, '-c', """
import functools, sys
from mqlite import cli
from mqlite.queues import open, sqlite
sqlite._BUSY_SECONDS = 0.3
open.EmbeddedStore = functools.partial(open.EmbeddedStore, poll_seconds=0.02)
sys.exit(cli.main())
""")


@pytest.fixture
def daemon(start_daemon: Start, sink: CapturingSink) -> Daemon:
    return start_daemon(smtp_sink_address=HOST, smtp_sink_port=sink.port)


@pytest.fixture
def impatient(tmp_path: Path, sink: CapturingSink) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, IMPATIENT, smtp_sink_address=HOST, smtp_sink_port=sink.port)
    yield daemon.start()
    daemon.close()


def wait_delivered(sink: CapturingSink, promised: list[str]) -> list[str]:
    """Every promised message has arrived; the identifiers of all that arrived, as often as they did."""
    wait_until(lambda: set(promised) <= set(load_identifiers(list(sink.transactions))), 'every promised message')
    return load_identifiers(list(sink.transactions))


def wait_accepted(daemon: Daemon) -> None:
    """Send one message again and again until it is accepted, once; then the log says that all is well again."""
    def accepted() -> bool:
        with contextlib.suppress(smtplib.SMTPResponseException):
            send(daemon.port)
            return True
        return False
    wait_until(accepted, 'a message to be accepted')
    assert daemon.process
    daemon.process.wait_printed('can be written again')


def test_killed_three_times_it_delivers_all_that_it_promised(daemon: Daemon, sink: CapturingSink) -> None:
    load = Load(daemon.port)
    for count in (40, 150, 300):
        load.wait_for(count)
        daemon.kill()
        daemon.start()
    load.wait_for(400)
    load.stop()
    assert len(load.promised) == len(set(load.promised))
    wait_delivered(sink, load.promised)


def test_stopped_under_load_it_loses_and_doubles_nothing(daemon: Daemon, sink: CapturingSink) -> None:
    load = Load(daemon.port)
    load.wait_for(100)
    began = time.monotonic()
    daemon.stop()
    assert time.monotonic() - began < 5
    assert 'Traceback' not in daemon.output() and 'internal error' not in daemon.output()
    load.stop()
    daemon.start()
    arrived = wait_delivered(sink, load.promised)
    assert len(arrived) == len(set(arrived))
    daemon.take('results', len(arrived))
    assert daemon.cli('queue', 'list').stdout.count(b'\n') == 1         # the heading: nothing is left


def test_sessions_are_told_that_it_stops(daemon: Daemon) -> None:
    with contextlib.closing(connect(daemon.port)) as client:
        client.ehlo()
        daemon.stop()
        assert client.getreply()[0] == 421


def test_the_second_signal_ends_it_at_once(daemon: Daemon, sink: CapturingSink) -> None:
    sink.script['.'] = [SILENCE]
    send(daemon.port)
    sink.wait_for(1)                                    # in flight: a graceful stop waits for the answer
    assert daemon.process
    daemon.process.signal(signal.SIGTERM)
    daemon.process.wait_printed('stopping')
    daemon.process.signal(signal.SIGTERM)
    assert daemon.process.wait(seconds=5) == 1
    daemon.start()
    sink.wait_for(2)                                    # it was not acknowledged, so it goes again


def test_a_hang_up_changes_nothing(daemon: Daemon, sink: CapturingSink) -> None:
    """Log rotation sends SIGHUP to daemons that need it."""
    assert daemon.process
    daemon.process.signal(signal.SIGHUP)
    daemon.process.wait_printed('SIGHUP: nothing to do')
    send(daemon.port)
    sink.wait_for(1)


def test_what_is_in_flight_is_finished_before_it_ends(daemon: Daemon, sink: CapturingSink) -> None:
    """The reply to the final dot comes after the signal."""
    with contextlib.closing(connect(daemon.port)) as client:
        client.ehlo()
        client.mail('sender@example.org')
        client.rcpt('recipient@example.com')
        client.putcmd('DATA')
        assert client.getreply()[0] == 354
        client.send(b'Subject: half\r\n\r\nfirst ')
        assert daemon.process
        daemon.process.signal(signal.SIGTERM)
        daemon.process.wait_printed('stopping: 1 sessions')
        client.send(b'second\r\n.\r\n')
        assert client.getreply()[0] == 250
        assert client.getreply()[0] == 421
    assert daemon.process.wait() == 0
    daemon.start()
    assert sink.wait_for(1)[0].message.endswith(b'first second\r\n')


def test_two_daemons_share_one_queue(start_daemon: Start, sink: CapturingSink) -> None:
    one = start_daemon(smtp_sink_address=HOST, smtp_sink_port=sink.port)
    other = start_daemon(smtp_sink_address=HOST, smtp_sink_port=sink.port, queue_address=one.settings['queue-address'])
    loads = [Load(one.port, clients=2), Load(other.port, clients=2)]
    for load in loads:
        load.wait_for(60)
        load.stop()
    promised = [identifier for load in loads for identifier in load.promised]
    one.take('results', len(promised))
    arrived = load_identifiers(sink.transactions)
    assert len(arrived) == len(promised) and set(arrived) == set(promised)


def test_the_work_of_a_killed_daemon_goes_to_the_other(start_daemon: Start, impatient: Daemon,
                                                       sink: CapturingSink) -> None:
    killed = start_daemon(smtp_sink_address=HOST, smtp_sink_port=sink.port, queue_address='sqlite://shared.db')
    sink.script['.'] = [SILENCE]
    send(killed.port)
    sink.wait_for(1)                                    # in the hands of the one that took it
    impatient.stop()
    impatient.settings['queue-address'] = f'sqlite://{killed.folder}/shared.db'
    impatient.start()
    killed.kill()
    sink.wait_for(2)


# a full disk

@contextlib.contextmanager
def full_disk(pid: int, allowed: int) -> Iterator[None]:
    """No file of the process may grow beyond `allowed` bytes: writing fails, with EFBIG where a disk has ENOSPC."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (allowed, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def test_a_full_disk_refuses_mail_for_now_and_loses_none(daemon: Daemon, sink: CapturingSink) -> None:
    assert daemon.process
    promised = 0
    with full_disk(daemon.workers()[0], 400_000):
        with connect(daemon.port) as client, pytest.raises(smtplib.SMTPResponseException) as refusal:
            for _ in range(200):
                client.sendmail('sender@example.org', 'recipient@example.com', b'Subject: x\r\n\r\n' + b'x' * 20_000)
                promised += 1
        assert refusal.value.smtp_code == 452
        assert 'try' in daemon.output() and 'cannot be used' in daemon.output()
    wait_accepted(daemon)
    daemon.take('results', promised + 1)
    assert 0 < promised < 200 and len(sink.transactions) >= promised + 1


# a locked file

@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    holder = sqlite3.connect(path, isolation_level=None)
    with contextlib.closing(holder):
        holder.execute('BEGIN EXCLUSIVE')
        yield


def test_a_locked_queue_file_refuses_mail_for_now(impatient: Daemon, sink: CapturingSink,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mqlite.queues.sqlite._BUSY_SECONDS', 0.3)      # of commands in this process
    send(impatient.port)
    impatient.take('results', 1)
    with locked(impatient.folder / 'queue.db'):
        with pytest.raises(smtplib.SMTPDataError) as refusal:
            send(impatient.port)
        assert refusal.value.smtp_code == 452 and '4.3.1' in str(refusal.value.smtp_error)
        assert 'locked' in impatient.output()
        for command in (['queue', 'list'], ['queue', 'get', 'results']):
            done = impatient.cli(*command)
            assert done.returncode == 1 and b'locked' in done.stderr and b'Traceback' not in done.stderr
        second = run_cli('--config', str(impatient.config), f'--smtp-port={free_port()}', program=IMPATIENT)
        assert second.returncode == 1 and b'locked' in second.stdout and b'Traceback' not in second.stderr
        submitted = impatient.cli('recipient@example.com', input=b'x')
        assert submitted.returncode == 75 and b'locked' in submitted.stderr         # EX_TEMPFAIL: send it again
    wait_accepted(impatient)
    impatient.take('results', 1)
    assert len(sink.transactions) == 2

