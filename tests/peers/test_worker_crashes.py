"""A plugin crashes in every step, under a flood, with either queue: `python3 build.py peers`.

Each crash is named in the log, other sessions go on, and every 250 is accounted for at the end.
"""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.c_plugin import build_plugin
from tests.support.daemon import Daemon
from tests.support.load import Load, load_identifiers
from tests.support.plugins import VERSION
from tests.support.process import HOST, find_program, wait_until
from tests.support.sink import CapturingSink

Start = Callable[..., Daemon]
PATIENCE = 90.0     # two workers that have crashed again and again may be in their pauses at the same time
SECONDS = 60.0

# Crashes in a step when the file of that name is there, and takes it away.
PLUGIN = VERSION + r"""
#include <pthread.h>
#include <unistd.h>
#define CRASH_AT(step) do { if (unlink(FOLDER step) == 0) *(volatile int *)0 = 0; } while (0)
#define STEP(name, ...) bool name(MQ_Context *x, MQ_Connection *c __VA_ARGS__) { (void)x; (void)c; \
    CRASH_AT(#name); return false; }
STEP(mq_smtp_in_connect)
STEP(mq_smtp_in_mailfrom, , MQ_Address *a __attribute__((unused)))
STEP(mq_smtp_in_rcptto, , MQ_Address *a __attribute__((unused)))
STEP(mq_smtp_in_data, , const char *d __attribute__((unused)), size_t n __attribute__((unused)))
STEP(mq_smtp_in_message, , MQ_Message *m __attribute__((unused)))
STEP(mq_smtp_in_close)
STEP(mq_smtp_out_data, , MQ_Message *m __attribute__((unused)))
STEP(mq_smtp_out_sent, , MQ_Message *m __attribute__((unused)))
static void tick(void *x) { CRASH_AT("a timer"); MQ_startTimer(x, 0.05f, tick, x); }
static void woken(MQ_IOWatcher *w, int fd, int events, void *x) { char b; (void)w; (void)events; (void)x;
    if (read(fd, &b, 1) == 1) CRASH_AT("a watcher"); }
static void *apart(void *data) { (void)data; for (;;) { CRASH_AT("thread"); usleep(20000); } return NULL; }
static void *ticker(void *end) { for (;;) { if (write((int)(long)end, "x", 1) < 0) return NULL; usleep(50000); } }
void mq_initialize(void) { pthread_t t; pthread_create(&t, NULL, apart, NULL); }
void mq_context_initialize(MQ_Context *x) { int ends[2]; pthread_t t;
    MQ_startTimer(x, 0.05f, tick, x);
    if (pipe(ends) == 0) { pthread_create(&t, NULL, ticker, (void *)(long)ends[1]);
        MQ_ioWatch(x, ends[0], MQ_READ, woken, NULL); } }
"""
STEPS = ('mq_smtp_in_connect', 'mq_smtp_in_mailfrom', 'mq_smtp_in_rcptto', 'mq_smtp_in_data', 'mq_smtp_in_message',
         'mq_smtp_in_close', 'mq_smtp_out_data', 'mq_smtp_out_sent', 'a timer', 'a watcher')


class Flood:
    """Postfix's smtp-source, again and again: it gives up when a connection is lost."""

    def __init__(self, port: int) -> None:
        self._command = [find_program('smtp-source'), '-A', '-s', '10', '-m', '100000', '-l', '3000', f'{HOST}:{port}']
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            with subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as source:
                while source.poll() is None:
                    if self._stopped.wait(0.05):
                        source.kill()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


@pytest.mark.parametrize('threads', [1, 2])
@pytest.mark.parametrize('store', ['embedded', 'rabbit'])
def test_in_every_step_under_a_flood(start_daemon: Start, sink: CapturingSink, broker: Broker, tmp_path: Path,
                                     store: str, threads: int) -> None:
    plugins, flags = tmp_path / 'plugins', tmp_path / 'flags'
    plugins.mkdir()
    flags.mkdir()
    build_plugin(plugins, f'#define FOLDER "{flags}/"\n{PLUGIN}', '-lpthread', name='10-crash')
    broker.delete_queues()
    queue = {'queue_address': broker.url} if store == 'rabbit' else {}
    daemon = start_daemon(plugin_directory=plugins, processes=2, smtp_threads=threads, smtp_sink_address=HOST,
                          smtp_sink_port=sink.port, retry_interval=1, **queue)
    assert daemon.process
    flood, load = Flood(daemon.port), Load(daemon.port)
    for step in STEPS:
        load.wait_for(len(load.promised) + 20, PATIENCE)
        (flags / step).touch()
        daemon.process.wait_printed(f'(SIGSEGV) in 10-crash.so: {step}\n', PATIENCE)
    (flags / 'thread').touch()
    daemon.process.wait_printed('(SIGSEGV) in a thread that a plugin has made\n', PATIENCE)
    load.wait_for(len(load.promised) + 20, PATIENCE)
    flood.stop()
    load.stop()
    wait_until(lambda: set(load.promised) <= set(load_identifiers(list(sink.transactions))), 'every 250', SECONDS)
    arrived = Counter(load_identifiers(list(sink.transactions)))
    doubled = sum(count - 1 for count in arrived.values())
    print(f'{store}, {threads} threads: {len(load.promised)} promised, {doubled} more than once')
    assert daemon.output().count('(SIGSEGV)') == len(STEPS) + 1
    assert 'it is given up' not in daemon.output()
