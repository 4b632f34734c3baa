"""The examples in plugins/ do what they say. Those in C are compiled once, by build.py."""

from __future__ import annotations

import base64
import re
import shutil
import smtplib
import subprocess
from pathlib import Path
from typing import Callable

import pytest

import build
from mqlite.auth.desk import LoginDesk
from tests.support.daemon import Daemon
from tests.support.plugins import LOG, MIME, OutBench, PluginBench
from tests.support.process import HOST, ROOT, find_program
from tests.support.sink import CapturingSink
from tests.support.smtp import NAME

Start = Callable[..., Daemon]
Use = Callable[[str], Path]
C_EXAMPLES = {'05-logins.so', '10-trace.so', '15-record.so', '20-greylist.so', '30-footer.so', '50-attempts.so'}
PYTHON_EXAMPLES = {'quarantine.py', 'tarpit.py'}


@pytest.fixture(scope='session')
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp('examples')
    build.build_plugins(made)
    return made


@pytest.fixture
def use(built: Path, tmp_path: Path) -> Use:
    """use('20-greylist.so'): a plugin directory with this example in it."""
    def copied(name: str) -> Path:
        folder = tmp_path / 'plugins'
        folder.mkdir()
        shutil.copy((built if name.endswith('.so') else ROOT / 'plugins') / name, folder)
        return folder
    return copied


def test_all_examples_are_known_here(built: Path) -> None:
    assert {path.name for path in built.iterdir()} == C_EXAMPLES
    assert {path.name for path in (ROOT / 'plugins').iterdir() if path.suffix == '.py'} == PYTHON_EXAMPLES


def test_a_warning_of_the_compiler_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / 'plugins' / 'bad.c'
    source.parent.mkdir()
    source.write_text('/*\n *      cc -shared -fPIC -o bad.so plugins/bad.c\n */\n'
                      'int f(void) { int unused; return 0; }\n')
    monkeypatch.setattr(build, 'ROOT', tmp_path)
    with pytest.raises(build.Failure, match=r'plugins/bad\.c.*unused'):
        build.build_plugins(tmp_path)


def test_footer(use: Use) -> None:
    bench = OutBench(use('30-footer.so'))
    assert bench.deliver(b'Subject: \xff\r\n\r\nbody\r\n').code == 250
    assert bench.arrived == [b'Subject: \xff\r\n\r\nbody\r\n\r\n-- \r\nSent with mqlite\r\n']
    assert 'mime' not in bench.fields and LOG.lines == []
    bench.close()


def test_trace(use: Use) -> None:
    """One line for each step; the rest of them in a running daemon, in test_end_to_end.py."""
    bench = PluginBench(use('10-trace.so'))
    bench.run(bench.send())
    words = [line.split(' ', 2) for line in LOG.said()]
    assert [rest for _, _, rest in words] == ['connect ', 'mailfrom a@example.org', 'rcptto b@example.org', 'data 20',
                                              'message b@example.org', 'close ']
    bench.close()


def test_record(use: Use) -> None:
    bench = PluginBench(use('15-record.so'))
    bench.run(bench.send('b@example.org', 'c@example.org', data=MIME))

    async def two_messages() -> None:
        stream = await bench.client()
        message = b'MAIL FROM:<a@example.org>', b'RCPT TO:<b@example.org>', b'DATA', b'.'
        await bench.talk(stream, b'EHLO c', *message, *message)
        stream.close()
        await bench.quiet()
    bench.run(two_messages())
    assert LOG.said() == [f'record: {HOST}, 2 recipients, 1 messages, {len(MIME)} bytes',
                          f'record: {HOST}, 2 recipients, 2 messages, 0 bytes']
    bench.close()


def test_greylist(use: Use) -> None:
    bench = PluginBench(use('20-greylist.so'))
    assert bench.run(bench.send()) == b'220 250 250 450 554 221'
    bench.close()


