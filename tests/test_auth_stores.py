"""The stores of `smtp-auth` from their setting on: verdicts, mistakes told at start, trouble told later, bounds."""

from __future__ import annotations

import contextlib
import hmac
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mqlite.auth.contract import Authenticator, AuthUnavailable
from mqlite.auth.local import SHADOW, HashedLogins, new_challenge, system_logins
from mqlite.auth.open import AT_ONCE, SECONDS, GuardedLogins, open_authenticator
from mqlite.dns.resolver import Resolver, ResolverConfig
from mqlite.errors import ConfigError
from mqlite.loop.clock import Clock
from mqlite.loop.process import INPUT_LIMIT
from mqlite.loop.task import Cancelled, Task, Waiter
from mqlite.smtp.sasl import FIELD_LIMIT, ChallengeResponse, Password
from tests.support.loop import LoopBench
from tests.support.process import HOST, find_program

TIM, WRONG, NOBODY = (Password('PLAIN', 'tim', b'pw'), Password('PLAIN', 'tim', b'Xecret'),
                      Password('LOGIN', 'nobody', b'pw'))


@pytest.fixture
def bench(closing: contextlib.ExitStack) -> LoopBench:
    made = LoopBench()
    closing.callback(made.close)
    return made


def open_store(bench: LoopBench, setting: str) -> Authenticator:
    return open_authenticator(bench.reactor, Resolver(bench.reactor, ResolverConfig(('127.0.0.1:9',))), setting)


def check(bench: LoopBench, store: Authenticator, *passwords: Password) -> list[bool]:
    async def main() -> list[bool]:
        return [await store.check(password, HOST) for password in passwords]
    return bench.run(main())


def hashed(password: str, form: str = '-6') -> str:
    done = subprocess.run([find_program('openssl'), 'passwd', form, password], capture_output=True, check=True)
    return done.stdout.decode().strip()


# hardcoded://

def test_hardcoded_logins(bench: LoopBench) -> None:
    store = open_store(bench, 'hardcoded://tom:x,tim:pw')
    assert store.mechanisms == ('PLAIN', 'LOGIN', 'CRAM-MD5')
    assert check(bench, store, TIM, WRONG, NOBODY, Password('PLAIN', 'tom', b'pw')) == [True, False, False, False]
    store.stop()


def test_hardcoded_logins_check_cram_md5(bench: LoopBench) -> None:
    async def main() -> list[bool]:
        challenge = new_challenge('mx.example.org')
        return [await store.check(ChallengeResponse('CRAM-MD5', login, challenge,
                                                    hmac.new(secret, challenge, 'md5').hexdigest()), HOST)
                for login, secret in (('tim', b'pw'), ('tim', b'px'), ('tom', b'pw'))]

    store = open_store(bench, 'hardcoded://tim:pw')
    assert bench.run(main()) == [True, False, False]


def test_each_challenge_is_another_one() -> None:
    challenges = {new_challenge('mx.example.org') for _ in range(100)}
    assert len(challenges) == 100
    assert all(len(challenge) == 32 + 17 and challenge.endswith(b'@mx.example.org>') for challenge in challenges)


# file://, users://

def test_a_file_of_hashes(bench: LoopBench, tmp_path: Path) -> None:
    path = tmp_path / 'users'
    path.write_text(f'tim:{hashed("pw")}\nold:{hashed("pw", "-1")}\n')
    store = open_store(bench, f'file://{path}')
    assert store.mechanisms == ('PLAIN', 'LOGIN')
    passwords = (TIM, WRONG, NOBODY, Password('PLAIN', 'old', b'pw'), Password('PLAIN', 'tim', b'\xff'))
    assert check(bench, store, *passwords) == [True, False, False, True, False]
    path.write_text(f'nobody:{hashed("pw")}\n')
    assert check(bench, store, TIM, NOBODY) == [False, True]
    store.stop()


