"""A worker process with several threads: a context of the plugins and an identifier of their own for each."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mqlite.recorder import Recorder
from mqlite.worker import Portion
from tests.support.c_plugin import build_plugin
from tests.support.daemon import Daemon
from tests.support.load import Load, connect, load_identifiers
from tests.support.plugins import OLD, VERSION
from tests.support.process import HOST, wait_until
from tests.support.sink import CapturingSink

Start = Callable[..., Daemon]
THREADS = 4

# Says what is called, with the thread and the context; each context's data is its thread.
TRACE = """
#include <stdio.h>
#include <unistd.h>
#include <sys/syscall.h>
#define THREAD ((void *)syscall(SYS_gettid))
#define SAY(what, x) do { char t[99]; snprintf(t, sizeof t, "%s %p %p", what, THREAD, (void *)(x)); \\
    MQ_log(MQ_INFO, t); } while (0)
void mq_initialize(void) { SAY("initialize", 0); }
void mq_cleanup(void) { SAY("cleanup", 0); }
RESULT mq_context_initialize(MQ_Context *x) { SET(x, THREAD); SAY("context", x); END; }
RESULT mq_context_cleanup(MQ_Context *x) { SAY(GET(x) == THREAD ? "gone" : "WRONG", x); END; }
bool mq_smtp_in_connect(MQ_Context *x, MQ_Connection *c) { (void)c;
    SAY(GET(x) == THREAD ? "connect" : "WRONG", x); return false; }
bool mq_smtp_out_data(MQ_Context *x, MQ_Connection *c, MQ_Message *m) { (void)c; (void)m;
    SAY(GET(x) == THREAD ? "out" : "WRONG", x); return false; }
"""
NEW_NAMES = '#define RESULT void\n#define END return\n#define GET MQ_contextData\n#define SET MQ_setContextData\n'
OLD_NAMES = '#define RESULT bool\n#define END return false\n#define GET MQ_ContextData\n#define SET MQ_SetContextData\n'


def test_a_worker_has_its_part_of_a_limit() -> None:
    recorder = Recorder(4)
    portion = Portion(7, 4, recorder.seats[0], recorder)
    assert [portion.of(limit) for limit in (500, 4, 3, 0)] == [125, 1, 1, 0]


def said(daemon: Daemon) -> list[tuple[str, str, str]]:
    """(what, thread, context), in order."""
    return re.findall(r'\[plugin\] (\w+) (\S+) (\S+)\n', daemon.output())


@pytest.mark.parametrize('source', [VERSION + NEW_NAMES + TRACE, OLD + OLD_NAMES + TRACE], ids=['5', '3'])
def test_every_thread_has_a_context(start_daemon: Start, sink: CapturingSink, tmp_path: Path, source: str) -> None:
    """All are made before the first client is greeted, each is used in its own thread only, and all are cleaned up."""
    folder = tmp_path / 'plugins'
    folder.mkdir()
    build_plugin(folder, source, name='10-trace')
    daemon = start_daemon(plugin_directory=folder, smtp_threads=THREADS, smtp_sink_address=HOST,
                          smtp_sink_port=sink.port)
    assert daemon.process
    with contextlib.ExitStack() as stack:
        for _ in range(3 * THREADS):
            stack.enter_context(connect(daemon.port))
    load = Load(daemon.port)
    load.wait_for(100)
    load.stop()
    wait_until(lambda: set(load.promised) <= set(load_identifiers(list(sink.transactions))), 'every promised message')
    daemon.stop()
    words = [what for what, _, _ in said(daemon)]
    threads = {thread for what, thread, _ in said(daemon) if what == 'context'}
    contexts = {context for what, _, context in said(daemon) if what == 'context'}
    assert words[0] == 'initialize' and words[1:1 + THREADS] == ['context'] * THREADS
    assert words[-1 - THREADS:] == ['gone'] * THREADS + ['cleanup']
    assert len(threads) == len(contexts) == THREADS and 'WRONG' not in words
    assert {context for what, _, context in said(daemon) if what == 'connect'} == contexts
    assert said(daemon)[0][1] == said(daemon)[-1][1]            # the main thread, which has a context, too
    assert said(daemon)[0][1] in threads


def test_identifiers_differ_between_processes_and_threads(start_daemon: Start, sink: CapturingSink) -> None:
    daemon = start_daemon(processes=2, smtp_threads=2, smtp_sink_address=HOST, smtp_sink_port=sink.port)
    assert daemon.process
    daemon.process.wait_printed('is running')
    names: list[str] = []
    with contextlib.ExitStack() as stack:
        for client in [stack.enter_context(connect(daemon.port)) for _ in range(20)]:
            client.ehlo()
            client.mail('sender@example.org')
            client.rcpt('recipient@example.com')
            names.append(client.data(b'x\r\n')[1].split()[-3].decode())
    prefixes = {name.partition('-')[0] for name in names}
    assert len(set(names)) == 20 and len(prefixes) == 4


def test_a_plugin_that_blocks_holds_up_one_thread_only(start_daemon: Start, tmp_path: Path) -> None:
    folder = tmp_path / 'plugins'
    folder.mkdir()
    build_plugin(folder, '#define _GNU_SOURCE\n' + VERSION + """
        #include <unistd.h>
        static int blocked;     /* the thread that is */
        bool mq_smtp_in_mailfrom(MQ_Context *x, MQ_Connection *c, MQ_Address *a) { (void)x; (void)c; (void)a;
            if (!blocked) { blocked = gettid(); MQ_log(MQ_INFO, "blocked"); }
            while (blocked == gettid()) pause();
            return false; }""", name='10-block')
    daemon = start_daemon(plugin_directory=folder, smtp_threads=2)
    assert daemon.process
    with contextlib.ExitStack() as stack:
        stuck = stack.enter_context(connect(daemon.port))
        stuck.ehlo()
        stuck.putcmd('MAIL', 'FROM:<a@example.org>')
        daemon.process.wait_printed('blocked')          # whom it has accepted before is stuck, too
        for _ in range(6):
            with connect(daemon.port) as client:
                client.ehlo()
                assert client.mail('b@example.org')[0] == 250
        process = daemon.process

        def gone() -> bool:
            process.signal(signal.SIGTERM)      # not in good order, but at the second that it sees
            return not process.running

        wait_until(gone, 'the end')
        assert process.wait() == 1
