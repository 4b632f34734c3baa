"""AUTH in the server: who may log in how, what a login opens, guessing, and that no password gets into a log.

Clients stand on this host, or, where a PROXY header says so, elsewhere. The dialogue auth.txt has the replies.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from ipaddress import ip_network
from typing import Any

import pytest

from mqlite.auth.contract import AuthUnavailable
from mqlite.auth.desk import LoginDesk
from mqlite.auth.guesses import AT_ONCE, CUT_OFF, SESSION_FAILURES
from mqlite.auth.local import HardcodedLogins
from mqlite.loop.connect import connect
from mqlite.loop.reactor import Reactor
from mqlite.loop.stream import Stream
from mqlite.loop.task import sleep
from mqlite.plugin.host import PluginHost
from mqlite.smtp.clients import ClientRule
from mqlite.smtp.sasl import LINE_LIMIT, Credentials, cram_md5
from tests.support.peers import Certificate
from tests.support.process import HOST
from tests.support.smtp import NAME, Bench, logins

PASSWORDS = {'tim': 'tanstaaf', 'ann@example.org': 'p ä\\:"'}
GO_AHEAD = b'220 2.0.0 Go ahead with TLS\r\n'
ELSEWHERE = '192.0.2.7'
ENVELOPE = (b'MAIL FROM:<tim@client.example>', b'RCPT TO:<b@example.org>', b'DATA', b'Subject: x\r\n\r\nbody\r\n.')


class Store(HardcodedLogins):
    """Says how often it was asked, takes its time, or cannot say."""

    def __init__(self, reactor: Reactor, seconds: float = 0.0, trouble: str = '') -> None:
        super().__init__({login: password.encode() for login, password in PASSWORDS.items()})
        self.asked: list[str] = []
        self._reactor, self._seconds, self._trouble = reactor, seconds, trouble

    async def check(self, credentials: Credentials, client: str) -> bool:
        self.asked.append(credentials.login)
        await sleep(self._reactor, self._seconds)
        if self._trouble:
            raise AuthUnavailable(self._trouble)
        return await super().check(credentials, client)


class AuthBench(Bench):
    """A server where nobody may relay without a login, and whose proxy is this host if the test wants it."""

    def __init__(self, certificate: Certificate | None = None, proxied: bool = False, seconds: float = 0.0,
                 trouble: str = '', over_tls: bool = False, **options: Any) -> None:
        def desk(reactor: Reactor, _host: PluginHost | None) -> LoginDesk:
            self.people = Store(reactor, seconds, trouble)
            return LoginDesk(reactor, NAME, self.people, on_note=self.notes.append, **options)

        self.proxied = proxied
        is_proxy = ClientRule([ip_network('127.0.0.0/8')] if proxied else [])
        super().__init__(relay=False, certificate=certificate, desk=desk, is_proxy=is_proxy, timeout=60.0,
                         over_tls=over_tls, errors=1000)

    def __enter__(self) -> AuthBench:
        return self

    async def session(self, client: str = ELSEWHERE) -> Stream:
        """Greeted, and EHLO said; from this host unless it is proxied."""
        port = (self.secure_listener if self.over_tls else self.listener).port
        stream = await connect(self.reactor, HOST, port)
        self.clients.append(stream)
        if self.proxied:
            stream.write(f'PROXY TCP4 {client} {HOST} 1000 25\r\n'.encode())
        if self.over_tls:
            await self.start_tls(stream)
        assert (await self.read_line(stream))[:3] == b'220'
        await self.ask(stream, b'EHLO client.example\r\n')
        return stream

    async def log_in(self, stream: Stream, mechanism: str, login: str, password: str) -> bytes:
        """The code of the verdict."""
        name, secret = login.encode(), password.encode()
        if mechanism == 'PLAIN':
            return await self.talk(stream, b'AUTH PLAIN ' + b64encode(b'\0' + name + b'\0' + secret))
        if mechanism == 'LOGIN':
            assert await self.talk(stream, b'AUTH LOGIN', b64encode(name)) == b'334 334'
            return await self.talk(stream, b64encode(secret))
        [challenge] = await self.ask(stream, b'AUTH CRAM-MD5\r\n')
        digest = cram_md5(secret, b64decode(challenge[4:]))
        return await self.talk(stream, b64encode(name + b' ' + digest.encode()))


# what a login opens

@pytest.mark.parametrize(('tls', 'protocol'), [(False, 'ESMTPA id'), (True, 'ESMTPSA (TLSv1.3 ')])
@pytest.mark.parametrize('mechanism', ['PLAIN', 'LOGIN', 'CRAM-MD5'])
@pytest.mark.parametrize('login', PASSWORDS)
def test_who_has_logged_in_may_relay(certificate: Certificate, mechanism: str, login: str, tls: bool,
                                     protocol: str) -> None:
    async def client() -> None:
        stream = await bench.session()
        assert await bench.talk(stream, *ENVELOPE[:2], b'RSET') == b'250 550 250'
        assert await bench.log_in(stream, mechanism, login, PASSWORDS[login]) == b'235'
        assert await bench.talk(stream, *ENVELOPE) == b'250 250 354 250'

    with AuthBench(certificate, over_tls=tls) as bench:
        bench.run(client())
        [document] = bench.documents()
    assert document['connection']['user'] == login and document['connection']['secure'] is tls
    assert f' (mqlite) with {protocol}' in document['mime']


def test_who_has_not_is_no_user(certificate: Certificate) -> None:
    async def client() -> None:
        stream = await bench.client()
        assert await bench.talk(stream, b'EHLO client.example', *ENVELOPE) == b'250 250 250 354 250'

    with Bench(desk=logins(PASSWORDS)) as bench:
        bench.run(client())
        [document] = bench.documents()
    assert 'user' not in document['connection'] and ' with ESMTP id' in document['mime']


@pytest.mark.parametrize('mechanism', ['PLAIN', 'LOGIN', 'CRAM-MD5'])
@pytest.mark.parametrize(('login', 'password'), [('tim', 'tanstaaF'), ('tim', 'tanstaaf '), ('Tim', 'tanstaaf'),
                                                 ('nobody', 'tanstaaf'), ('ann@example.org', 'tanstaaf')])
def test_who_has_failed_may_not(mechanism: str, login: str, password: str) -> None:
    async def client() -> None:
        stream = await bench.session()
        assert await bench.log_in(stream, mechanism, login, password) == b'535'
        assert await bench.talk(stream, *ENVELOPE[:2]) == b'250 550'

    with AuthBench() as bench:
        bench.run(client())


def test_a_login_in_clear_is_forgotten_with_tls(certificate: Certificate) -> None:
    async def client() -> None:
        stream = await bench.session()
        assert await bench.log_in(stream, 'PLAIN', 'tim', 'tanstaaf') == b'235'
        assert await bench.ask(stream, b'STARTTLS\r\n') == [GO_AHEAD]
        await bench.start_tls(stream)
        assert await bench.talk(stream, b'EHLO client.example', *ENVELOPE[:2], b'RSET') == b'250 250 550 250'
        assert await bench.log_in(stream, 'LOGIN', 'tim', 'tanstaaf') == b'235'
        assert await bench.talk(stream, *ENVELOPE) == b'250 250 354 250'

    with AuthBench(certificate) as bench:
        bench.run(client())


def test_with_logins_the_range_is_not_enough() -> None:
    """A client in it is no stranger, and must log in all the same; local addresses are open to everybody."""
    async def client() -> None:
        stream = await bench.client()
        await bench.talk(stream, *[b'NOOP'] * 200)
        assert await bench.talk(stream, b'EHLO client.example', *ENVELOPE[:2]) == b'250 250 550'
        assert await bench.talk(stream, b'RCPT TO:<here@example.org>', b'RSET') == b'250 250'
        assert await bench.talk(stream, b'AUTH PLAIN ' + b64encode(b'\0tim\0tanstaaf'), *ENVELOPE) == \
            b'235 250 250 354 250'

    with Bench(relay=True, must_log_in=True, desk=logins(PASSWORDS),
               is_local=lambda address: address == 'here@example.org') as bench:
        bench.run(client())


# never in clear

@pytest.mark.parametrize(('tls', 'code'), [(True, b'538'), (False, b'502')])
def test_in_clear_from_elsewhere(certificate: Certificate, tls: bool, code: bytes) -> None:
    """Not offered; and who sends a password all the same is refused, right or wrong, without being judged."""
    async def client() -> None:
        stream = await bench.session()
        assert not any(b'AUTH' in line for line in await bench.ask(stream, b'EHLO client.example\r\n'))
        assert await bench.log_in(stream, 'PLAIN', 'tim', 'tanstaaf') == code
        assert await bench.talk(stream, b'AUTH LOGIN', b'AUTH CRAM-MD5', b'MAIL FROM:<a@b.example> AUTH=<>') == \
            code + b' ' + code + b' 555'
        assert bench.people.asked == []

    with AuthBench(certificate if tls else None, proxied=True) as bench:
        bench.run(client())


def test_over_tls_from_elsewhere(certificate: Certificate) -> None:
    async def client() -> None:
        stream = await bench.session()
        assert await bench.ask(stream, b'STARTTLS\r\n') == [GO_AHEAD]
        await bench.start_tls(stream)
        assert b'250-AUTH PLAIN LOGIN CRAM-MD5\r\n' in await bench.ask(stream, b'EHLO client.example\r\n')
        assert await bench.log_in(stream, 'PLAIN', 'tim', 'tanstaaf') == b'235'

    with AuthBench(certificate, proxied=True) as bench:
        bench.run(client())


def test_in_clear_where_the_operator_allows_it() -> None:
    async def client() -> None:
        assert await bench.log_in(await bench.session(), 'PLAIN', 'tim', 'tanstaaf') == b'235'

    with AuthBench(proxied=True, clear=True) as bench:
        bench.run(client())


@pytest.mark.parametrize(('client', 'verdict'), [('192.0.2.7', b'235'), ('198.51.100.7', b'502')])
def test_networks_that_may_log_in(certificate: Certificate, client: str, verdict: bytes) -> None:
    async def session() -> None:
        stream = await bench.session(client)
        assert await bench.log_in(stream, 'PLAIN', 'tim', 'tanstaaf') == verdict

    with AuthBench(proxied=True, clear=True, networks=[ip_network('192.0.2.0/24')]) as bench:
        bench.run(session())


def test_whom_a_proxy_cannot_name_cannot_log_in() -> None:
    """It is not this host, though the connection comes from here."""
    async def client() -> None:
        stream = await connect(bench.reactor, HOST, bench.listener.port)
        bench.clients.append(stream)
        stream.write(b'PROXY UNKNOWN\r\n')
        assert (await bench.read_line(stream))[:3] == b'220'
        await bench.ask(stream, b'EHLO client.example\r\n')
        assert await bench.log_in(stream, 'PLAIN', 'tim', 'tanstaaf') == b'502'

    with AuthBench(proxied=True) as bench:
        bench.run(client())


# guessing

def test_guesses_in_one_session_are_slowed_and_cut_off() -> None:
    async def client() -> None:
        stream = await bench.session()
        verdicts, seconds = [], []
        for _ in range(SESSION_FAILURES):
            start = bench.clock.elapsed
            verdicts.append(await bench.log_in(stream, 'PLAIN', 'tim', 'wrong'))
            seconds.append(round(bench.clock.elapsed - start))
        assert (verdicts, seconds) == ([b'535', b'535', b'421'], [0, 1, 2])
        assert await bench.read(stream, 100) == b'' and stream.lost

    with AuthBench() as bench:
        bench.run(client())
        assert bench.notes == ['127.0.0.1: login refused (PLAIN)'] * SESSION_FAILURES


def test_guesses_over_many_sessions_lead_to_the_end_of_guessing() -> None:
    """From one client: then nothing is looked at, and the right password gets in no more than a wrong one. Others, and
    the owner of the login from elsewhere, are not kept out."""
    async def client() -> None:
        verdicts: list[bytes] = []
        while verdicts[-1:] != [b'421']:
            verdicts.append(await bench.log_in(await bench.session(), 'PLAIN', 'tim', f'guess {len(verdicts)}'))
        assert CUT_OFF <= len(verdicts) - 1 <= CUT_OFF + 2
        asked = len(bench.people.asked)
        assert await bench.log_in(await bench.session(), 'LOGIN', 'tim', 'tanstaaf') == b'421'
        assert len(bench.people.asked) == asked
        assert await bench.log_in(await bench.session('192.0.2.8'), 'PLAIN', 'tim', 'tanstaaf') == b'235'
        await bench.quiet(1200.0)
        assert await bench.log_in(await bench.session(), 'PLAIN', 'tim', 'tanstaaf') == b'235'

    with AuthBench(proxied=True, clear=True) as bench:
        bench.run(client())


@pytest.mark.parametrize(('failed', 'most'), [(1, 8), (0, AT_ONCE)])
def test_guesses_at_once_slow_each_other(failed: int, most: int) -> None:
    """A hundred sessions of one client guess together. Few are looked at in the first half minute, and then none."""
    async def guess(name: str) -> bytes:
        return await bench.log_in(await bench.session(), 'PLAIN', f'{name}', 'wrong')

    async def client() -> None:
        for number in range(failed):
            assert await guess(f'first {number}') == b'535'
        tasks = [bench.reactor.spawn(guess(f'login {number}')) for number in range(100)]
        await bench.quiet(30.0)
        assert len(bench.people.asked) <= most + failed
        verdicts = [await task for task in tasks]
        assert verdicts.count(b'535') <= CUT_OFF + 2 and verdicts.count(b'421') >= 80

    with AuthBench(seconds=0.1) as bench:
        bench.run(client())


def test_logins_at_once_of_who_is_right() -> None:
    """A mail server opens its connections. Nobody has guessed: the first ten do not wait, the others hardly."""
    async def log_in() -> float:
        assert await bench.log_in(await bench.session(), 'PLAIN', 'tim', 'tanstaaf') == b'235'
        return bench.clock.elapsed

    async def client() -> None:
        tasks = [bench.reactor.spawn(log_in()) for _ in range(30)]
        seconds = sorted([await task for task in tasks])
        assert seconds[AT_ONCE - 1] < 1 and seconds[-1] < 10

    with AuthBench(seconds=0.1) as bench:
        bench.run(client())


def test_what_cannot_be_checked_is_no_guess() -> None:
    async def client() -> None:
        stream = await bench.session()
        start = bench.clock.elapsed
        for _ in range(20):
            assert await bench.log_in(stream, 'PLAIN', 'tim', 'tanstaaf') == b'454'
        assert bench.clock.elapsed - start < 1
        assert await bench.talk(stream, *ENVELOPE[:2]) == b'250 550'

    with AuthBench(trouble='the directory is away') as bench:
        bench.run(client())
        assert set(bench.notes) == {'smtp-auth: a login from 127.0.0.1 cannot be checked: the directory is away'}


# lines and time

@pytest.mark.parametrize('size', [LINE_LIMIT - 2, LINE_LIMIT, LINE_LIMIT + 1, 100_000])
@pytest.mark.parametrize('within', [False, True], ids=['the first line', 'a response'])
def test_long_lines(size: int, within: bool) -> None:
    """RFC 4954 section 4: 12288 octets. What is too long for its mechanism is refused with a line of its own."""
    async def client() -> None:
        stream = await bench.session()
        begin = b'' if within else b'AUTH PLAIN '
        if within:
            assert await bench.talk(stream, b'AUTH PLAIN') == b'334'
        line = begin + b'A' * ((size - 2 - len(begin)) // 4 * 4)
        line += b' ' * (size - 2 - len(line)) if not within else b''
        verdict = await bench.talk(stream, line)
        assert verdict == (b'501' if len(line) + 2 <= LINE_LIMIT else b'500')
        assert await bench.talk(stream, b'NOOP') == b'250'
        assert await bench.log_in(stream, 'PLAIN', 'tim', 'tanstaaf') == b'235'

    with AuthBench() as bench:
        bench.run(client())


def test_the_longest_password() -> None:
    """An initial response that would be too long for any other command."""
    async def client() -> None:
        stream = await bench.session()
        assert await bench.log_in(stream, 'PLAIN', 'x' * 1024, 'y' * 1024) == b'535'
        assert await bench.log_in(stream, 'PLAIN', 'long', 'ä' * 512) == b'535'

    with AuthBench() as bench:
        bench.run(client())
        assert len(bench.people.asked) == 2


@pytest.mark.parametrize('said', [(b'AUTH LOGIN',), (b'AUTH LOGIN', b64encode(b'tim')), (b'AUTH CRAM-MD5',)])
def test_silence_in_an_exchange(said: tuple[bytes, ...]) -> None:
    async def client() -> None:
        stream = await bench.session()
        await bench.talk(stream, *said)
        assert await bench.read(stream, 100) == b'421 4.4.2 Too slow, closing the connection\r\n'

    with AuthBench() as bench:
        bench.run(client())


def test_a_stop_while_a_login_is_judged() -> None:
    async def client() -> None:
        stream = await bench.session()
        stream.write(b'AUTH PLAIN ' + b64encode(b'\0tim\0tanstaaf') + b'\r\n')
        stream.flush()
        await bench.quiet()
        stop = bench.reactor.spawn(bench.server.stop(60.0))
        assert (await bench.read(stream, 100))[:10] == b'421 4.3.2 '
        await stop

    with AuthBench(seconds=30.0) as bench:
        bench.run(client())
        assert bench.clock.elapsed < 30 + 30


def test_a_client_that_leaves_in_the_middle() -> None:
    async def client() -> None:
        for said in (b'AUTH LOGIN\r\n', b'AUTH PLAIN ' + b64encode(b'\0tim\0tanstaaf') + b'\r\n', b'AUTH PLA'):
            stream = await bench.session()
            stream.write(said)
            stream.flush()
            await bench.quiet()
            stream.close()
        await bench.quiet(60.0)
        assert len(bench.server) == 0

    with AuthBench(seconds=10.0) as bench:
        bench.run(client())


def test_a_login_that_is_judged_keeps_nobody_waiting() -> None:
    async def client() -> None:
        slow = await bench.session()
        slow.write(b'AUTH PLAIN ' + b64encode(b'\0tim\0tanstaaf') + b'\r\nNOOP\r\n')
        slow.flush()
        await bench.quiet()
        start = bench.clock.elapsed
        assert await bench.talk(await bench.session(), b'NOOP', *ENVELOPE[:1]) == b'250 250'
        assert bench.clock.elapsed - start < 1
        assert [line[:3] for line in await bench.ask(slow, b'') + await bench.ask(slow, b'')] == [b'235', b'250']

    with AuthBench(seconds=30.0) as bench:
        bench.run(client())


# no password in a log

@pytest.mark.parametrize('trouble', ['', 'the directory is away'])
def test_nothing_that_a_client_has_sent_is_told_to_the_operator(trouble: str) -> None:
    async def client() -> None:
        for mechanism in ('PLAIN', 'LOGIN', 'CRAM-MD5'):
            for password in ('tanstaaf', 'S3cret-wr0ng'):
                await bench.log_in(await bench.session(), mechanism, 'tim', password)
                await bench.log_in(await bench.session(), mechanism, password, 'tim')   # in the wrong field
        stream = await bench.session()
        await bench.talk(stream, b'AUTH PLAIN tim:tanstaaf', b'AUTH PLAIN ' + b64encode(b'tanstaaf'), b'AUTH tanstaaf')

    with AuthBench(trouble=trouble) as bench:
        bench.run(client())
        said = '\n'.join(bench.notes)
    assert said and not re.search('tanstaaf|S3cret', said)
    for secret in (b'tanstaaf', b'S3cret-wr0ng'):
        for shift in range(3):      # the middle of its base64, wherever it begins
            assert b64encode(b'\0' * shift + secret)[4:-4].decode() not in said
