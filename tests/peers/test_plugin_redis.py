"""A plugin in C asks a real Redis through MQ_ioWatch while a hundred other sessions go on."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Callable

from tests.support import lookup
from tests.support.daemon import Daemon
from tests.support.process import HOST, Process, find_program, free_port, wait_until


class Redis:
    """A server without files; `command` runs redis-cli."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.process = Process([find_program('redis-server'), '--bind', HOST, '--port', str(self.port), '--save', ''],
                               folder)
        self.process.wait_listening(self.port)

    def command(self, *words: str) -> str:
        command = [find_program('redis-cli'), '-h', HOST, '-p', str(self.port), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def test_a_plugin_asks_redis(start_daemon: Callable[..., Daemon], tmp_path: Path,
                             closing: contextlib.ExitStack) -> None:
    """Each question waits for a list to have an element, and it has none before the other sessions are through."""
    redis = Redis(tmp_path)
    closing.callback(redis.process.close)
    plugins = tmp_path / 'plugins'
    plugins.mkdir()
    lookup.build_lookup(plugins, redis.port, '-DREDIS')
    daemon = start_daemon(plugin_directory=plugins, rabbitmq_inbox='inbox')
    with lookup.waiting(daemon, 'ask@bad.example') as bad, lookup.waiting(daemon, 'ask@good.example') as good:
        wait_until(lambda: 'blocked_clients:2' in redis.command('INFO', 'clients'), 'both questions to be there')
        lookup.hundred_sessions(daemon)
        redis.command('RPUSH', 'ask@bad.example', 'no')
        redis.command('RPUSH', 'ask@good.example', 'yes')
        assert bad() == (550, b'5.7.1 The lookup says no') and good()[0] == 250
    daemon.take('inbox', 100)
    redis.process.kill()
    assert lookup.reply_to(daemon.port, 'ask@good.example')[0] == 451
