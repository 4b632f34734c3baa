"""`python3 build.py bench plugin_calls`: what plugins cost, and what it costs that there may be some.

Microseconds of CPU of a host function called from C, a million calls each. Then what a message through a server without
plugins spends on looking whether there are any: how often it looks, counted in a real session, times what a look takes.
"""

from __future__ import annotations

import sys
import tempfile
import time
import timeit
from pathlib import Path
from typing import Any
from unittest import mock

from mqlite.smtp.session import Session
from tests.support.plugins import LOG, PluginBench, build
from tests.support.smtp import Bench

LIMIT = 1.5         # microseconds a call from C may take
MESSAGES = 1000
SOURCE = r"""
#include <stdio.h>
#include <time.h>
#define N 1000000
#define TIME(call) do { struct timespec a, b; char t[99]; clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a); \
    for (int i = 0; i < N; i++) { call; } clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b); \
    snprintf(t, sizeof t, "%.3f %s", ((b.tv_sec - a.tv_sec) * 1e9 + b.tv_nsec - a.tv_nsec) / N / 1e3, #call); \
    MQ_log(MQ_INFO, t); } while (0)
void mq_context_initialize(MQ_Context *context) {
    TIME(MQ_contextData(context)); TIME(MQ_setContextData(context, context)); }
bool mq_smtp_in_connect(MQ_Context *context, MQ_Connection *connection) { (void)context;
    TIME(MQ_fileDescriptor(connection)); TIME(MQ_authenticated(connection)); TIME(MQ_secure(connection));
    TIME(MQ_connectionData(connection)); return false; }
bool mq_smtp_in_message(MQ_Context *context, MQ_Connection *connection, MQ_Message *message) { (void)context;
    (void)connection; MQ_Address *address = MQ_recipient(message); TIME(MQ_recipient(message)); TIME(MQ_email(address));
    TIME(MQ_mime(message)); TIME(MQ_local(message)); return false; }
"""


class Counted(Session):
    """Counts how often somebody looks whether the session has plugins."""

    looks = 0

    @property
    def asker(self) -> Any:
        type(self).looks += 1
        return None

    @asker.setter
    def asker(self, value: Any) -> None:
        pass


async def talk(bench: Bench, messages: int) -> None:
    stream = await bench.client()
    await bench.talk(stream, b'EHLO c')
    for _ in range(messages):
        await bench.talk(stream, b'MAIL FROM:<a@b.example>', b'RCPT TO:<b@b.example>', b'DATA', b'\r\nx\r\n.')
    await bench.talk(stream, b'QUIT')


def calls_from_c() -> bool:
    """Whether all are quick enough."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / 'plugins'
        build(folder, SOURCE)
        with PluginBench(folder) as bench:
            bench.run(talk(bench, 1))
    figures = LOG.said()
    print('a call of a host function from C, in microseconds:')
    print('\n'.join(f'  {line}' for line in figures))
    return all(float(line.split()[0]) <= LIMIT for line in figures)


def looks_per_message() -> int:
    looks = []
    with mock.patch('mqlite.smtp.server.Session', Counted):
        for messages in (1, 2):
            Counted.looks = 0
            with Bench() as bench:
                bench.run(talk(bench, messages))
            looks.append(Counted.looks)
    return looks[1] - looks[0]


def main() -> int:
    quick = calls_from_c()
    session = Session.__new__(Session)
    session.asker = None
    one = min(timeit.repeat('session.asker is None', globals={'session': session}, number=1_000_000,
                            timer=time.process_time)) * 1e-6
    with Bench() as bench:
        begin = time.process_time()
        bench.run(talk(bench, MESSAGES))
        whole = (time.process_time() - begin) / MESSAGES
    looks = looks_per_message()
    print(f'no plugins: {looks} looks per message, {one * 1e9:.0f} ns each, {looks * one * 1e6:.2f} us of '
          f'{whole * 1e6:.0f} us that client and server take: {looks * one / whole:.3%}')
    return 0 if quick else 1


if __name__ == '__main__':
    sys.exit(main())
