"""The task layer: one awaitable, one outcome, one cause to end at a time."""

from __future__ import annotations

import contextlib

import pytest

from mqlite.loop.sync import Signal
from mqlite.loop.task import Cancelled, Task, Timeout, Waiter, sleep, timeout
from tests.support import loop
from tests.support.loop import LoopBench

bench = loop.bench  # fixture


async def wait_and_log(waiter: Waiter[str], log: list[str]) -> None:
    """Logs every way out, and waits on afterwards."""
    try:
        log.append(await waiter)
    except (Exception, Cancelled) as error:
        log.append(repr(error))
        raise
    finally:
        log.append('finally')


def test_a_result_an_error_and_a_value_that_was_there_before(bench: LoopBench) -> None:
    async def main() -> list[object]:
        early: Waiter[int] = Waiter(bench.reactor)
        early.set(1)
        late: Waiter[int] = Waiter(bench.reactor)
        bench.reactor.call_later(5, late.set, 2)
        bad: Waiter[int] = Waiter(bench.reactor)
        bench.reactor.call_later(6, bad.fail, ValueError('three'))
        got: list[object] = [await early, bench.reactor.now(), await late, bench.reactor.now()]
        with pytest.raises(ValueError, match='three'):
            await bad
        return got

    assert bench.run(main()) == [1, 0.0, 2, 5.0]


def test_a_waiter_has_one_outcome(bench: LoopBench) -> None:
    waiter: Waiter[int] = Waiter(bench.reactor)
    waiter.set(1)
    with pytest.raises(RuntimeError, match='exactly one outcome'):
        waiter.set(2)
    with pytest.raises(RuntimeError, match='exactly one outcome'):
        waiter.fail(ValueError())
    assert waiter.result() == 1


def test_a_second_task_on_one_waiter_is_told_and_the_first_is_undisturbed(bench: LoopBench) -> None:
    waiter: Waiter[str] = Waiter(bench.reactor)
    first: list[str] = []
    second: list[str] = []

    async def main() -> None:
        good = bench.reactor.spawn(wait_and_log(waiter, first))
        bad = bench.reactor.spawn(wait_and_log(waiter, second), 'the second')
        with pytest.raises(RuntimeError, match='the second awaits what another task awaits'):
            await bad
        waiter.set('value')
        await good

    bench.run(main())
    assert first == ['value', 'finally']
    assert second[1:] == ['finally']


@pytest.mark.parametrize(('cause', 'raised'), [(None, Cancelled), (ValueError('a cause'), ValueError)])
def test_cancelling_raises_the_cause_at_the_await(bench: LoopBench, cause: BaseException | None,
                                                  raised: type[BaseException]) -> None:
    waiter: Waiter[str] = Waiter(bench.reactor)
    log: list[str] = []

    async def main() -> None:
        task = bench.reactor.spawn(wait_and_log(waiter, log))
        await bench.settle()
        task.cancel(cause)
        with pytest.raises(raised):
            await task
        task.cancel()
        waiter.set('too late')
        await bench.settle()

    bench.run(main())
    assert log == [repr(cause or Cancelled()), 'finally']


def test_cancelling_beats_a_result_that_came_in_the_same_turn(bench: LoopBench) -> None:
    waiter: Waiter[str] = Waiter(bench.reactor)
    log: list[str] = []

    async def main() -> None:
        task = bench.reactor.spawn(wait_and_log(waiter, log))
        await bench.settle()
        waiter.set('value')
        task.cancel()
        with pytest.raises(Cancelled):
            await task

    bench.run(main())
    assert log == ['Cancelled()', 'finally']


def test_a_task_that_is_cancelled_before_it_begins_still_reaches_its_finally(bench: LoopBench) -> None:
    log: list[str] = []

    async def main() -> None:
        task = bench.reactor.spawn(wait_and_log(Waiter(bench.reactor), log))
        task.cancel()
        with pytest.raises(Cancelled):
            await task

    bench.run(main())
    assert log == ['Cancelled()', 'finally']


def test_a_task_that_never_waits_ends_well_though_it_was_cancelled_first(bench: LoopBench) -> None:
    async def at_once() -> str:
        return 'done'

    async def main() -> str:
        task = bench.reactor.spawn(at_once())
        task.cancel()
        result = await task
        await bench.settle()
        return result

    assert bench.run(main()) == 'done'


