"""The command line: what each command prints, its exit status, and the one line that says what is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import socket
import sqlite3
import subprocess
import tempfile
from pathlib import Path
from typing import Callable

import pytest

from mqlite import __version__
from tests.support.command import Ended, in_process
from tests.support.daemon import CHECKOUT, ENVIRONMENT, Daemon, run_cli
from tests.support.load import send
from tests.support.process import HOST, Process, environment_with, free_port, wait_until
from tests.support.sink import CapturingSink

Start = Callable[..., Daemon]
Run = Callable[..., Ended]


@pytest.fixture
def run_main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """run_main('queue', 'list', input=b'') in an empty folder."""
    monkeypatch.chdir(tmp_path)                         # for processes of its own, too
    return in_process(tmp_path)


# what is asked for

@pytest.mark.parametrize(('arguments', 'says'), [
    ([],                                           '--help'),
    (['--check-confg'],                            'did you mean check-config?'),
    (['--smtp-prot=25'],                           'did you mean smtp-port?'),
    (['--smtp-prot', '25', '--check-config'],      'did you mean smtp-port?'),
    (['--smarthost-pasword=secret'],               '--smarthost-pasword: there is no such option; did you mean'),
    (['-v'],                                       '-v: there is no such option'),
    (['--smtp-port'],                              '--smtp-port needs a value'),
    (['--smtp-port', '--config'],                  '--smtp-port needs a value'),
    (['--version=1'],                              '--version takes no value'),
    (['queue'],                                    'usage: queue list'),
    (['queue', 'lst'],                             'usage: queue list'),
    (['queue', 'list', 'more'],                    'usage: queue list'),
    (['queue', 'get'],                             'usage: queue list'),
    (['queue', 'publish', 'a', 'b'],               'usage: queue list'),
    (['queue', 'get', 'results', '--count'],       '--count needs a value'),
    (['queue', 'get', 'results', '--count', 'x'],  '--count needs a number'),
    (['queue', 'get', 'results', '--count=0'],     '--count needs a number'),
    (['queue', 'get', 'results', '--count=²'],     '--count needs a number'),
    (['queue', 'get', 'results', '--keep=no'],     '--keep takes no value'),
    (['queue', 'purge', 'results', '--count=1'],   '--count belongs to queue get'),
    (['queue', 'list', '--envelope', 'a@b.c'],     '--envelope belongs to sendmail'),
    (['queue', 'list', '--frobnicate'],            '--frobnicate: there is no such option'),
    (['--config', '--port=25'],                    '--port belongs to sink'),
    (['sink', 'more'],                             'usage: sink'),
    (['sink', '--port', '99999'],                  '--port needs a number from 1 to 65535'),
    (['sink', '--prot=1'],                         'did you mean port?'),
])
def test_wrong_usage(run_main: Run, tmp_path: Path, arguments: list[str], says: str) -> None:
    status, output, errors = run_main(*arguments)
    assert (status, output) == (2, '') and errors.startswith('mqlite: ') and says in errors
    assert errors.count('\n') == 1 and 'secret' not in errors
    assert list(tmp_path.iterdir()) == []               # nothing was done


def test_help_names_every_command_and_setting(run_main: Run) -> None:
    status, output, errors = run_main('--help')
    assert (status, errors) == (0, '')
    for word in ('--config', '--check-config', '--list-ips', 'queue list', 'publish QUEUE', 'sink', '--envelope',
                 '--extract-recipients', '--ignore-dot', '--smtp-port', '--queue-address', '--count'):
        assert word in output
    assert max(map(len, output.splitlines())) <= 130


def test_version(run_main: Run) -> None:
    assert run_main('--version') == (0, f'mqlite {__version__}\n', '')


def test_list_ips(run_main: Run) -> None:
    status, output, _ = run_main('--list-ips')
    for address in output.split():
        socket.getaddrinfo(address, None, flags=socket.AI_NUMERICHOST)
    assert status == 0 and HOST in output.split()


def test_check_config_shows_what_holds_and_every_problem(run_main: Run, tmp_path: Path) -> None:
    (tmp_path / 'mqlite.conf').write_text('smtp-port: 2525\nsmtp-prot: 25\nsmtp-timeout: soon\n'
                                          'smarthost-password: xyzzy\n')
    status, output, errors = run_main('--check-config', '--smtp-port=26', '--rabbitmq-inbox', 'in')
    assert (status, errors) == (1, '')
    lines = [' '.join(line.split()) for line in output.splitlines()]
    assert 'smtp-port: 26 # command line' in lines and 'rabbitmq-inbox: in # command line' in lines
    assert "mqlite.conf:2: error: 'smtp-prot': there is no such setting; did you mean smtp-port?" in lines
    assert any(line.startswith('mqlite.conf:3: error: smtp-timeout: ') for line in lines)
    assert 'xyzzy' not in output
    (tmp_path / 'mqlite.conf').write_text('smtp-port: 2525\n')
    assert run_main('--check-config')[0] == 0
    assert run_main('queue', 'list', '--smtp-timeout=soon')[0] == 1


@pytest.mark.parametrize(('name', 'says'), [
    ('nowhere.conf', 'no such file'),
    ('folder',       'is a directory'),
    ('binary.conf',  'binary.conf:2: byte 0xff is not UTF-8'),
    ('wrong.conf',   'wrong.conf:1: error'),
])
@pytest.mark.parametrize('command', [('--config',), ('queue', 'list', '--config'), ('--check-config', '--config-file')])
def test_an_unusable_configuration(run_main: Run, tmp_path: Path, name: str, says: str,
                                   command: tuple[str, ...]) -> None:
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'binary.conf').write_bytes(b'# one\n\xff\n')
    (tmp_path / 'wrong.conf').write_text('smtp-port 25\n')
    status, output, errors = run_main(*command, name)
    assert status == 1 and says in output + errors and 'Traceback' not in errors
    assert not (tmp_path / 'mqlite.db').exists()


def test_a_configuration_that_we_may_not_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        config = Path(name) / 'mqlite.conf'
        config.write_text('smtp-port: 2525\n')
        config.chmod(0)
        program = f'import os, sys; from mqlite.cli import main; os.geteuid() or os.setuid(65534); ' \
                  f'sys.exit(main(["--config", {str(config)!r}]))'
        done = subprocess.run([CHECKOUT[0], '-c', program], capture_output=True, env=environment_with(ENVIRONMENT))
    assert done.returncode == 1 and done.stderr.decode() == (
        f'mqlite: {config}: not readable for this user; change its owner or mode\n')


# queues

@pytest.fixture
def queue(run_main: Run) -> Run:
    """queue('list'): the subcommand on a queue file of its own."""
    def queue(*arguments: str, input: bytes = b'') -> Ended:
        return run_main('queue', *arguments, '--queue-address=sqlite://queue.db', input=input)
    return queue


def lines(count: int) -> bytes:
    return b''.join(b'{"recipient": "%d@example.com", "mime": "x"}\n' % number for number in range(count))


def test_publish_list_get_purge(queue: Run) -> None:
    assert queue('publish', 'a', input=lines(3) + b'\n \n') == (0, '', '3 published\n')
    queue('publish', 'b', input=b'{"nextattempt": {"time": "2100-01-01 00:00:00"}, "priority": 3, "n": "\xc3\xa4"}')
    listed = queue('list')
    assert listed.status == 0 and [line.split()[:4] for line in listed.output.splitlines()] == [
        ['queue', 'ready', 'waiting', 'taken'], ['a', '3', '0', '0'], ['b', '0', '1', '0']]
    assert queue('get', 'a', '--keep').output.encode() == lines(3)
    assert queue('get', 'a', '--count', '2', '--keep').output.encode() == lines(2)
    assert queue('get', '--count=2', 'a').output.encode() == lines(2)
    got = queue('get', 'a')
    assert json.loads(got.output)['recipient'] == '2@example.com' and got.status == 0
    assert queue('get', 'a') == queue('get', 'b') == queue('get', 'none') == (0, '', '')
    assert queue('purge', 'b').errors == '1 deleted\n'
    assert queue('list').output.count('\n') == 1


@pytest.mark.parametrize(('input', 'published', 'says'), [
    (lines(2) + b'{"recipient":\n' + lines(1),  2, 'line 3: not valid JSON'),
    (b'[]\n',                                   0, 'line 1: not a JSON object'),
    (b'{"nextattempt": "soon"}\n',              0, 'line 1: "nextattempt"'),
    (b'{"priority": -1}\n',                     0, 'line 1: "priority"'),
    (b'\xff\xfe{}\n',                           0, 'line 1: not valid JSON'),
    (lines(450) + b'{',                         450, 'line 451: not valid JSON'),
])
def test_publish_stops_at_a_line_that_is_no_document(queue: Run, input: bytes, published: int, says: str) -> None:
    done = queue('publish', 'a', input=input)
    assert done.status == 1 and says in done.errors and 'nothing from this line on' in done.errors
    assert done.errors.startswith(f'{published} published\n')
    assert queue('get', 'a').output.count('\n') == published


@pytest.mark.parametrize(('count', 'options'), [(5000, ''), (5000, '--keep'), (5, '--count 5')])
def test_what_nobody_read_stays_on_the_queue(queue: Run, count: int, options: str) -> None:
    queue('publish', 'a', input=lines(count))
    command = [*CHECKOUT, 'queue', 'get', 'a', *options.split(), '--queue-address=sqlite://queue.db']
    environment = environment_with(ENVIRONMENT)
    reader, writer = os.pipe()
    os.close(reader)                                    # as `| head` leaves it
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b'')
    with open('/dev/full', 'wb') as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment)
    assert done.returncode == 1 and b'No space left' in done.stderr and b'Traceback' not in done.stderr
    assert queue('list').output.split()[5:9] == ['a', str(count), '0', '0']


@pytest.mark.parametrize('closed', ['<&-', '>&-', '2>&-', '<&- >&- 2>&-'])
def test_closed_standard_files(queue: Run, closed: str) -> None:
    """A file that is opened later must not take their numbers, and our output."""
    queue('publish', 'a', input=lines(1))
    commands = [' '.join([*CHECKOUT, 'queue', words, '--queue-address=sqlite://queue.db', closed])
                for words in ('publish a', 'get a --keep')]
    running = [subprocess.Popen(['sh', '-c', command], env=environment_with(ENVIRONMENT), stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for command in commands]
    for one in running:
        _, errors = one.communicate(timeout=60)
        assert one.returncode == 0 and b'Traceback' not in errors
    assert queue('get', 'a').output.encode() == lines(1)


def test_a_file_of_another_program(run_main: Run, tmp_path: Path) -> None:
    (tmp_path / 'text').write_text('hello ' * 100)
    with contextlib.closing(sqlite3.connect(tmp_path / 'other.db')) as other:
        other.execute('CREATE TABLE theirs (x)')
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for name, says in (('text', 'not a database'), ('other.db', 'of another program'), ('no/folder', 'check queue')):
        status, output, errors = run_main('queue', 'list', f'--queue-address=sqlite://{name}')
        assert (status, output) == (1, '') and says in errors and 'queue-address' in errors and errors.count('\n') == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


# the daemon

def refused(folder: Path, *arguments: str) -> str:
    """What a daemon that does not start prints. Its status must be 1, and it must have a line to read."""
    done = run_cli('--config', f'--smtp-ip={HOST}', f'--smtp-port={free_port()}', *arguments, cwd=folder)
    assert done.returncode == 1 and b'Traceback' not in done.stderr
    return done.stderr.decode()


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as holder:
        port = holder.getsockname()[1]
        errors = refused(tmp_path, f'--smtp-port={port}')
    assert f'cannot listen on {HOST} port {port}: Address already in use' in errors
    assert list(tmp_path.iterdir()) == []


def test_without_a_file_it_says_where_it_looked(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as holder:
        errors = refused(tmp_path, f'--smtp-port={holder.getsockname()[1]}')
    assert 'no configuration file (looked for mqlite.conf, /etc/mqlite/config.txt, ' in errors


def test_why_it_does_not_start_is_on_the_screen_and_in_the_log(tmp_path: Path) -> None:
    errors = refused(tmp_path, '--application-log=log', '--queue-address=sqlite:///no/such/folder/queue.db')
    log = (tmp_path / 'log').read_text()
    assert all('[Critical]' in log and 'check queue-address' in text for text in (errors, log))
    assert 'check application-log' in refused(tmp_path, '--application-log=/no/such/folder/log')


def test_one_lock_one_daemon(start_daemon: Start, tmp_path: Path) -> None:
    daemon = start_daemon(lock=tmp_path / 'pid')
    assert daemon.process
    assert (tmp_path / 'pid').read_text() == f'{daemon.process.pid}\n'
    assert refused(tmp_path, f'--lock={tmp_path}/pid').endswith(
        f'another mqlite is running (process {daemon.process.pid}): it holds {tmp_path}/pid\n')
    daemon.kill()
    daemon.start()                                      # the lock of the dead is free
    assert (tmp_path / 'pid').read_text() == f'{daemon.process.pid}\n'
    assert 'cannot open the lock file /no/lock' in refused(tmp_path, '--lock=/no/lock')


def test_user_gives_up_root_for_good(tmp_path: Path, sink: CapturingSink) -> None:
    assert 'there is no user nobody-here' in refused(tmp_path, '--user=nobody-here')
    if os.geteuid():
        assert 'only root can become' in refused(tmp_path, '--user=root')
        return
    nobody = pwd.getpwnam('nobody')
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, nobody.pw_uid, nobody.pw_gid)
        # the lock is taken, and the port bound, as root
        daemon = Daemon(Path(name), user='nobody', lock=tmp_path / 'pid', smtp_sink_address=HOST,
                        smtp_sink_port=sink.port)
        try:
            daemon.start()
            assert daemon.process
            status = Path(f'/proc/{daemon.process.pid}/status').read_text()
            values = {line.split(':')[0]: line.split()[1:] for line in status.splitlines()}
            assert set(values['Uid']) == {str(nobody.pw_uid)} and set(values['Gid']) == {str(nobody.pw_gid)}
            assert int(values['CapEff'][0], 16) == 0 and '0' not in values['Groups']
            send(daemon.port)
            sink.wait_for(1)
            assert (Path(name) / 'queue.db').stat().st_uid == nobody.pw_uid
        finally:
            daemon.close()


def test_a_rotated_log_is_opened_anew(start_daemon: Start, tmp_path: Path) -> None:
    log = tmp_path / 'log'
    daemon = start_daemon(application_log=f'{log},syslog,stderr')       # syslog is nobody's here: no line is missed
    wait_until(lambda: 'is running' in log.read_text(), 'the log to say that it runs')
    assert '[Info]' in log.read_text()
    log.rename(tmp_path / 'log.1')
    daemon.stop()
    assert 'stopped' in log.read_text() and 'is running' not in log.read_text()
    assert log.read_text() in daemon.output()


def test_a_log_that_cannot_be_written_stops_no_mail(start_daemon: Start, sink: CapturingSink) -> None:
    daemon = start_daemon(application_log='/dev/full', smtp_sink_address=HOST, smtp_sink_port=sink.port)
    send(daemon.port)
    sink.wait_for(1)


# the sink

def test_the_sink_prints_what_it_gets(tmp_path: Path) -> None:
    port = free_port()
    sink = Process([*CHECKOUT, 'sink', '--port', str(port)], tmp_path, ENVIRONMENT)
    try:
        sink.wait_printed(f'sink: listening on {HOST} port {port}\n')
        send(port, b'Subject: x\r\n\r\n\xff.\r\n', 'a@example.com', 'b@example.com')
        sink.wait_printed('sink: message of ')
        sink.wait_printed('\n\n\ufffd.\n')
        assert 'from <sender@example.org> to <a@example.com>, <b@example.com>\nSubject: x\n' in sink.output()
        taken = run_cli('sink', f'--port={port}')
        assert taken.returncode == 1 and b'choose another --port' in taken.stderr
        sink.signal(signal.SIGINT)
        assert sink.wait() == 0
    finally:
        sink.close()
