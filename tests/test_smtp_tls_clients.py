"""TLS with the clients of others: swaks, curl, Python's smtplib, and `openssl s_client` for what good clients never do.

One daemon with two certificates, reached by STARTTLS and at a port for TLS. Versions below 1.2 need s_client's
permission to be spoken at all (`@SECLEVEL=0`).
"""

from __future__ import annotations

import smtplib
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, run_cli
from tests.support.peers import Certificate, make_certificate
from tests.support.process import HOST, find_program, free_port

ANY_VERSION = ('-cipher', 'ALL:@SECLEVEL=0')


class TlsDaemon(Daemon):
    """`secure_port` speaks TLS from the first byte."""

    def __init__(self, folder: Path, default: Certificate) -> None:
        self.default, self.other = default, make_certificate(folder, 'mx.other.example', '*.wild.example')
        self.secure_port = free_port()
        super().__init__(
            folder, rabbitmq_inbox='inbox', smtp_secure_port=self.secure_port, smtp_ciphers='HIGH:!AES256',
            smtp_certificate=f'{self.default.certificate}, {self.other.certificate}',
            smtp_key=f'{self.default.key}, {self.other.key}')


@pytest.fixture(scope='module')
def daemon(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[TlsDaemon]:
    made = TlsDaemon(tmp_path_factory.mktemp('tls'), certificate)
    made.start()
    yield made
    made.close()


def run(name: str, *arguments: str, typed: str = '') -> str:
    """Its output; AssertionError when it fails."""
    done = subprocess.run([find_program(name), *arguments], input=typed, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def s_client(daemon: TlsDaemon, *options: str, implicit: bool = False, typed: str = 'QUIT\r\n') -> str:
    """All that it prints; it may fail."""
    where = ['-connect', f'{HOST}:{daemon.secure_port}'] if implicit else \
        ['-connect', f'{HOST}:{daemon.port}', '-starttls', 'smtp']
    done = subprocess.run([find_program('openssl'), 's_client', *where, *options], input=typed.encode(),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    return done.stdout.decode(errors='replace')


# clients

def by_swaks(daemon: TlsDaemon, implicit: bool) -> None:
    how = [str(daemon.secure_port), '--tls-on-connect'] if implicit else [str(daemon.port), '--tls']
    run('swaks', '--server', 'localhost', '--port', *how, '--tls-verify', '--tls-ca-path',
        str(daemon.default.certificate), '--from', 'sender@example.org', '--to', 'recipient@example.com')


def by_curl(daemon: TlsDaemon, implicit: bool) -> None:
    url = f'smtps://{HOST}:{daemon.secure_port}' if implicit else f'smtp://{HOST}:{daemon.port}'
    run('curl', '--silent', '--show-error', '--ssl-reqd', '--cacert', str(daemon.default.certificate), url,
        '--mail-from', 'sender@example.org', '--mail-rcpt', 'recipient@example.com', '--upload-file', '-',
        typed='Subject: x\r\n\r\nbody\r\n')


def by_smtplib(daemon: TlsDaemon, implicit: bool) -> None:
    context = ssl.create_default_context(cafile=str(daemon.default.certificate))
    with smtplib.SMTP_SSL('localhost', daemon.secure_port, context=context) if implicit else \
            smtplib.SMTP('localhost', daemon.port) as client:
        if not implicit:
            client.starttls(context=context)
        client.sendmail('sender@example.org', 'recipient@example.com', 'Subject: x\r\n\r\nbody\r\n')


@pytest.mark.parametrize('implicit', [False, True], ids=['STARTTLS', 'a port for TLS'])
@pytest.mark.parametrize('client', [by_swaks, by_curl, by_smtplib])
def test_a_message_over_tls(daemon: TlsDaemon, client: Callable[[TlsDaemon, bool], None], implicit: bool) -> None:
    client(daemon, implicit)
    [document] = daemon.take('inbox', 1)
    assert document['connection']['secure'] is True
    assert ' (mqlite) with ESMTPS (TLSv1.3 TLS_' in document['mime']


# what s_client can do

@pytest.mark.parametrize('implicit', [False, True], ids=['STARTTLS', 'a port for TLS'])
@pytest.mark.parametrize(('option', 'version'), [
    ('-tls1', ''), ('-tls1_1', ''), ('-tls1_2', 'TLSv1.2'), ('-tls1_3', 'TLSv1.3')])
def test_versions(daemon: TlsDaemon, option: str, version: str, implicit: bool) -> None:
    said = s_client(daemon, option, *ANY_VERSION, implicit=implicit)
    assert f'New, {version}, Cipher is ' in said if version else 'alert protocol version' in said, said


def test_ciphers(daemon: TlsDaemon) -> None:
    assert 'Cipher is ECDHE-ECDSA-AES128-GCM-SHA256' in s_client(daemon, '-tls1_2', '-cipher',
                                                                 'AES256:AES128-GCM-SHA256:ECDHE+AES128')
    assert 'alert handshake failure' in s_client(daemon, '-tls1_2', '-cipher', 'AES256')


def test_nothing_is_compressed(daemon: TlsDaemon) -> None:
    assert 'Compression: NONE' in s_client(daemon, '-tls1_2', '-comp')


@pytest.mark.parametrize('implicit', [False, True], ids=['STARTTLS', 'a port for TLS'])
def test_a_renegotiation_is_refused(daemon: TlsDaemon, implicit: bool) -> None:
    """A line that begins with R makes s_client ask for it."""
    said = s_client(daemon, '-tls1_2', implicit=implicit, typed='R\n')
    assert 'RENEGOTIATING' in said and 'no renegotiation' in said, said


@pytest.mark.parametrize('implicit', [False, True], ids=['STARTTLS', 'a port for TLS'])
@pytest.mark.parametrize(('name', 'shown'), [
    ('localhost', 'localhost'), ('elsewhere.example', 'localhost'), ('mx.other.example', 'mx.other.example'),
    ('a.wild.example', 'mx.other.example'), ('MX.OTHER.EXAMPLE', 'mx.other.example')])
def test_the_name_chooses_the_certificate(daemon: TlsDaemon, name: str, shown: str, implicit: bool) -> None:
    assert f'subject=CN = {shown}\n' in s_client(daemon, '-servername', name, implicit=implicit)


# the start

@pytest.mark.parametrize(('settings', 'complaint'), [
    (('--smtp-certificate=/nowhere.pem',), 'smtp-certificate: /nowhere.pem cannot be read: No such file or directory'),
    (('--smtp-key=/nowhere.pem',),         'smtp-certificate is missing: smtp-key means nothing without it'),
    (('--smtp-secure-port=465',),          'smtp-certificate is missing: smtp-secure-port means nothing without it'),
])
def test_a_daemon_without_what_it_needs_does_not_start(tmp_path: Path, settings: tuple[str, ...],
                                                       complaint: str) -> None:
    done = run_cli('--config', '--queue-address=sqlite://queue.db', '--smtp-ip=127.0.0.1',
                   f'--smtp-port={free_port()}', *settings, cwd=tmp_path)
    assert done.returncode == 1 and complaint in done.stderr.decode() and b'Traceback' not in done.stderr
