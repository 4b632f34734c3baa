"""Logins checked by OpenLDAP, FreeRADIUS and nginx, and hashes made by mkpasswd: `python3 build.py peers`."""

from __future__ import annotations

import contextlib
import shutil
import smtplib
import ssl
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqlite.auth.contract import AuthUnavailable
from mqlite.auth.crypt import parse_hash
from mqlite.auth.open import open_authenticator
from mqlite.dns.resolver import Resolver, ResolverConfig
from mqlite.loop.clock import Clock
from mqlite.smtp.sasl import Password
from tests.support.daemon import SecureDaemon
from tests.support.directory import Directory, RadiusServer, WebServer
from tests.support.loop import LoopBench, open_descriptors
from tests.support.peers import Certificate
from tests.support.process import HOST, find_program
from tests.support.senders import open_folder

PEOPLE = [
    # login              in a DN                    password
    ('tim',              'tim',                     'tanstaaf'),
    ('josé',             'josé',                    'pä ß'),
    ('a,b+c=d',          r'a\,b\+c\=d',             'pw'),
    (' # "x" \\ ',       r'\20# \"x\" \\\20',       'pw'),
    ('#hash',            r'\#hash',                 'pw'),
    ('nopassword',       'nopassword',              None),
]


@pytest.fixture
def bench(closing: contextlib.ExitStack) -> LoopBench:
    made = LoopBench(Clock())
    closing.callback(made.close)
    return made


@pytest.fixture(scope='module')
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directory]:
    made = Directory(tmp_path_factory.mktemp('slapd'), PEOPLE)
    yield made
    made.close()


@pytest.fixture(scope='module')
def radius(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RadiusServer]:
    made = RadiusServer(tmp_path_factory.mktemp('radius'), {'tim': 'tanstaaf', 'josé': 'pä ß', 'long': 'x' * 128})
    yield made
    made.close()


def ask(bench: LoopBench, setting: str, *credentials: tuple[str, str]) -> list[bool]:
    async def main() -> list[bool]:
        store = open_authenticator(bench.reactor, Resolver(bench.reactor, ResolverConfig(('127.0.0.1:9',))), setting)
        return [await store.check(Password('PLAIN', login, password.encode()), HOST)
                for login, password in credentials]
    return bench.run(main())


# OpenLDAP

@pytest.mark.parametrize(('login', 'password'), [(login, password) for login, _, password in PEOPLE if password])
def test_people_of_a_directory(bench: LoopBench, directory: Directory, login: str, password: str) -> None:
    assert ask(bench, directory.setting, (login, password), (login, password + 'x')) == [True, False]


@pytest.mark.parametrize('login', ['nobody', 'nopassword', '*', 'tim,ou=people,dc=example,dc=org', 'tim)(uid=*', '\\2a',
                                   'tim+cn=x', 'x' * 1000, 'ti\\6d', 'tim,ou=people'])
def test_logins_that_are_nobody_s(bench: LoopBench, directory: Directory, login: str) -> None:
    assert ask(bench, directory.setting, (login, 'tanstaaf')) == [False]


def test_a_directory_that_wants_what_we_do_not_have(bench: LoopBench, tmp_path: Path,
                                                    closing: contextlib.ExitStack) -> None:
    """Confidentiality, say: the server's words tell the operator, and no client is told that its password is wrong."""
    strict = Directory(tmp_path, PEOPLE, 'security simple_bind=128')
    closing.callback(strict.close)
    with pytest.raises(AuthUnavailable, match=r'confidentialityRequired \(13\)'):
        ask(bench, strict.setting, ('tim', 'tanstaaf'))


def test_a_directory_that_went_away(bench: LoopBench, tmp_path: Path) -> None:
    gone = Directory(tmp_path, PEOPLE)
    gone.close()
    with pytest.raises(AuthUnavailable, match='LDAP server 127.0.0.1 port .*: Connection refused'):
        ask(bench, gone.setting, ('tim', 'tanstaaf'))


def test_many_at_once(bench: LoopBench, directory: Directory) -> None:
    store = open_authenticator(bench.reactor, Resolver(bench.reactor, ResolverConfig(('127.0.0.1:9',))),
                               directory.setting)
    before = open_descriptors()

    async def main() -> list[bool]:
        tasks = [bench.reactor.spawn(store.check(Password('PLAIN', 'tim', password), HOST))
                 for password in (b'tanstaaf', b'wrong') * 200]
        return [await task for task in tasks]

    began = time.monotonic()
    assert bench.run(main()) == [True, False] * 200
    print(f'400 binds in {time.monotonic() - began:.2f} s')
    assert open_descriptors() == before


# FreeRADIUS

def test_users_of_a_radius_server(bench: LoopBench, radius: RadiusServer) -> None:
    assert ask(bench, radius.setting(), ('tim', 'tanstaaf'), ('josé', 'pä ß'), ('long', 'x' * 128)) == [True] * 3
    assert radius.process.running


