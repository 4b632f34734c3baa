"""Workers die and new ones take their place: real plugins in C that crash, in a daemon run as a user runs it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import smtplib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mqlite.supervisor import LONGEST_PAUSE, pause_after
from tests.support.broker import Broker
from tests.support.c_plugin import build_plugin
from tests.support.daemon import CHECKOUT, ENVIRONMENT, Daemon
from tests.support.load import Load, connect, load_identifiers, send
from tests.support.plugins import VERSION
from tests.support.process import HOST, Process, answers, free_port, wait_until
from tests.support.sink import CapturingSink

Start = Callable[..., Daemon]
CRASH = '*(volatile int *)0 = 0;'
SENDER = VERSION + """
bool mq_smtp_in_mailfrom(MQ_Context *x, MQ_Connection *c, MQ_Address *a) { (void)x; (void)c;
    if (MQ_email(a) && !strcmp(MQ_email(a), "crash@example.org")) """ + CRASH + """
    return false; }
bool mq_smtp_out_data(MQ_Context *x, MQ_Connection *c, MQ_Message *m) { (void)x; (void)c;
    if (!strcmp(MQ_email(MQ_recipient(m)), "poison@example.com")) """ + CRASH + """
    return false; }
"""

LATER = VERSION + """
static void crash(void *data) { (void)data; """ + CRASH + """ }
bool mq_smtp_out_data(MQ_Context *x, MQ_Connection *c, MQ_Message *m) { (void)c;
    if (strcmp(MQ_email(MQ_recipient(m)), "poison@example.com")) return false;
    MQ_startTimer(x, 0, crash, NULL);
    return true; }
