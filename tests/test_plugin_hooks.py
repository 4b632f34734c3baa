"""Momentum's hooks: headers and table agree, who has registered is called, and what they are told is true."""

from __future__ import annotations

import ctypes
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

import pytest

from mqlite.delivery.attempt import Dialler, NoSession
from mqlite.delivery.route import Place, Route
from mqlite.dns.resolver import Resolver, ResolverConfig
from mqlite.errors import ConfigError
from mqlite.loop.clock import VirtualClock
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import sleep
from mqlite.loop.tls import client_context
from mqlite.message.result import Result
from mqlite.plugin import hooks, momentum, outgoing
from mqlite.plugin.domains import Domains
from mqlite.plugin.hook_values import DomainRecord, MxRecord
from mqlite.plugin.hooks import Hooks
from mqlite.plugin.outgoing import CONN_ERRORS, SIGN, SLOTS, OutgoingHooks
from tests.support import dns
from tests.support.c_plugin import build_plugin
from tests.support.dns import Nameserver, Query
from tests.support.exchanger import Exchanger
from tests.support.plugins import LOG, build, make_host, stop_host
from tests.support.process import HOST, ROOT, find_program

NAMES = [row.name for row in hooks.HOOKS]
INCLUDES = ''.join(f'#include "hooks/core/{name}.h"\n' for name in NAMES)
COMPILERS = (('gcc', '-std=c99', '-x', 'c'), ('gcc', '-std=c17', '-x', 'c'), ('g++', '-x', 'c++'))
SAY = '#include <stdio.h>\n#define SAY(...) do { char t[512]; snprintf(t, sizeof t, __VA_ARGS__); ' \
      'MQ_log(MQ_INFO, t); } while (0)\n'

Start = Callable[..., 'Bench']


# the headers

def compile_c(source: str, compiler: Sequence[str], *options: str | Path) -> str:
    """What the compiler says."""
    name, *flags = compiler
    command = [find_program(name), *flags, '-Wall', '-Wextra', '-Werror', '-pedantic', '-I', ROOT / 'include', *options]
    return subprocess.run([*command, '-'], input=source, capture_output=True, text=True, timeout=60).stderr


def test_each_hook_has_a_header_and_each_header_a_row() -> None:
    assert {path.stem for path in (ROOT / 'include' / 'hooks' / 'core').iterdir()} == set(NAMES)


@pytest.mark.parametrize('row', hooks.HOOKS, ids=NAMES)
def test_a_header_has_the_types_of_the_table(row: hooks.Hook) -> None:
    done = subprocess.run([find_program('gcc'), '-E', '-P', '-I', ROOT / 'include',
                           ROOT / 'include' / 'hooks' / 'core' / f'{row.name}.h'], capture_output=True, text=True)
    text = ' '.join(done.stdout.split())
    types = re.escape(hooks.prototype(row))
    assert re.search(rf'typedef {row.result} ec_hook_core_{row.name}_func_t ?{types};', text)
    for function in (f'int has_core_{row.name}_hook(void)', f'void register_core_{row.name}_hook_first(',
                     f'void register_core_{row.name}_hook_last(', f'{row.result} call_core_{row.name}_hook ('):
        assert f'static __inline__ {function}' in text
    assert f'"{hooks.prototype(row)}"' in text, 'what the host compares'


@pytest.mark.parametrize('compiler', COMPILERS, ids=' '.join)
def test_the_headers_compile_without_a_warning(compiler: tuple[str, ...], tmp_path: Path) -> None:
    use = 'static void on(void *c, domain_record *d, int s, struct timeval *n, int f)' \
          '{ (void)c; (void)d; (void)s; (void)n; (void)f; }\n' \
          'void use(void); void use(void) { register_core_post_initiate_connection_smtp_hook_first(on, 0);' \
          'call_core_post_initiate_connection_smtp_hook(0, 0, 0, CONN_ERROR(CONN_ERROR_BIND)); }\n'
    module = 'static int setup(generic_module_infrastructure *me, int n) { me->module_private_data = 0; return n; }' \
             'EC_MODULE_EXPORT generic_module_infrastructure count = {{ EC_MODULE_INIT(EC_MODULE_TYPE_SINGLETON, 0),' \
             '"c", "d", NULL, NULL, NULL, NULL, NULL, setup, NULL, NULL, NULL }};\n'
    source = '#include <module.h>\n' + INCLUDES + INCLUDES + use + module
    assert compile_c(source, compiler, '-c', '-o', tmp_path / 'object') == ''


