"""The extensions of the server as the clients of others use them: Python's smtplib, curl and swaks.

The client for BDAT is written here, on smtplib's connection: the clients that the tests otherwise use do not speak it.
"""

from __future__ import annotations

import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, TypeVar

import pytest

from mqlite.loop.thread import WorkerThread
from tests.support.process import HOST, find_program
from tests.support.smtp import NAME, Bench

T = TypeVar('T')
MESSAGE = b'Subject: x\r\n\r\n.a line\r\n..\r\nthe end\r\n'


class Server(Bench):
    """The server, and clients that block: they work in a thread of their own, and the clock stands still meanwhile."""

    def __init__(self) -> None:
        super().__init__(dsn=True, loose=True)
        self.port = self.listener.port
        self._thread = WorkerThread(self.reactor, 'client')

    def serve(self, client: Callable[[], T]) -> T:
        """Let the client do its work; its result."""
        async def wait() -> T:
            return await self._thread.submit(client)
        return self.run(wait())

    def talk_to(self, work: Callable[[smtplib.SMTP], T]) -> T:
        """Let smtplib do it, and say goodbye."""
        def client() -> T:
            with smtplib.SMTP(HOST, self.port, local_hostname='client.example', timeout=20) as connection:
                return work(connection)
        return self.serve(client)

    def program(self, name: str, *arguments: str) -> str:
        """What a program says; AssertionError when it fails."""
        def client() -> subprocess.CompletedProcess[bytes]:
            return subprocess.run([find_program(name), *arguments], stdin=subprocess.DEVNULL, timeout=60,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  env={'LC_ALL': 'C.UTF-8', 'PATH': '/usr/bin:/bin'})
        done = self.serve(client)
        text = done.stdout.decode(errors='replace')
        assert done.returncode == 0, text
        return text

    def find(self, recipient: str) -> dict[str, Any]:
        """The document of the one message that was kept."""
        [document] = self.documents()
        assert document['recipient'] == recipient and document['mime'].encode().endswith(MESSAGE)
        return document

    def close(self) -> None:
        self._thread.stop()
        super().close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def test_smtplib_knows_what_is_on_offer(server: Server) -> None:
    def client(connection: smtplib.SMTP) -> None:
        connection.ehlo()
        assert set(connection.esmtp_features) == {'pipelining', 'size', '8bitmime', 'dsn', 'chunking', 'limits',
                                                  'smtputf8', 'enhancedstatuscodes', 'help'}
        assert connection.esmtp_features['limits'] == 'RCPTMAX=1000'
        assert connection.help().splitlines()[0].endswith(b'Commands:')
        assert connection.verify('postmaster')[0] == 252 and connection.expn('list')[0] == 502

    server.talk_to(client)


@pytest.mark.parametrize(('sender', 'recipient', 'mail', 'rcpt', 'properties'), [
    ('a@b.example', 'c@d.example', [], [], {}),
    ('a@b.example', 'c..d.@e.example', ['BODY=8BITMIME', 'ENVID=one+2Btwo'], [], {'dsn': {'envid': 'one+two'}}),
    ('a@b.example', 'c@d.example', ['RET=full'], ['NOTIFY=never', 'ORCPT=rfc822;o@p.example'],
     {'dsn': {'notify': 'NEVER', 'ret': 'FULL', 'orcpt': 'rfc822;o@p.example'}}),
    ('ä@b.example', '用户@例子.测试', ['SMTPUTF8'], ['ORCPT=utf-8;ö@p.example'],
     {'dsn': {'orcpt': 'utf-8;ö@p.example'}}),
])
def test_smtplib(server: Server, sender: str, recipient: str, mail: list[str], rcpt: list[str],
                 properties: dict[str, Any]) -> None:
    assert server.talk_to(lambda client: client.sendmail(sender, recipient, MESSAGE, mail, rcpt)) == {}
    document = server.find(recipient)
    assert document['envelope'] == sender
    assert {name: document[name] for name in ('dsn', 'smtputf8', 'requiretls') if name in document} == properties


