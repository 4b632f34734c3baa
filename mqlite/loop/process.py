"""Running another program to its end: no shell, a time limit, and never a zombie.

    reactor ── posix_spawn ──► program        standard input: a pipe that already holds all it will get
       ▲                          │           standard output and error: nowhere
       └── pidfd readable ◄── it ends

The exit status is the whole answer. What the program prints is not read: there is no buffer to bound, and nothing that
it was told in confidence comes back into a log. It leads a process group of its own; when its time is up, or the task
that waits is cancelled, the group is killed, children of a script included.

The end is learnt from a pidfd (Linux 5.3), where there is none by asking now and then. There is no handler for SIGCHLD:
that signal is one for the whole process, and whoever supervises workers may want it.

Limits: INPUT_LIMIT bytes of input, `seconds` of time. How many programs run at once is for the caller to bound.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence

from mqlite.loop.reactor import READ, Reactor
from mqlite.loop.task import Waiter, sleep, timeout

INPUT_LIMIT = 4096  # bytes: what an empty pipe takes at once, on every Unix and under every limit (pipe(7), PIPE_BUF)
_POLL = 0.02  # seconds between two questions whether it has ended, where there is no pidfd


async def run_program(reactor: Reactor, command: Sequence[str], given: bytes, environment: Mapping[str, str],
                      seconds: float) -> int:
    """Run command[0], an absolute path, with `given` as standard input; its exit status, negative for a signal.

    OSError when it cannot be started or somebody else took its status, Timeout when it did not end in time.
    """
    assert len(given) <= INPUT_LIMIT
    pid = _spawn(command, given, environment)
    try:
        with timeout(reactor, seconds, f'{command[0]} did not end within {seconds:g} s'):
            await _wait_end(reactor, pid)
    except BaseException:
        with contextlib.suppress(OSError):  # gone already, or it runs as somebody whom we may not kill
            os.killpg(pid, signal.SIGKILL)
        reactor.spawn(_reap(reactor, pid), 'reaping a program')
        raise
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _spawn(command: Sequence[str], given: bytes, environment: Mapping[str, str]) -> int:
    """Python's descriptors are not inherited (PEP 446), and the three that are come from here. SIGPIPE, which Python
    ignores, has its usual meaning for the program."""
    reader, writer = os.pipe()
    try:
        os.write(writer, given)
        os.close(writer)
        writer = -1
        actions = [(os.POSIX_SPAWN_DUP2, reader, 0),
                   (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                   (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]
        return os.posix_spawn(command[0], list(command), dict(environment), file_actions=actions, setpgroup=0,
                              setsigmask=(), setsigdef=(signal.SIGPIPE,))
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


async def _wait_end(reactor: Reactor, pid: int) -> None:
    """Until it has ended, and still is there to be reaped."""
    descriptor = _open_pidfd(pid)
    if descriptor < 0:
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            await sleep(reactor, _POLL)
        return
    waiter: Waiter[None] = Waiter(reactor)

    def on_end(_events: int) -> None:
        reactor.unwatch(descriptor)
        waiter.set()

    reactor.watch(descriptor, READ, on_end)
    try:
        await waiter
    finally:
        reactor.unwatch(descriptor)
        os.close(descriptor)


def _open_pidfd(pid: int) -> int:
    """-1 where the kernel, a container's filter or the build of Python has none."""
    if not hasattr(os, 'pidfd_open'):
        return -1
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


async def _reap(reactor: Reactor, pid: int) -> None:
    """Even a killed program may take its time, in a system call on a dead disk: the loop does not wait for it."""
    with contextlib.suppress(ChildProcessError):
        await _wait_end(reactor, pid)
        os.waitpid(pid, 0)
