"""Programs that a test starts: found, started with their output collected, waited for with a bound, always killed.

Nothing here knows mail. Every wait polls a condition until a deadline, and its failure shows what the program has
printed so far: a test that hangs says why.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable

ROOT = Path(__file__).resolve().parents[2]
HOST = '127.0.0.1'
PORTS = range(10240, 32768)  # Linux gives 32768 and up to those who connect
WAIT_SECONDS = 15.0     # a loaded two-core machine; nothing here takes a second when idle


def find_program(name: str) -> str:
    """Path of a command, looked for in sbin as well. AssertionError when it is not there: `build.py test` brings it."""
    path = shutil.which(name, path=os.environ.get('PATH', os.defpath) + ':/usr/local/sbin:/usr/sbin:/sbin')
    assert path, f'{name} is not installed; `python3 build.py test` installs it or says how'
    return path


def unprivileged() -> list[str]:
    """Words to put before a command: no privileges, and no HOME. To drop privileges takes root; others have none."""
    drop = [find_program('setpriv'), '--reuid=65534', '--regid=65534', '--clear-groups'] if os.geteuid() == 0 else []
    return [*drop, find_program('env'), '-u', 'HOME']


@functools.lru_cache(maxsize=None)
def interpreters(*prefix: str) -> list[str]:
    """One path for each minor version of Python, from 3.9 on, that runs here behind the words of `prefix`.

    This Python is among them unless the prefix keeps it out. PATH says which others, and pyenv, whose commands on PATH
    stand for one version only: a developer's machine may have several, a fresh one has one.
    """
    pyenv = Path(os.environ.get('PYENV_ROOT', os.path.expanduser('~/.pyenv')))
    names = [sys.executable, os.path.realpath(sys.executable), '/usr/bin/python3',
             *filter(None, (shutil.which(f'python3.{minor}') for minor in range(9, 15))),
             *(str(path) for path in sorted(pyenv.glob('versions/*/bin/python3')))]
    found: dict[bytes, str] = {}
    for name in names:
        program = 'import sys; print(sys.version_info[:2] >= (3, 9), sys.version[:4])'
        done = subprocess.run([*prefix, name, '-c', program], capture_output=True)
        if done.returncode == 0 and done.stdout.startswith(b'True'):
            found.setdefault(done.stdout, name)
    assert found, f'no Python from 3.9 on runs as: {" ".join(prefix)}'
    return list(found.values())


def environment_with(variables: Mapping[str, str]) -> dict[str, str]:
    """Ours plus these, without the settings of mqlite that a developer may have in it."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith(('MQLITE_', 'MAILERQ_'))}
    return {**ours, **variables}


def wait_until(condition: Callable[[], object], what: str, seconds: float = WAIT_SECONDS, every: float = 0.01) -> None:
    """Poll until the condition is true; AssertionError names `what` when it is not within the seconds."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f'waited {seconds} s for {what}'
        time.sleep(every)


def free_port() -> int:
    """A TCP port of the loopback that was free a moment ago. None of those that the kernel gives away: until a server
    listens on it, one of ten thousand connections could get it, or a test that runs beside us.
    """
    while True:
        port = secrets.choice(PORTS)
        with contextlib.suppress(OSError), socket.create_server((HOST, port)):
            return port


def answers(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


class Process:
    """A running program. Standard output and error go to one unnamed file, so no pipe fills up and none is lost."""

    def __init__(self, command: Sequence[str | Path], cwd: Path,
                 environment: Mapping[str, str] | None = None) -> None:
        self.command = [str(word) for word in command]
        self._output = tempfile.TemporaryFile()
        self._popen = subprocess.Popen(self.command, cwd=cwd, env=environment_with(environment or {}),
                                       stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT,
                                       start_new_session=True)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def children(self) -> list[int]:
        """The processes that it has started and not waited for yet."""
        return [int(pid) for pid in Path(f'/proc/{self.pid}/task/{self.pid}/children').read_text().split()]

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def output(self) -> str:
        """All that it has printed so far."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors='replace')

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> None:
        """As `wait_until`, and it fails at once when the program ends before the condition is true."""
        def true_or_dead() -> bool:
            return bool(condition()) or not self.running
        try:
            wait_until(true_or_dead, what, seconds)
            assert condition(), f'it ended with status {self._popen.returncode} before {what}'
        except AssertionError as error:
            raise AssertionError(f'{" ".join(self.command)}: {error}; its output:\n{self.output()}') from None

    def wait_listening(self, port: int) -> None:
        self.wait_for(lambda: answers(port), f'port {port} to answer')

    def wait_printed(self, text: str, seconds: float = WAIT_SECONDS) -> None:
        self.wait_for(lambda: text in self.output(), f'the output to contain {text!r}', seconds)

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def wait(self, seconds: float = WAIT_SECONDS) -> int:
        """Until it ends by itself; the exit status, negative for a signal."""
        try:
            wait_until(lambda: not self.running, 'its end', seconds, 0.002)    # Popen.wait looks every 50 ms
        except AssertionError:
            raise AssertionError(f'{" ".join(self.command)}: still running after {seconds} s; its output:\n'
                                 f'{self.output()}') from None
        return int(self._popen.returncode)

    def kill(self) -> None:
        """`kill -9` for all of its group, and reap."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def close(self) -> None:
        self.kill()
        self._output.close()
