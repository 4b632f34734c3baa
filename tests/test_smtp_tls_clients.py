"""TLS with the clients of others: swaks, curl, Python's smtplib, and `openssl s_client` for what good clients never do.

One daemon with two certificates, reached by STARTTLS and at a port for TLS. Versions below 1.2 need s_client's
permission to be spoken at all (`@SECLEVEL=0`).
"""

from __future__ import annotations

import smtplib
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mqlite.loop.tls import TlsLayer
from tests.support.daemon import SecureDaemon, run_cli
from tests.support.peers import Certificate, make_certificate
from tests.support.process import HOST, find_program, free_port, wait_until
from tests.support.smtp import any_client_context

ANY_VERSION = ('-cipher', 'ALL:@SECLEVEL=0')


@pytest.fixture(scope='module')
def daemon(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[SecureDaemon]:
    folder = tmp_path_factory.mktemp('tls')
    other = make_certificate(folder, 'mx.other.example', '*.wild.example')
    made = SecureDaemon(folder, certificate, other, smtp_ciphers='HIGH:!AES256')
    made.start()
    yield made
    made.close()


def run(name: str, *arguments: str, typed: str = '') -> str:
    """Its output; AssertionError when it fails."""
    done = subprocess.run([find_program(name), *arguments], input=typed, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def s_client(daemon: SecureDaemon, *options: str, implicit: bool = False, typed: str = 'QUIT\r\n',
             after: bytes = b'') -> str:
    """All that it prints; it may fail. `typed` is typed once it has printed a line that begins with `after`."""
    where = ['-connect', f'{HOST}:{daemon.secure_port}'] if implicit else \
        ['-connect', f'{HOST}:{daemon.port}', '-starttls', 'smtp']
    with subprocess.Popen([find_program('openssl'), 's_client', *where, *options], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        assert running.stdout is not None
        lines: list[bytes] = []
        while after and not (lines and (not lines[-1] or lines[-1].startswith(after))):
            lines.append(running.stdout.readline())
        rest, _ = running.communicate(typed.encode(), timeout=60)
    return b''.join([*lines, rest]).decode(errors='replace')


# clients

def by_swaks(daemon: SecureDaemon, implicit: bool) -> None:
    how = [str(daemon.secure_port), '--tls-on-connect'] if implicit else [str(daemon.port), '--tls']
    run('swaks', '--server', 'localhost', '--port', *how, '--tls-verify', '--tls-ca-path',
        daemon.certificate, '--from', 'sender@example.org', '--to', 'recipient@example.com')


def by_curl(daemon: SecureDaemon, implicit: bool) -> None:
    url = f'smtps://{HOST}:{daemon.secure_port}' if implicit else f'smtp://{HOST}:{daemon.port}'
    run('curl', '--silent', '--show-error', '--ssl-reqd', '--cacert', daemon.certificate, url,
        '--mail-from', 'sender@example.org', '--mail-rcpt', 'recipient@example.com', '--upload-file', '-',
        typed='Subject: x\r\n\r\nbody\r\n')


def by_smtplib(daemon: SecureDaemon, implicit: bool) -> None:
    context = ssl.create_default_context(cafile=daemon.certificate)
    with smtplib.SMTP_SSL('localhost', daemon.secure_port, context=context) if implicit else \
            smtplib.SMTP('localhost', daemon.port) as client:
        if not implicit:
            client.starttls(context=context)
        client.sendmail('sender@example.org', 'recipient@example.com', 'Subject: x\r\n\r\nbody\r\n')


@pytest.mark.parametrize('implicit', [False, True], ids=['STARTTLS', 'a port for TLS'])
@pytest.mark.parametrize('client', [by_swaks, by_curl, by_smtplib])
def test_a_message_over_tls(daemon: SecureDaemon, client: Callable[[SecureDaemon, bool], None], implicit: bool) -> None:
    client(daemon, implicit)
    [document] = daemon.take('inbox', 1)
    assert document['connection']['secure'] is True
    assert ' (mqlite) with ESMTPS (TLSv1.3 TLS_' in document['mime']


# what s_client can do

@pytest.mark.parametrize('implicit', [False, True], ids=['STARTTLS', 'a port for TLS'])
@pytest.mark.parametrize(('option', 'version'), [
    ('-tls1', ''), ('-tls1_1', ''), ('-tls1_2', 'TLSv1.2'), ('-tls1_3', 'TLSv1.3')])
def test_versions(daemon: SecureDaemon, option: str, version: str, implicit: bool) -> None:
    said = s_client(daemon, option, *ANY_VERSION, implicit=implicit)
    assert f'New, {version}, Cipher is ' in said if version else 'alert protocol version' in said, said


def test_ciphers(daemon: SecureDaemon) -> None:
    assert 'Cipher is ECDHE-ECDSA-AES128-GCM-SHA256' in s_client(daemon, '-tls1_2', '-cipher',
                                                                 'AES256:AES128-GCM-SHA256:ECDHE+AES128')
    assert 'alert handshake failure' in s_client(daemon, '-tls1_2', '-cipher', 'AES256')


def test_nothing_is_compressed(daemon: SecureDaemon) -> None:
    assert 'Compression: NONE' in s_client(daemon, '-tls1_2', '-comp')


@pytest.mark.parametrize('implicit', [False, True], ids=['STARTTLS', 'a port for TLS'])
def test_a_renegotiation_is_refused(daemon: SecureDaemon, implicit: bool) -> None:
    """A line that begins with R makes s_client ask for it; by then it must have the greeting, which would break its own
    second handshake."""
    said = s_client(daemon, '-tls1_2', implicit=implicit, typed='R\n', after=b'220 ' if implicit else b'')
    assert 'RENEGOTIATING' in said and 'no renegotiation' in said, said


@pytest.mark.parametrize('implicit', [False, True], ids=['STARTTLS', 'a port for TLS'])
@pytest.mark.parametrize(('name', 'shown'), [
    ('localhost', 'localhost'), ('elsewhere.example', 'localhost'), ('mx.other.example', 'mx.other.example'),
    ('a.wild.example', 'mx.other.example'), ('MX.OTHER.EXAMPLE', 'mx.other.example')])
def test_the_name_chooses_the_certificate(daemon: SecureDaemon, name: str, shown: str, implicit: bool) -> None:
    assert f'subject=CN = {shown}\n' in s_client(daemon, '-servername', name, implicit=implicit)


def test_a_name_that_is_none_is_a_line_in_the_log(daemon: SecureDaemon) -> None:
    """Python can raise it nowhere."""
    client = TlsLayer(any_client_context(), False, 'xx.example')
    client.handshake(b'')
    with socket.create_connection((HOST, daemon.secure_port), timeout=30) as connection:
        connection.sendall(client.pending_output().replace(b'xx.example', b'\xff\xfe.example'))
        assert connection.recv(100)[:1] in (b'\x15', b'')     # an alert
    wait_until(lambda: '[Warning]' in daemon.output() and 'no TLS: callback failed' in daemon.output(), 'the line')
    assert 'ignored UnicodeDecodeError' in daemon.output() and 'Traceback' not in daemon.output()


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
