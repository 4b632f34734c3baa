"""A loop in a thread of its own: coroutines run there, their outcomes come home."""

from __future__ import annotations

import contextlib
import threading

import pytest

from mqlite.loop.clock import Clock
from mqlite.loop.loop_thread import LoopThread
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import Cancelled, sleep
from tests.support.loop import LoopBench, open_descriptors


@pytest.fixture
def bench(closing: contextlib.ExitStack) -> LoopBench:
    made = LoopBench(Clock())
    closing.callback(made.close)
    return made


def fail(error: BaseException, where: str) -> None:
    raise AssertionError(where) from error


def test_a_coroutine_runs_there_and_its_result_comes_home(bench: LoopBench) -> None:
    async def work(reactor: Reactor) -> tuple[str, bool, bool]:
        await sleep(reactor, 0.001)
        return threading.current_thread().name, reactor.is_inside(), bench.reactor.is_inside()

    async def main() -> None:
        before = open_descriptors()
        other = LoopThread(bench.reactor, 'other', fail)
        assert [await answer for answer in [other.spawn(work(other.reactor)) for _ in range(20)]] == [
            ('other', True, False)] * 20
        assert bench.reactor.is_inside() and not other.reactor.is_inside()
        await other.stop()
        assert open_descriptors() == before
        assert 'other' not in {thread.name for thread in threading.enumerate()}

    bench.run(main())


@pytest.mark.parametrize('error', [ValueError('a bug'), Cancelled()])
def test_an_error_comes_home_and_the_loop_goes_on(bench: LoopBench, error: BaseException) -> None:
    async def work() -> None:
        raise error

    async def well() -> int:
        return 2

    async def main() -> None:
        other = LoopThread(bench.reactor, 'other', fail)
        with pytest.raises(type(error)):
            await other.spawn(work())
        assert await other.spawn(well()) == 2
        await other.stop()

    bench.run(main())


def test_a_mistake_in_a_callback_is_reported_there(bench: LoopBench) -> None:
    reported: list[str] = []

    def report(error: BaseException, where: str) -> None:
        reported.append(f'{error!r} {threading.current_thread().name}')

    async def well() -> int:
        return 2

    async def main() -> None:
        other = LoopThread(bench.reactor, 'other', report)
        other.reactor.call_from_thread(lambda: 1 // 0)
        assert await other.spawn(well()) == 2
        await other.stop()

    bench.run(main())
    assert reported == ["ZeroDivisionError('integer division or modulo by zero') other"]
