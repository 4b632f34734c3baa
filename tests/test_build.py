"""build.py: the archive is the same bytes everywhere and starts anywhere; what is missing is named in one line.

The archive is packed from a small package of the same shape, so that these tests stand whatever mqlite itself does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import shiv

import build
from tests.support.process import HOST, ROOT, Process, free_port, interpreters, unprivileged

# Stands for the command line of mqlite. Given --config or `sink` it listens until SIGTERM; else it shows its arguments.
CLI = '''
"""A stand-in."""
import os, re, signal, socket, sys

def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    print(__file__, argv, os.environ.get('HOME'))
    if argv[:1] not in (['sink'], ['--config']):
        return 7
    name, port = 'sink', argv[-1]
    if argv[0] == '--config':
        name, port = 'daemon', re.search(r'(?m)^smtp-port: (.*)$', open(argv[1]).read()).group(1)
    status = 3 if name == 'daemon' else 0
    signal.signal(signal.SIGTERM, lambda *_: (print(name + ' stops', flush=True), sys.exit(status)))
    listener = socket.create_server(('127.0.0.1', int(port)))
    while True:
        with listener.accept()[0] as client:
            client.sendall(b'220')
'''


def make_tree(root: Path) -> Path:
    """A checkout with everything that build.py reads, made under the usual permissions of no one machine."""
    (root / 'mqlite' / 'sub').mkdir(parents=True)
    for name in ('build.py', 'LICENSE', 'mqlite/__init__.py', 'mqlite/__main__.py'):
        shutil.copyfile(ROOT / name, root / name)
    (root / 'mqlite' / 'cli.py').write_text(CLI)
    (root / 'mqlite' / 'sub' / '__init__.py').write_text('')
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / 'tree')


@pytest.fixture
def public_archive() -> Iterator[Path]:
    """In a folder that everybody may read and nobody may write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build.pack(make_tree(folder / 'tree'), folder / 'mqlite.pyz')
        shutil.rmtree(folder / 'tree')
        folder.chmod(0o555)
        yield folder / 'mqlite.pyz'


def test_the_same_sources_give_the_same_bytes_under_every_python(tmp_path: Path) -> None:
    environment = {**os.environ, 'PYTHONPATH': str(Path(shiv.__file__ or '').parents[1])}
    archives = []
    for number, python in enumerate(interpreters()):
        root = make_tree(tmp_path / f'tree{number}')
        for path in root.rglob('*'):
            os.utime(path, (1e9 + number, 1e9 + number))
            path.chmod(0o700 if number % 2 or path.is_dir() else 0o444)
        program = f'import os, build, pathlib; os.umask({number}); build.pack(build.ROOT, pathlib.Path("made.pyz"))'
        subprocess.run([python, '-c', program], cwd=root, check=True, env=environment)
        archives.append((root / 'made.pyz').read_bytes())
    build.pack(make_tree(tmp_path / 'last'), tmp_path / 'last.pyz')
    assert set(archives) == {(tmp_path / 'last.pyz').read_bytes()}