def test_quarantine(use: Use) -> None:
    bench = PluginBench(use('quarantine.py'))
    bench.run(bench.send())

    async def suspect() -> bytes:
        stream = await bench.client()
        return await bench.talk(stream, b'EHLO c', b'MAIL FROM:<x@example.net>', b'RCPT TO:<b@example.org>', b'DATA',
                                b'.')

    assert bench.run(suspect()) == b'250 250 250 354 250'
    assert len(bench.documents()) == 1 and bench.documents('local')[0]['tags'] == ['quarantine']
    bench.close()


def test_tarpit(use: Use) -> None:
    bench = PluginBench(use('tarpit.py'))
    before = bench.clock.monotonic()
    assert bench.run(bench.send('1@b.example', '2@b.example', 'b@b.example')) == b'220 250 250 550 550 250 354 250 221'
    assert 15 <= bench.clock.monotonic() - before < 16
    bench.close()


def send(port: int) -> None:
    with smtplib.SMTP(HOST, port, timeout=30) as client:
        client.sendmail('sender@example.org', 'recipient@example.com', 'Subject: x\n\nbody\n')


def test_attempts(start_daemon: Start, sink: CapturingSink, use: Use) -> None:
    """A server that takes the second message only, and then is gone: three attempts, and what came of those before."""
    sink.script['.'] = [b'421 4.3.2 closing']
    daemon = start_daemon(plugin_directory=use('50-attempts.so'), smtp_sink_address=HOST, smtp_sink_port=sink.port,
                          smtp_default_ips='127.0.0.2', rabbitmq_retry='retry')
    send(daemon.port)
    daemon.take('retry', 1)
    send(daemon.port)
    daemon.take('results', 1)
    sink.close()
    send(daemon.port)
    daemon.take('retry', 1)
    said = re.findall(r'attempts: (.*)', daemon.output())
    assert said == [
        f'1, connected 1; {HOST} from address 0: connected; messages: 0 of 0 delivered, 0 deferred, 0 given up',
        f'2, connected 2; {HOST} from address 0: connected; messages: 0 of 1 delivered, 1 deferred, 0 given up',
        f'3, connected 2; {HOST} from address 0: error 0x0800; messages: 1 of 2 delivered, 1 deferred, 0 given up']


def log_in(folder: Path, login: str, password: str) -> bytes:
    """The reply to AUTH, of a server where nobody has guessed before; its clock waits for the plugin's thread."""
    bench = PluginBench(folder, desk=lambda reactor, _host: LoginDesk(reactor, NAME, None, plugins_judge=True))

    async def talk() -> bytes:
        stream = await bench.client()
        await bench.ask(stream, b'EHLO c\r\n')
        bench.reactor.threads_busy += 1
        response = base64.b64encode(f'\0{login}\0{password}'.encode())
        code = await bench.talk(stream, b'AUTH PLAIN ' + response)
        bench.reactor.threads_busy -= 1
        return code

    code = bench.run(talk())
    bench.close()
    return code


def test_logins(use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is read for each login: one that is added counts at once."""
    def hashed(password: str) -> str:
        command = [find_program('openssl'), 'passwd', '-6', password]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    folder, file = use('05-logins.so'), tmp_path / 'logins'
    monkeypatch.setenv('LOGINS_FILE', str(file))
    file.write_text(f'tim:{hashed("secret")}\ntimothy:{hashed("other")}\nnobody:*\n')
    given = [('tim', 'secret'), ('tim', 'other'), ('timothy', 'other'), ('ti', 'secret'), ('nobody', '*'), ('eve', 'x')]
    codes = [log_in(folder, *words) for words in given]
    assert codes == [b'235', b'535', b'235', b'535', b'535', b'535']
    file.write_text(file.read_text() + f'eve:{hashed("x")}\n')
    assert log_in(folder, 'eve', 'x') == b'235' and LOG.lines == []
    file.unlink()
    assert log_in(folder, 'tim', 'secret') == b'535'
    assert LOG.said() == ['logins: the file of logins cannot be read']