def test_the_structures_of_c_and_python_are_the_same(tmp_path: Path) -> None:
    fields = [('domain_record', DomainRecord), ('mx_record', MxRecord),
              ('shared_module_infrastructure_8', momentum.Infrastructure)]
    lines = [f'printf("%zu ", offsetof({name}, {field}));' for name, structure in fields
             for field, *_ in structure._fields_]
    lines += [f'printf("%zu ", sizeof({name}));' for name, _ in fields]
    lines += [f'printf("%d ", {name});' for name in CONN_ERRORS]
    lines += ['printf("%d %u %d %d %d", CONN_ERROR(0), EC_MODULE_API_VERSION, EC_MODULE_TYPE_SINGLETON,'
              'EC_MODULE_INIT_INIT, EC_MODULE_INIT_DESTROY);']
    main = '#include <stdio.h>\n#include <module.h>\n' + INCLUDES + 'int main(void) {' + ''.join(lines) + 'return 0; }'
    assert compile_c(main, COMPILERS[0], '-o', tmp_path / 'program') == ''
    printed = subprocess.run([tmp_path / 'program'], capture_output=True, text=True, check=True).stdout
    ours = [getattr(structure, field).offset for _, structure in fields for field, *_ in structure._fields_]
    ours += [ctypes.sizeof(structure) for _, structure in fields]
    ours += [*CONN_ERRORS.values(), SIGN, momentum.API_VERSION, momentum.SINGLETON, momentum.INIT, momentum.DESTROY]
    assert printed.split() == [str(number) for number in ours]


def test_no_two_errors_are_the_same() -> None:
    header = (ROOT / 'include' / 'connection.h').read_text()
    bits = [int(text, 16) for text in re.findall(r'#define CONN_(?:ERROR|ACTION)_\w+ +(0x\w+)', header)]
    assert len(bits) == 14 and sum(bits) == 2 ** 14 - 1, 'Momentum names 14, and each is a bit'


# a dialler with plugins

ZONE = {
    ('one.example', 'MX'):  [dns.mx('one.example', 20, 'mx2.example'), dns.mx('one.example', 10, 'mx1.example')],
    ('bare.example', 'A'):  [dns.address('bare.example', HOST)],
    ('null.example', 'MX'): [dns.mx('null.example', 0, '')],
    ('gone.example', 'MX'): [dns.mx('gone.example', 10, 'nowhere.example')],
    ('mx1.example', 'A'):   [dns.address('mx1.example', '127.0.0.3')],     # nobody listens there
    ('mx2.example', 'A'):   [dns.address('mx2.example', HOST)],
}


def answer(query: Query) -> list[bytes]:
    records = ZONE.get((query.name, query.type), [])
    known = any(name == query.name for name, _ in ZONE)
    if query.name.startswith('broken'):
        return [dns.reply(query.id, query.name, query.type, rcode=dns.SERVFAIL)]
    return [dns.reply(query.id, query.name, query.type, *records, rcode=0 if known else dns.NXDOMAIN,
                      authority=[] if records else [dns.soa('example', 600, 600)])]


class Bench:
    """A dialler with the plugins of a folder, a name server, and an exchanger that answers."""

    def __init__(self, folder: Path, sources: tuple[str, ...] = ()) -> None:
        LOG.lines.clear()
        self.turn = 0  # which of several local addresses is next
        self.reactor = Reactor(VirtualClock())
        self.exchanger = Exchanger(self.reactor)
        self.nameserver = Nameserver(self.reactor, answer)
        self.resolver = Resolver(self.reactor, ResolverConfig(
            (self.nameserver.address,), 5.0, 1.0, 2, False, hosts_file=str(folder / 'hosts'),
            resolv_file=str(folder / 'resolv.conf')), random.Random(1))
        try:
            self._load(folder, sources)
        except ConfigError:
            self.close()
            raise

    def _load(self, folder: Path, sources: tuple[str, ...]) -> None:
        self.registered = Hooks(LOG)
        self.host = make_host(folder, self.reactor, self.registered)
        self.hooks = OutgoingHooks(self.host, self.resolver, sources)
        self.dialler = Dialler(self.reactor, self.resolver, 'me.example', client_context(), hooks=self.hooks)
        self.reactor.run(self.host.start())

    def open(self, host: str, fixed: bool = False, sources: tuple[str, ...] | None = None) -> Result | None:
        """The result that there is without a session, or None."""
        self.turn += 1
        source = sources[self.turn % len(sources)] if sources else None
        route = Route(host, self.exchanger.port, fixed)

        async def one() -> Result | None:
            try:
                place = Place(await self.dialler.exchangers(route), route.port, source)
                session = await self.dialler.open(place, host)
            except NoSession as refusal:
                return refusal.result
            await session.quit()
            return None
        return self.reactor.run(one())

    def close(self) -> None:
        self.exchanger.close()
        self.nameserver.close()
        self.reactor.run(sleep(self.reactor, 1))
        self.reactor.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / 'plugins'
    made.mkdir()
    return made


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """start(source, …, python=…): a bench with these plugins."""
    made: list[Bench] = []

    def bench(*sources: str, python: str = '', local: tuple[str, ...] = ()) -> Bench:
        for number, source in enumerate(sources, 1):
            build(folder, source, name=f'{number}0-test-{folder.parent.name}')
        if python:
            (folder / '50-test.py').write_text(python)
        made.append(Bench(folder, local))
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


