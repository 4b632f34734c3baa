"""What a call of a host function costs, from C: python3 -m tests.bench.plugin_calls

A plugin reads and sets the data of its context a million times each; prints microseconds per call.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from mqlite.loop.reactor import Reactor
from tests.support.plugins import LOG, build, make_host

SOURCE = r"""
#include <stdio.h>
#include <time.h>
#define N 1000000
#define TIME(call) do { struct timespec a, b; char t[99]; clock_gettime(CLOCK_MONOTONIC, &a); \
    for (int i = 0; i < N; i++) { call; } clock_gettime(CLOCK_MONOTONIC, &b); \
    snprintf(t, sizeof t, "%-22s %.2f", #call, ((b.tv_sec - a.tv_sec) * 1e9 + b.tv_nsec - a.tv_nsec) / N / 1e3); \
    MQ_log(MQ_INFO, t); } while (0)
void mq_context_initialize(MQ_Context *x) { TIME(MQ_contextData(x)); TIME(MQ_setContextData(x, x)); }
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / 'plugins'
        build(folder, SOURCE)
        reactor = Reactor()
        host = make_host(folder, reactor)
        reactor.run(host.start())
        print('\n'.join(LOG.said()))


if __name__ == '__main__':
    main()
