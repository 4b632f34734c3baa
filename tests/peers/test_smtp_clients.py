"""Other people's senders, over TLS and with logins: `python3 build.py peers`.

msmtp, nodemailer, Postfix and Exim deliver to a daemon, by STARTTLS and at a port for TLS, with every mechanism that we
have; all of them check our certificate. And certificates are replaced while clients go on.
"""

from __future__ import annotations

import contextlib
import json
import smtplib
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import SecureDaemon
from tests.support.peers import Certificate, make_certificate
from tests.support.process import HOST, find_program, wait_until
from tests.support.senders import RECIPIENT, SENDER, Exim, Postfix, Relay

LOGIN, PASSWORD = 'tim@example.org', 'tanstaaf'
MECHANISMS = ['PLAIN', 'LOGIN', 'CRAM-MD5']
NODEMAILER = 'nodemailer@6.9.16'


AUTH = f'hardcoded://{LOGIN}:{PASSWORD}'


@pytest.fixture(scope='module')
def daemon(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[SecureDaemon]:
    made = SecureDaemon(tmp_path_factory.mktemp('daemon'), certificate, smtp_auth=AUTH)
    made.start()
    yield made
    made.stop()
    assert PASSWORD not in made.output()
    made.close()


@pytest.fixture(params=[False, True], ids=['STARTTLS', 'a port for TLS'])
def implicit(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=MECHANISMS)
def relay(request: pytest.FixtureRequest, daemon: SecureDaemon, certificate: Certificate, implicit: bool) -> Relay:
    return Relay(daemon.secure_port if implicit else daemon.port, implicit, certificate.certificate, request.param,
                 LOGIN, PASSWORD)


def check(daemon: SecureDaemon) -> None:
    """One message has come over TLS from who has logged in."""
    [document] = daemon.take('inbox', 1)
    assert (document['envelope'], document['recipient']) == (SENDER, RECIPIENT)
    assert document['connection']['user'] == LOGIN and document['connection']['secure'] is True
    assert ' with ESMTPSA (TLSv1.3 ' in document['mime']


def run(*command: str, typed: str = '') -> None:
    done = subprocess.run(command, input=typed.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    assert done.returncode == 0, done.stdout.decode()


# mail servers

@pytest.fixture(scope='module')
def exim() -> Iterator[Exim]:
    made = Exim()
    yield made
    made.close()


def test_exim(daemon: SecureDaemon, exim: Exim, relay: Relay) -> None:
    delivered = exim.send(relay)
    assert ' X=TLS1.3:' in delivered and ' CV=yes ' in delivered and ' A=a ' in delivered
    check(daemon)


def test_postfix(daemon: SecureDaemon, relay: Relay) -> None:
    postfix = Postfix(relay)
    try:
        assert 'Verified TLS connection established' in postfix.send()
    finally:
        postfix.close()
    check(daemon)


# clients

def test_msmtp(daemon: SecureDaemon, relay: Relay) -> None:
    run(find_program('msmtp'), f'--host={HOST}', f'--port={relay.port}', '--tls=on',
        f'--tls-starttls={"off" if relay.implicit else "on"}', f'--tls-trust-file={relay.authority}',
        f'--auth={relay.mechanism.lower()}', f'--user={LOGIN}', f'--passwordeval=echo {PASSWORD}', f'--from={SENDER}',
        RECIPIENT, typed='Subject: x\n\nbody\n')
    check(daemon)


@pytest.fixture(scope='module')
def nodemailer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('nodemailer')
    run(find_program('npm'), 'install', '--silent', '--no-audit', '--no-fund', '--prefix', str(folder), NODEMAILER)
    (folder / 'send.js').write_text("""
        const [options, message] = process.argv.slice(2).map(JSON.parse);
        options.tls.ca = require('fs').readFileSync(options.tls.ca);
        require('nodemailer').createTransport(options).sendMail(message).catch(error => {
            console.log(error); process.exit(1); });
        """)
    return folder


def test_nodemailer(daemon: SecureDaemon, nodemailer: Path, relay: Relay) -> None:
    options = {'host': 'localhost', 'port': relay.port, 'secure': relay.implicit, 'requireTLS': not relay.implicit,
               'tls': {'ca': str(relay.authority)}, 'authMethod': relay.mechanism,
               'auth': {'user': LOGIN, 'pass': PASSWORD}}
    message = {'from': SENDER, 'to': RECIPIENT, 'subject': 'x', 'text': 'Grüße'}
    run(find_program('node'), str(nodemailer / 'send.js'), json.dumps(options), json.dumps(message))
    check(daemon)


# certificates that are replaced

class Clients:
    """Threads that send one message after the other, each on a connection of its own with STARTTLS."""

    def __init__(self, port: int, count: int) -> None:
        self.sent = 0
        self.failures: list[BaseException] = []
        self.seen: set[bytes] = set()       # certificates
        self._port, self._stop = port, threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        while not self._stop.is_set():
            try:
                with smtplib.SMTP(HOST, self._port, timeout=30) as client:
                    client.starttls(context=context)
                    assert isinstance(client.sock, ssl.SSLSocket)
                    self.seen.add(client.sock.getpeercert(binary_form=True) or b'')
                    client.login(LOGIN, PASSWORD)
                    client.sendmail(SENDER, RECIPIENT, 'Subject: x\r\n\r\nbody\r\n')
                self.sent += 1
            except Exception as error:
                self.failures.append(error)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def write_in_pieces(target: Path, text: str, clients: Clients) -> None:
    """Meanwhile messages are sent."""
    with target.open('w') as file:
        for at in range(0, len(text), len(text) // 3 + 1):
            file.write(text[at:at + len(text) // 3 + 1])
            file.flush()
            before = clients.sent
            wait_until(lambda before=before: clients.sent >= before + 50, '50 messages to be sent')   # type: ignore[misc]


def test_new_certificates_under_load(tmp_path: Path, closing: contextlib.ExitStack) -> None:
    """Written over the old ones, slowly, the certificate before its key: no session fails, and all get in use."""
    made = [make_certificate(tmp_path, f'number{number}.example') for number in range(4)]
    live = Certificate(tmp_path / 'live.crt', tmp_path / 'live.key')
    live.certificate.write_text(made[0].certificate.read_text())
    live.key.write_text(made[0].key.read_text())
    daemon = SecureDaemon(tmp_path, live, smtp_auth=AUTH)
    closing.callback(daemon.close)
    daemon.start()
    clients = Clients(daemon.port, 4)
    closing.callback(clients.stop)
    for number, pair in enumerate(made):
        if number:
            for name in Certificate._fields:
                write_in_pieces(getattr(live, name), getattr(pair, name).read_text(), clients)
        shown = ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())
        wait_until(lambda shown=shown: shown in clients.seen, f'certificate {number} to be shown', 30)   # type: ignore[misc]
    clients.stop()
    print(f'{clients.sent} messages, each with a handshake and a login, while 3 certificates were replaced')
    assert clients.failures == [] and clients.sent > 100 and len(clients.seen) == 4
    assert daemon.output().count('the files have changed, and are in use') == 3
    assert 'Traceback' not in daemon.output() and 'internal error' not in daemon.output()
