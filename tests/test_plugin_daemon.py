"""Plugins in a running daemon, with peers in other processes and threads."""

from __future__ import annotations

import contextlib
import http.server
import re
import smtplib
import threading
from pathlib import Path
from typing import Callable

import pytest

from tests.support import lookup, misbehaviour
from tests.support.c_plugin import build_plugin
from tests.support.daemon import Daemon
from tests.support.process import HOST, ROOT
from tests.support.sink import CapturingSink

Start = Callable[..., Daemon]


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    made = tmp_path / 'plugins'
    made.mkdir()
    return made


def example(plugins: Path, name: str, *options: str) -> None:
    """An example of plugins/, compiled."""
    build_plugin(plugins, (ROOT / 'plugins' / f'{name}.c').read_text(), '-Wpedantic', *options, name=name)


def send(port: int) -> None:
    with smtplib.SMTP(HOST, port, timeout=30) as client:
        client.sendmail('sender@example.org', 'recipient@example.com', 'Subject: x\n\nbody\n')


def test_attempts_are_counted(start_daemon: Start, sink: CapturingSink, plugins: Path) -> None:
    """A server that takes the second message only, and then is gone: three attempts, and what came of those before."""
    example(plugins, 'attempts')
    sink.script['.'] = [b'421 4.3.2 closing']
    daemon = start_daemon(plugin_directory=plugins, smtp_sink_address=HOST, smtp_sink_port=sink.port,
                          smtp_default_ips='127.0.0.2', rabbitmq_retry='retry')
    send(daemon.port)
    daemon.take('retry', 1)
    send(daemon.port)
    daemon.take('results', 1)
    sink.close()
    send(daemon.port)
    daemon.take('retry', 1)
    said = re.findall(r'attempts: (.*)', daemon.output())
    assert said == [
        f'1, connected 1; {HOST} from address 0: connected; messages: 0 of 0 delivered, 0 deferred, 0 given up',
        f'2, connected 2; {HOST} from address 0: connected; messages: 0 of 1 delivered, 1 deferred, 0 given up',
        f'3, connected 2; {HOST} from address 0: error 0x0800; messages: 1 of 2 delivered, 1 deferred, 0 given up']


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
