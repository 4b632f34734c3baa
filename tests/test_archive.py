"""mqlite.pyz where a copied file must work: nothing writable but the queue, no privileges, no HOME, every Python here.

An interpreter may live where only its owner can go (a version manager's, in the home of root). Then what it needs is
copied, by hard links where the file system has them, to where everybody may read it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.daemon import greeting
from tests.support.load import send
from tests.support.process import (
    HOST,
    ROOT,
    Process,
    environment_with,
    find_program,
    free_port,
    interpreters,
    unprivileged,
    wait_until,
)
from tests.support.sink import CapturingSink

NEEDLESS = shutil.ignore_patterns('test', 'tests', 'site-packages', 'idlelib', 'lib2to3', 'config-*')
WHERE = 'import sys; print(sys.base_prefix, "%d.%d" % sys.version_info[:2], sys.platlibdir)'


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may read."""
    with tempfile.TemporaryDirectory(prefix='mqlite-public-') as name:
        Path(name).chmod(0o755)
        yield Path(name)


def reachable(python: str, public: Path) -> list[str]:
    """Words for env(1) that start the interpreter, or a copy of it, without privileges."""
    if subprocess.run([*unprivileged(), python, '-c', 'import ssl'], capture_output=True).returncode == 0:
        return [python]
    found = subprocess.run([python, '-c', WHERE], stdout=subprocess.PIPE, check=True)
    prefix, version, library = found.stdout.decode().split()
    copy = public / version
    shutil.copytree(Path(prefix, library, f'python{version}'), copy / library / f'python{version}', ignore=NEEDLESS,
                    copy_function=link)
    (copy / 'bin').mkdir()
    link(f'{prefix}/bin/python{version}', str(copy / 'bin' / 'python3'))
    for shared in Path(prefix, library).glob('libpython*.so*'):
        link(str(shared), str(copy / library / shared.name))
    return [f'LD_LIBRARY_PATH={copy / library}', str(copy / 'bin' / 'python3')]


def link(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


def test_it_takes_keeps_and_delivers_under_every_python(archive: Path, public: Path,
                                                        closing: contextlib.ExitStack) -> None:
    def install_and_try(python: str) -> None:
        folder, sink = Path(tempfile.mkdtemp(dir=public)), CapturingSink()
        closing.callback(sink.close)
        folder.chmod(0o755)
        installed, state = folder / 'installed', folder / 'state'
        installed.mkdir()
        state.mkdir()
        state.chmod(0o777)                              # the one folder where something can be written
        settings = {'smtp-ip': HOST, 'smtp-port': free_port(), 'queue-address': f'sqlite://{state}/queue.db',
                    'smtp-sink-address': HOST, 'smtp-sink-port': sink.port, 'application-log': 'stdout'}
        (installed / 'mqlite.conf').write_text(''.join(f'{key}: {value}\n' for key, value in settings.items()))
        shutil.copyfile(archive, installed / 'mqlite.pyz')
        installed.chmod(0o555)
        try_it([*unprivileged(), *reachable(python, public), '-W', 'error', 'mqlite.pyz'], installed, settings, sink)
        assert sorted(path.name for path in installed.iterdir()) == ['mqlite.conf', 'mqlite.pyz']
        assert len(sink.transactions) == 1

    with ThreadPoolExecutor(os.cpu_count()) as pool:    # every start compiles all of it
        list(pool.map(install_and_try, interpreters()))


def try_it(command: list[str], folder: Path, settings: dict[str, object], sink: CapturingSink) -> None:
    """One message from a client to the result, then a clean end; with `./mqlite.conf`."""
    port = int(str(settings['smtp-port']))
    daemon = Process([*command, '--config'], folder)
    try:
        daemon.wait_for(lambda: greeting(port).startswith(b'220 '), 'the greeting')
        send(port)
        sink.wait_for(1)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0 and 'Warning' not in daemon.output()
    finally:
        daemon.close()
    got = subprocess.run([*command, 'queue', 'get', 'results'], cwd=folder, capture_output=True)
    assert (got.returncode, got.stderr) == (0, b'')
    assert json.loads(got.stdout)['results'][0]['result'] == 'accepted'


def test_as_a_user_without_a_name(archive: Path, public: Path) -> None:
    """A container may run us under a number that /etc/passwd does not know."""
    if os.geteuid():
        return                                          # only root can become somebody else
    public.chmod(0o777)
    command = [find_program('setpriv'), '--reuid=54321', '--regid=54321', '--clear-groups', find_program('env'),
               *reachable(interpreters()[0], public), str(archive)]
    address = f'--queue-address=sqlite://{public}/queue.db'
    done = subprocess.run([*command, 'a@example.com', address], input=b'x', capture_output=True, cwd=public,
                          env={'PATH': os.environ['PATH']})
    assert (done.returncode, done.stderr) == (0, b'')
    got = subprocess.run([*command, 'queue', 'get', 'outbox', address], capture_output=True, cwd=public, env={})
    assert json.loads(got.stdout)['cli']['user'] == '54321'


def test_what_build_run_prints_works_word_for_word(tmp_path: Path) -> None:
    """A shell runs the printed lines; only the ports are others, because the usual ones may be taken."""
    tree = tmp_path / 'a tree'
    shutil.copytree(ROOT / 'mqlite', tree / 'mqlite', ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('build.py', 'LICENSE'):
        shutil.copyfile(ROOT / name, tree / name)
    program = (f'import sys, pathlib, build; build.VENV = pathlib.Path({sys.prefix!r}); '
               f'build.prepare = lambda *groups: None; '
               f'build.SMTP_PORT, build.SINK_PORT = {free_port()}, {free_port()}; sys.exit(build.main(["run"]))')
    running = Process([sys.executable, '-c', program], tree)
    try:
        last = 'queue get results --config .run/mqlite.conf\n'
        running.wait_printed(last)
        printed = running.output().partition(last)  # a line of the daemon's log may follow
        lines = (printed[0][printed[0].index('cd '):] + last).strip().splitlines()
        assert sum(line.count('smtp://') + line.count('import smtplib') for line in lines) == 2
        shell(lines[:-1])
        running.wait_printed('Sent with curl.')
        running.wait_printed('Sent with Python.')
        read: list[str] = []

        def both_results() -> bool:
            read.append(shell([lines[0], lines[-1]]))
            return ''.join(read).count('"state": "message", "result": "accepted"') == 2
        wait_until(both_results, 'two results')
    finally:
        running.signal(signal.SIGTERM)
        running.wait()
        running.close()


def shell(lines: list[str]) -> str:
    """Run the lines as one script, from elsewhere; what they print."""
    done = subprocess.run(['sh', '-e', '-c', '\n'.join(lines)], cwd='/', capture_output=True, timeout=60,
                          env=environment_with({}))
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()
