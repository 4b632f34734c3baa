"""Hashed passwords: published results, what today's tools write, and files of logins."""

from __future__ import annotations

import subprocess

import pytest

from mqlite.auth.accounts import name_patterns, parse_accounts
from mqlite.auth.crypt import ROUNDS_LIMIT, UnknownHash, parse_hash
from mqlite.errors import ConfigError
from tests.support.process import find_program

LONG = 'a very much longer text to encrypt.  This one even stretches over morethan one line.'
SHORT_SALT = 'we have a short salt string but not a short password'
MINIMUM = 'the minimum number is still observed'

PUBLISHED = [       # U. Drepper, SHA-crypt.txt, the table of both reference programs; the salts as they were cut there
    ('Hello world!', '$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5'),
    ('Hello world!', '$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA'),
    ('This is just a test', '$5$rounds=5000$toolongsaltstrin$Un/5jzAHMgOGZ5.mWJpuVolil07guHPvOW8mGRcvxa5'),
    (LONG, '$5$rounds=1400$anotherlongsalts$Rx.j8H.h8HjEDGomFU8bDkXm3XIUnzyxf12oP84Bnq1'),
    (SHORT_SALT, '$5$rounds=77777$short$JiO1O3ZpDAxGJeaDIuqCoEFysAe1mZNJRs3pw0KQRd/'),
    ('a short string', '$5$rounds=123456$asaltof16chars..$gP3VQ/6X7UUEW3HkBn2w1/Ptq2jxPyzV/cZKmF/wJvD'),
    (MINIMUM, '$5$rounds=10$roundstoolow$yfvwcWrQ8l/K0DAWyuPMDNHpIVlTQebY9l/gL972bIC'),
    ('Hello world!', '$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35'
     'inz1'),
    ('Hello world!', '$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/'
     'YTBmSK6H9qs/y3RnOaw5v.'),
    ('This is just a test', '$6$rounds=5000$toolongsaltstrin$lQ8jolhgVRVhY4b5pZKaysCLi0QBxGoNeKQzQ3glMhwllF7oGDZxUhx1yx'
     'dYcz/e1JSbq3y6JMxxl8audkUEm0'),
    (LONG, '$6$rounds=1400$anotherlongsalts$POfYwTEok97VWcjxIiSOjiykti.o/pQs.wPvMxQ6Fm7I6IoYN3CmLs66x9t0oSwbtEW7o7UmJEi'
     'DwGqd8p4ur1'),
    (SHORT_SALT, '$6$rounds=77777$short$WuQyW2YR.hBNpjjRhpYD/ifIw05xdfeEyQoMxIXbkvr0gge1a1x3yRULJ5CCaUeOxFmtlcGZelFl5Cx'
     'tgfiAc0'),
    ('a short string', '$6$rounds=123456$asaltof16chars..$BtCwjqMJGx5hrJhZywWvt0RLE8uZ4oPwcelCjmw2kSYu.Ec6ycULevoBK25f'
     's2xXgMNrCzIMVcgEJAstJeonj1'),
    (MINIMUM, '$6$rounds=10$roundstoolow$kUMsbe306n21p9R.FRkW3IGn.S9NPN0x50YhH1xhLsPuWGsUSklZt58jaTfF4ZEQpyUNGc0dqbpBYY'
     'BaHHrsX.'),
]
SHA512 = PUBLISHED[7][1]
MD5 = '$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/'      # of `password`, from the documentation of passlib


@pytest.mark.parametrize(('password', 'text'), PUBLISHED)
def test_published_results(password: str, text: str) -> None:
    assert parse_hash(text).matches(password.encode())


def test_another_password_does_not_match() -> None:
    for text in (SHA512, PUBLISHED[0][1]):
        assert not parse_hash(text).matches(b'Hello world') and not parse_hash(text).matches(b'')


@pytest.mark.parametrize('form', ['-6', '-5', '-1', '-apr1'])
def test_what_openssl_writes(form: str) -> None:
    """Sizes on both sides of what the algorithms repeat: the digest, and blocks of 16 octets."""
    passwords = ['a', 'fifteen letters', 'sixteen letters!', 'seventeen letters', 'x' * 31, 'x' * 32, 'x' * 33,
                 'x' * 63, 'x' * 64, 'x' * 65, 'é€😀']
    done = subprocess.run([find_program('openssl'), 'passwd', form, '-stdin'], input='\n'.join(passwords).encode(),
                          capture_output=True, check=True)
    hashes = [parse_hash(line) for line in done.stdout.decode().split()]
    assert [made.matches(password.encode()) for made, password in zip(hashes, passwords)] == [True] * len(passwords)
    assert not hashes[0].matches(b'b')


@pytest.mark.parametrize('salt', ['a', '-+', '0123456789abcdef'])
def test_salts_as_short_and_long_as_they_may_be(salt: str) -> None:
    done = subprocess.run([find_program('openssl'), 'passwd', '-6', '-salt', salt, 'pw'], capture_output=True)
    assert parse_hash(done.stdout.decode().strip()).matches(b'pw')


