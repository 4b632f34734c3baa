"""Momentum's hooks: who has registered is called, at every attempt to connect, and what they are told is true."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from mqlite.message.result import Result
from mqlite.plugin import outgoing
from mqlite.plugin.domains import SLOTS, Domains, Slots
from mqlite.plugin.outgoing import CONN_ERRORS, OutgoingHooks
from tests.support.hook_bench import INCLUDES, SAY, HookBench
from tests.support.plugins import LOG, build
from tests.support.process import HOST

Start = Callable[..., HookBench]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / 'plugins'
    made.mkdir()
    return made


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """start(source, …, python=…): a bench with these plugins."""
    made: list[HookBench] = []

    def bench(*sources: str, python: str = '', local: tuple[str, ...] = ()) -> HookBench:
        for number, source in enumerate(sources, 1):
            build(folder, source, name=f'{number}0-test-{folder.parent.name}')
        if python:
            (folder / '50-test.py').write_text(python)
        made.append(HookBench(folder, local))
        return made[-1]

    yield bench
    for one in made:
        one.close()


TELL = INCLUDES + SAY + """#include <arpa/inet.h>
static void tell(void *c, domain_record *dr, int slot, struct timeval *now, int fd) {
    struct sockaddr_in to; socklen_t size = sizeof to;
    SAY("%s%s %d %d %x", (char *)c, dr->domain, slot, now->tv_sec > 1000000000 && now->tv_usec < 1000000,
        fd < 0 ? fd & ~CONN_ERROR(0) : getpeername(fd, (struct sockaddr *)&to, &size)); }
void mq_initialize(void) { register_core_post_initiate_connection_smtp_hook_last(tell, "* "); }
"""


def code(name: str) -> str:
    return f'{CONN_ERRORS["CONN_ERROR_" + name]:x}'


def test_every_attempt_is_told(start: Start) -> None:
    """A server that refuses and the next one that takes it; then what goes wrong before there is an address."""
    bench = start(TELL)
    assert bench.open('one.example') is None
    assert LOG.said() == [f'* one.example 0 1 {code("CONNECT")}', '* one.example 0 1 0']
    for name, error in (('null.example', 'SMTP_NULL_MX'), ('gone.example', 'NO_MXS_REACHABLE'),
                        ('unknown.example', 'MX_LOOKUP_FAILED'), ('broken.example', 'MX_LOOKUP_FAILED')):
        assert bench.open(name) is not None
        assert LOG.said() == [f'* {name} 0 1 {code(error)}']
    assert LOG.lines == []


@pytest.mark.parametrize(('sources', 'said'), [
    ((HOST, '127.0.0.2'), ['0 1 0', '1 1 0']),                      # those of the settings, in their order
    (('127.0.0.9',), ['2 1 0', '2 1 0']),                           # one that a message brings along
    (('192.0.2.1',), [f'2 1 {code("BIND")}'] * 2),                  # not ours
    (('::1',), [f'0 1 {code("BIND")}'] * 2),                        # none of the family
    (None, ['2 1 0', '2 1 0']),                                     # the kernel chooses
])
def test_the_index_of_the_local_address(start: Start, sources: tuple[str, ...] | None, said: list[str]) -> None:
    bench = start(TELL, local=(HOST, '127.0.0.2'))
    bench.open(HOST, True, sources)
    bench.open(HOST, True, sources)
    assert sorted(LOG.said()) == [f'* {HOST} {words}' for words in said]
    if said[0].endswith(' 0'):
        peers = [stream.peer[0] for stream in bench.exchanger.clients]
        assert set(peers) == set(sources or (HOST,)), 'and it is where the connection came from'


def test_no_more_indices_than_can_be_kept() -> None:
    slots = Slots()
    assert [slots[str(number)] for number in range(SLOTS + 2)][-3:] == [SLOTS - 1, SLOTS, SLOTS]
    assert slots['0'] == 0 and slots[str(SLOTS)] == SLOTS


def test_errors_of_the_kernel_have_their_names(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = start(TELL)
    for number, name in outgoing._BY_ERRNO.items():
        async def fail(*_arguments: Any, number: int = number) -> None:
            raise OSError(number, 'x')
        monkeypatch.setattr(outgoing, 'connect', fail)
        assert bench.open(HOST, True) is not None
        assert LOG.said() == [f'* {HOST} 0 1 {code(name[len("CONN_ERROR_"):])}']


def test_a_server_that_does_not_answer(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel never says that the socket is ready, until the clock has jumped over the time limit."""
    bench = start(TELL)
    monkeypatch.setattr(bench.reactor, 'watch', lambda *_arguments: None)
    result = bench.open(HOST, True)
    assert result is not None and result.result == 'timeout'
    assert LOG.said() == [f'* {HOST} 0 1 {code("CONNECT_TIMEOUT")}']


