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
from tests.support.daemon import Daemon
from tests.support.process import HOST

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
    threading.Thread(target=server.serve_forever, daemon=True).start()
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
