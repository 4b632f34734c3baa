"""Programs run to their end: status, input, time limit, nothing left over. Their clock is the real one, so is ours."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

import mqlite.loop.process
from mqlite.loop.clock import Clock
from mqlite.loop.process import INPUT_LIMIT, run_program
from mqlite.loop.task import Cancelled, Timeout, sleep
from tests.support.loop import LoopBench, open_descriptors

SH = '/bin/sh'
ENVIRONMENT = {'PATH': os.environ['PATH']}


@pytest.fixture(params=['pidfd', 'polled'])
def bench(request: pytest.FixtureRequest, closing: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch) -> LoopBench:
    if request.param == 'polled':
        monkeypatch.setattr(mqlite.loop.process, '_open_pidfd', lambda _pid: -1)
    made = LoopBench(Clock())
    closing.callback(made.close)
    return made


def run(bench: LoopBench, script: str, given: bytes = b'', seconds: float = 10) -> int:
    return bench.run(run_program(bench.reactor, [SH, '-c', script], given, ENVIRONMENT, seconds))


def children() -> list[int]:
    """Of this process, zombies included."""
    while True:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):    # a thread of a test before has just ended
            return [int(pid) for task in Path('/proc/self/task').iterdir()
                    for pid in (task / 'children').read_text().split()]


async def wait_no_children(bench: LoopBench, before: list[int]) -> None:
    for _ in range(1000):
        if set(children()) <= set(before):
            return
        await sleep(bench.reactor, 0.01)
    raise AssertionError('a child is left')


@pytest.mark.parametrize(('script', 'status'), [
    ('exit 0', 0), ('exit 7', 7), ('exit 255', 255), ('kill -TERM $$', -15), ('no-such-program-here', 127)])
def test_status(bench: LoopBench, script: str, status: int) -> None:
    before, descriptors = children(), open_descriptors()
    assert run(bench, script) == status
    assert children() == before and open_descriptors() == descriptors


def test_input_and_environment(bench: LoopBench, tmp_path: Path) -> None:
    assert run(bench, f'cat > {tmp_path}/input; env > {tmp_path}/environment', b'one\ntwo\0\xff\n') == 0
    assert (tmp_path / 'input').read_bytes() == b'one\ntwo\0\xff\n'
    assert f'PATH={ENVIRONMENT["PATH"]}\n' in (tmp_path / 'environment').read_text()
    assert 'HOME=' not in (tmp_path / 'environment').read_text()


def test_all_the_input_that_there_may_be_is_taken_from_who_does_not_read(bench: LoopBench) -> None:
    assert run(bench, 'exit 3', b'x' * INPUT_LIMIT) == 3
    with pytest.raises(AssertionError):
        run(bench, 'exit 0', b'x' * (INPUT_LIMIT + 1))


def test_what_it_prints_goes_nowhere(bench: LoopBench, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(bench, 'head -c 1000000 /dev/zero; echo words; echo words >&2; exit 4') == 4
    assert capfd.readouterr() == ('', '')


def test_it_has_no_descriptors_of_ours(bench: LoopBench, tmp_path: Path) -> None:
    with open(tmp_path / 'ours', 'w'):
        assert run(bench, f'readlink /proc/self/fd/* > {tmp_path}/theirs; exit 0') == 0
    theirs = (tmp_path / 'theirs').read_text().split('\n')
    assert str(tmp_path / 'theirs') in theirs and str(tmp_path / 'ours') not in theirs
    assert not any('eventpoll' in name for name in theirs)


@pytest.mark.parametrize('path', ['/no/such/program', '/etc/passwd', '/'])
def test_what_cannot_be_started(bench: LoopBench, path: str) -> None:
    before, descriptors = children(), open_descriptors()
    with pytest.raises(OSError):
        bench.run(run_program(bench.reactor, [path], b'', ENVIRONMENT, 10))
    assert children() == before and open_descriptors() == descriptors


def test_a_time_limit_ends_it_and_its_children(bench: LoopBench, tmp_path: Path) -> None:
    before, descriptors, began = children(), open_descriptors(), time.monotonic()

    async def main() -> None:
        with pytest.raises(Timeout, match='/bin/sh did not end within 0.3 s'):
            await run_program(bench.reactor, [SH, '-c', f'sleep 600 & echo $! > {tmp_path}/pid; wait'], b'',
                              ENVIRONMENT, 0.3)
        await wait_no_children(bench, before)

    bench.run(main())
    assert time.monotonic() - began < 10 and open_descriptors() == descriptors
    grandchild = int((tmp_path / 'pid').read_text())
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:       # whoever adopts it reaps it, sooner or later
        try:
            if Path(f'/proc/{grandchild}/stat').read_text().rpartition(')')[2].split()[0] == 'Z':
                return
        except FileNotFoundError:
            return
    raise AssertionError('the child of the program goes on')


def test_who_waits_is_cancelled(bench: LoopBench) -> None:
    before = children()

    async def main() -> None:
        task = bench.reactor.spawn(run_program(bench.reactor, [SH, '-c', 'sleep 600'], b'', ENVIRONMENT, 600))
        await sleep(bench.reactor, 0.05)
        task.cancel()
        with pytest.raises(Cancelled):
            await task
        await wait_no_children(bench, before)

    bench.run(main())


def test_the_loop_goes_on_meanwhile(bench: LoopBench) -> None:
    async def main() -> tuple[list[int], float]:
        began = time.monotonic()
        tasks = [bench.reactor.spawn(run_program(bench.reactor, [SH, '-c', f'sleep 0.3; exit {number}'], b'',
                                                 ENVIRONMENT, 10)) for number in range(8)]
        return [await task for task in tasks], time.monotonic() - began

    statuses, seconds = bench.run(main())
    assert statuses == list(range(8)) and seconds < 2


def test_somebody_else_takes_its_status(bench: LoopBench, tmp_path: Path) -> None:
    """A supervisor that waits for any child, say. Its status is lost, and that is told. It ends when we let it."""
    gate = tmp_path / 'gate'
    os.mkfifo(gate)

    async def main() -> None:
        before = set(children())

        def take() -> None:
            gate.write_text('go\n')
            for pid in set(children()) - before:
                os.waitpid(pid, 0)

        task = bench.reactor.spawn(run_program(bench.reactor, [SH, '-c', f'read x < {gate}'], b'', ENVIRONMENT, 10))
        bench.reactor.call_soon(take)
        with pytest.raises(ChildProcessError):
            await task

    bench.run(main())


def test_the_signal_of_a_broken_pipe_is_not_ignored_by_it(bench: LoopBench) -> None:
    """Python ignores it, and what is ignored is inherited: `yes | head` would complain, or go on for ever."""
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
    assert run(bench, 'kill -PIPE $$; exit 0') == -signal.SIGPIPE
