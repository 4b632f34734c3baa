"""A plugin that asks a server, tests/data/plugins/lookup.c, while a hundred other sessions go on."""

from __future__ import annotations

import smtplib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

from tests.support.c_plugin import build_plugin
from tests.support.daemon import Daemon
from tests.support.peers import smtp_source
from tests.support.process import HOST, ROOT

SOURCE = ROOT / 'tests' / 'data' / 'plugins' / 'lookup.c'
PATIENCE = 60.0     # seconds for a session that waits for an answer


def build_lookup(folder: Path, port: int, *options: str) -> None:
    build_plugin(folder, SOURCE.read_text(), f'-DPORT={port}', *options, name='10-lookup')


def reply_to(port: int, recipient: str) -> tuple[int, bytes]:
    """The reply to RCPT."""
    with smtplib.SMTP(HOST, port, timeout=PATIENCE) as client:
        client.ehlo()
        client.mail('a@example.org')
        return client.rcpt(recipient)


@contextmanager
def waiting(daemon: Daemon, recipient: str) -> Iterator[Callable[[], tuple[int, bytes]]]:
    """A session that has sent RCPT, in a thread; the function waits for its reply."""
    replies: list[tuple[int, bytes]] = []
    thread = threading.Thread(target=lambda: replies.append(reply_to(daemon.port, recipient)), daemon=True)
    thread.start()

    def reply() -> tuple[int, bytes]:
        thread.join(PATIENCE)
        return replies[0]
    yield reply
    assert not thread.is_alive(), 'the session still waits'


def hundred_sessions(daemon: Daemon) -> None:
    """A hundred at once, a message each; done when all messages are kept."""
    smtp_source(daemon.port, '-s', '100', '-m', '100', '-f', 'b@example.org', '-t', 'c@example.org')
