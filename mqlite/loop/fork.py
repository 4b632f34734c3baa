"""Children forked from a loop that go on with the same program, and each side's view of the other.

    parent                                   child
      │ ── fork ────────────────────────────► work(parent): its exit status
      │ ◄── report pipe: what it has to say,  tell()
      │     and what Python says at a crash   report_crashes()
      │ ── life pipe: nothing is written;     end_with_parent()
      │     it ends when the parent does

Fork before there are threads. The child gives up the parent's loop, its signal handlers included, and never returns
from `fork`: when its work is done it ends at once, without what Python does at an exit. A signal that reaches it before
it has handlers of its own may be lost: whoever sends one that matters sends it again when the child says that it is
ready.

A child that its parent does not survive ends at once: a thread waits for it, since the loop may be held up by C.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import traceback
from typing import Callable

from mqlite.loop.reactor import READ, Reactor
from mqlite.loop.task import Waiter

KILL = signal.SIGKILL
SAID_LIMIT = 65536  # bytes kept of what a child says
_ORPHANED = 1  # exit status
_FAILED = 70  # EX_SOFTWARE of sysexits.h


class Parent:
    """The parent, as its child sees it."""

    def __init__(self, report: int, life: int) -> None:
        self._report = report
        self._life = life

    def tell(self, text: str) -> None:
        """To be called with whole lines. OSError when there is no parent."""
        os.write(self._report, text.encode('utf-8', 'backslashreplace'))

    def report_crashes(self) -> None:
        """From now on the parent is told in which lines of Python the process was when a signal ended it."""
        faulthandler.enable(self._report)

    def end_with_parent(self) -> None:
        """From now on this process ends, at once, when its parent has ended."""
        threading.Thread(target=self._outlive, name='life', daemon=True).start()

    def _outlive(self) -> None:
        os.read(self._life, 1)
        os._exit(_ORPHANED)


class Child:
    """A child, as its parent sees it."""

    def __init__(self, reactor: Reactor, pid: int, report: int, on_said: Callable[[Child], object]) -> None:
        self.pid = pid
        self.said = b''
        self.ended: Waiter[int] = Waiter(reactor)  # what waitpid says of its end
        self._reactor = reactor
        self._report = report
        self._on_said = on_said
        os.set_blocking(report, False)
        reactor.watch(report, READ, self._listen)

    def signal(self, number: int) -> None:
        """It has not been waited for, so the number of its process is its own."""
        if not self.ended.done:
            os.kill(self.pid, number)

    def reap(self) -> None:
        """Has it ended?"""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self._listen()
            self._reactor.unwatch(self._report)
            os.close(self._report)
            self.ended.set(status)

    def _listen(self, _events: int = READ) -> None:
        try:
            data = os.read(self._report, SAID_LIMIT)
        except BlockingIOError:
            return
        if data:
            self.said = (self.said + data)[:SAID_LIMIT]
            self._on_said(self)
        else:
            self._reactor.unwatch(self._report)


class Forks:
    """All children of one loop, which must be that of the main thread."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._children: list[Child] = []
        self._life, self._life_held = os.pipe()
        reactor.on_signal(signal.SIGCHLD, self._reap)

    def fork(self, work: Callable[[Parent], int], on_said: Callable[[Child], object]) -> Child:
        """A new child; `on_said(child)` is called when it has said something. OSError when there can be none."""
        report, told = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            os.close(report)
            os.close(told)
            raise
        if pid == 0:
            self._live(work, Parent(told, self._life))
        os.close(told)
        child = Child(self._reactor, pid, report, on_said)
        self._children.append(child)
        return child

    def close(self) -> None:
        """No child is left."""
        os.close(self._life)
        os.close(self._life_held)

    def _live(self, work: Callable[[Parent], int], parent: Parent) -> None:
        """The life of a child."""
        status = _FAILED
        try:
            os.close(self._life_held)
            self._reactor.close()
            parent.end_with_parent()
            parent.report_crashes()
            status = work(parent)
        except BaseException as error:
            traceback.print_exc()
            parent.tell(f'{error!r}\n')
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(status)

    def _reap(self) -> None:
        for child in self._children:
            child.reap()
        self._children = [child for child in self._children if not child.ended.done]


def describe_end(status: int) -> str:
    """How a process ended, from what waitpid says: `signal 11 (SIGSEGV)` or `status 1`."""
    if not os.WIFSIGNALED(status):
        return f'status {os.WEXITSTATUS(status)}'
    number = os.WTERMSIG(status)
    try:
        return f'signal {number} ({signal.Signals(number).name})'
    except ValueError:
        return f'signal {number}'
