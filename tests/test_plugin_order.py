"""Three plugins that do nothing, continue, complete and retry, in every combination, at every step, at once and later.

The steps of a session are met in a session with the real server, those of sending in one with a scripted exchanger,
those of a context by starting and stopping the host. What is expected is a model in six lines of the vendor's words.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

import pytest

from mqlite.loop.reactor import Reactor
from mqlite.plugin.host import PluginHost, SessionAsker
from mqlite.plugin.loader import load_plugins
from mqlite.plugin.objects import Connection
from tests.support.exchanger import ClientBench
from tests.support.plugins import LOG, PATIENCE, SEAT, PluginBench, build, make_host

# What a plugin does each time it is called, over and over: nothing; continue; complete; retry and then one of these.
PLANS = ('-', 'c', 'x', 'rc', 'rx')
MESSAGE = ('connect', 'mailfrom', 'rcptto', 'data', 'message', 'close')

SOURCE = """
#include <unistd.h>
char plan[4] = "-"; /* - nothing, c continue, x complete, r retry; upper case: later, from a callback */
int calls;
#if MQ_API_GENERATION == 3
static MQ_Context *held;
#define HELD context
#define ADDRESS const char *address, size_t size
#else
static MQ_Connection *held;
#define HELD connection
#define ADDRESS MQ_Address *address
#endif
static char todo;
static void hand_back(void) {
    if (todo == 'c' || todo == 'C') MQ_Continue(held);
    if (todo == 'x' || todo == 'X') MQ_Complete(held);
    if (todo == 'r' || todo == 'R') MQ_Retry(held); }
static void later(MQ_IOWatcher *watcher, int fd, int events, void *data) {
    (void)events; (void)data; MQ_ioUnwatch(watcher); close(fd); hand_back(); }
static bool act(MQ_Context *context) {
    char said[] = { NUMBER, 0 };
    int ends[2];
    MQ_log(MQ_INFO, said);
    todo = plan[calls++ % strlen(plan)];
    if (todo == '-') return false;
    if (todo > 'Z') hand_back();
    else if (!pipe(ends)) { MQ_ioWatch(context, ends[1], MQ_WRITE, later, NULL); close(ends[0]); }
    return true; }
#define STEP(name, more) bool mq_smtp_##name(MQ_Context *context, MQ_Connection *connection more) \\
    { (void)connection; held = HELD; return act(context); }
#define AND ,
#pragma GCC diagnostic ignored "-Wunused-parameter"
STEP(in_connect, )
STEP(in_secure, )
STEP(in_authenticate, AND const char *login AND size_t loginsize AND const char *passwd AND size_t passwdsize)
STEP(in_data, AND const char *mime AND size_t size)
STEP(in_message, AND MQ_Message *message)
STEP(in_close, )
STEP(out_data, AND MQ_Message *message)
STEP(out_sent, AND MQ_Message *message)
bool mq_smtp_in_mailfrom(MQ_Context *context, MQ_Connection *connection, ADDRESS)
    { (void)connection; held = HELD; return act(context); }
bool mq_smtp_in_rcptto(MQ_Context *context, MQ_Connection *connection, ADDRESS)
    { (void)connection; held = HELD; return act(context); }
#if MQ_API_GENERATION == 3
bool mq_context_initialize(MQ_Context *context) { held = context; return act(context); }
bool mq_context_cleanup(MQ_Context *context) { held = context; return act(context); }
#endif
"""

Plugins = Callable[[Sequence[str]], None]


def expected(plans: Sequence[str], steps: int) -> list[str]:
    """Which plugins are called, by the words of the vendor's pages."""
    called: list[str] = []
    left = [itertools.cycle(plan.lower()) for plan in plans]
    for _ in range(steps):
        at = 0
        while at < len(plans):
            called.append(str(at + 1))
            todo = next(left[at])
            at = {'x': len(plans), 'r': 0}.get(todo, at + 1)
    return called


def every_combination() -> Iterator[list[str]]:
    for plans in itertools.product(PLANS, repeat=3):
        yield list(plans)
        if set(plans) != {'-'}:
            yield [plan.upper() for plan in plans]


@pytest.fixture(scope='module', params=[5, 3], ids=['generation-5', 'generation-3'])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three plugins."""
    made = tmp_path_factory.mktemp('order') / 'plugins'
    for number in (1, 2, 3):
        build(made, SOURCE.replace('NUMBER', f"'{number}'"), name=f'{number}0-order', old=request.param == 3)
    return made


def prepare(host: PluginHost, plans: Sequence[str]) -> None:
    LOG.lines.clear()
    for plugin, plan in zip(host._plugins, plans):
        library = plugin._library       # type: ignore[attr-defined]
        (ctypes.c_char * 4).in_dll(library, 'plan').value = plan.encode()
        ctypes.c_int.in_dll(library, 'calls').value = 0


def check(plans: Sequence[str], steps: int) -> None:
    assert LOG.said() == expected(plans, steps), plans
    assert LOG.lines == [], plans


def idle(host: PluginHost) -> None:
    """As after being loaded."""
    prepare(host, '---')


def test_a_session(folder: Path) -> None:
    bench = PluginBench(folder)
    for plans in every_combination():
        prepare(bench.host, plans)
        assert bench.run(bench.send()) == b'220 250 250 250 354 250 221', plans
        check(plans, len(MESSAGE))
    idle(bench.host)
    bench.close()


@pytest.mark.parametrize(('step', 'subject'), [
    ('mq_smtp_in_secure', ()), ('mq_smtp_in_authenticate', ('login', b'password')),
])
def test_what_comes_before_a_message(folder: Path, step: str, subject: tuple[Any, ...]) -> None:
    """Asked as the server asks."""
    bench = PluginBench(folder)

    asker = SessionAsker(bench.host, Connection(bench.host.context, bench.run(bench.client()), None))
    for plans in every_combination():
        prepare(bench.host, plans)
        assert bench.run(asker.ask(step, *subject)) is None
        check(plans, 1)
    idle(bench.host)
    bench.close()


def test_a_message_that_goes_out(folder: Path) -> None:
    bench = ClientBench(b'PIPELINING')
    host = make_host(folder, bench.reactor)
    bench.start()
    companion = bench.session.companion = host.companion(bench.session.stream)
    for plans in every_combination():
        prepare(host, plans)
        companion.begin({}, 's@a.example', 'r@b.example', b'{}')
        assert bench.send().code == 250     # type: ignore[union-attr]
        companion.finish()
        check(plans, 2)
    bench.close()


def test_a_context(folder: Path) -> None:
    """In generation 5 the two functions give nothing back, and cannot take control."""
    plugins = load_plugins(str(folder), LOG, 0, '', SEAT)
    steps = 2 if plugins[0].generation == 3 else 0      # type: ignore[attr-defined]
    for plans in every_combination():
        reactor = Reactor()
        host = PluginHost(plugins, reactor, LOG, PATIENCE, SEAT)
        prepare(host, plans)
        reactor.run(host.start())
        reactor.run(host.stop())
        reactor.close()
        check(plans, steps)