@pytest.mark.parametrize(('causes', 'raised'), [
    ((Timeout('first'), None), Cancelled),
    ((None, Timeout('second')), Cancelled),
    ((Timeout('first'), Timeout('second')), Timeout),
])
def test_a_time_out_does_not_hide_the_end(bench: LoopBench, causes: tuple[BaseException | None, ...],
                                          raised: type[BaseException]) -> None:
    async def main() -> None:
        task = bench.reactor.spawn(sleep(bench.reactor, 3600))
        await bench.settle()
        for cause in causes:
            task.cancel(cause)
        with pytest.raises(raised) as caught:
            await task
        assert str(caught.value) in ('', 'first')

    bench.run(main())


def test_a_task_that_cancels_itself_is_not_woken_by_what_it_had_waited_for(bench: LoopBench) -> None:
    old: Waiter[str] = Waiter(bench.reactor)
    new: Waiter[str] = Waiter(bench.reactor)

    async def strange() -> str:
        task = bench.reactor.current
        assert task is not None
        task.cancel()
        with contextlib.suppress(Cancelled):
            await old
        return await new

    async def main() -> str:
        task = bench.reactor.spawn(strange())
        await bench.settle()
        old.set('old')
        await bench.settle()
        assert not task.done
        new.set('new')
        return await task

    assert bench.run(main()) == 'new'


def test_a_task_may_wait_while_it_cleans_up(bench: LoopBench) -> None:
    async def careful() -> float:
        try:
            await sleep(bench.reactor, 3600)
        finally:
            await sleep(bench.reactor, 10)
        return 0

    async def main() -> float:
        task = bench.reactor.spawn(careful())
        await sleep(bench.reactor, 5)
        task.cancel()
        with pytest.raises(Cancelled):
            await task
        return bench.reactor.now()

    assert bench.run(main()) == 15.0


async def fail() -> None:
    raise ValueError('a bug')


def test_a_failure_that_nobody_awaits_is_reported_and_one_that_is_awaited_is_not(bench: LoopBench) -> None:
    async def main() -> None:
        bench.reactor.spawn(fail(), 'lonely')
        await bench.settle()
        with pytest.raises(ValueError, match='a bug'):
            await bench.reactor.spawn(fail())

    bench.run(main())
    assert bench.errors == ["ValueError('a bug') in task lonely"]
    bench.errors.clear()


def test_current_is_the_task_that_runs(bench: LoopBench) -> None:
    async def main() -> None:
        before = bench.reactor.current
        seen: list[Task[None] | None] = []

        async def note() -> None:
            seen.append(bench.reactor.current)

        task = bench.reactor.spawn(note())
        await task
        assert seen == [task]
        assert bench.reactor.current is before

    bench.run(main())
    assert bench.reactor.current is None


def test_a_time_out_ends_the_block_that_is_too_slow_and_no_other(bench: LoopBench) -> None:
    async def main() -> None:
        with timeout(bench.reactor, 10):
            await sleep(bench.reactor, 9)
        await sleep(bench.reactor, 100)
        with pytest.raises(Timeout, match='too slow'), timeout(bench.reactor, 10, 'too slow'):
            await sleep(bench.reactor, 3600)
        assert bench.reactor.now() == 119.0
        with pytest.raises(Timeout, match='outer'), timeout(bench.reactor, 5, 'outer'):
            with timeout(bench.reactor, 10, 'inner'):
                await sleep(bench.reactor, 3600)
        await sleep(bench.reactor, 100)
        assert bench.reactor.now() == 224.0

    bench.run(main())
    assert len(bench.reactor._timers) == 0


def test_a_cancelled_sleep_leaves_no_timer(bench: LoopBench) -> None:
    async def main() -> None:
        tasks = [bench.reactor.spawn(sleep(bench.reactor, 3600)) for _ in range(100)]
        await bench.settle()
        for task in tasks:
            task.cancel()
        await bench.settle()
        assert all(task.done for task in tasks)

    bench.run(main())
    assert len(bench.reactor._timers) == 0


def test_a_signal_wakes_all_that_wait_and_forgets_those_that_have_gone(bench: LoopBench) -> None:
    signal = Signal(bench.reactor)
    woken: list[int] = []

    async def wait(number: int) -> None:
        await signal.wait()
        woken.append(number)

    async def main() -> None:
        tasks = [bench.reactor.spawn(wait(number)) for number in range(4)]
        await bench.settle()
        tasks[1].cancel()
        await bench.settle()
        assert len(signal._waiters) == 3
        signal.notify()
        tasks[2].cancel()
        await bench.settle()
        signal.notify()

    bench.run(main())
    assert woken == [0, 3]
    assert signal._waiters == []
