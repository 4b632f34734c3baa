"""Logins checked by OpenLDAP and FreeRADIUS, and hashes made by mkpasswd: `python3 build.py peers`."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqlite.auth.contract import AuthUnavailable
from mqlite.auth.crypt import parse_hash
from mqlite.auth.open import open_authenticator
from mqlite.dns.resolver import Resolver, ResolverConfig
from mqlite.loop.clock import Clock
from mqlite.smtp.sasl import Password
from tests.support.directory import Directory, RadiusServer
from tests.support.loop import LoopBench, open_descriptors
from tests.support.process import HOST, find_program

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


# mkpasswd

@pytest.mark.parametrize('options', [('-m', 'sha-512'), ('-m', 'sha-256'), ('-m', 'md5'),
                                     ('-m', 'sha-512', '-R', '1000'), ('-m', 'sha-256', '-R', '65536')])
@pytest.mark.parametrize('password', ['pw', 'é' * 40])
def test_hashes_of_mkpasswd(options: tuple[str, ...], password: str) -> None:
    done = subprocess.run([find_program('mkpasswd'), *options, password], capture_output=True, check=True)
    made = parse_hash(done.stdout.decode().strip())
    assert made.matches(password.encode()) and not made.matches(b'another')
