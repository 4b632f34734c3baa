"""The server under what only a real process can show: ten thousand sessions, lines without end, messages of 50 MB.

Memory is the worker's resident set, from /proc; a message's cost is how far the peak has risen.
"""

from __future__ import annotations

import os
import re
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Callable

import pytest

from tests.support.daemon import Daemon, greeting
from tests.support.load import connect
from tests.support.process import HOST, wait_until

GIB = 1 << 30
BLOCK = 1 << 20
HELLO = b'EHLO client.example\r\n'
TRANSACTION = HELLO + b'MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n'


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def worker(daemon: Daemon) -> int:
    """The process that serves."""
    [pid] = daemon.workers()
    return pid


def memory(pid: int, field: str = 'VmRSS') -> int:
    """Bytes. VmHWM is the peak of VmRSS so far."""
    [line] = [line for line in Path(f'/proc/{pid}/status').read_text().splitlines() if line.startswith(f'{field}:')]
    return int(line.split()[1]) * 1024


def forget_peak(pid: int) -> None:
    Path(f'/proc/{pid}/clear_refs').write_text('5')     # proc(5): VmHWM begins anew


def open_sessions(closing: ExitStack, port: int, count: int, said: bytes, replies: int) -> list[socket.socket]:
    """So many connections that have said this and had so many replies, the greeting included."""
    connections = []
    for _ in range(count):
        connection = closing.enter_context(socket.create_connection((HOST, port), 20))
        connections.append(connection)
        connection.sendall(said)
        if len(connections) % 100 == 0:
            for late in connections[-100:]:
                read_replies(late, replies)
    for late in connections[count - count % 100:]:
        read_replies(late, replies)
    return connections


def read_replies(connection: socket.socket, count: int) -> bytes:
    """The last reply of so many."""
    data = b''
    while len(re.findall(rb'^[0-9]{3} .*\r\n', data, re.MULTILINE)) < count:
        received = connection.recv(4096)
        assert received, data
        data += received
    return data.splitlines(keepends=True)[-1]


def seconds_to_greet(port: int) -> float:
    begin = time.perf_counter()
    with socket.create_connection((HOST, port), 20) as connection:
        assert connection.recv(512)[:4] == b'220 '
        return time.perf_counter() - begin


@pytest.mark.parametrize('said', [b'', HELLO, TRANSACTION], ids=['greeted', 'EHLO', 'DATA'])
def test_ten_thousand_idle_sessions(start_daemon: Callable[..., Daemon], closing: ExitStack, said: bytes) -> None:
    """At most 12 KiB each, and the next client is greeted within 100 ms."""
    count = 10000
    daemon = start_daemon(smtp_connections=12000, smtp_connections_in=11000)
    pid = worker(daemon)
    before = memory(pid)
    open_sessions(closing, daemon.port, count, said, {b'': 1, HELLO: 2, TRANSACTION: 5}[said])
    each = (memory(pid) - before) / count
    slowest = sorted(seconds_to_greet(daemon.port) for _ in range(20))[-2]      # one may meet another process's turn
    print(f'{each / 1024:.1f} KiB for each of {count} sessions; a new one greeted in {slowest * 1000:.1f} ms at most')
    assert each <= 12 * 1024 and slowest < 0.1


def test_five_hundred_stalled_sessions(start_daemon: Callable[..., Daemon], closing: ExitStack) -> None:
    """With all places taken by clients that stall, a new one is greeted within a second once they are silent for 10."""
    daemon = start_daemon(smtp_connections=500)
    open_sessions(closing, daemon.port, 450, TRANSACTION, 5)
    with socket.create_connection((HOST, daemon.port), 20) as connection:
        assert connection.recv(512).startswith(b'421 4.7.0 Too many connections')

    def greeted() -> bool:
        with socket.create_connection((HOST, daemon.port), 20) as connection:
            return connection.recv(512).startswith(b'220 ')

    wait_until(greeted, 'a stalled session to give way', 15)
    for _ in range(20):
        assert seconds_to_greet(daemon.port) < 1
        with connect(daemon.port) as client:
            client.sendmail('a@client.example', 'b@example.org', b'Subject: x\r\n\r\nx\r\n')