def test_a_file_that_breaks_later_is_trouble_until_it_is_mended(bench: LoopBench, tmp_path: Path) -> None:
    path = tmp_path / 'users'
    good = f'tim:{hashed("pw")}\n'
    path.write_text(good)
    store = open_store(bench, f'file://{path}')
    path.write_text('what is this Xecret\n')
    for _ in range(2):
        with pytest.raises(AuthUnavailable, match='users: line 1 is not login:hash') as caught:
            check(bench, store, TIM)
        assert 'Xecret' not in str(caught.value) and 'pw' not in str(caught.value)
    path.unlink()
    with pytest.raises(AuthUnavailable, match='users: it cannot be read: No such file'):
        check(bench, store, TIM)
    path.write_text(good + 'nobody:$y$j9T$x$x\n')
    assert check(bench, store, TIM) == [True]
    with pytest.raises(AuthUnavailable, match='line 2: .*yescrypt'):
        check(bench, store, NOBODY)
    store.stop()


@pytest.mark.parametrize(('text', 'complaint'), [
    (None, 'cannot be read: No such file'),
    ('Xecret', 'line 1 is not'),
    ('tim:Xecret', 'line 1: the password is not hashed'),
    ('# x\ntim:$2b$12$Xecret', r'line 2: .*\(bcrypt\)'),
])
def test_a_file_of_no_use_is_told_at_start(bench: LoopBench, tmp_path: Path, text: str | None, complaint: str) -> None:
    if text is not None:
        (tmp_path / 'users').write_text(text)
    with pytest.raises(ConfigError, match=complaint) as caught:
        open_store(bench, f'file://{tmp_path}/users')
    assert 'Xecret' not in str(caught.value)