@pytest.mark.parametrize(('text', 'complaint'), [
    ('secret', 'not hashed'),
    ('', 'not hashed'),
    ('x', 'not hashed'),
    ('rqXexS6ZhobKA', 'not hashed'),                                    # DES
    ('$2b$12$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234', 'bcrypt'),
    ('$y$j9T$abc$def', 'yescrypt'),
    ('$argon2id$v=19$m=1', 'Argon2'),
    ('{SSHA}abcdef', 'of LDAP'),
    (SHA512[:-1], 'damaged'),
    (SHA512 + 'a', 'damaged'),
    (SHA512[:-1] + '!', 'not hashed'),
    (SHA512 + '\n', 'not hashed'),
    (SHA512.replace('$6$', '$5$'), 'damaged'),
    (SHA512.replace('$6$', '$7$'), 'scrypt'),
    ('$1$ninechars$' + 'a' * 22, 'damaged'),
    ('$1$rounds=5000$salt$' + 'a' * 22, 'damaged'),
    ('$6$rounds=0$salt$' + 'a' * 86, 'not hashed'),
    ('$6$rounds=-1$salt$' + 'a' * 86, 'not hashed'),
    ('$6$rounds=1000001$salt$' + 'a' * 86, 'rounds'),
    ('$6$rounds=9999999999$salt$' + 'a' * 86, 'not hashed'),
], ids=lambda text: text[:20])
def test_hashes_that_cannot_be_checked(text: str, complaint: str) -> None:
    with pytest.raises(UnknownHash, match=complaint) as caught:
        parse_hash(text)
    assert not text or len(text) < 5 or text not in str(caught.value)
    assert ROUNDS_LIMIT == 1_000_000


FILE = f"""\
# comment
tim:{SHA512}

old:{MD5}:1000:1000::/home/old:/bin/sh
josé@example.org:{SHA512}\r
locked:*
disabled:!{SHA512}
empty:
tim:{MD5}
"""


@pytest.mark.parametrize(('login', 'password', 'right'), [
    ('tim', 'Hello world!', True),
    ('tim', 'hello world!', False),
    ('tim', 'password', False),                 # his second line
    ('Tim', 'Hello world!', False),
    ('old', 'password', True),
    ('josé@example.org', 'Hello world!', True),
    ('nobody', 'Hello world!', False),          # though the hash that is computed in his place is of just this
    ('locked', 'Hello world!', False),
    ('disabled', 'Hello world!', False),
    ('empty', '', False),
    ('# comment', '', False),
    ('', '', False),
])
def test_a_file_of_logins(login: str, password: str, right: bool) -> None:
    accounts = parse_accounts(FILE)
    accounts.check_hashes()
    assert accounts.matches(login, password.encode(), 0) is right


@pytest.mark.parametrize(('text', 'complaint'), [
    ('tim', 'line 1 is not login:hash'),
    (f'tim:{SHA512}\n\nsecretword', 'line 3 is not login:hash'),
    (f':{SHA512}', 'line 1 is not login:hash'),
])
def test_a_file_that_makes_no_sense(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        parse_accounts(text)
    assert 'secretword' not in str(caught.value)


def test_a_hash_that_cannot_be_checked_keeps_out_its_owner_only() -> None:
    accounts = parse_accounts(f'a:$y$j9T$abc$def\nb:{SHA512}\n')
    with pytest.raises(UnknownHash, match='line 1: .*yescrypt'):
        accounts.check_hashes()
    for _ in range(2):
        with pytest.raises(UnknownHash, match='line 1'):
            accounts.matches('a', b'Hello world!', 0)
    assert accounts.matches('b', b'Hello world!', 0)


@pytest.mark.parametrize(('field', 'day', 'right'), [
    ('', 20000, True), ('20000', 19999, True), ('20000', 20000, False), ('1', 20000, False), ('never', 20000, True)])
def test_an_account_of_the_system_expires(field: str, day: int, right: bool) -> None:
    """shadow(5): login, hash, last change, minimum, maximum, warning, inactivity, expiry, reserved."""
    accounts = parse_accounts(f'tim:{SHA512}:19000:0:99999:7::{field}:\n')
    assert accounts.matches('tim', b'Hello world!', day * 86400.0) is right


@pytest.mark.parametrize(('names', 'login', 'wanted'), [
    (('a', 'b'), 'b', True), (('a', 'b'), 'ab', False), (('client*',), 'client', True), (('client*',), 'client7', True),
    (('client*',), 'myclient', False), (('*-x',), 'a-x', True), (('a.c',), 'abc', False), (('*',), 'root', True),
    (('[ab]',), 'a', False), (('?',), 'a', False)])
def test_names_with_asterisks(names: tuple[str, ...], login: str, wanted: bool) -> None:
    assert bool(name_patterns(names)(login)) is wanted


def test_accounts_that_are_not_wanted_are_not_looked_at() -> None:
    accounts = parse_accounts(f'root:$y$j9T$abc$def\ntim:{SHA512}\n', name_patterns(('t*',)))
    accounts.check_hashes()
    assert accounts.matches('tim', b'Hello world!', 0) and not accounts.matches('root', b'x', 0)
