"""Plugins in a running daemon, with peers in other processes and threads."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from pathlib import Path
from typing import Callable

import pytest

from tests.support import lookup, misbehaviour
from tests.support.c_plugin import build_plugin
from tests.support.daemon import ALERT, Daemon
from tests.support.process import HOST
from tests.support.sink import CapturingSink

Start = Callable[..., Daemon]


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    made = tmp_path / 'plugins'
    made.mkdir()
    return made


def test_misbehaviour_is_contained(start_daemon: Start, plugins: Path) -> None:
    """All of them in one daemon, in real time; it serves on, and its log names who, what and how long."""
    misbehaviour.build_all(plugins, 5, 0.5)
    daemon = start_daemon(plugin_directory=plugins, plugin_timeout='0.5', rabbitmq_inbox='inbox')
    assert misbehaviour.provoke(daemon.port, seconds=30) == misbehaviour.EXPECTED
    daemon.take('inbox', 2)
    output = daemon.output()
    assert re.search(r'10-blocks.so blocked everything for 1\d\d ms in mq_smtp_in_rcptto', output)
    for name in ('never', 'late'):
        assert f'10-{name}.so did not hand back mq_smtp_in_rcptto within 0.5 s: deferred' in output
    assert 'left: close' in output and 'stale: 0 answers' in output and 'null: 0 answers' in output


class Answers(http.server.BaseHTTPRequestHandler):
    """Says yes to one recipient, and to all others no; nothing before `may_answer`."""

    asked: threading.Event
    may_answer: threading.Event

    def do_GET(self) -> None:
        self.asked.set()
        assert self.may_answer.wait(lookup.PATIENCE)
        self.send_response(200 if self.path == '/ask@good.example' else 403)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


def test_a_plugin_asks_an_http_server(start_daemon: Start, plugins: Path, closing: contextlib.ExitStack) -> None:
    """The server does not answer before a hundred other sessions have sent their messages."""
    Answers.asked, Answers.may_answer = threading.Event(), threading.Event()
    server = http.server.ThreadingHTTPServer((HOST, 0), Answers)
    closing.callback(server.server_close)
    closing.callback(server.shutdown)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    lookup.build_lookup(plugins, server.server_port)
    daemon = start_daemon(plugin_directory=plugins, rabbitmq_inbox='inbox')
    with lookup.waiting(daemon, 'ask@bad.example') as bad, lookup.waiting(daemon, 'ask@good.example') as good:
        assert Answers.asked.wait(lookup.PATIENCE)
        lookup.hundred_sessions(daemon)
        Answers.may_answer.set()
        assert bad() == (550, b'5.7.1 The lookup says no') and good()[0] == 250
    daemon.take('inbox', 100)
    server.shutdown()
    server.server_close()
    assert lookup.reply_to(daemon.port, 'ask@good.example') == (451, b'4.4.3 The server of lookups is away')


CRASH = """
#include <hooks/core/post_initiate_connection_smtp.h>
#include <mailerq.h>
#include <fcntl.h>
int mq_version(void) { return MQ_API_VERSION; }
static void crash(void *closure, domain_record *dr, int slot, struct timeval *now, int fd) {
    (void)dr; (void)slot; (void)now; (void)fd;
    if (open(closure, O_CREAT | O_EXCL, 0600) >= 0) *(volatile int *)0 = 0; }
void mq_initialize(void) { register_core_post_initiate_connection_smtp_hook_last(crash, FILE_NAME); }
"""


def test_a_crash_in_a_hook_is_named(start_daemon: Start, sink: CapturingSink, plugins: Path, tmp_path: Path) -> None:
    """It happens once; the message is taken up again by the next worker."""
    build_plugin(plugins, CRASH.replace('FILE_NAME', f'"{tmp_path}/crashed"'), name='10-crash')
    daemon = start_daemon(program=ALERT, plugin_directory=plugins, smtp_sink_address=HOST, smtp_sink_port=sink.port)
    daemon.cli('queue', 'publish', 'outbox', input=b'{"recipient": "b@example.com", "mime": "Subject: x\\r\\n\\r\\n"}')
    sink.wait_for(1)
    assert 'SIGSEGV) in 10-crash.so: core_post_initiate_connection_smtp' in daemon.output()
