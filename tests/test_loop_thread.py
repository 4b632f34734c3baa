"""The worker thread: jobs in order, answers in the loop, and the clock that waits for it."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref

import pytest

from mqlite.loop.task import Cancelled, sleep
from mqlite.loop.thread import WorkerThread
from tests.support import loop
from tests.support.loop import LoopBench
from tests.support.process import wait_until

bench = loop.bench  # fixture


@pytest.fixture
def worker(bench: LoopBench, closing: contextlib.ExitStack) -> WorkerThread:
    made = WorkerThread(bench.reactor, 'worker')
    closing.callback(made.stop)
    return made


def test_jobs_run_in_order_in_the_thread_and_answer_in_the_loop(bench: LoopBench, worker: WorkerThread) -> None:
    ran: list[tuple[int, str]] = []

    def job(number: int) -> int:
        ran.append((number, threading.current_thread().name))
        return number * number

    async def main() -> list[int]:
        answers = [worker.submit(job, number) for number in range(100)]
        return [await answer for answer in answers]

    assert bench.run(main()) == [number * number for number in range(100)]
    assert ran == [(number, 'worker') for number in range(100)]


@pytest.mark.parametrize('error', [ValueError('a bug'), SystemExit(3)])
def test_an_error_reaches_who_waits_and_the_next_job_runs(bench: LoopBench, worker: WorkerThread,
                                                          error: BaseException) -> None:
    def job() -> None:
        raise error

    async def fail() -> BaseException:
        try:
            await worker.submit(job)
        except BaseException as raised:
            return raised
        raise AssertionError('no error')

    async def main() -> tuple[BaseException, int]:
        return await fail(), await worker.submit(lambda: 7)

    assert bench.run(main()) == (error, 7)


def test_the_virtual_clock_stands_still_while_a_job_runs(bench: LoopBench, worker: WorkerThread) -> None:
    go = threading.Event()

    async def main() -> float:
        bench.reactor.call_later(3600, print)
        bench.reactor.call_later(0, go.set)
        await worker.submit(go.wait, 10)
        return bench.reactor.now()

    assert bench.run(main()) == 0.0


def test_who_stops_waiting_does_not_stop_the_job(bench: LoopBench, worker: WorkerThread) -> None:
    go = threading.Event()
    ran: list[str] = []

    def job() -> None:
        go.wait(10)
        ran.append('to its end')

    async def wait() -> None:
        await worker.submit(job)

    async def main() -> None:
        task = bench.reactor.spawn(wait())
        bench.reactor.call_soon(task.cancel)
        with pytest.raises(Cancelled):
            await task
        go.set()
        await worker.submit(abs, 0)
        assert bench.reactor.threads_busy == 0

    bench.run(main())
    assert ran == ['to its end']


def test_jobs_given_before_stop_are_done(bench: LoopBench) -> None:
    worker = WorkerThread(bench.reactor, 'short')

    async def main() -> list[int]:
        answers = [worker.submit(abs, -number) for number in range(5)]
        worker.stop()
        return [await answer for answer in answers]

    assert bench.run(main()) == [0, 1, 2, 3, 4]
    wait_until(lambda: 'short' not in [thread.name for thread in threading.enumerate()], 'the thread to end')


class Large:
    """Stands for a body of megabytes."""


def test_an_idle_thread_holds_on_to_nothing(bench: LoopBench, worker: WorkerThread) -> None:
    kept = Large()
    gone = weakref.ref(kept)

    async def main() -> None:
        nonlocal kept
        answer = worker.submit(lambda value: value, kept)
        del kept
        await answer

    bench.run(main())
    bench.run(sleep(bench.reactor, 1))
    gc.collect()
    wait_until(lambda: gone() is None, 'the thread to let go of its last job')
