"""Delivery to mail servers of others: what each of their answers leads to, in the results and in the queues.

Postfix, Exim, OpenSMTPD, aiosmtpd and Haraka each get some dozens of messages at once, of which some are refused.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Callable
from unittest import mock

import pytest

from tests.support.daemon import Daemon
from tests.support.outcomes import KEPT, Ended, Outcome, deliver, make_sender
from tests.support.peers import Certificate, make_certificate
from tests.support.process import HOST, Process, find_program, free_port, wait_until
from tests.support.receivers import MOST, EximServer, OpenSmtpdServer, PostfixServer

BODIES = {'dots': '.\n..\n.end\n', 'eight bits': 'é' * 400 + '\n'}
# What every server is sent: properties of the message for each case. Its subject is the name of the case.
MESSAGES: dict[str, dict[str, object]] = {
    'plain':                   {},
    'dots':                    {'mime': f'Subject: dots\n\n{BODIES["dots"]}'},
    'eight bits':              {'mime': f'Subject: eight bits\n\n{BODIES["eight bits"]}'},
    'another domain':          {'recipient': 's@c.example'},
    'a domain not served':     {'recipient': 'r@elsewhere.example'},
    'an unknown recipient':    {'recipient': 'gone@b.example'},
    'a busy recipient':        {'recipient': 'later@b.example'},
    'a message refused':       {'envelope': 'spam@a.example'},
    'too large':               {'mime': 'Subject: too large\n\n' + ('x' * 70 + '\n') * (MOST // 70)},
    'an address not in ASCII': {'recipient': 'ü@b.example'},
    'notifications unwanted':  {'dsn': {'notify': 'NEVER'}},
    'TLS required':            {'security': 'required'},
    'a certificate wanted':    {'security': 'verified'},
    **{f'one of many {number}': {} for number in range(60)},     # more than connections: they follow each other closely
}
GREYLISTED: dict[str, dict[str, object]] = {'greylisted': {'recipient': 'grey@b.example', 'retries': [2]}}
NO_ROOM: dict[str, dict[str, object]] = {'no room': {'envelope': 'slow@a.example'}}


@pytest.fixture(scope='module')
def daemon(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Daemon]:
    """It trusts the certificate."""
    made = make_sender(tmp_path_factory.mktemp('daemon'))
    with mock.patch.dict(os.environ, SSL_CERT_FILE=str(certificate.certificate)):
        made.start()
    with contextlib.closing(made):
        yield made


def refused(state: str, code: int | None, status: str = '') -> tuple[Outcome, str]:
    """The outcome, and the enhanced status code."""
    return Outcome(state, 'error', code, 'failure' if code and code >= 500 else 'retry'), status


def check(ended: Mapping[str, Ended], kept: Callable[[], str], others: Mapping[str, tuple[Outcome, str]]) -> None:
    """All were kept, once, as they were sent, but those with another outcome here. `kept`: what the server has."""
    assert {name: (end.outcome, end.last.get('status', '')) for name, end in ended.items()
            if end.outcome != KEPT} == others
    taken = sorted(name for name in ended if name not in others)
    wait_until(lambda: sorted(re.findall(r'Subject: ([\w ]+)', kept())) == taken, f'{taken} to be kept')
    text = kept().replace('\r', '')
    assert [name for name, body in BODIES.items() if body not in text] == []


def check_secured(ended: Mapping[str, Ended]) -> None:
    """All went over TLS, and the certificate was verified for the one that asked for it."""
    assert all(end.last['cipher']['version'] == 'TLSv1.3' for end in ended.values())
    assert {name for name, end in ended.items() if end.last['certificate']['verified']} == {'a certificate wanted'}


def check_greylisted(ended: Ended) -> None:
    """It was refused for now, and then it was not."""
    *earlier, last = ended.document['results']
    assert ended.outcome == KEPT and last is ended.last
    assert {(entry['state'], entry['result'], entry['code'] // 10) for entry in earlier} == {('rcptto', 'error', 45)}


def test_postfix(daemon: Daemon, certificate: Certificate) -> None:
    with contextlib.closing(PostfixServer(certificate)) as server:
        ended = deliver(daemon, server.port, {**MESSAGES, **NO_ROOM})
        check(ended, server.kept, {
            'a domain not served':  refused('rcptto', 554, '5.7.1'),
            'an unknown recipient': refused('rcptto', 550, '5.1.1'),
            'a busy recipient':     refused('rcptto', 450, '4.2.0'),
            'a message refused':    refused('data', 554, '5.7.1'),
            'no room':              refused('message', 452, '4.3.1'),
            'too large':            refused('mailfrom', 552, '5.3.4'),
        })
        check_secured(ended)
        assert all(end.last['dsn'] is True for end in ended.values() if end.outcome == KEPT)


def test_exim(daemon: Daemon, certificate: Certificate) -> None:
    with contextlib.closing(EximServer(certificate)) as server:
        server.start()
        ended = deliver(daemon, server.port, {**MESSAGES, **GREYLISTED})
        check_greylisted(ended['greylisted'])
        check(ended, server.kept, {
            'a domain not served':  refused('rcptto', 550),
            'an unknown recipient': refused('rcptto', 550),
            'a busy recipient':     refused('rcptto', 451),
            'a message refused':    refused('message', 550, '5.7.1'),
            'too large':            refused('mailfrom', 552),
        })
        check_secured(ended)


@pytest.fixture(scope='module')
def opensmtpd(certificate: Certificate) -> Iterator[OpenSmtpdServer]:
    with contextlib.closing(OpenSmtpdServer(certificate)) as made:
        yield made


def test_opensmtpd(daemon: Daemon, opensmtpd: OpenSmtpdServer) -> None:
    """It offers neither STARTTLS nor SMTPUTF8."""
    check(deliver(daemon, opensmtpd.port, MESSAGES), opensmtpd.kept, {
        'a domain not served':     refused('rcptto', 550),
        'an unknown recipient':    refused('rcptto', 550),
        'a busy recipient':        refused('rcptto', 450, '4.2.0'),
        'a message refused':       refused('data', 554, '5.7.1'),
        'too large':               refused('message', 554, '5.3.4'),
        'an address not in ASCII': refused('mailfrom', 550, '5.6.7'),
        'TLS required':            refused('starttls', None),
        'a certificate wanted':    refused('starttls', None),
    })


def test_opensmtpd_with_tls_that_may_be_broken(daemon: Daemon, opensmtpd: OpenSmtpdServer) -> None:
    """As that of version 6.8 with OpenSSL 3 is: it ends every handshake. Then mail that may goes in clear."""
    ended = deliver(daemon, opensmtpd.secure_port, {name: MESSAGES[name] for name in ('plain', 'TLS required')})
    works = ended['TLS required'].outcome == KEPT
    assert works or ended['TLS required'].outcome == refused('handshake', None)[0]
    assert ended['plain'].outcome == KEPT and ('cipher' in ended['plain'].last) is works


AIOSMTPD = """\
import asyncio, ssl, sys
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