RECORD = INCLUDES + SAY + """
static void tell(void *c, domain_record *dr, int slot, struct timeval *now, int fd) { (void)c; (void)slot; (void)fd;
    SAY("%u=%u+%u+%u %d %d dns %d, %ld s, last %ld s", dr->attempts, dr->deliveries, dr->transients, dr->failures,
        dr->mxcnt, dr->mxlist != NULL, dr->dns_failures, dr->expiry ? (long)dr->expiry - now->tv_sec : -1,
        dr->last_delivery.tv_sec ? now->tv_sec - dr->last_delivery.tv_sec : -1);
    for (int n = 0; n < dr->mxcnt; n++) SAY("%d %s", dr->mxlist[n]->preference, dr->mxlist[n]->host); }
void mq_initialize(void) { register_core_post_initiate_connection_smtp_hook_last(tell, NULL); }
"""
ACCEPTED, DEFERRED, REFUSED = Result('message', 'accepted'), Result('rcptto', 'error'), Result('data', 'error', True)


def test_the_record_of_a_domain_is_true(start: Start) -> None:
    bench = start(RECORD)
    for result, times in ((ACCEPTED, 3), (DEFERRED, 2), (REFUSED, 1)):
        for _ in range(times):
            bench.hooks.count('One.example', result)
    bench.hooks.count('bare.example', ACCEPTED)
    bench.open('one.example')
    assert LOG.said() == ['6=3+2+1 2 1 dns 0, 300 s, last 0 s', '10 mx1.example', '20 mx2.example'] * 2
    bench.open('bare.example')
    assert LOG.said() == ['1=1+0+0 0 0 dns 0, 600 s, last 0 s']
    for count in (1, 2):
        bench.open('broken.example')
        assert LOG.said() == [f'0=0+0+0 0 0 dns {count}, -1 s, last -1 s']
    for _ in range(300):
        bench.registered.domains.unresolved('broken.example')
    bench.open('broken.example')
    assert 'dns 255' in LOG.said()[0]


def test_the_domain_that_was_not_asked_for_the_longest_is_forgotten() -> None:
    domains = Domains(capacity=2)
    for name in ('a', 'b', 'a', 'c'):
        domains.count(name, accepted=True, permanent=False, now=1.0)
    assert (domains['a'].attempts, domains['c'].attempts, domains['b'].attempts) == (2, 1, 0)