def test_smtplib_without_extensions(server: Server) -> None:
    def client(connection: smtplib.SMTP) -> None:
        connection.helo('client.example')
        connection.sendmail('a@b.example', 'c@d.example', MESSAGE)

    server.talk_to(client)
    assert f'by {NAME} (mqlite) with SMTP id' in server.find('c@d.example')['mime']


def test_smtplib_pipelined(server: Server) -> None:
    """All commands leave before the first reply is read."""
    def client(connection: smtplib.SMTP) -> None:
        connection.ehlo()
        for command in ('MAIL FROM:<a@b.example>', 'RCPT TO:<nobody>', 'RCPT TO:<c@d.example>', 'DATA'):
            connection.putcmd(command)
        assert [connection.getreply()[0] for _ in range(4)] == [250, 501, 250, 354]
        connection.send(b'Subject: x\r\n\r\n..a line\r\n...\r\nthe end\r\n.\r\nNOOP\r\n')
        assert [connection.getreply()[0] for _ in range(2)] == [250, 250]

    server.talk_to(client)
    server.find('c@d.example')


@pytest.mark.parametrize('pipelined', [False, True])
@pytest.mark.parametrize('size', [1, 7, 1000])
def test_chunks(server: Server, size: int, pipelined: bool) -> None:
    chunks = [MESSAGE[at:at + size] for at in range(0, len(MESSAGE), size)] + [b'']

    def client(connection: smtplib.SMTP) -> None:
        connection.ehlo()
        connection.mail('a@b.example')
        connection.rcpt('c@d.example')
        codes = []
        for number, chunk in enumerate(chunks, start=1):
            last = b' LAST' if number == len(chunks) else b''
            connection.send(b'BDAT %d%b\r\n%b' % (len(chunk), last, chunk))
            if not pipelined:
                codes.append(connection.getreply()[0])
        codes += [connection.getreply()[0] for _ in chunks[len(codes):]]
        assert codes == [250] * len(chunks) and connection.noop()[0] == 250

    server.talk_to(client)
    server.find('c@d.example')


@pytest.mark.parametrize(('options', 'sender', 'recipient'), [
    ((),                                            'a@b.example', 'c@d.example'),
    (('--mail-auth', 'e@f.example'),                'a@b.example', 'c@d.example'),
    ((),                                            'ä@b.example', 'ü@d.example'),
    (('--mail-rcpt', 'bad', '--mail-rcpt-allowfails'), 'a@b.example', 'c@d.example'),
])
def test_curl(server: Server, tmp_path: Path, options: tuple[str, ...], sender: str, recipient: str) -> None:
    file = tmp_path / 'message'
    file.write_bytes(MESSAGE)
    server.program('curl', '--silent', '--show-error', f'smtp://{HOST}:{server.port}', '--mail-from', sender, *options,
                   '--mail-rcpt', recipient, '--upload-file', str(file))
    assert server.find(recipient)['envelope'] == sender


@pytest.mark.parametrize(('command', 'says'), [
    (('--request', 'HELP'), '214-2.0.0 Commands:'), (('--mail-rcpt', 'postmaster'), '252 2.5.0 Cannot verify')])
def test_curl_asks(server: Server, command: tuple[str, ...], says: str) -> None:
    assert says in server.program('curl', '--silent', '--verbose', f'smtp://{HOST}:{server.port}', *command)


def test_swaks_pipelines(server: Server, tmp_path: Path) -> None:
    file = tmp_path / 'message'
    file.write_bytes(MESSAGE[:-2])  # it ends the last line itself, even where it has an end
    said = server.program('swaks', '--server', HOST, '--port', str(server.port), '--from', 'a@b.example', '--to',
                          'c@d.example', '--pipeline', '--data', f'@{file}')
    assert ' -> RCPT TO:<c@d.example>\n -> DATA\n' in said, 'it did not pipeline'
    server.find('c@d.example')
