"""The extensions, with Exim and Postfix at the other end: `python3 build.py peers`. Root only."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.daemon import Daemon, SecureDaemon
from tests.support.peers import Certificate
from tests.support.process import HOST
from tests.support.receivers import LOGIN, PASSWORD, EximServer
from tests.support.senders import Exim, Postfix, Relay

LARGE = b'Subject: large\n\n' + b''.join(b'.%d\n..\n' % n for n in range(20000))


@pytest.fixture(scope='module')
def exim() -> Iterator[Exim]:
    made = Exim()
    yield made
    made.close()


@pytest.fixture(scope='module')
def daemon(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[SecureDaemon]:
    made = SecureDaemon(tmp_path_factory.mktemp('daemon'), certificate, dsn_advertise='true')
    made.start()
    yield made
    made.close()


@pytest.mark.parametrize('message', [b'Subject: small\n\n.\n', LARGE], ids=['small', 'large'])
@pytest.mark.parametrize('chunking', [True, False])
def test_exim_sends_chunks(daemon: SecureDaemon, exim: Exim, certificate: Certificate, chunking: bool,
                           message: bytes) -> None:
    relay = Relay(daemon.port, False, certificate.certificate)
    delivered = exim.send(relay, chunking=chunking, message=message)
    assert (' K ' in delivered) == chunking, delivered
    [document] = daemon.take('inbox', 1)
    assert document['mime'].replace('\r\n', '\n').encode().endswith(message.partition(b'\n\n')[2])


def test_postfix_asks_for_notices(daemon: SecureDaemon, certificate: Certificate) -> None:
    postfix = Postfix(Relay(daemon.port, False, certificate.certificate))
    try:
        postfix.send('-N', 'success,delay', '-R', 'hdrs', '-V', 'id+1', recipient='ü@example.com')
    finally:
        postfix.close()
    [document] = daemon.take('inbox', 1)
    assert document['recipient'] == 'ü@example.com' and ' with UTF8SMTPS ' in document['mime']
    assert document['dsn'] == {'notify': 'SUCCESS,DELAY', 'ret': 'HDRS', 'envid': 'id+1',
                               'orcpt': 'utf-8;ü@example.com'}


@pytest.fixture(scope='module')
def receiver(certificate: Certificate) -> Iterator[EximServer]:
    made = EximServer(certificate)
    yield made
    made.close()


@pytest.fixture(scope='module')
def sender(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    made = Daemon(tmp_path_factory.mktemp('sender')).start()
    yield made
    made.close()


def deliver(sender: Daemon, port: int, **fields: object) -> dict[str, object]:
    """The result of a message that goes through the server at this port."""
    document = {'envelope': 'a@example.org', 'recipient': 'b@example.com', 'mime': 'Subject: x\n\nbody\n',
                'maxattempts': 1, **fields}
    document['smarthost'] = {'hostname': HOST, 'port': port, **(fields.get('smarthost') or {})}  # type: ignore[dict-item]
    done = sender.cli('queue', 'publish', 'outbox', input=json.dumps(document).encode() + b'\n')
    assert done.returncode == 0, done.stderr
    [result] = sender.take('results', 1)
    entry: dict[str, object] = result['results'][-1]
    return entry


@pytest.mark.parametrize('mechanism', ['PLAIN', 'LOGIN', 'CRAM-MD5'])
def test_we_log_in_at_exim(sender: Daemon, receiver: EximServer, mechanism: str) -> None:
    receiver.start(mechanism)
    login = {'username': LOGIN, 'password': PASSWORD}
    entry = deliver(sender, receiver.port, smarthost=login)
    assert (entry['result'], entry['authentication']) == ('accepted', mechanism) and 'cipher' in entry
    assert f'-auth_id {LOGIN}\n' in receiver.kept()
    entry = deliver(sender, receiver.port, smarthost={**login, 'password': 'wrong'})
    assert (entry['state'], entry['code']) == ({'PLAIN': 'authplain', 'LOGIN': 'authpassword',
                                                'CRAM-MD5': 'authresponse'}[mechanism], 535)
    entry = deliver(sender, receiver.port)
    assert (entry['state'], entry['code']) == ('rcptto', 550)


def test_exim_understands_our_parameters(sender: Daemon, receiver: EximServer) -> None:
    receiver.start()
    entry = deliver(sender, receiver.port, envelope='ä@example.org', recipient='ü@bücher.example', smtputf8=True,
                    mime='Subject: ü\n\nü\n',
                    dsn={'notify': 'SUCCESS,FAILURE', 'ret': 'HDRS', 'envid': 'id+1 x', 'orcpt': 'o+p@example.com'})
    assert (entry['result'], entry['dsn']) == ('accepted', True), entry
    kept = receiver.kept()
    assert '<ä@example.org>' in kept and 'ü@bücher.example' in kept and '\n-smtputf8\n' in kept
    assert '-dsn_envid id+2B1+20x\n' in kept and '-dsn_ret 2\n' in kept and 'rfc822;o+2Bp@example.com' in kept