def test_no_count_is_lost_between_threads() -> None:
    """Loops of one process share the counts."""
    domains, each = Domains(), 5000

    def work() -> None:
        for _ in range(each):
            domains.count('a', accepted=True, permanent=False, now=1.0)
    threads = [threading.Thread(target=work) for _ in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert domains['a'].attempts == domains['a'].deliveries == each * len(threads)


NEIGHBOURS = INCLUDES + SAY + """#include <arpa/inet.h>
static int port(struct sockaddr *a) { return ntohs(((struct sockaddr_in *)a)->sin_port) > 0; }
static const char *text(struct sockaddr *a) { return inet_ntoa(((struct sockaddr_in *)a)->sin_addr); }
static int bound(void *c, domain_record *dr, int slot, int fd, struct sockaddr *to, int size) { (void)c;
    struct sockaddr_in own; socklen_t length = sizeof own; getsockname(fd, (struct sockaddr *)&own, &length);
    SAY("bound %s %d to %s %d %d", dr->domain, slot, text(to), port(to), size);
    SAY("from %s", inet_ntoa(own.sin_addr));
    return own.sin_addr.s_addr == inet_addr("127.0.0.2"); }
static void good(void *c, struct sockaddr *to, domain_record *dr, int slot, struct timeval *now) { (void)c;
    SAY("success %s %d %s %d %d", text(to), port(to), dr->domain, slot, now->tv_sec > 0); }
static void bad(void *c, struct sockaddr *to, int err, domain_record *dr, int slot, struct timeval *now) { (void)c;
    SAY("failure %s %d %x %s %d %d", text(to), port(to), err & ~CONN_ERROR(0), dr->domain, slot, now->tv_sec > 0); }
void mq_initialize(void) {
    register_core_connection_post_bind_hook_first(bound, NULL);
    register_core_log_client_connection_success_hook_first(good, NULL);
    register_core_log_client_connection_failure_hook_first(bad, NULL); }
"""


def test_the_neighbours(start: Start) -> None:
    bench = start(NEIGHBOURS)
    assert bench.open('one.example', sources=(HOST,)) is None
    assert LOG.said() == ['bound one.example 0 to 127.0.0.3 1 16', f'from {HOST}',
                          f'failure 127.0.0.3 1 {code("CONNECT")} one.example 0 1',
                          f'bound one.example 0 to {HOST} 1 16', f'from {HOST}', f'success {HOST} 1 one.example 0 1']


def test_a_hook_forbids_a_connection(start: Start) -> None:
    bench = start(NEIGHBOURS, TELL)
    result = bench.open(HOST, True, ('127.0.0.2',))
    assert result is not None and 'forbidden by a plugin' in result.description and not result.permanent
    assert LOG.said() == [f'bound {HOST} 0 to {HOST} 1 16', 'from 127.0.0.2',
                          f'failure {HOST} 1 {code("PROHIBITED_IP")} {HOST} 0 1',
                          f'* {HOST} 0 1 {code("PROHIBITED_IP")}']
    assert bench.exchanger.clients == []


def test_an_address_of_version_6_in_c(start: Start) -> None:
    bench = start(INCLUDES + SAY + """#include <arpa/inet.h>
        static int bound(void *c, domain_record *dr, int slot, int fd, struct sockaddr *to, int size) {
            struct sockaddr_in6 *six = (struct sockaddr_in6 *)to; char text[64];
            (void)c; (void)dr; (void)slot; (void)fd;
            inet_ntop(AF_INET6, &six->sin6_addr, text, sizeof text);
            SAY("%d %s %d", to->sa_family == AF_INET6 && size == sizeof *six, text, ntohs(six->sin6_port));
            return 0; }
        void mq_initialize(void) { register_core_connection_post_bind_hook_first(bound, NULL); }""")
    bench.open('2001:db8::5', True)
    assert LOG.said() == [f'1 2001:db8::5 {bench.exchanger.port}']


def test_without_a_registered_function_nothing_is_called(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = start('void mq_initialize(void) { MQ_log(MQ_INFO, "nothing registered"); }')
    monkeypatch.setattr(OutgoingHooks, '_resolved', None)     # would fail
    assert bench.open(HOST, True) is None and not bench.hooks.used
    bench.hooks.count('x.example', ACCEPTED)


# who is called

ORDER = INCLUDES + SAY + """
static void call(void *c, domain_record *dr, int slot, struct timeval *now, int fd) {
    (void)dr; (void)slot; (void)now; (void)fd; SAY("%s", (char *)c); }
#define REGISTER(place, text) register_core_post_initiate_connection_smtp_hook_##place(call, text)
"""


def test_first_and_last(start: Start) -> None:
    bench = start(ORDER + 'void mq_initialize(void) { SAY("%d", has_core_post_initiate_connection_smtp_hook());'
                  'REGISTER(last, "a"); REGISTER(first, "b"); REGISTER(last, "c"); }',
                  ORDER + 'void mq_initialize(void) { SAY("%d", has_core_post_initiate_connection_smtp_hook());'
                  'REGISTER(last, "d"); REGISTER(first, "e"); }',
                  python='def core_post_initiate_connection_smtp(domain, slot, now, fd): raise ValueError(fd > 2)\n')
    assert LOG.said() == ['0', '1']
    bench.open(HOST, True)
    assert LOG.said() == ['e', 'b', 'a', 'c', 'd']
    assert LOG.lines == ['50-test.py failed in core_post_initiate_connection_smtp: ValueError(True)']


def test_hooks_in_python(start: Start) -> None:
    bench = start(python="""
calls = []
def mq_smtp_in_close(context, connection):
    pass
def core_connection_post_bind(domain, slot, fd, target, size):
    calls.append((domain.name, domain.exchangers, slot, fd > 2, target))
    return len(calls) > 1
def core_log_client_connection_failure(target, error, domain, slot, now):
    calls.append((target, error < 0, slot, now > 1e9))
""")
    assert bench.open('one.example') is not None
    calls = bench.host._plugins[0]._module.calls       # type: ignore[attr-defined]
    exchangers = ((10, 'mx1.example'), (20, 'mx2.example'))
    port = bench.exchanger.port
    assert calls == [('one.example', exchangers, 0, True, ('127.0.0.3', port)), (('127.0.0.3', port), True, 0, True),
                     ('one.example', exchangers, 0, True, (HOST, port)), ((HOST, port), True, 0, True)]


def test_who_blocks_is_named(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mqlite.plugin.chain.SLOW_SECONDS', -1.0)
    bench = start(TELL)
    LOG.lines.clear()
    bench.open(HOST, True)
    [line] = [line for line in LOG.lines if 'blocked' in line]
    assert line.startswith('10-test-') and line.endswith('ms in core_post_initiate_connection_smtp')


OWN = SAY + """#include <module-hooks.h>
EC_DECLARE_VOID_HOOK(mine, told, (void *, int, const char *), (int n, const char *text), (EC_HOOK_CLOSURE, n, text))
EC_DECLARE_HOOK(mine, int, asked, (void *, int), (int n), (EC_HOOK_CLOSURE, n),
                if (EC_HOOK_RETVAL > 2) EC_HOOK_RETURN(EC_HOOK_RETVAL))
"""


def test_plugins_declare_hooks_for_each_other(start: Start) -> None:
    """One calls, another has registered; a hook with a result ends when its statement says so."""
    start(OWN + """
        static void told(void *c, int n, const char *text) { SAY("%s %d %s", (char *)c, n, text); }
        static int times(void *c, int n) { SAY("times %ld", (long)c); return n * (int)(long)c; }
        void mq_initialize(void) { register_mine_told_hook_last(told, "told"); register_mine_asked_hook_last(times,
            (void *)1); register_mine_asked_hook_last(times, (void *)2); register_mine_asked_hook_first(times, NULL); }
        """, OWN + """
        void mq_initialize(void) { SAY("%d %d", has_mine_told_hook(), has_mine_asked_hook());
            call_mine_told_hook(7, "seven"); SAY("= %d", call_mine_asked_hook(1)); SAY("= %d", call_mine_asked_hook(3));
        }""")
    assert LOG.said() == ['1 1', 'told 7 seven', 'times 0', 'times 1', 'times 2', '= 2', 'times 0', 'times 1', '= 3']


def test_another_idea_of_a_hook_is_not_called(start: Start) -> None:
    wrong = '#include <module-hooks.h>\nEC_DECLARE_VOID_HOOK(core, post_initiate_connection_smtp, (void *, int), ' \
            '(int n), (EC_HOOK_CLOSURE, n))\nstatic void on(void *c, int n) { (void)c; (void)n; MQ_log(1, "on"); }' \
            'void mq_initialize(void) { register_core_post_initiate_connection_smtp_hook_last(on, NULL); }'
    bench = start(wrong)
    bench.open(HOST, True)
    [line] = LOG.lines
    assert '10-test' in line and '(void *, int)' in line and 'compile it with the header' in line


BARE = SAY + """
extern int has_core_post_initiate_connection_smtp_hook(void);
extern void register_core_post_initiate_connection_smtp_hook_first(void *, void *);
extern void register_core_post_initiate_connection_smtp_hook_last(void *, void *);
extern void call_core_post_initiate_connection_smtp_hook(void *, int, void *, int);
extern void register_core_connection_post_bind_hook_last(void *, void *);
extern int call_core_connection_post_bind_hook(void *, int, int, void *, int);
static void on(void *c, void *d, int slot, void *now, int fd) { (void)d; (void)now;
    SAY("%s %d %d", (char *)c, slot, fd); }
static int bound(void *c, void *d, int slot, int fd, void *to, int n) { (void)d; (void)to;
    SAY("%s %d %d %d", (char *)c, slot, fd, n); return n; }
void mq_initialize(void) {
    SAY("%d", has_core_post_initiate_connection_smtp_hook());
    register_core_post_initiate_connection_smtp_hook_last(on, "last");
    register_core_post_initiate_connection_smtp_hook_first(on, "first");
    register_core_connection_post_bind_hook_last(bound, "a"); register_core_connection_post_bind_hook_last(bound, "b");
    SAY("%d", has_core_post_initiate_connection_smtp_hook());
    call_core_post_initiate_connection_smtp_hook(0, 1, 0, 2);
    SAY("= %d", call_core_connection_post_bind_hook(0, 1, 2, 0, 0));
    SAY("= %d", call_core_connection_post_bind_hook(0, 1, 2, 0, 3)); }
"""


def test_a_plugin_without_the_headers(folder: Path) -> None:
    """Bare prototypes, resolved when it is loaded."""
    build(folder, BARE, '-Wno-pedantic', '-Wl,-z,now', name=f'10-bare-{folder.parent.name}')
    bench = HookBench(folder)
    bench.close()
    assert LOG.said() == ['0', '1', 'first 1 2', 'last 1 2', 'a 1 2 0', 'b 1 2 0', '= 0', 'a 1 2 3', '= 3']