class Handler:
    def __init__(self):
        self.seen = set()

    async def handle_RCPT(self, server, session, envelope, address, options):
        user, _, domain = address.partition('@')
        if domain == 'elsewhere.example':
            return '554 5.7.1 not here'
        if user == 'gone':
            return '550 5.1.1 gone'
        if user == 'later' or user == 'grey' and address not in self.seen:
            self.seen.add(address)
            return '450 4.2.0 later'
        envelope.rcpt_tos.append(address)
        return '250 2.1.5 OK'

    async def handle_DATA(self, server, session, envelope):
        if envelope.mail_from.startswith('spam'):
            return '554 5.7.1 not your message'
        if envelope.mail_from.startswith('slow'):
            return '452 4.3.1 no room now'
        sys.stdout.buffer.write(envelope.content)
        sys.stdout.buffer.flush()
        return '250 2.0.0 kept'

certificate, key, port, most = sys.argv[1:]
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(certificate, key)
class TlsController(Controller):
    def factory(self):
        return SMTP(self.handler, tls_context=context, enable_SMTPUTF8=True, data_size_limit=int(most))
TlsController(Handler(), hostname='127.0.0.1', port=int(port)).start()
asyncio.new_event_loop().run_forever()
"""


def test_aiosmtpd(tmp_path: Path, daemon: Daemon, certificate: Certificate) -> None:
    port = free_port()
    process = Process([sys.executable, '-c', AIOSMTPD, *certificate, str(port), str(MOST)], tmp_path)
    with contextlib.closing(process):
        process.wait_listening(port)
        ended = deliver(daemon, port, {**MESSAGES, **GREYLISTED, **NO_ROOM})
        check_greylisted(ended['greylisted'])
        check(ended, process.output, {
            'a domain not served':  refused('rcptto', 554, '5.7.1'),
            'an unknown recipient': refused('rcptto', 550, '5.1.1'),
            'a busy recipient':     refused('rcptto', 450, '4.2.0'),
            'a message refused':    refused('message', 554, '5.7.1'),
            'no room':              refused('message', 452, '4.3.1'),
            'too large':            refused('mailfrom', 552),
        })
        check_secured(ended)


HARAKA = 'Haraka@3.3.4'
HARAKA_PLUGIN = """\
const seen = new Set();
exports.hook_mail = (next, connection, [address]) => next(
    ...(address.user === 'slow' ? [DENYSOFT, 'no room now'] : [OK]));
