"""The reactor and its timers: order within a turn, descriptors, other threads, signals, errors."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Callable

import pytest

from mqlite.loop.clock import Clock, Ready, VirtualClock
from mqlite.loop.reactor import READ, WRITE, Reactor
from mqlite.loop.task import Waiter, sleep
from mqlite.loop.timers import TimerQueue
from tests.support import loop
from tests.support.loop import LoopBench, open_descriptors

YEAR = 365 * 86400.0

bench = loop.bench  # fixture


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


# timers


def test_timers_come_by_time_and_equal_ones_in_order() -> None:
    queue = TimerQueue()
    ran: list[str] = []
    for when, name in ((2.0, 'c'), (1.0, 'a'), (1.0, 'b'), (3.0, 'd')):
        queue.add(when, ran.append, (name,))
    assert queue.next_time() == 1.0
    while (timer := queue.pop_due(2.0)) is not None:
        timer.run()
    assert ran == ['a', 'b', 'c']
    assert (queue.next_time(), len(queue)) == (3.0, 1)


def test_a_cancelled_timer_does_not_run_and_cancelling_again_is_harmless() -> None:
    queue = TimerQueue()
    ran: list[int] = []
    first, second = queue.add(1.0, ran.append, (1,)), queue.add(2.0, ran.append, (2,))
    first.cancel()
    first.cancel()
    assert (queue.next_time(), len(queue)) == (2.0, 1)
    due = queue.pop_due(2.0)
    assert due is second
    due.run()
    due.run()
    due.cancel()
    assert (ran, len(queue), queue.next_time()) == ([2], 0, None)


def test_a_timer_that_is_cancelled_between_coming_up_and_running_is_counted_once() -> None:
    queue = TimerQueue()
    for _ in range(3):
        queue.add(1.0, print)
        timer = queue.pop_due(1.0)
        assert timer is not None
        timer.cancel()
        timer.run()
    queue.add(2.0, print)
    assert len(queue) == 1


def test_dead_timers_do_not_pile_up() -> None:
    queue = TimerQueue()
    live = [queue.add(YEAR + n, print) for n in range(10)]
    for n in range(10_000):
        queue.add(YEAR - n, print).cancel()
    assert len(queue) == len(live)
    assert len(queue._heap) < 200


# turns


def test_a_turn_runs_what_is_ready_then_what_asked_for_its_end(bench: LoopBench) -> None:
    reactor = bench.reactor
    ran: list[str] = []

    def first() -> None:
        reactor.call_at_turn_end(ran.append, 'end')
        reactor.call_soon(ran.append, 'next turn')
        ran.append('first')

    async def main() -> None:
        reactor.call_soon(first)
        reactor.call_soon(ran.append, 'second')
        await bench.settle()

    bench.run(main())
    assert ran == ['first', 'second', 'end', 'next turn']


def test_what_the_end_of_a_turn_adds_comes_in_the_next(bench: LoopBench) -> None:
    reactor, ran = bench.reactor, []

    def again() -> None:
        ran.append(reactor.turn_time)
        if len(ran) < 3:
            reactor.call_at_turn_end(again)

    async def main() -> None:
        reactor.call_at_turn_end(again)
        await bench.settle()

    bench.run(main())
    assert len(ran) == 3


def test_the_virtual_clock_jumps_both_clocks_when_nothing_else_can_happen(bench: LoopBench) -> None:
    clock, ran = bench.reactor.clock, []

    async def main() -> None:
        start = clock.time()
        for hours in (8, 1, 3):
            bench.reactor.call_later(hours * 3600, lambda: ran.append((clock.time() - start) / 3600))
        await sleep(bench.reactor, 9 * 3600)
        assert bench.reactor.now() == 9 * 3600

    bench.run(main())
    assert ran == [1, 3, 8]


def test_the_virtual_clock_says_when_nothing_will_ever_happen(bench: LoopBench,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VirtualClock, 'PATIENCE', 0.01)

    async def main() -> None:
        await Waiter[None](bench.reactor)

    with pytest.raises(RuntimeError, match='no timer is set'):
        bench.run(main())


def test_a_timer_next_year_is_no_trouble_for_the_real_clock(closing: contextlib.ExitStack) -> None:
    reactor = Reactor(Clock())
    closing.callback(reactor.close)
    reactor.call_later(YEAR, print)
    helper = threading.Timer(0.05, reactor.call_from_thread, [reactor.call_soon])
    done: Waiter[str] = Waiter(reactor)

    async def main() -> str:
        helper.function, helper.args = reactor.call_from_thread, [done.set, 'woken']
        helper.start()
        return await done

    assert reactor.run(main()) == 'woken'
    helper.join()


# descriptors


def test_a_watch_says_what_is_ready_and_is_replaced(bench: LoopBench,
                                                    pair: tuple[socket.socket, socket.socket]) -> None:
    reactor, (one, other), seen = bench.reactor, pair, []

    def once(name: str) -> Callable[[int], None]:
        def ready(events: int) -> None:
            seen.append((name, events))
            reactor.unwatch(one.fileno())
        return ready

    async def main() -> None:
        reactor.watch(one.fileno(), READ, once('a'))
        await bench.settle()
        assert seen == []
        other.send(b'x')
        await bench.settle()
        reactor.watch(one.fileno(), READ, once('never'))
        reactor.watch(one.fileno(), READ | WRITE, once('b'))
        await bench.settle()
        reactor.unwatch(one.fileno())

    bench.run(main())
    assert seen == [('a', READ), ('b', READ | WRITE)]


def test_after_unwatch_a_callback_is_not_called_even_when_it_was_ready_too(bench: LoopBench) -> None:
    reactor, called = bench.reactor, []

    async def main() -> None:
        with contextlib.ExitStack() as stack:
            ends = [stack.enter_context(end) for _ in range(2) for end in socket.socketpair()]
            readers = ends[::2]

            def ready(events: int) -> None:
                called.append(events)
                for reader in readers:
                    reactor.unwatch(reader.fileno())

            for reader in readers:
                reactor.watch(reader.fileno(), READ, ready)
            for end in ends:
                end.send(b'x')
            await bench.settle()

    bench.run(main())
    assert len(called) == 1


def test_the_time_of_the_turn_is_fresh_in_the_callback_of_a_descriptor(
        bench: LoopBench, pair: tuple[socket.socket, socket.socket]) -> None:
    reactor, (one, other), seen = bench.reactor, pair, []

    def ready(_events: int) -> None:
        seen.append(reactor.turn_time)
        reactor.unwatch(one.fileno())

    async def main() -> None:
        await sleep(reactor, 3600)
        reactor.watch(one.fileno(), READ, ready)
        reactor.clock.elapsed += 600    # type: ignore[attr-defined]  # ten minutes in which nothing came
        other.send(b'x')
        await bench.settle()

    bench.run(main())
    assert seen == [4200.0]


def test_closing_leaves_no_descriptor_open() -> None:
    before = open_descriptors()
    for _ in range(3):
        Reactor().close()
    assert open_descriptors() == before


# threads and signals


def test_calls_from_threads_all_arrive_in_the_order_of_each_thread(bench: LoopBench) -> None:
    reactor, came = bench.reactor, []
    every = [(thread, n) for thread in range(4) for n in range(2_000)]
    done: Waiter[None] = Waiter(reactor)

    def arrived(row: tuple[int, int]) -> None:
        came.append(row)
        if len(came) == len(every):
            done.set()

    def call(thread: int) -> None:
        for row in every:
            if row[0] == thread:
                reactor.call_from_thread(arrived, row)

    async def main() -> None:
        threads = [threading.Thread(target=call, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        await done
        for thread in threads:
            thread.join()

    bench.run(main())
    assert sorted(came, key=lambda row: row[0]) == every


def test_a_call_after_the_end_is_harmless() -> None:
    reactor = Reactor()
    reactor.close()
    reactor.call_from_thread(print)


class TellingClock(VirtualClock):
    """Says when the loop is about to wait for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Event()

    def wait(self, selector: selectors.BaseSelector, seconds: float | None, busy: bool) -> Ready:
        if seconds is None:
            self.waits.set()
        return super().wait(selector, seconds, busy)