@pytest.mark.parametrize('begin', [b'', TRANSACTION, TRANSACTION + b'Subject: x'], ids=['line', 'data', 'header'])
def test_a_gibibyte_without_an_end(start_daemon: Callable[..., Daemon], begin: bytes) -> None:
    """A line of commands, a line of data, a header of a million folds: memory stays as it is, up to smtp-maxsize."""
    daemon = start_daemon(smtp_maxsize='1MB')
    pid = worker(daemon)
    block = b'\r\n folded' * (BLOCK // 9) if begin.endswith(b'x') else bytes(BLOCK)
    with socket.create_connection((HOST, daemon.port), 60) as connection:
        connection.sendall(begin)
        read_replies(connection, 5 if begin else 1)
        forget_peak(pid)
        before = memory(pid)
        for _ in range(GIB // len(block)):
            connection.sendall(block)
        connection.sendall(b'\r\n.\r\n' if begin else b'\r\n')
        refusal = read_replies(connection, 1)
        connection.sendall(b'NOOP\r\n')
        ok = read_replies(connection, 1)
        risen = memory(pid, 'VmHWM') - before
    print(f'{risen >> 10} KiB for a gibibyte')
    assert refusal.startswith(b'552 5.3.4' if begin else b'500 5.5.2') and ok == b'250 2.0.0 Ok\r\n'
    assert risen < 8 << 20


def lines_of(octets: bytes, size: int) -> bytes:
    return b'Subject: x\r\n\r\n' + (octets + b'\r\n') * (size // (len(octets) + 2))


@pytest.mark.parametrize(('octets', 'recipients'), [
    (b'A' * 76, 1), (b'A' * 76, 10), ('äöü '.encode() * 10, 1), (b'.' + b'x' * 60, 1), (b'\xff\xfe\xe4', 1),
], ids=['base64', 'ten recipients', 'UTF-8', 'dots', 'other octets'])
def test_a_message_of_50_mb(start_daemon: Callable[..., Daemon], octets: bytes, recipients: int) -> None:
    """It costs at most twice its size, whatever is in it and to how many it goes; others are greeted meanwhile."""
    daemon = start_daemon(rabbitmq_inbox='received')
    pid = worker(daemon)
    message = lines_of(octets, 50_000_000)
    slowest = [0.0]
    done = threading.Event()

    def greet() -> None:
        while not done.wait(0.02):
            slowest[0] = max(slowest[0], seconds_to_greet(daemon.port))

    with connect(daemon.port) as client:
        client.sendmail('a@client.example', 'b@example.org', b'Subject: warm\r\n\r\nx\r\n')
        forget_peak(pid)
        before = memory(pid)
        other = threading.Thread(target=greet)
        other.start()
        try:
            client.sendmail('a@client.example', [f'b{n}@example.org' for n in range(recipients)], message,
                            mail_options=['BODY=8BITMIME'])
        finally:
            done.set()
            other.join()
        risen = memory(pid, 'VmHWM') - before
    print(f'{risen / len(message):.2f} times its size; others waited {slowest[0] * 1000:.0f} ms at most')
    assert risen <= 2 * len(message)


def test_clients_that_are_refused_cost_nothing(start_daemon: Callable[..., Daemon]) -> None:
    """Ten thousand clients too many, one after the other and without reading: descriptors and memory stay bounded."""
    daemon = start_daemon(smtp_connections=20)
    pid = worker(daemon)
    with ExitStack() as closing:
        open_sessions(closing, daemon.port, 18, b'', 1)
        before = memory(pid)
        refused: list[socket.socket] = []
        for _ in range(10000):
            refused.append(closing.enter_context(socket.create_connection((HOST, daemon.port), 20)))
            if len(refused) > 1000:
                refused.pop(0).close()
        assert len(os.listdir(f'/proc/{pid}/fd')) < 200 and memory(pid) - before < 4 << 20
    wait_until(lambda: greeting(daemon.port).startswith(b'220 '), 'the places to be free')