exports.hook_rcpt = (next, connection, [address]) => {
    if (address.host === 'elsewhere.example') return next(DENY, 'not here');
    if (address.user === 'gone') return next(DENY, 'nobody of that name');
    if (address.user === 'later' || address.user === 'grey' && !seen.has(address.user)) {
        seen.add(address.user);
        return next(DENYSOFT, 'later');
    }
    next(OK);
};
exports.hook_data_post = (next, connection) => next(
    ...(connection.transaction.mail_from.user === 'spam' ? [DENY, 'not your message'] : []));
exports.hook_queue = (next, connection) => {
    connection.transaction.message_stream.get_data((data) => { process.stdout.write(data); next(OK); });
};
"""


@pytest.fixture(scope='module')
def haraka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Process]]:
    """From the npm registry, in a folder of its own. Nobody vouches for its certificate."""
    folder, port = tmp_path_factory.mktemp('haraka'), free_port()
    done = subprocess.run([find_program('npm'), 'install', '--silent', '--no-audit', '--no-fund', HARAKA], cwd=folder,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    assert done.returncode == 0, done.stdout.decode()
    package, certificate = folder / 'node_modules' / 'Haraka', make_certificate(folder)
    shutil.copytree(package / 'config', folder / 'config')
    limits = (folder / 'config' / 'connection.ini').read_text()
    for name, text in {
        'config/connection.ini': limits.replace('bytes=26214400', f'bytes={MOST}'),
        'config/smtp.ini': f'listen={HOST}:{port}\nnodes=0\n',
        'config/plugins': 'tls\ncheck\n',
        'config/me': 'haraka.example\n',
        'config/tls_key.pem': certificate.key.read_text(),
        'config/tls_cert.pem': certificate.certificate.read_text(),
        'plugins/check.js': HARAKA_PLUGIN,
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    # else it makes its own, for as long as that takes
    subprocess.run([find_program('openssl'), 'genpkey', '-genparam', '-algorithm', 'DH', '-pkeyopt', 'group:ffdhe2048',
                    '-out', folder / 'config' / 'dhparams.pem'], check=True, capture_output=True)
    process = Process([find_program('node'), package / 'bin' / 'haraka', '-c', folder], folder)
    with contextlib.closing(process):
        process.wait_listening(port)
        yield port, process


def test_haraka(daemon: Daemon, haraka: tuple[int, Process]) -> None:
    port, process = haraka
    ended = deliver(daemon, port, {**MESSAGES, **GREYLISTED, **NO_ROOM})
    check_greylisted(ended['greylisted'])
    check(ended, process.output, {
        'a domain not served':  refused('rcptto', 550),
        'an unknown recipient': refused('rcptto', 550),
        'a busy recipient':     refused('rcptto', 450),
        'a message refused':    refused('message', 550),
        'no room':              refused('mailfrom', 450),
        'too large':            refused('mailfrom', 550),
        'a certificate wanted': refused('handshake', None),
    })
    assert ended['TLS required'].last['cipher']['version'] == 'TLSv1.3'
