"""The resolver and real nameservers: BIND with a zone for every case, unbound and dnsmasq in front of it.

What lies, is silent, or truncates for ever is scripted: see tests/test_dns_nameservers.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mqlite.dns.message import MX, Type
from mqlite.dns.resolver import DnsPermanent, DnsTemporary, NullMX
from mqlite.loop.clock import Clock
from mqlite.loop.task import Task
from tests.support import dns
from tests.support.dns_bench import Bench
from tests.support.process import Process, find_program, free_port

DOMAINS, CAPACITY = 10_000, 100

ZONE = """\
$TTL 300
@           IN SOA ns.test. root.test. 1 3600 600 86400 60
            IN NS ns
            IN MX 20 mx2
            IN MX 10 mx1
ns          IN A 127.0.0.1
mx1         IN A 192.0.2.1
            IN AAAA 2001:db8::1
mx2         IN A 192.0.2.2
equal       IN MX 10 mx1
            IN MX 10 mx2
implicit    IN A 192.0.2.3
null        IN MX 0 .
six         IN AAAA 2001:db8::6
text        IN TXT "v=spf1 " "-all"
alias       IN CNAME test.
hop1        IN CNAME hop2
hop2        IN CNAME hop3
hop3        IN CNAME hop4
hop4        IN CNAME mx1
loop1       IN CNAME loop2
loop2       IN CNAME loop1
dangling    IN CNAME nowhere
viaalias    IN MX 10 hop4
noaddress   IN MX 10 text
xn--bcher-kva IN MX 10 mx1
lame        IN NS ns.lame
ns.lame     IN A 127.0.0.1
*.wild      IN MX 10 mx1
$GENERATE 1-60 big IN MX "$ mx$.a-long-name-to-fill-the-reply"
$GENERATE 0-9999 d$ IN MX "10 mx.d$"
$GENERATE 0-9999 mx.d$ IN A 192.0.2.9
"""

BIND = """\
options {{ directory "{folder}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; pid-file none;
    recursion no; dnssec-validation no; session-keyfile none; }};
controls {{ }};
zone "test" {{ type master; file "{folder}/zone"; }};
"""

UNBOUND = """\
server:
    interface: 127.0.0.1@{port}
    do-daemonize: no
    use-syslog: no
    chroot: ""
    username: ""
    pidfile: ""
    directory: "{folder}"
    module-config: "iterator"
    local-zone: "test." nodefault
    do-not-query-localhost: no
    outgoing-range: 512
    num-queries-per-thread: 1024
remote-control:
    control-enable: no
forward-zone:
    name: "test."
    forward-addr: 127.0.0.1@{bind}
"""


@pytest.fixture(scope='module')
def bind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder, port = tmp_path_factory.mktemp('bind'), free_port()
    (folder / 'zone').write_text(ZONE)
    (folder / 'named.conf').write_text(BIND.format(folder=folder, port=port))
    yield from serve([find_program('named'), '-g', '-n', '1', '-c', folder / 'named.conf'], folder, port)


@pytest.fixture(scope='module')
def unbound(tmp_path_factory: pytest.TempPathFactory, bind: int) -> Iterator[int]:
    folder, port = tmp_path_factory.mktemp('unbound'), free_port()
    (folder / 'unbound.conf').write_text(UNBOUND.format(folder=folder, port=port, bind=bind))
    yield from serve([find_program('unbound'), '-d', '-c', folder / 'unbound.conf'], folder, port)


@pytest.fixture(scope='module')
def dnsmasq(tmp_path_factory: pytest.TempPathFactory, bind: int) -> Iterator[int]:
    folder, port = tmp_path_factory.mktemp('dnsmasq'), free_port()
    yield from serve([
        find_program('dnsmasq'), '--no-daemon', '--conf-file=/dev/null', '--no-resolv', '--no-hosts', '--no-poll',
        f'--port={port}', f'--listen-address={dns.HOST}', '--bind-interfaces', '--pid-file=', '--user=',
        f'--server=/test/{dns.HOST}#{bind}', '--dns-forward-max=1000'], folder, port)


def serve(command: list[Any], folder: Path, port: int) -> Iterator[int]:
    process = Process(command, folder)
    try:
        process.wait_listening(port)
        yield port
    finally:
        process.close()


@pytest.fixture(params=['bind', 'unbound', 'dnsmasq'])
def bench(request: pytest.FixtureRequest, tmp_path: Path, closing: ExitStack) -> Bench:
    """A resolver that asks one of the three, by the clock on the wall."""
    port = request.getfixturevalue(request.param)
    made = Bench(tmp_path, clock=Clock(), nameservers=(f'{dns.HOST}:{port}',), capacity=CAPACITY, timeout=5.0)
    closing.callback(made.close)
    return made


def test_mail_exchangers(bench: Bench) -> None:
    both = [MX(10, 'mx1.test'), MX(20, 'mx2.test')]
    assert bench.exchangers('test') == both
    assert bench.exchangers('ALIAS.Test.') == both
    assert sorted(bench.exchangers('equal.test')) == [MX(10, 'mx1.test'), MX(10, 'mx2.test')]
    assert bench.exchangers('implicit.test') == [MX(0, 'implicit.test')]
    assert bench.exchangers('six.test') == [MX(0, 'six.test')]
    assert bench.exchangers('bücher.test') == [MX(10, 'mx1.test')]
    assert bench.exchangers('any.wild.test') == [MX(10, 'mx1.test')]
    assert bench.exchangers('viaalias.test') == [MX(10, 'hop4.test')]
    assert len(bench.exchangers('big.test')) == 60  # over TCP
    with pytest.raises(NullMX):
        bench.exchangers('null.test')
    with pytest.raises(DnsPermanent, match='NXDOMAIN'):
        bench.exchangers('nowhere.test')
    assert bench.resolver.ignored == 0


def test_addresses(bench: Bench) -> None:
    assert bench.addresses('mx1.test') == ['2001:db8::1', '192.0.2.1']
    assert bench.addresses('hop1.test') == ['2001:db8::1', '192.0.2.1']
    assert bench.addresses('six.test') == ['2001:db8::6']
    assert bench.addresses('mx2.test') == ['192.0.2.2']
    assert bench.ask('text.test', Type.TXT).records == (b'v=spf1 -all',)
    for name, reason in (('text.test', 'no address'), ('dangling.test', 'NXDOMAIN')):
        with pytest.raises(DnsPermanent, match=reason):
            bench.addresses(name)
    with pytest.raises((DnsPermanent, DnsTemporary)):
        bench.addresses('loop1.test')


def test_what_nobody_answers_for_is_asked_again_later(bench: Bench) -> None:
    """A delegation that leads nowhere, and a name that is not theirs."""
    for name in ('a.lame.test', 'elsewhere.example'):
        with pytest.raises(DnsTemporary):
            bench.exchangers(name)


def test_ten_thousand_domains(bench: Bench) -> None:
    async def work() -> tuple[int, int]:
        tasks: list[Task[Any]] = []
        most = 0
        for number in range(DOMAINS):
            tasks.append(bench.reactor.spawn(bench.resolver.mail_exchangers(f'd{number}.test')))
        right = 0
        for number, task in enumerate(tasks):
            right += await task == [MX(10, f'mx.d{number}.test')]
            most = max(most, len(bench.resolver._tasks))
        return right, most

    assert bench.run(work()) == (DOMAINS, CAPACITY)
    assert bench.resolver.ignored == 0