"""


@pytest.fixture
def start(start_daemon: Start, sink: CapturingSink, tmp_path: Path) -> Start:
    """start(source, …): a daemon with the plugin, delivering to the sink."""
    def begin(source: str = SENDER, **settings: object) -> Daemon:
        folder = tmp_path / 'plugins'
        folder.mkdir()
        build_plugin(folder, source, name='10-crash')
        daemon = start_daemon(plugin_directory=folder, smtp_sink_address=HOST, smtp_sink_port=sink.port, **settings)
        assert daemon.process
        daemon.process.wait_printed('is running')       # one of the workers has greeted before
        return daemon
    return begin


def crash(daemon: Daemon) -> None:
    with pytest.raises(smtplib.SMTPServerDisconnected), connect(daemon.port) as client:
        client.ehlo()
        client.mail('crash@example.org')


def test_pauses_grow_up_to_a_limit() -> None:
    assert [pause_after(failures) for failures in (0, 1, 2, 3, 4)] == [0.0, 0.25, 0.5, 1.0, 2.0]
    assert pause_after(1000) == LONGEST_PAUSE


def test_a_crash_ends_one_worker_whose_plugin_and_step_are_named(start: Start, sink: CapturingSink) -> None:
    daemon = start(processes=2)
    assert daemon.process
    before = daemon.workers()
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(connect(daemon.port)) for _ in range(10)]
        crash(daemon)
        daemon.process.wait_printed('a new worker')
        alive = [client for client in others if still_there(client)]
        assert 2 <= len(alive) <= 8         # about half: those of the other worker
    wait_until(lambda: len(daemon.workers()) == 2 and daemon.workers() != before, 'a new worker')
    assert 'was ended by signal 11 (SIGSEGV) in 10-crash.so: mq_smtp_in_mailfrom\n' in daemon.output()
    assert 'call loader.py:' in daemon.output()
    send(daemon.port)
    sink.wait_for(1)


def still_there(client: smtplib.SMTP) -> bool:
    try:
        return client.ehlo()[0] == 250
    except smtplib.SMTPServerDisconnected:
        return False


def test_every_250_survives_crashes_under_load(start: Start, sink: CapturingSink) -> None:
    daemon = start(processes=2)
    load = Load(daemon.port)
    for count in (40, 80, 120):
        load.wait_for(count)
        crash(daemon)
    load.wait_for(200)
    load.stop()
    wait_delivered(load, sink)


def wait_delivered(load: Load, sink: CapturingSink) -> None:
    wait_until(lambda: set(load.promised) <= set(load_identifiers(list(sink.transactions))), 'every promised message')
    assert len(load.promised) == len(set(load.promised))


@pytest.mark.parametrize(('source', 'where'), [(SENDER, 'mq_smtp_out_data'), (LATER, 'a timer')], ids=['step', 'timer'])
def test_a_message_that_has_ended_three_workers_is_given_up(start: Start, sink: CapturingSink, source: str,
                                                            where: str) -> None:
    daemon = start(source, rabbitmq_failure='failure')
    for recipient in ('a@example.com', 'poison@example.com', 'b@example.com'):
        send(daemon.port, b'Subject: x\r\n\r\nx\r\n', recipient)
    assert_given_up(daemon, sink, f'10-crash.so: {where}')


def test_on_a_broker_too(start: Start, sink: CapturingSink, broker: Broker) -> None:
    broker.delete_queues()
    daemon = start(queue_address=broker.url, rabbitmq_failure='failure', processes=2)
    for recipient in ('a@example.com', 'poison@example.com', 'b@example.com'):
        send(daemon.port, b'Subject: x\r\n\r\nx\r\n', recipient)
    assert_given_up(daemon, sink, '10-crash.so: mq_smtp_out_data')


def assert_given_up(daemon: Daemon, sink: CapturingSink, where: str) -> None:
    """The poison, after three deaths, and no other message."""
    [given_up] = daemon.take('failure', 1)
    result = given_up['results'][-1]
    assert given_up['recipient'] == 'poison@example.com'
    assert (result['state'], result['result'], result['redelivered']) == ('process', 'error', True)
    assert daemon.output().count(f'was ended by signal 11 (SIGSEGV) in {where}\n') == 3
    assert f'a message has ended 3 workers in {where}: it is given up' in daemon.output()
    reported: set[str] = set()

    def all_reported() -> bool:
        got = daemon.cli('queue', 'get', 'results').stdout.splitlines()
        reported.update(json.loads(line)['recipient'] for line in got)  # on a broker, twice for who was with the poison
        return len(reported) == 3
    wait_until(all_reported, 'a result for each')
    assert {b'RCPT TO:<%s@example.com>' % name for name in (b'a', b'b')} <= {
        rcpt for one in sink.transactions for rcpt in one.recipients}


def test_a_new_worker_that_cannot_start_is_tried_again(start: Start, sink: CapturingSink, tmp_path: Path) -> None:
    """The operator puts something else in place of a plugin while the daemon runs."""
    daemon = start()
    assert daemon.process
    plugin, aside = tmp_path / 'plugins' / '10-crash.so', tmp_path / 'aside'
    plugin.rename(aside)
    plugin.write_text('no plugin')
    os.kill(daemon.workers()[0], signal.SIGKILL)
    daemon.process.wait_printed('could not start: the plugin')
    aside.rename(plugin)
    send(daemon.port)                                   # the client has waited in the queue of the socket
    sink.wait_for(1)
    assert 'was ended by signal 9 (SIGKILL); that is what the kernel does' in daemon.output()
    assert 'file too short' in daemon.output()


# A worker that does not stop is killed after half a second.
HASTY = (sys.executable, '-c', """
import sys
from mqlite import cli, supervisor
supervisor.KILL_SECONDS = 0.5
sys.exit(cli.main())
""")


def test_a_plugin_that_never_returns_does_not_keep_it_from_stopping(closing: contextlib.ExitStack,
                                                                    tmp_path: Path) -> None:
    folder = tmp_path / 'plugins'
    folder.mkdir()
    build_plugin(folder, '#include <unistd.h>\n' + VERSION + """
        bool mq_smtp_in_mailfrom(MQ_Context *x, MQ_Connection *c, MQ_Address *a) { (void)x; (void)c; (void)a;
            MQ_log(MQ_INFO, "here"); for (;;) pause(); }""", name='10-stuck')
    daemon = Daemon(tmp_path, HASTY, plugin_directory=folder).start()
    assert daemon.process
    closing.callback(daemon.process.close)
    with connect(daemon.port) as client:
        client.ehlo()
        client.putcmd('MAIL', 'FROM:<a@example.org>')
        daemon.process.wait_printed('here')
        daemon.process.signal(signal.SIGTERM)
        assert daemon.process.wait() == 1
    assert 'has not stopped within 0.5 s in 10-stuck.so: mq_smtp_in_mailfrom: killed\n' in daemon.output()


def test_a_worker_that_dies_at_the_start_is_tried_again(closing: contextlib.ExitStack, tmp_path: Path) -> None:
    folder = tmp_path / 'plugins'
    folder.mkdir()
    build_plugin(folder, VERSION + 'void mq_initialize(void) { ' + CRASH + ' }', name='10-crash')
    config = tmp_path / 'conf'
    config.write_text(f'smtp-port: {free_port()}\nsmtp-ip: {HOST}\nplugin-directory: {folder}\n'
                      f'queue-address: sqlite://{tmp_path}/queue.db\napplication-log: stdout\n')
    process = Process([*CHECKOUT, '--config', config], tmp_path, ENVIRONMENT)
    closing.callback(process.close)
    process.wait_printed('a new worker 1 is started in 0.5 s')
    assert process.output().count('was ended by signal 11 (SIGSEGV) in 10-crash.so: mq_initialize\n') == 3
    assert 'started now' in process.output() and 'started in 0.25 s' in process.output()
    process.signal(signal.SIGTERM)
    assert process.wait() == 0 and 'is running' not in process.output()


def test_workers_end_with_their_supervisor_and_the_port_is_free(start: Start, sink: CapturingSink) -> None:
    daemon = start(processes=2)
    assert daemon.process
    load = Load(daemon.port)
    load.wait_for(40)
    workers = daemon.workers()
    os.kill(daemon.process.pid, signal.SIGKILL)
    wait_until(lambda: not answers(daemon.port), 'the port to be free')
    wait_until(lambda: not any(is_alive(pid) for pid in workers), 'the workers to end')
    daemon.start()
    load.wait_for(80)
    load.stop()
    wait_delivered(load, sink)


def is_alive(pid: int) -> bool:
    """Not a zombie, either: an orphan is reaped by whoever that falls to."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    return False


def test_a_worker_that_is_told_to_stop_is_replaced(start: Start) -> None:
    daemon = start()
    assert daemon.process
    [before] = daemon.workers()
    os.kill(before, signal.SIGTERM)
    wait_until(lambda: daemon.workers() not in ([before], []), 'another worker')
    assert 'was told to stop, but not by us' in daemon.output()


def test_signals_for_the_whole_group_stop_it_in_good_order(start: Start, sink: CapturingSink) -> None:
    """A terminal, and what manages services, signal every process."""
    daemon = start()
    with connect(daemon.port) as client:
        client.ehlo()
        client.mail('sender@example.org')
        client.rcpt('recipient@example.com')
        client.putcmd('DATA')
        assert client.getreply()[0] == 354 and daemon.process
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            for pid in daemon.workers():
                os.kill(pid, number)
        daemon.process.signal(signal.SIGTERM)
        client.send(b'x\r\n.\r\n')
        assert client.getreply()[0] == 250
        assert client.getreply()[0] == 421
    assert daemon.process.wait() == 0