def test_no_more_indices_than_can_be_kept(start: Start) -> None:
    hooks_ = start(TELL).hooks
    assert [hooks_._slot(str(number)) for number in range(SLOTS + 2)][-3:] == [SLOTS - 1, SLOTS, SLOTS]
    assert hooks_._slot('0') == 0


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
    bench = Bench(folder)
    bench.close()
    assert LOG.said() == ['0', '1', 'first 1 2', 'last 1 2', 'a 1 2 0', 'b 1 2 0', '= 0', 'a 1 2 3', '= 3']


# modules of Momentum

STRUCTURE = '#include <module.h>\n' + INCLUDES + """#include <mailerq.h>
static void on(void *c, domain_record *d, int s, struct timeval *n, int f) { (void)d; (void)s; (void)n; (void)f;
    MQ_log(MQ_INFO, ((generic_module_infrastructure *)c)->shared.module_name); }
static int setup(generic_module_infrastructure *self, int n) { self->module_private_data = "private";
    MQ_log(MQ_INFO, "conf_setup"); return n; }
static int init(generic_module_infrastructure *self, ec_config_header *t, string *o, int flags) {
    if (t || o || flags & EC_MODULE_INIT_PRIVILEGED) return -1;
    switch (EC_MODULE_INIT_MODE(flags)) {
    case EC_MODULE_INIT_INIT: MQ_log(MQ_INFO, self->module_private_data);
        register_core_post_initiate_connection_smtp_hook_last(on, self); break;
    case EC_MODULE_INIT_DESTROY: MQ_log(MQ_INFO, "destroy"); break; }
    return 0; }
EC_MODULE_EXPORT generic_module_infrastructure count_it = {{
    EC_MODULE_INIT(TYPE, 0), "count.c", "Counts", NULL, NULL, NULL, NULL, NULL, setup, NULL, NULL, init }};
"""
FUNCTIONS = '#include <module.h>\n' + INCLUDES + """#include <mailerq.h>
static void on(void *c, domain_record *d, int s, struct timeval *n, int f) { (void)d; (void)s; (void)n; (void)f;
    MQ_log(MQ_INFO, c); }
int conf_setup(generic_module_infrastructure *self, int n) { self->module_private_data = "called"; return n; }
int ext_init(generic_module_infrastructure *self, ec_config_header *t, string *o, int flags) { (void)t; (void)o;
    register_core_post_initiate_connection_smtp_hook_last(on, self->module_private_data);
    return flags != EC_MODULE_INIT_INIT; }
"""


def load(folder: Path, source: str, name: str) -> list[str]:
    """A shared object that is no plugin of mqlite's own: what it says at start, an attempt, and the stop."""
    build_plugin(folder, source, name=name)
    bench = Bench(folder)
    bench.open(HOST, True)
    stop_host(bench.host, bench.reactor)
    bench.close()
    return LOG.said()


@pytest.mark.parametrize('kind', ['GENERIC', 'SINGLETON'])
def test_a_module_with_its_structure(folder: Path, kind: str) -> None:
    said = load(folder, STRUCTURE.replace('TYPE', f'EC_MODULE_TYPE_{kind}'), '40-count-it')
    assert said == ['conf_setup', 'private', 'count.c'] + (['destroy'] if kind == 'GENERIC' else [])


def test_a_module_of_functions(folder: Path) -> None:
    assert load(folder, FUNCTIONS, '40-functions') == ['called']


@pytest.mark.parametrize(('source', 'name', 'text'), [
    (STRUCTURE.replace('TYPE', '0'), '40-other-name', 'is no module of Momentum'),
    (STRUCTURE.replace('EC_MODULE_INIT(TYPE, 0)', '1, 0, NULL'), '40-count-it', 'is no module of Momentum'),
    (FUNCTIONS.replace('return n', 'return n - 1'), '40-unwilling', '40-unwilling.so failed in mq_initialize.*'
     'conf_setup returned -1'),
])
def test_what_is_no_module_stops_the_start(folder: Path, source: str, name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        load(folder, source, name)
