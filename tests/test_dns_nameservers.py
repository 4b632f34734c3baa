"""The resolver against nameservers that fail, are silent, truncate and lie, and against dnsmasq."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import closing as closed_after
from pathlib import Path
from typing import Any, Callable

import pytest

from mqlite.dns.lookup import Answer
from mqlite.dns.message import MX, Type
from mqlite.dns.resolver import DnsPermanent, DnsTemporary
from mqlite.loop.clock import Clock
from mqlite.loop.reactor import READ
from mqlite.loop.task import sleep
from tests.support import dns
from tests.support.dns import Query
from tests.support.dns_bench import Bench, Make, answer, silent
from tests.support.process import Process, find_program, free_port


@pytest.fixture
def make(tmp_path: Path, closing: ExitStack) -> Make:
    """make(script, …, setting=value, …): a bench, closed at the end."""
    def start(*scripts: Callable[[Query], list[bytes]], **settings: Any) -> Bench:
        bench = Bench(tmp_path, *scripts, **settings)
        closing.callback(bench.close)
        return bench
    return start


def test_retransmission_by_the_clock(make: Make) -> None:
    bench = make(silent)
    with pytest.raises(DnsTemporary, match='did not answer in time'):
        bench.exchangers('a.example')
    assert len(bench.queries) == 3
    assert 24 <= bench.reactor.clock.monotonic() < 24.1, 'two intervals and one timeout'


def test_every_query_has_its_own_port_and_id(make: Make) -> None:
    bench = make(silent, attempts=20, interval=0.5, timeout=0.5)
    bench.ask('a.example', Type.A)
    assert len({query.peer[1] for query in bench.queries}) > 15
    assert len({query.id for query in bench.queries}) > 15


@pytest.mark.parametrize('bad', [
    silent,
    lambda query: [dns.reply(query.id, query.name, query.type, rcode=dns.SERVFAIL)],
    lambda query: [dns.reply(query.id, query.name, query.type, rcode=dns.REFUSED, question=False)],
    lambda query: [dns.reply(query.id, query.name, query.type)[:-1]],
    lambda query: [dns.reply(query.id, query.name, query.type, truncated=True)],
    lambda query: [dns.reply(query.id, query.name, query.type, authority=[dns.record('x', 'NS', 1, b'\0')])],
], ids=['silent', 'SERVFAIL', 'REFUSED', 'garbage', 'always truncated', 'referral'])
def test_the_next_server_answers(make: Make, bad: Callable[[Query], list[bytes]]) -> None:
    bench = make(bad, answer)
    assert bench.addresses('a.example') == ['192.0.2.1']
    assert len(bench.servers[1].queries) == 2


def test_rotation_uses_all_servers(make: Make) -> None:
    bench = make(answer, answer, answer, rotate=True)
    for n in range(60):
        bench.ask(f'{n}.example', Type.A)
    assert all(len(server.queries) > 10 for server in bench.servers)
    bench = make(answer, answer)
    for n in range(10):
        bench.ask(f'{n}.example', Type.A)
    assert [len(server.queries) for server in bench.servers] == [10, 0]


def test_a_nameserver_that_is_restarted(make: Make) -> None:
    """Its port is closed at first: the kernel says so, and it is asked again after the interval."""
    bench = make(answer)
    host, port = bench.servers[0].address.split(':')
    bench.servers[0].close()

    async def work() -> list[str]:
        task = bench.reactor.spawn(bench.resolver.addresses('a.example'))
        await sleep(bench.reactor, 1)
        again = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with closed_after(again):
            again.bind((host, int(port)))
            again.setblocking(False)

            def serve(_events: int) -> None:
                data, peer = again.recvfrom(2000)
                again.sendto(answer(dns.read_query(data))[0], peer)

            bench.reactor.watch(again.fileno(), READ, serve)
            try:
                return await task
            finally:
                bench.reactor.unwatch(again.fileno())

    bench.servers.clear()
    assert bench.run(work()) == ['192.0.2.1']
    assert 2 <= bench.reactor.clock.monotonic() < 2.1


def test_truncated_replies_are_asked_for_over_tcp(make: Make) -> None:
    many = [dns.address('big.example', f'10.0.{n // 250}.{n % 250}') for n in range(900)]

    def big(query: Query) -> list[bytes]:
        if query.tcp:
            return [dns.reply(query.id, query.name, query.type, *many)]
        return [dns.reply(query.id, query.name, query.type, many[0], truncated=True)]

    bench = make(big)
    assert len(bench.ask('big.example', Type.A).records) == 900
    assert [query.tcp for query in bench.queries] == [False, True]


@pytest.mark.parametrize('broken', [
    lambda query: [],
    lambda query: [dns.reply(query.id, query.name, query.type)[:-1]],
    lambda query: [dns.reply(query.id, query.name, query.type, truncated=True)],
    lambda query: [dns.reply(query.id ^ 1, query.name, query.type)],
], ids=['closes', 'garbage', 'truncated', 'another id, then closes'])
def test_tcp_that_fails(make: Make, broken: Callable[[Query], list[bytes]]) -> None:
    bench = make(lambda query: broken(query) if query.tcp else
                 [dns.reply(query.id, query.name, query.type, truncated=True)], answer)
    assert bench.addresses('a.example') == ['192.0.2.1']


def test_tcp_that_is_silent(make: Make) -> None:
    """The kernel accepts the connection and nobody reads from it."""
    truncating = make(lambda query: [dns.reply(query.id, query.name, query.type, truncated=True)])
    truncating.servers[0]._accepted = lambda stream: None  # type: ignore[method-assign]
    truncating.servers[0]._listener._on_accept = truncating.servers[0]._streams.append
    with pytest.raises(DnsTemporary, match='did not answer in time'):
        truncating.exchangers('a.example')
    assert 24 <= truncating.reactor.clock.monotonic() < 24.2


FORGERIES: list[Callable[[Query], bytes]] = [
    lambda query: dns.reply(query.id ^ 1, query.name, query.type, dns.address(query.name, '6.6.6.6')),
    lambda query: dns.reply(query.id, 'x' + query.name, query.type, dns.address(query.name, '6.6.6.6')),
    lambda query: dns.reply(query.id, query.name, 'TXT', dns.address(query.name, '6.6.6.6')),
    lambda query: dns.reply(query.id, query.name, query.type, dns.address(query.name, '6.6.6.6'), flags=0x0100),
    lambda query: dns.reply(query.id ^ 1, query.name, query.type, rcode=dns.NXDOMAIN),
    lambda query: b'\0',
]


def test_forged_replies_are_ignored_and_counted(make: Make) -> None:
    bench = make(lambda query: [forge(query) for forge in FORGERIES] + answer(query))
    outcome = bench.ask('a.example', Type.A)
    assert outcome == Answer(('192.0.2.1',), 300)
    assert bench.resolver.ignored == len(FORGERIES)


def test_nothing_but_forged_replies_is_silence(make: Make) -> None:
    bench = make(lambda query: [forge(query) for forge in FORGERIES])
    with pytest.raises(DnsTemporary, match='did not answer in time'):
        bench.exchangers('a.example')
    assert bench.resolver.ignored == 3 * len(FORGERIES)


def test_replies_from_elsewhere_do_not_arrive(make: Make) -> None:
    """A perfect forgery, but for the port that it is sent from."""
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def spoof(query: Query) -> list[bytes]:
        stranger.sendto(dns.reply(query.id, query.name, query.type, dns.address(query.name, '6.6.6.6')), query.peer)
        return answer(query)

    with closed_after(stranger):
        bench = make(spoof)
        assert bench.ask('a.example', Type.A) == Answer(('192.0.2.1',), 300)


def test_records_of_strangers_do_not_poison_the_cache(make: Make) -> None:
    bench = make(lambda query: [dns.reply(query.id, query.name, query.type, dns.address('a.example', '6.6.6.6'),
                                          dns.address('b.example', '192.0.2.2'),
                                          additional=[dns.address('a.example', '6.6.6.6')])]
                 if query.name == 'b.example' else answer(query))
    assert bench.ask('b.example', Type.A) == Answer(('192.0.2.2',), 300)
    assert bench.ask('a.example', Type.A) == Answer(('192.0.2.1',), 300)


# a real one


@pytest.fixture
def dnsmasq(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    process = Process([
        find_program('dnsmasq'), '--no-daemon', '--conf-file=/dev/null', '--no-resolv', '--no-hosts', '--no-poll',
        f'--port={port}', f'--listen-address={dns.HOST}', '--bind-interfaces', '--pid-file=', '--local=/test/',
        '--user=', '--host-record=mx1.test,192.0.2.1,2001:db8::1', '--host-record=mx2.test,192.0.2.2',
        '--mx-host=domain.test,mx2.test,20', '--mx-host=domain.test,mx1.test,10', '--cname=alias.test,mx1.test',
        '--txt-record=txt.test,v=spf1,-all', '--ptr-record=1.2.0.192.in-addr.arpa,mx1.test',
        *[f'--mx-host=big.test,mx{n}.a-long-name-to-fill-the-reply.test,{n}' for n in range(60)],
    ], tmp_path)
    try:
        process.wait_listening(port)
        yield f'{dns.HOST}:{port}'
    finally:
        process.close()


def test_dnsmasq(make: Make, dnsmasq: str) -> None:
    bench = make(nameservers=(dnsmasq,), clock=Clock())
    assert bench.exchangers('domain.test') == [MX(10, 'mx1.test'), MX(20, 'mx2.test')]
    assert bench.exchangers('mx2.test') == [MX(0, 'mx2.test')]
    assert bench.addresses('mx1.test') == ['2001:db8::1', '192.0.2.1']
    assert bench.addresses('mx2.test') == ['192.0.2.2']
    assert bench.addresses('ALIAS.test') == ['2001:db8::1', '192.0.2.1']
    assert bench.ask('txt.test', Type.TXT).records == (b'v=spf1-all',)
    assert bench.ask('1.2.0.192.in-addr.arpa', Type.PTR).records == ('mx1.test',)
    assert len(bench.exchangers('big.test')) == 60
    with pytest.raises(DnsPermanent, match='NXDOMAIN'):
        bench.exchangers('gone.test')
    with pytest.raises(DnsPermanent, match='no address'):
        bench.addresses('txt.test')
    with pytest.raises(DnsTemporary, match='REFUSED'):
        bench.exchangers('elsewhere.example')
    assert bench.resolver.ignored == 0
