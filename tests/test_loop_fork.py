"""Children of a loop: what they say, how they end, and what becomes of them when their parent ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable

import pytest

from mqlite.loop.clock import Clock
from mqlite.loop.fork import KILL, Child, Forks, Parent, describe_end
from mqlite.loop.reactor import Reactor
from tests.support.loop import open_descriptors


@pytest.fixture
def reactor() -> Reactor:
    return Reactor(Clock())


def end_of(reactor: Reactor, work: Callable[[Parent], int], on_said: Callable[[Child], object] = print) -> Child:
    """The child, when it has ended."""
    async def main() -> Child:
        child = forks.fork(work, on_said)
        await child.ended
        return child
    before = open_descriptors()
    forks = Forks(reactor)
    child = reactor.run(main())
    assert open_descriptors() == before + 2     # the pipe of life
    forks.close()
    reactor.close()
    return child


def crash(parent: Parent) -> int:
    parent.tell('ready\n')
    return len(ctypes.string_at(0))


@pytest.mark.parametrize(('work', 'end'), [
    (lambda parent: 0,                                   'status 0'),
    (lambda parent: 3,                                   'status 3'),
    (lambda parent: sys.exit(4),                         'status 70'),
    (lambda parent: os.kill(os.getpid(), signal.SIGTERM), 'signal 15 (SIGTERM)'),
    (lambda parent: os.kill(os.getpid(), signal.SIGRTMIN + 3), f'signal {signal.SIGRTMIN + 3}'),
    (crash,                                              'signal 11 (SIGSEGV)'),
])
def test_how_it_ended(reactor: Reactor, work: Callable[[Parent], int], end: str) -> None:
    assert describe_end(end_of(reactor, work).ended.result()) == end


def test_what_it_says_is_heard_at_once_and_to_the_last(reactor: Reactor) -> None:
    heard: list[bytes] = []

    def work(parent: Parent) -> int:
        parent.tell('first\n')
        if os.read(go, 1) != b'x':
            return 1
        parent.tell('läst\n')
        return 0

    def on_said(child: Child) -> None:
        heard.append(child.said)
        os.write(gone, b'x')

    go, gone = os.pipe()
    child = end_of(reactor, work, on_said)
    os.close(go)
    os.close(gone)
    assert child.ended.result() == 0 and heard[0] == b'first\n' and child.said == 'first\nläst\n'.encode()


def test_a_mistake_is_told(reactor: Reactor, capfd: pytest.CaptureFixture[str]) -> None:
    child = end_of(reactor, lambda parent: 1 // 0)
    assert child.said == b"ZeroDivisionError('integer division or modulo by zero')\n"
    assert 'Traceback' in capfd.readouterr().err


def test_a_crash_is_told_with_the_lines_of_python(reactor: Reactor) -> None:
    said = end_of(reactor, crash).said.decode()
    assert said.startswith('ready\nFatal Python error: Segmentation fault\n')
    assert f'Current thread {threading.get_ident():#018x}' in said and 'in crash\n' in said


def test_a_child_has_the_handlers_of_before(reactor: Reactor) -> None:
    def work(parent: Parent) -> int:
        return 0 if signal.getsignal(signal.SIGTERM) == before else 1
    before = signal.getsignal(signal.SIGTERM)
    reactor.on_signal(signal.SIGTERM, lambda: None)
    assert end_of(reactor, work).ended.result() == 0


def test_signals_reach_it_until_it_has_ended(reactor: Reactor) -> None:
    async def main() -> None:
        child = forks.fork(lambda parent: len(os.read(never, 1)), print)
        child.signal(KILL)
        assert os.WTERMSIG(await child.ended) == KILL
        child.signal(KILL)      # nobody is there
    never, writer = os.pipe()
    forks = Forks(reactor)
    reactor.run(main())
    forks.close()
    reactor.close()
    os.close(never)
    os.close(writer)


def test_a_child_ends_with_its_parent(reactor: Reactor) -> None:
    """It is stuck in C, which a thread of it is not."""
    def parent_of(parent: Parent) -> int:
        inner = Reactor(Clock())
        Forks(inner).fork(stuck, print)
        assert os.read(begun, 1) == b'x'
        os._exit(5)

    def stuck(parent: Parent) -> int:
        os.close(begun)
        os.write(told, b'x')
        ctypes.CDLL(None).pause()
        return 0

    begun, told = os.pipe()
    child = end_of(reactor, parent_of)
    os.close(told)
    assert child.ended.result() >> 8 == 5
    assert os.read(begun, 1) == b''         # the last writer of the pipe, the grandchild, has gone
    os.close(begun)


def test_no_child_when_there_can_be_none(reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(11, 'Resource temporarily unavailable')
    monkeypatch.setattr(os, 'fork', refuse)
    forks = Forks(reactor)
    before = open_descriptors()
    with pytest.raises(OSError):
        forks.fork(lambda parent: 0, print)
    assert open_descriptors() == before
    with contextlib.closing(reactor):
        forks.close()
