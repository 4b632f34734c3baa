"""Logins with the clients of others, what the settings mean together, and a log that is searched for passwords."""

from __future__ import annotations

import smtplib
import ssl
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, SecureDaemon, run_cli
from tests.support.peers import Certificate
from tests.support.process import HOST, find_program, free_port

LOGIN, PASSWORD, WRONG = 'tim@example.org', 'tan st@af:%"x', 'wr0ng-S3cret'


class AuthDaemon(SecureDaemon):
    """A daemon that Python's SMTP client talks to."""

    def smtp(self, path: str = 'in clear') -> smtplib.SMTP:
        context = ssl.create_default_context(cafile=self.certificate)
        if path == 'a port for TLS':
            return smtplib.SMTP_SSL('localhost', self.secure_port, context=context)
        client = smtplib.SMTP('localhost', self.port)
        if path == 'STARTTLS':
            client.starttls(context=context)
        return client


@pytest.fixture(scope='module')
def daemon(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[AuthDaemon]:
    """When its tests are done, nothing that it has written must have a password of theirs, in whatever dress."""
    folder = tmp_path_factory.mktemp('auth')
    logs = [folder / name for name in ('application', 'errors', 'received', 'sent')]
    made = AuthDaemon(folder, certificate, smtp_auth=f'hardcoded://{LOGIN}:{PASSWORD}',
                      application_log=f'stdout,{logs[0]}', error_log=logs[1], received_log_file=logs[2],
                      send_log_file=logs[3])
    made.start()
    yield made
    made.stop()
    written = [made.output().encode(), *(path.read_bytes() for path in folder.iterdir() if path != made.config)]
    made.close()
    assert len(written) > len(logs) and all(path.exists() for path in logs)
    for secret in (PASSWORD.encode(), WRONG.encode()):
        # as it is, and its base64, wherever that begins
        for form in (secret, *(b64encode(b'\0' * shift + secret)[4:-4] for shift in range(3))):
            assert not [text for text in written if form in text]
    assert b'login refused (PLAIN)' in logs[0].read_bytes() and b'login refused (PLAIN)' in logs[1].read_bytes()
    assert logs[2].read_bytes().count(b'recipient@example.com') >= 9


def run(name: str, *arguments: str, typed: str = '') -> str:
    """Its output; AssertionError when it fails."""
    done = subprocess.run([find_program(name), *arguments], input=typed.encode(), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60)
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()


def by_swaks(daemon: AuthDaemon, path: str, mechanism: str, password: str) -> None:
    port = daemon.secure_port if path == 'a port for TLS' else daemon.port
    tls = {'in clear': [], 'STARTTLS': ['--tls'], 'a port for TLS': ['--tls-on-connect']}[path]
    run('swaks', '--server', HOST, '--port', str(port), *tls, '--auth', mechanism, '--auth-user', LOGIN,
        '--auth-password', password, '--from', 'sender@example.org', '--to', 'recipient@example.com')


def by_curl(daemon: AuthDaemon, path: str, mechanism: str, password: str) -> None:
    url = {'a port for TLS': f'smtps://{HOST}:{daemon.secure_port}'}.get(path, f'smtp://{HOST}:{daemon.port}')
    tls = [] if path == 'in clear' else ['--ssl-reqd', '--cacert', daemon.certificate]
    run('curl', '--silent', '--show-error', *tls, url, '--user', f'{LOGIN}:{password}', '--login-options',
        f'AUTH={mechanism}', '--mail-from', 'sender@example.org', '--mail-rcpt', 'recipient@example.com',
        '--upload-file', '-', typed='Subject: x\r\n\r\nbody\r\n')


def by_smtplib(daemon: AuthDaemon, path: str, mechanism: str, password: str) -> None:
    with daemon.smtp(path) as client:
        client.ehlo()
        client.esmtp_features['auth'] = mechanism
        client.login(LOGIN, password)
        client.sendmail('sender@example.org', 'recipient@example.com', 'Subject: x\r\n\r\nbody\r\n')


@pytest.mark.parametrize('mechanism', ['PLAIN', 'LOGIN', 'CRAM-MD5'])
@pytest.mark.parametrize(('client', 'path'), [(by_smtplib, 'in clear'), (by_swaks, 'STARTTLS'),
                                              (by_curl, 'a port for TLS')])
def test_a_message_of_who_has_logged_in(daemon: AuthDaemon, client: Callable[[AuthDaemon, str, str, str], None],
                                        path: str, mechanism: str) -> None:
    client(daemon, path, mechanism, PASSWORD)
    [document] = daemon.take('inbox', 1)
    assert document['connection']['user'] == LOGIN
    assert f' with {"ESMTPA id" if path == "in clear" else "ESMTPSA (TLSv1.3 "}' in document['mime']


def test_without_a_login_nobody_relays(daemon: AuthDaemon) -> None:
    """With smtp-auth not even this host, whatever smtp-range says."""
    with daemon.smtp('STARTTLS') as client, pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        client.sendmail('sender@example.org', 'recipient@example.com', 'x')
    assert refused.value.recipients['recipient@example.com'][0] == 550


def test_a_wrong_password(daemon: AuthDaemon) -> None:
    with daemon.smtp() as client:
        client.ehlo()
        assert client.docmd('AUTH', 'PLAIN ' + b64encode(f'\0{LOGIN}\0{WRONG}'.encode()).decode())[0] == 535
        assert client.docmd('AUTH', f'PLAIN {WRONG}')[0] == 501
        assert client.docmd(f'AUTH {PASSWORD}')[0] == 504
        assert client.docmd(WRONG)[0] == 500


# what the settings mean together

def offer(daemon: Daemon) -> str:
    with smtplib.SMTP(HOST, daemon.port) as client:
        client.ehlo()
        return client.esmtp_features.get('auth', '').strip()


@pytest.mark.parametrize(('settings', 'offered', 'warned'), [
    ({'smtp_auth': 'hardcoded://tim:pw'},                             'PLAIN LOGIN CRAM-MD5', True),
    ({'smtp_auth': 'hardcoded://tim:pw', 'smtp_auth_clear': 'true'},  'PLAIN LOGIN CRAM-MD5', False),
    ({'smtp_auth': 'exec:///bin/true', 'smtp_range': '127.0.0.0/8'},  'PLAIN LOGIN',          True),
    ({'smtp_auth': 'exec:///bin/true', 'smtp_range': '10.0.0.0/8'},   '',                     True),
])
def test_settings(start_daemon: Callable[..., Daemon], settings: dict[str, str], offered: str,
                  warned: bool) -> None:
    """With smtp-auth nobody relays without a login, and smtp-range says who may log in."""
    daemon = start_daemon(rabbitmq_inbox='inbox', **settings)
    assert offer(daemon) == offered
    with smtplib.SMTP(HOST, daemon.port) as client:
        client.ehlo()
        assert client.mail('a@example.org')[0] == 250
        assert client.rcpt('b@example.com')[0] == 550
        client.rset()
        if offered:
            client.login('tim', 'pw')
            assert (client.mail('a@example.org')[0], client.rcpt('b@example.com')[0]) == (250, 250)
    assert ('logins are taken from this host only' in daemon.output()) is warned


@pytest.mark.parametrize(('setting', 'complaint'), [
    ('hardcoded://tim', 'smtp-auth: hardcoded:// login 1 is not login:password'),
    ('file:///nowhere', 'smtp-auth: /nowhere: it cannot be read: No such file or directory'),
])
def test_a_daemon_without_what_it_needs_does_not_start(tmp_path: Path, setting: str, complaint: str) -> None:
    done = run_cli('--config', '--queue-address=sqlite://queue.db', '--smtp-ip=127.0.0.1',
                   f'--smtp-port={free_port()}', f'--smtp-auth={setting}', cwd=tmp_path)
    assert done.returncode == 1 and complaint in done.stderr.decode() and b'Traceback' not in done.stderr