def test_the_hash_of_an_unknown_login_is_computed_too(bench: LoopBench, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the time of an answer tells which logins there are."""
    calls: list[bytes] = []

    def matches(_hash: object, password: bytes) -> bool:
        calls.append(password)
        return True

    monkeypatch.setattr('mqlite.auth.crypt.Hash.matches', matches)
    (tmp_path / 'users').write_text(f'tim:{hashed("pw")}\nlocked:!\n')
    store = open_store(bench, f'file://{tmp_path}/users')
    assert check(bench, store, TIM, NOBODY, Password('PLAIN', 'locked', b'pw')) == [True, False, False]
    assert calls == [b'pw'] * 3
    store.stop()


def test_accounts_of_the_system(bench: LoopBench, tmp_path: Path) -> None:
    day = int(bench.reactor.clock.time() / 86400)
    (tmp_path / 'shadow').write_text(f'root:{hashed("pw")}:19000:0:99999:7:::\n'
                                     f'client1:{hashed("pw")}:19000:0:99999:7:::\n'
                                     f'client2:{hashed("pw")}:19000:0:99999:7::{day}:\n'
                                     f'client3:*:19000:0:99999:7:::\n'
                                     f'other:$y$j9T$x$x:19000:0:99999:7:::\n')
    store = GuardedLogins(bench.reactor, 'accounts', system_logins(bench.reactor, ('client*', 'x'),
                                                                   str(tmp_path / 'shadow')))
    passwords = [Password('PLAIN', login, b'pw') for login in ('root', 'client1', 'client2', 'client3', 'x', 'other')]
    assert check(bench, store, *passwords) == [False, True, False, False, False, False]
    store.stop()
    with pytest.raises(ConfigError, match='line 5: .*yescrypt'):
        system_logins(bench.reactor, ('o*',), str(tmp_path / 'shadow'))


def test_the_accounts_of_this_host(bench: LoopBench) -> None:
    if not os.access(SHADOW, os.R_OK):
        with pytest.raises(ConfigError, match='cannot be read: Permission denied'):
            open_store(bench, 'users://daemon')
        return
    store = open_store(bench, 'users://daemon')
    assert check(bench, store, Password('PLAIN', 'daemon', b'pw')) == [False]
    store.stop()


def test_a_check_does_not_hold_up_the_loop(bench: LoopBench, tmp_path: Path) -> None:
    (tmp_path / 'users').write_text(f'tim:{hashed("pw")}\n')
    ticks = []

    async def main() -> bool:
        store = HashedLogins(bench.reactor, str(tmp_path / 'users'))
        answer = store.check(TIM, HOST)
        while not answer.done:
            ticks.append(1)
            waiter: Waiter[None] = Waiter(bench.reactor)
            bench.reactor.call_soon(waiter.set)
            await waiter
        store.stop()
        return await answer

    assert bench.run(main()) and len(ticks) > 1


# exec://

@pytest.fixture
def real(closing: contextlib.ExitStack) -> LoopBench:
    """With the clock of the programs that it runs."""
    made = LoopBench(Clock())
    closing.callback(made.close)
    return made


def program(folder: Path, script: str) -> Path:
    path = folder / 'check login'
    path.write_text('#!/bin/sh\n' + script)
    path.chmod(stat.S_IRWXU)
    return path


def test_a_program_decides(real: LoopBench, tmp_path: Path) -> None:
    path = program(tmp_path, 'IFS= read -r login && IFS= read -r password || exit 9\n'
                             'test $# = 0 -a "$TCPREMOTEIP" = 127.0.0.1 || exit 75\n'
                             'test "$login" = tim -a "$password" = "p\\\\w \' é"\n')
    store = open_store(real, f'exec://{path}')
    assert store.mechanisms == ('PLAIN', 'LOGIN')
    right = Password('PLAIN', 'tim', "p\\w ' é".encode())
    assert check(real, store, right, TIM, NOBODY) == [True, False, False]
    store.stop()


@pytest.mark.parametrize(('script', 'right'), [('exit 0', True), ('exit 1', False), ('exit 2', False),
                                               ('echo yes; exit 100', False)])
def test_exit_statuses_that_are_verdicts(real: LoopBench, tmp_path: Path, script: str, right: bool) -> None:
    assert check(real, open_store(real, f'exec://{program(tmp_path, script)}'), TIM) == [right]


@pytest.mark.parametrize(('script', 'complaint'), [
    ('exit 75', 'status 75'), ('exit 111', 'status 111'), ('no-such-program', 'status 127'),
    ('kill -SEGV $$', 'signal 11')])
def test_exit_statuses_that_are_none(real: LoopBench, tmp_path: Path, script: str, complaint: str) -> None:
    with pytest.raises(AuthUnavailable, match=f'check login: it ended with {complaint}, without a verdict'):
        check(real, open_store(real, f'exec://{program(tmp_path, script)}'), WRONG)


def test_what_a_program_cannot_be_told(real: LoopBench, tmp_path: Path) -> None:
    """A line feed in the password would be the end of it: `pw` and then something else."""
    store = open_store(real, f'exec://{program(tmp_path, "exit 0")}')
    assert check(real, store, Password('PLAIN', 'tim', b'pw\nmore')) == [False]
    longest = Password('PLAIN', 'l' * FIELD_LIMIT, b'p' * FIELD_LIMIT)
    assert check(real, store, longest) == [True] and INPUT_LIMIT >= 2 * FIELD_LIMIT + 2


def test_a_program_of_no_use_is_told_at_start(real: LoopBench, tmp_path: Path) -> None:
    plain = tmp_path / 'plain'
    plain.write_text('#!/bin/sh\n')
    for path, complaint in ((tmp_path / 'none', 'No such file'), (tmp_path, 'no program'), (plain, 'no program')):
        with pytest.raises(ConfigError, match=complaint):
            open_store(real, f'exec://{path}')


def test_a_program_that_went_away_is_trouble(real: LoopBench, tmp_path: Path) -> None:
    path = program(tmp_path, 'exit 0')
    store = open_store(real, f'exec://{path}')
    path.unlink()
    with pytest.raises(AuthUnavailable, match='check login: No such file or directory'):
        check(real, store, WRONG)


# what all have in common

def test_every_comparison_takes_constant_time(bench: LoopBench, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """compare_digest does, for values of one size: then nothing is learnt from how much of a guess was right."""
    sizes = []
    compare = hmac.compare_digest

    def watched(one: Any, other: Any) -> bool:
        sizes.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr('hmac.compare_digest', watched)
    (tmp_path / 'users').write_text(f'tim:{hashed("pw")}\n')
    guesses = [Password('PLAIN', 'tim', guess) for guess in (b'p', b'pw', b'px', b'p' * 1000)]
    for setting in ('hardcoded://tim:pw', f'file://{tmp_path}/users'):
        store = open_store(bench, setting)
        assert check(bench, store, *guesses, NOBODY) == [False, True, False, False, False]
        store.stop()
    assert not ChallengeResponse('CRAM-MD5', 'tim', b'<1@x>', '0' * 32).matches(b'pw')
    assert len(sizes) == 11 and all(one == other for one, other in sizes)


class Manual:
    """A store whose answers come when the test gives them."""

    def __init__(self, bench: LoopBench) -> None:
        self._bench = bench
        self.asked: list[Waiter[bool]] = []

    def check(self, password: Password, client: str) -> Waiter[bool]:
        self.asked.append(Waiter(self._bench.reactor))
        return self.asked[-1]

    def stop(self) -> None:
        pass


def test_only_so_many_at_once_and_the_others_in_turn(bench: LoopBench) -> None:
    manual = Manual(bench)
    store = GuardedLogins(bench.reactor, 'store', manual)

    async def main() -> list[bool]:
        tasks: list[Task[bool]] = [bench.reactor.spawn(store.check(TIM, HOST)) for _ in range(AT_ONCE + 5)]
        for task in tasks:
            task.observed = True
        await bench.settle()
        assert len(manual.asked) == AT_ONCE
        tasks[AT_ONCE + 1].cancel()             # in the queue
        manual.asked[3].fail(OSError(5, 'broken'))
        await bench.settle()
        assert len(manual.asked) == AT_ONCE + 1
        for number in range(AT_ONCE + 4):
            if number != 3:
                manual.asked[number].set(True)
                await bench.settle()
        assert len(manual.asked) == AT_ONCE + 4
        with pytest.raises(Cancelled):
            await tasks[AT_ONCE + 1]
        with pytest.raises(AuthUnavailable, match='^store: broken$'):
            await tasks[3]
        return [await task for number, task in enumerate(tasks) if number not in (3, AT_ONCE + 1)]

    assert bench.run(main()) == [True] * (AT_ONCE + 3)
    assert store._busy == 0 and not store._queue


def test_time_is_limited_for_waiting_and_checking_together(bench: LoopBench) -> None:
    manual = Manual(bench)
    store = GuardedLogins(bench.reactor, 'store', manual)

    async def main() -> None:
        tasks = [bench.reactor.spawn(store.check(WRONG, HOST)) for _ in range(AT_ONCE + 1)]
        for task in tasks:
            task.observed = True
        for task in tasks:
            with pytest.raises(AuthUnavailable, match='^store: no verdict within 30 s$'):
                await task

    bench.run(main())
    assert bench.reactor.now() == pytest.approx(SECONDS, abs=0.1)
    assert store._busy == 0 and not store._queue


def test_what_is_not_offered_is_not_let_in(bench: LoopBench) -> None:
    manual = Manual(bench)
    store = GuardedLogins(bench.reactor, 'store', manual)
    assert bench.run(store.check(ChallengeResponse('CRAM-MD5', 'tim', b'x', '0' * 32), HOST)) is False
    assert manual.asked == []


@pytest.mark.parametrize(('setting', 'name'), [
    ('ldap://127.0.0.1:{}/o=x', 'LDAP server 127.0.0.1'),
    ('http://127.0.0.1:{}/', 'HTTP server 127.0.0.1'),
    ('https://127.0.0.1:{}/', 'HTTP server 127.0.0.1'),
    ('radius://nas:Xecret@127.0.0.1:{}', 'RADIUS server 127.0.0.1'),
])
def test_a_server_that_is_not_there_is_trouble(bench: LoopBench, setting: str, name: str) -> None:
    with pytest.raises(AuthUnavailable, match=f'^{name} port 9: Connection refused$') as caught:
        check(bench, open_store(bench, setting.format(9)), WRONG)
    assert 'Xecret' not in str(caught.value)


def test_a_host_without_an_address_is_trouble(bench: LoopBench) -> None:
    with pytest.raises(AuthUnavailable, match='^LDAP server ldap.invalid port 389: '):
        check(bench, open_store(bench, 'ldap://ldap.invalid/o=x'), WRONG)


def test_a_setting_that_makes_no_sense(bench: LoopBench) -> None:
    with pytest.raises(ConfigError, match='login 1 is not'):
        open_store(bench, 'hardcoded://Xecret')