@pytest.mark.parametrize('to_main', [True, False])
def test_a_signal_ends_the_wait_whichever_thread_gets_it(to_main: bool) -> None:
    clock = TellingClock()
    bench = LoopBench(clock)
    reactor, came = bench.reactor, Waiter[None](bench.reactor)
    before = signal.getsignal(signal.SIGUSR1)
    leave = threading.Event()
    main_thread = threading.get_ident()

    def send() -> None:
        clock.waits.wait(10)
        leave.wait(0.05)    # so that it does wait
        signal.pthread_kill(main_thread if to_main else threading.get_ident(), signal.SIGUSR1)
        leave.wait(10)      # alive until the signal is dealt with: it was sent to this thread

    async def main() -> None:
        reactor.on_signal(signal.SIGUSR1, came.set)
        helper = threading.Thread(target=send)
        helper.start()
        await came
        leave.set()
        helper.join()

    bench.run(main())
    bench.close()
    assert signal.getsignal(signal.SIGUSR1) is before


# errors


def test_an_error_in_a_callback_is_reported_and_the_others_run(pair: tuple[socket.socket, socket.socket],
                                                               closing: contextlib.ExitStack) -> None:
    one, other = pair
    bench = LoopBench()
    closing.callback(bench.reactor.close)
    ran: list[str] = []

    def fail() -> None:
        raise ValueError('a bug')

    def ready(_events: int) -> None:
        bench.reactor.unwatch(one.fileno())
        fail()

    async def main() -> None:
        other.send(b'x')
        bench.reactor.watch(one.fileno(), READ, ready)
        bench.reactor.call_soon(fail)
        bench.reactor.call_later(0, fail)
        bench.reactor.call_at_turn_end(fail)
        bench.reactor.call_soon(ran.append, 'on')
        await bench.settle()

    bench.run(main())
    assert ran == ['on']
    assert len(bench.errors) == 4
    assert all("ValueError('a bug') in " in text for text in bench.errors)


def test_without_anybody_to_report_to_an_error_ends_the_run_and_loses_no_call(closing: contextlib.ExitStack) -> None:
    reactor = Reactor(VirtualClock())
    ran: list[str] = []
    closing.callback(reactor.close)

    async def main() -> None:
        reactor.call_at_turn_end(os.stat, '/no/such/file')
        reactor.call_at_turn_end(ran.append, 'after')
        await sleep(reactor, 1)

    with pytest.raises(FileNotFoundError):
        reactor.run(main())
    reactor.run(sleep(reactor, 1))
    assert ran == ['after']