def test_logins_that_radius_rejects(bench: LoopBench, radius: RadiusServer) -> None:
    assert ask(bench, radius.setting(), ('tim', 'wrong'), ('nobody', 'tanstaaf'), ('long', 'x' * 129)) == [False] * 3


def test_another_secret(bench: LoopBench, radius: RadiusServer) -> None:
    """The server ignores a request whose Message-Authenticator is wrong: there is no answer."""
    with pytest.raises(AuthUnavailable, match='no answer to 3 requests') as caught:
        ask(bench, radius.setting('another'), ('tim', 'tanstaaf'))
    assert 'another' not in str(caught.value) and 'tanstaaf' not in str(caught.value)


def test_a_server_of_before_blast_radius(bench: LoopBench, tmp_path: Path, closing: contextlib.ExitStack) -> None:
    old = RadiusServer(tmp_path, {'tim': 'tanstaaf'}, sign=False)
    closing.callback(old.close)
    with pytest.raises(AuthUnavailable, match='no Message-Authenticator: update the RADIUS server'):
        ask(bench, old.setting(), ('tim', 'tanstaaf'))


# all of them, asked by a daemon for clients that log in over TLS

@pytest.fixture(scope='module')
def web_server() -> Iterator[WebServer]:
    folder = open_folder('nginx')
    made = WebServer(folder, {'tim': 'tanstaaf', 'josé': 'pä ß'})
    yield made
    made.close()
    shutil.rmtree(folder)


def auth_plain(client: smtplib.SMTP, login: str, password: str) -> int:
    response = b64encode(f'\0{login}\0{password}'.encode()).decode()
    return client.docmd('AUTH', f'PLAIN {response}')[0]


@pytest.mark.parametrize('store', ['directory', 'radius', 'web_server'])
def test_a_daemon_asks(request: pytest.FixtureRequest, tmp_path: Path, certificate: Certificate, store: str,
                       closing: contextlib.ExitStack) -> None:
    server = request.getfixturevalue(store)
    setting = server.setting() if store == 'radius' else server.setting
    daemon = SecureDaemon(tmp_path, certificate, smtp_auth=setting)
    closing.callback(daemon.close)
    daemon.start()
    context = ssl.create_default_context(cafile=daemon.certificate)
    for login, password, verdict in (('tim', 'tanstaaf', 235), ('josé', 'pä ß', 235), ('tim', 'Wr0ng!pw', 535)):
        with smtplib.SMTP_SSL('localhost', daemon.secure_port, context=context) as client:
            client.ehlo()
            assert client.esmtp_features['auth'].split() == ['PLAIN', 'LOGIN']
            assert auth_plain(client, login, password) == verdict
            assert client.mail('a@example.org')[0] == 250
            assert client.rcpt('b@example.com')[0] == (250 if verdict == 235 else 550)
            if verdict == 235:
                assert client.data('Subject: x\r\n\r\nbody\r\n')[0] == 250
    assert [document['connection']['user'] for document in daemon.take('inbox', 2)] == ['tim', 'josé']
    assert not [secret for secret in ('tanstaaf', 'pä ß', 'Wr0ng!pw') if secret in daemon.output()]


def test_a_directory_that_went_away_while_a_daemon_runs(tmp_path: Path, certificate: Certificate,
                                                        closing: contextlib.ExitStack) -> None:
    """454, and one line for the operator; the client is not told that its password is wrong."""
    folder = tmp_path / 'slapd'
    folder.mkdir()
    gone = Directory(folder, PEOPLE)
    closing.callback(gone.close)
    daemon = SecureDaemon(tmp_path, certificate, smtp_auth=gone.setting)
    closing.callback(daemon.close)
    daemon.start()
    with smtplib.SMTP_SSL('localhost', daemon.secure_port, context=ssl._create_unverified_context()) as client:
        client.ehlo()
        gone.process.kill()
        assert auth_plain(client, 'tim', 'tanstaaf') == 454
    assert 'cannot be checked: LDAP server 127.0.0.1 port' in daemon.output()


# mkpasswd

@pytest.mark.parametrize('options', [('-m', 'sha-512'), ('-m', 'sha-256'), ('-m', 'md5'),
                                     ('-m', 'sha-512', '-R', '1000'), ('-m', 'sha-256', '-R', '65536')])
@pytest.mark.parametrize('password', ['pw', 'é' * 40])
def test_hashes_of_mkpasswd(options: tuple[str, ...], password: str) -> None:
    done = subprocess.run([find_program('mkpasswd'), *options, password], capture_output=True, check=True)
    made = parse_hash(done.stdout.decode().strip())
    assert made.matches(password.encode()) and not made.matches(b'another')
