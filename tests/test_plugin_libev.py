"""libev: a C plugin's timers and watchers run in the loop that MQ_ev gives, and all of ours goes on beside them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from mqlite.loop.clock import Clock
from mqlite.loop.reactor import READ, Reactor
from mqlite.loop.task import Waiter, sleep, timeout
from mqlite.plugin import host_library, libev
from mqlite.plugin.host_library import HostLibraryError
from tests.support.c_plugin import build_plugin
from tests.support.loop import LoopBench, open_descriptors
from tests.support.plugins import SEAT

PLUGIN = """
#include <ev.h>
#include <stddef.h>
#include <unistd.h>

#define EACH(type) sizeof(struct type), offsetof(struct type, active), offsetof(struct type, pending), \\
    offsetof(struct type, priority), offsetof(struct type, data), offsetof(struct type, cb)
const size_t io_layout[] = {EACH(ev_io), offsetof(ev_io, next), offsetof(ev_io, fd), offsetof(ev_io, events)};
const size_t timer_layout[] = {EACH(ev_timer), offsetof(ev_timer, at), offsetof(ev_timer, repeat)};
const int constants[] = {EV_READ | EV__IOFDSET, EVRUN_NOWAIT, EVRUN_ONCE, EVFLAG_AUTO};

typedef void told(int what);        /* the host's: called from inside ev_run, as MQ_* functions are */
static told *tell;
static struct ev_io io;
static struct ev_timer timer;
static int stop_loop;

static void on_io(struct ev_loop *loop, struct ev_io *w, int events)
{
    char c = 0;
    (void)loop; (void)events;
    if (read(w->fd, &c, 1) == 1)
        tell(c);
}

static void on_timer(struct ev_loop *loop, struct ev_timer *w, int events)
{
    (void)w; (void)events;
    if (stop_loop)
        ev_break(loop, EVBREAK_ALL);
    tell(-1);
}

void start_io(struct ev_loop *loop, int fd, told *t)
{
    tell = t;
    ev_io_init(&io, on_io, fd, EV_READ);
    ev_io_start(loop, &io);
}

void start_timer(struct ev_loop *loop, double seconds, int stop, told *t)
{
    tell = t;
    stop_loop = stop;
    ev_timer_init(&timer, on_timer, seconds, seconds);
    ev_timer_start(loop, &timer);
}

void stop(struct ev_loop *loop)
{
    ev_io_stop(loop, &io);
    ev_timer_stop(loop, &timer);
}

