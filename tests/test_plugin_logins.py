"""Plugins that judge logins and look at TLS, in C of both generations and in Python, asked by the real server."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from mqlite.auth.desk import LoginDesk
from mqlite.auth.local import HardcodedLogins
from mqlite.loop.reactor import Reactor
from mqlite.loop.stream import Stream
from mqlite.plugin.host import PluginHost
from tests.support.peers import Certificate
from tests.support.plugins import LOG, PATIENCE, PluginBench, build
from tests.support.smtp import NAME, MakeDesk

Make = Callable[..., PluginBench]
GO_AHEAD = b'220 2.0.0 Go ahead with TLS\r\n'


def desk(passwords: dict[str, bytes] | None = None) -> MakeDesk:
    """With a store of these logins; without, plugins are the only judges."""
    def make_desk(reactor: Reactor, host: PluginHost | None) -> LoginDesk:
        assert host is not None
        return LoginDesk(reactor, NAME, HardcodedLogins(passwords) if passwords else None, host.judges_logins,
                         LOG.warning)
    return make_desk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / 'plugins'


@pytest.fixture
def make(folder: Path) -> Iterator[Make]:
    made: list[PluginBench] = []

    def bench(*sources: str, old: bool = False, python: str = '', store: dict[str, bytes] | None = None,
              certificate: Certificate | None = None) -> PluginBench:
        folder.mkdir(exist_ok=True)
        for number, source in enumerate(sources, 1):
            build(folder, source, name=f'{number}0-test-{folder.parent.name}', old=old)
        if python:
            (folder / '50-test.py').write_text(python)
        made.append(PluginBench(folder, relay=False, desk=desk(store), certificate=certificate))
        return made[-1]

    yield bench
    for one in made:
        one.close()


HEAD = """
#include <stdio.h>
#if MQ_API_GENERATION == 3
#define set MQ_SetSmtpAuthenticated
#define get MQ_SmtpAuthenticated
#define secure MQ_SmtpSecure
#define go(c, x) MQ_Continue(x)
#else
#define set MQ_setAuthenticated
#define get MQ_authenticated
#define secure MQ_secure
#define go(c, x) MQ_continue(c)
#endif
#define SAY(...) do { char t[256]; snprintf(t, sizeof t, __VA_ARGS__); MQ_log(MQ_INFO, t); } while (0)
"""


def judge(what: str) -> str:
    return HEAD + """
        bool mq_smtp_in_authenticate(MQ_Context *x, MQ_Connection *c, const char *login, size_t size,
                                     const char *passwd, size_t length)
        { (void)x; (void)c; (void)login; (void)size; (void)passwd; (void)length; """ + what + '}'


YES, NO = judge('set(c, true); return false;'), judge('set(c, false); return false;')
NOTHING = judge('SAY("%d", get(c)); return false;')


async def log_in(bench: PluginBench, login: bytes = b'tim', password: bytes = b'right') -> tuple[Stream, bytes]:
    """The session, and the reply to AUTH PLAIN."""
    stream = await bench.client()
    await bench.ask(stream, b'EHLO client.example\r\n')
    [reply] = await bench.ask(stream, b'AUTH PLAIN ' + b64encode(b'\0' + login + b'\0' + password) + b'\r\n')
    return stream, reply


async def relay(bench: PluginBench, stream: Stream) -> bytes:
    return await bench.talk(stream, b'MAIL FROM:<a@b.example>', b'RCPT TO:<c@example.org>')


@pytest.mark.parametrize('old', [False, True], ids=['5', '3'])
def test_what_a_plugin_gets(make: Make, old: bool) -> None:
    bench = make(judge('SAY("%.*s %zu %.*s %zu %d %d", (int)size, login, size, (int)length, passwd, length, '
                       'login[size], passwd[length]); set(c, true); return false;'), old=old)

    async def client() -> None:
        stream, reply = await log_in(bench, 'josé'.encode(), b'p\xff w')
        assert reply == b'235 2.7.0 Logged in\r\n'
        assert await relay(bench, stream) == b'250 250'
        assert await bench.talk(stream, b'DATA', b'.') == b'354 250'

    bench.run(client())
    assert [line.encode() for line in LOG.said()] == ['josé 5 p\ufffd w 4 0 0'.encode()]
    [document] = bench.documents()
    assert document['connection']['user'] == 'josé'


@pytest.mark.parametrize('store', [None, {'tim': b'right'}])
def test_what_is_on_offer(make: Make, store: dict[str, bytes] | None) -> None:
    """CRAM-MD5 has no password to show: where a plugin judges, it is not on offer, whatever the store can do."""
    bench = make(YES, store=store)

    async def client() -> None:
        stream = await bench.client()
        assert b'250-AUTH PLAIN LOGIN\r\n' in await bench.ask(stream, b'EHLO client.example\r\n')
        assert await bench.talk(stream, b'AUTH CRAM-MD5') == b'504'

    bench.run(client())


#  plugins           right password   wrong password
VERDICTS = [
    ((NOTHING,),          b'235',          b'535'),
    ((YES,),              b'235',          b'235'),
    ((NO,),               b'535',          b'535'),
    ((YES, NOTHING),      b'235',          b'235'),
    ((YES, NO),           b'535',          b'535'),
    ((NO, YES),           b'235',          b'235'),
    ((YES, NO, NOTHING),  b'535',          b'535'),
]


@pytest.mark.parametrize(('sources', 'right', 'wrong', 'old'), [
    *((*row, False) for row in VERDICTS), *((*row, True) for row in VERDICTS[4:6])])
def test_the_last_word_counts(make: Make, sources: tuple[str, ...], right: bytes, wrong: bytes, old: bool) -> None:
    """The store's word comes first. A later false undoes an earlier true, and the login is rejected."""
    bench = make(*sources, old=old, store={'tim': b'right'})

    async def client() -> None:
        for password, verdict in ((b'right', right), (b'another', wrong)):
            stream, reply = await log_in(bench, password=password)
            assert reply[:3] == verdict
            assert await relay(bench, stream) == (b'250 250' if verdict == b'235' else b'250 550')

    bench.run(client())


def test_what_the_store_says_is_what_a_plugin_finds(make: Make) -> None:
    bench = make(NOTHING, store={'tim': b'right'})

    async def client() -> None:
        await log_in(bench)
        await log_in(bench, password=b'wrong')

    bench.run(client())
    assert LOG.said() == ['1', '0']


@pytest.mark.parametrize('old', [False, True], ids=['5', '3'])
def test_a_judge_that_takes_its_time_keeps_nobody_waiting(make: Make, old: bool) -> None:
    bench = make(HEAD + """
        static MQ_Connection *held; static MQ_Context *worker;
        static void done(void *data) { (void)data; set(held, true); go(held, worker); }
        bool mq_smtp_in_authenticate(MQ_Context *x, MQ_Connection *c, const char *login, size_t size,
                                     const char *passwd, size_t length) {
            (void)login; (void)size; (void)passwd; (void)length; held = c; worker = x;
            NAME(x, 10, done, NULL); return true; }""".replace('NAME', 'MQ_TimerStart' if old else 'MQ_startTimer'),
                 old=old)

    async def client() -> None:
        task = bench.reactor.spawn(log_in(bench))
        await bench.quiet()
        begun = bench.clock.elapsed
        other = await bench.client()
        assert await bench.talk(other, b'NOOP') == b'250' and bench.clock.elapsed - begun < 1
        stream, reply = await task
        assert reply[:3] == b'235' and 9 < bench.clock.elapsed - begun < 12
        assert await relay(bench, stream) == b'250 250'

    bench.run(client())


@pytest.mark.parametrize(('what', 'code'), [
    ('MQ_reject(c, 535, "5.7.8", "Not today"); set(c, true); return false;', b'535 5.7.8 Not today\r\n'),
    ('MQ_reject(c, 432, "4.7.12", "New password"); return false;',           b'432 4.7.12 New password\r\n'),
    ('return true;',                                                         b'451 4.3.0 A filter of this server is '
                                                                             b'not available now, try again later\r\n'),
])
def test_a_judge_that_refuses_or_never_says(make: Make, what: str, code: bytes) -> None:
    bench = make(judge(what), store={'tim': b'right'})

    async def client() -> None:
        stream, reply = await log_in(bench)
        assert reply == code and bench.clock.elapsed < PATIENCE + 1
        assert (await relay(bench, stream))[-3:] != b'250'

    bench.run(client())


def test_guesses_at_a_plugin_are_braked(make: Make) -> None:
    bench = make(judge('SAY("asked"); return false;'))

    async def client() -> None:
        stream, reply = await log_in(bench)
        assert reply[:3] == b'535' and bench.clock.elapsed < 1
        assert await bench.talk(stream, *[b'AUTH PLAIN ' + b64encode(b'\0tim\0x')] * 2) == b'535 421'
        assert 2 < bench.clock.elapsed < 5

    bench.run(client())
    assert LOG.said() == ['asked'] * 3


def test_a_judge_in_python(make: Make) -> None:
    bench = make(python='''
async def mq_smtp_in_authenticate(context, connection, login, password):
    await context.sleep(3)
    connection.authenticated = (login, password) == ('tim', b'right')
''')

    async def client() -> None:
        stream, reply = await log_in(bench)
        assert reply[:3] == b'235' and await relay(bench, stream) == b'250 250'
        assert (await log_in(bench, password=b'wrong'))[1][:3] == b'535'

    bench.run(client())


def test_a_judge_in_python_that_fails_tells_no_password(make: Make) -> None:
    bench = make(python='''
def mq_smtp_in_authenticate(context, connection, login, password):
    raise ValueError('no such table')
''')

    async def client() -> None:
        assert (await log_in(bench))[1][:3] == b'451'

    bench.run(client())
    assert LOG.lines == ["50-test.py failed in mq_smtp_in_authenticate: ValueError('no such table')"]


# TLS

SECURE = HEAD + """
    bool mq_smtp_in_connect(MQ_Context *x, MQ_Connection *c) { (void)x; SAY("connect %d", secure(c)); return false; }
    bool mq_smtp_in_secure(MQ_Context *x, MQ_Connection *c) { (void)x; SAY("secure %d", secure(c)); return false; }
    bool mq_smtp_in_close(MQ_Context *x, MQ_Connection *c) { (void)x; SAY("close %d", secure(c)); return false; }
"""


@pytest.mark.parametrize('old', [False, True], ids=['5', '3'])
@pytest.mark.parametrize('implicit', [False, True], ids=['STARTTLS', 'a port for TLS'])
def test_every_handshake(make: Make, certificate: Certificate, old: bool, implicit: bool) -> None:
    bench = make(SECURE, old=old, certificate=certificate)

    async def client() -> None:
        bench.over_tls = implicit
        stream = await bench.client()
        if not implicit:
            await bench.ask(stream, b'STARTTLS\r\n')
            await bench.start_tls(stream)
        assert await bench.talk(stream, b'NOOP', b'QUIT') == b'250 221'
        await bench.quiet()

    bench.run(client())
    assert LOG.said() == [f'connect {int(implicit)}', 'secure 1', 'close 1']


@pytest.mark.parametrize('implicit', [False, True], ids=['STARTTLS', 'a port for TLS'])
def test_tls_is_refused(make: Make, certificate: Certificate, implicit: bool) -> None:
    """There is no command to refuse: the session ends, and the client reads why."""
    bench = make('bool mq_smtp_in_secure(MQ_Context *x, MQ_Connection *c) { (void)x; '
                 'MQ_reject(c, 550, "5.7.1", "Not with that cipher"); return false; }', certificate=certificate)

    async def client() -> None:
        bench.over_tls = implicit
        stream = await bench.client(greeted=False)
        if not implicit:
            await bench.read_line(stream)
            assert await bench.ask(stream, b'STARTTLS\r\n') == [GO_AHEAD]
            await bench.start_tls(stream)
        assert await bench.read(stream, 100) == b'550 5.7.1 Not with that cipher\r\n'

    bench.run(client())


@pytest.mark.parametrize(('word', 'codes'), [('true', b'250 250'), ('false', b'250 550')])
def test_what_a_plugin_knew_before_the_client_spoke_outlives_starttls(make: Make, certificate: Certificate, word: str,
                                                                      codes: bytes) -> None:
    """By the address, say. What it has concluded from what came in clear does not."""
    known = 'bool mq_smtp_in_connect(MQ_Context *x, MQ_Connection *c) { (void)x; MQ_setAuthenticated(c, KNOWN); ' \
            'return false; } bool mq_smtp_in_mailfrom(MQ_Context *x, MQ_Connection *c, MQ_Address *a) { (void)x; ' \
            'if (MQ_email(a) && !strcmp(MQ_email(a), "trusted@example.org")) MQ_setAuthenticated(c, true); ' \
            'return false; }'
    bench = make(known.replace('KNOWN', word), certificate=certificate)

    async def client() -> None:
        stream = await bench.client()
        await bench.talk(stream, b'EHLO client.example', b'MAIL FROM:<trusted@example.org>')
        await bench.ask(stream, b'STARTTLS\r\n')
        await bench.start_tls(stream)
        await bench.ask(stream, b'EHLO client.example\r\n')
        assert await relay(bench, stream) == codes

    bench.run(client())