def test_contents_of_the_archive(tree: Path, tmp_path: Path) -> None:
    (tree / 'mqlite' / '__pycache__').mkdir()
    (tree / 'mqlite' / '__pycache__' / 'cli.cpython-39.pyc').write_bytes(b'old')
    (tree / 'mqlite' / 'cli.py~').write_bytes(b'old')
    target = tmp_path / 'mqlite.pyz'
    build.pack(tree, target)
    with zipfile.ZipFile(target) as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries] == [
        'LICENSE', '__main__.py', 'mqlite/__init__.py', 'mqlite/__main__.py', 'mqlite/cli.py', 'mqlite/sub/__init__.py']
    assert {(entry.date_time, entry.compress_type, entry.external_attr >> 16) for entry in entries} == {
        ((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED, 0o100644)}
    assert target.read_bytes().startswith(b'#!/usr/bin/env python3\n')
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ['mqlite.pyz']


@pytest.mark.parametrize('flags', [(), ('-I',), ('-W', 'error')])
def test_it_starts_unpacked_nowhere(public_archive: Path, flags: tuple[str, ...]) -> None:
    """Read-only, without HOME, without privileges, under every Python; arguments and exit status pass through."""
    for python in interpreters(*unprivileged()):
        command = [*unprivileged(), python, *flags, str(public_archive), 'a', 'b c']
        done = subprocess.run(command, cwd='/', capture_output=True)
        assert (done.returncode, done.stderr) == (7, b'')
        assert done.stdout.decode() == f"{public_archive}/mqlite/cli.py ['a', 'b c'] None\n"
    assert [path.name for path in public_archive.parent.iterdir()] == ['mqlite.pyz']


PINS = [f'{package}=={version}' for package, version, _ in build.PINS]
BUILD_PINS = [f'{package}=={version}' for package, version, group in build.PINS if group == 'build']
TEST_PINS = [f'{package}=={version}' for package, version, group in build.PINS if group == 'test']


@pytest.mark.parametrize(('stamp', 'groups', 'plan'), [
    ([],                                     ['build'],         (True, BUILD_PINS)),
    (['# another Python', *PINS],            ['build'],         (True, BUILD_PINS)),
    ([build.interpreter(), 'shiv==0.0.1'],   ['build'],         (True, BUILD_PINS)),
    ([build.interpreter(), *BUILD_PINS],     ['build'],         (False, [])),
    ([build.interpreter(), *PINS],           ['build', 'test'], (False, [])),
    ([build.interpreter(), *BUILD_PINS],     ['build', 'test'], (False, TEST_PINS)),
])
def test_packages_are_installed_when_pins_or_python_change(
        stamp: list[str], groups: list[str], plan: tuple[bool, list[str]]) -> None:
    assert build.plan_packages(stamp, groups) == plan


def test_without_a_package_index_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', '')
    with pytest.raises(build.Failure, match='^could not install shiv==0.0.0: .* index must.* No matching'):
        build.pip_install(sys.executable, ['shiv==0.0.0'])


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, 'geteuid', lambda: 1000)
    monkeypatch.setattr(build, 'PROGRAMS', (
        ('module:json',          'python3',  'test',  'is there'),
        ('module:no_such',       'python3x', 'test',  'reading'),
        ('no-such-command',      'nosuch',   'test',  'writing'),
        ('/no/such/file',        'nosuch',   'test',  'linking'),
        ('no-such-peer',         'nopeer',   'peers', 'something else')))
    with pytest.raises(build.Failure) as failure:
        build.require_programs(['build', 'test'])
    assert str(failure.value) == (
        'missing: module:no_such (reading), no-such-command (writing), /no/such/file (linking). '
        'On Debian, as root: apt-get install --no-install-recommends nosuch python3x')


def test_a_port_in_use_is_named() -> None:
    with socket.create_server((HOST, 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(build.Failure, match=f'^{HOST}:{port} cannot be used .*in use.*sport = :{port}'):
            build.refuse_used_port(port)
    build.refuse_used_port(port)


@pytest.mark.parametrize(('argv', 'status', 'says'), [
    (['nonsense'],       2, 'usage: python3 build.py'),
    (['--help'],         0, 'usage: python3 build.py'),
    (['bench', 'no/so'], 1, 'build.py: bench NAME'),
])
def test_usage(argv: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(argv) == status
    assert says in ''.join(capsys.readouterr())


@contextlib.contextmanager
def running(tree: Path) -> Iterator[Process]:
    """`build.py run` in the tree, on free ports, with the packages that are there already."""
    program = (f'import sys, pathlib, build; build.VENV = pathlib.Path({str(sys.prefix)!r}); '
               f'build.prepare = lambda *groups: None; '
               f'build.SMTP_PORT, build.SINK_PORT = {free_port()}, {free_port()}; sys.exit(build.main(["run"]))')
    run = Process([sys.executable, '-c', program], tree)
    try:
        yield run
    finally:
        run.signal(signal.SIGTERM)          # so that it ends what it started, also when the test has failed
        run.wait()
        run.close()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_run_starts_both_and_ends_both(tree: Path, number: int) -> None:
    with running(tree) as run:
        run.wait_printed('queue get results --config .run/mqlite.conf')
        run.signal(number)
        assert run.wait() == 3              # the daemon's
        lines = run.output().splitlines()
        assert lines.index('daemon stops') < lines.index('sink stops')
        assert stat.S_IMODE((tree / '.run').stat().st_mode) == 0o700


def test_run_ends_when_the_daemon_does_not_start(tree: Path) -> None:
    (tree / 'mqlite' / 'cli.py').write_text(CLI.replace("'daemon', re", "sys.exit('cannot'), re"))
    with running(tree) as run:
        assert run.wait() == 1
        assert 'cannot' in run.output() and 'sink stops' in run.output() and 'queue list' not in run.output()