void hold_no_reference(struct ev_loop *loop) { ev_unref(loop); }
void hold_a_reference(struct ev_loop *loop) { ev_ref(loop); }
double moment(struct ev_loop *loop) { return ev_now(loop); }
unsigned rounds(struct ev_loop *loop) { return ev_iteration(loop); }
"""
TOLD = ctypes.CFUNCTYPE(None, ctypes.c_int)
TICK = 0.005        # seconds between two of the plugin's timer
TIMER = -1          # what it tells then


@pytest.fixture(scope='module')
def plugin(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = ctypes.CDLL(str(build_plugin(tmp_path_factory.mktemp('libev'), PLUGIN, '-fno-strict-aliasing', '-lev')))
    library.start_io.argtypes = [ctypes.c_void_p, ctypes.c_int, TOLD]
    library.start_timer.argtypes = [ctypes.c_void_p, ctypes.c_double, ctypes.c_int, TOLD]
    for name in ('stop', 'hold_no_reference', 'hold_a_reference', 'moment', 'rounds'):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.moment.restype = ctypes.c_double
    return library


class EvBench(LoopBench):
    """A reactor on the real clock that libev drives, and a plugin in it. `told`: what the plugin said, in order."""

    def __init__(self, plugin: ctypes.CDLL) -> None:
        super().__init__(Clock())
        self.clock = libev.LibevClock(self.reactor, SEAT)
        self.plugin, self.loop = plugin, self.clock.pointer
        self.told: list[int] = []
        self.on_told: Callable[[], object] = bool
        self._record = TOLD(lambda what: self.reactor.call_soon(self._tell, what))

    def _tell(self, what: int) -> None:
        self.told.append(what)
        self.on_told()

    def start_timer(self, seconds: float = TICK, stop: bool = False) -> None:
        self.plugin.start_timer(self.loop, seconds, stop, self._record)

    def start_io(self, fd: int) -> None:
        self.plugin.start_io(self.loop, fd, self._record)

    async def wait_told(self, enough: Callable[[], object]) -> None:
        """Until the plugin has said something that makes it true; at most ten seconds."""
        done: Waiter[None] = Waiter(self.reactor)
        self.on_told = lambda: None if done.done or not enough() else done.set()
        with timeout(self.reactor, 10, 'the plugin was not called'):
            await done

    def close(self) -> None:
        self.plugin.stop(self.loop)
        self.clock.close()
        super().close()


@pytest.fixture
def bench(plugin: ctypes.CDLL) -> Iterator[EvBench]:
    made = EvBench(plugin)
    with contextlib.closing(made):
        yield made


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


@pytest.mark.parametrize(('ours', 'name', 'fields'), [
    (libev.EvIo,    'io_layout',    'active pending priority data callback next fd events'),
    (libev.EvTimer, 'timer_layout', 'active pending priority data callback at repeat'),
])
def test_our_structures_are_those_of_the_header(plugin: ctypes.CDLL, ours: Any, name: str, fields: str) -> None:
    layout = [ctypes.sizeof(ours), *(getattr(ours, field).offset for field in fields.split())]
    assert list((ctypes.c_size_t * len(layout)).in_dll(plugin, name)) == layout
    assert [field for field, _ in ours._fields_] == fields.split()


def test_our_constants_are_those_of_the_header(plugin: ctypes.CDLL) -> None:
    theirs = list((ctypes.c_int * 4).in_dll(plugin, 'constants'))
    assert theirs == [libev._READ, libev._NOWAIT, libev._ONCE, libev._BEST_BACKEND]


def test_the_plugin_and_the_reactor_both_go_on(bench: EvBench, pipe: tuple[int, int]) -> None:
    reactor, ours = bench.reactor, list[str]()
    done = [Waiter[None](reactor) for _ in range(3)]

    def read(_events: int) -> None:
        ours.append(os.read(mine[0], 10).decode())
        done[0].set()

    mine = os.pipe()
    thread = threading.Thread(target=lambda: reactor.call_from_thread(done[1].set))

    async def main() -> None:
        bench.start_timer()
        bench.start_io(pipe[0])
        reactor.watch(mine[0], READ, read)
        reactor.call_later(2 * TICK, os.write, pipe[1], b'A')       # to the plugin
        reactor.call_later(3 * TICK, os.write, mine[1], b'ours')
        reactor.call_later(4 * TICK, thread.start)
        reactor.call_later(5 * TICK, done[2].set)
        for waiter in done:
            await waiter
        await bench.wait_told(lambda: bench.told.count(TIMER) >= 5 and ord('A') in bench.told)
        reactor.unwatch(mine[0])

    bench.run(main())
    thread.join()
    for fd in mine:
        os.close(fd)
    assert ours == ['ours']
    assert set(bench.told) == {TIMER, ord('A')} and bench.told.count(ord('A')) == 1


def test_tasks_that_are_always_ready_do_not_keep_the_plugin_from_its_timer(bench: EvBench) -> None:
    busy = [True]

    def again() -> None:
        if busy[0]:
            bench.reactor.call_soon(again)

    async def main() -> None:
        bench.start_timer()
        again()
        await bench.wait_told(lambda: len(bench.told) >= 3)
        busy[0] = False

    bench.run(main())


def test_a_watcher_of_the_plugin_alone_wakes_a_reactor_that_has_no_timer(bench: EvBench, pipe: tuple[int, int]) -> None:
    done: Waiter[None] = Waiter(bench.reactor)
    writer = threading.Timer(2 * TICK, os.write, [pipe[1], b'x'])

    async def main() -> None:
        bench.start_io(pipe[0])
        bench.on_told = done.set
        writer.start()
        await done

    bench.run(main())
    writer.join()
    assert bench.told == [ord('x')]


@pytest.mark.parametrize('case', ['no watcher', 'a watcher without a reference'])
def test_the_loop_waits_and_does_not_spin(bench: EvBench, pipe: tuple[int, int], case: str) -> None:
    async def main() -> int:
        before: int = bench.plugin.rounds(bench.loop)
        await sleep(bench.reactor, 20 * TICK)
        after: int = bench.plugin.rounds(bench.loop)
        return after - before

    if case != 'no watcher':
        bench.start_io(pipe[0])
        bench.plugin.hold_no_reference(bench.loop)
    assert 1 <= bench.run(main()) <= 5
    if case != 'no watcher':
        bench.plugin.hold_a_reference(bench.loop)


def test_a_plugin_that_breaks_the_loop_breaks_nothing(bench: EvBench) -> None:
    async def main() -> None:
        bench.start_timer(stop=True)
        await bench.wait_told(lambda: len(bench.told) >= 3)
        await sleep(bench.reactor, 2 * TICK)

    bench.run(main())


def test_a_sleep_is_not_cut_short(bench: EvBench) -> None:
    """libev counts a timer from the moment it last looked at the clock; the reactor waits for the rest."""
    async def main() -> float:
        until = time.monotonic() + 4 * TICK
        while time.monotonic() < until:
            pass                        # a long turn: libev's clock is behind by now
        before = bench.reactor.now()
        await sleep(bench.reactor, 6 * TICK)
        return bench.reactor.now() - before

    assert bench.run(main()) >= 6 * TICK


def test_the_clock_of_libev_is_fresh_when_a_turn_begins(bench: EvBench) -> None:
    async def main() -> tuple[float, float, float]:
        before = time.time()
        await sleep(bench.reactor, 10 * TICK)
        return before, bench.plugin.moment(bench.loop), time.time()

    before, seen, after = bench.run(main())
    assert before + 9 * TICK <= seen <= after + TICK


def test_a_signal_ends_the_wait(bench: EvBench) -> None:
    came: Waiter[None] = Waiter(bench.reactor)
    sender = threading.Timer(2 * TICK, signal.pthread_kill, [threading.get_ident(), signal.SIGUSR1])

    async def main() -> None:
        bench.reactor.on_signal(signal.SIGUSR1, came.set)
        sender.start()
        await came

    bench.run(main())
    sender.join()


@pytest.mark.parametrize('to_main', [True, False])
def test_a_signal_handler_that_raises_is_heard(bench: EvBench, to_main: bool) -> None:
    """Were the callback of our watchers in Python, the handler would run in it, and ctypes would drop the exception."""
    def handler(_number: int, _frame: object) -> None:
        raise InterruptedError('by hand')

    def send() -> None:
        signal.pthread_kill(main_thread if to_main else threading.get_ident(), signal.SIGUSR1)

    async def main() -> None:
        bench.reactor.on_signal(signal.SIGUSR2, bool)       # from now on each signal makes a descriptor of ours ready
        sender.start()
        await sleep(bench.reactor, 10)

    main_thread, sender = threading.get_ident(), threading.Timer(2 * TICK, send)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(InterruptedError, match='by hand'):
            bench.run(main())
    finally:
        signal.signal(signal.SIGUSR1, before)
        sender.join()


def test_after_the_end_the_reactor_waits_as_before_and_no_descriptor_is_left(plugin: ctypes.CDLL) -> None:
    reactor = Reactor()
    before, clock = open_descriptors(), reactor.clock
    for _ in range(3):
        made = libev.LibevClock(reactor, SEAT)
        assert reactor.clock is made
        reactor.run(sleep(reactor, TICK))
        made.close()
    assert (open_descriptors(), reactor.clock) == (before, clock)
    reactor.run(sleep(reactor, TICK))
    reactor.close()


def test_a_clock_that_jumps_cannot_be_driven() -> None:
    bench = LoopBench()
    with contextlib.closing(bench), pytest.raises(HostLibraryError, match='libev cannot drive a VirtualClock'):
        libev.LibevClock(bench.reactor, SEAT)


@pytest.mark.parametrize(('change', 'said'), [
    ({'soname': 'libev.so.3'}, r'^MQ_ev gives NULL: libev.so.3: cannot open .*; install libev.so.3 \(Debian: libev4\)'),
    ({'prefix': 'evil_'},      r'^MQ_ev gives NULL: .*undefined symbol: evil_loop_new; install libev.so.4'),
])
def test_a_host_without_it_is_told(monkeypatch: pytest.MonkeyPatch, change: dict[str, str], said: str) -> None:
    row = host_library.LIBRARIES['libev']._replace(**change)
    monkeypatch.setitem(host_library.LIBRARIES, 'libev', row)
    reactor = Reactor()
    with contextlib.closing(reactor), pytest.raises(HostLibraryError, match=said):
        libev.LibevClock(reactor, SEAT)
    assert type(reactor.clock) is Clock


def test_no_descriptor_left_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A libev that cannot make a loop, as ours cannot when the process has used up its descriptors."""
    source = PLUGIN.split('#define EACH')[0] + ''.join(
        f'void *ev_{name}(void) {{ return NULL; }}\n' for name, _, _ in libev._FUNCTIONS)
    source = source.replace('#include <ev.h>\n', '')
    row = host_library.LIBRARIES['libev']._replace(soname=str(build_plugin(tmp_path, source)))
    monkeypatch.setitem(host_library.LIBRARIES, 'libev', row)
    reactor = Reactor()
    with contextlib.closing(reactor), pytest.raises(HostLibraryError, match='are there descriptors left'):
        libev.LibevClock(reactor, SEAT)
