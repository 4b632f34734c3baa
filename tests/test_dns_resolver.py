"""The resolver: what mail asks of it, the files of the host, joining, caching, capacity."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from contextlib import closing as closed_after
from pathlib import Path
from typing import Any, Callable

import pytest

from mqlite.dns.lookup import Answer, NoData, NoSuchDomain
from mqlite.dns.message import MX, Question, Type
from mqlite.dns.resolver import DnsPermanent, DnsTemporary, NullMX, Resolver, ResolverConfig
from mqlite.errors import ConfigError, PermanentError, TemporaryError
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import Cancelled, sleep
from tests.support import dns
from tests.support.dns import Query
from tests.support.dns_bench import Bench, Make, answer, silent


@pytest.fixture
def make(tmp_path: Path, closing: ExitStack) -> Make:
    """make(script, …, setting=value, …): a bench, closed at the end."""
    def start(*scripts: Callable[[Query], list[bytes]], **settings: Any) -> Bench:
        bench = Bench(tmp_path, *scripts, **settings)
        closing.callback(bench.close)
        return bench
    return start


# what mail asks


@pytest.mark.parametrize(('host', 'addresses'), [
    ('a.example', ['192.0.2.1']),
    ('A.Example.', ['192.0.2.1']),
    ('b.example', ['2001:db8::1']),
    ('192.0.2.7', ['192.0.2.7']),
    ('[192.0.2.7]', ['192.0.2.7']),
    ('2001:DB8:0::7', ['2001:db8::7']),
    ('[IPv6:2001:db8::7]', ['2001:db8::7']),
])
def test_addresses(make: Make, host: str, addresses: list[str]) -> None:
    assert make(answer).addresses(host) == addresses


def test_addresses_of_both_families_in_random_order(make: Make) -> None:
    bench, six, four = make(answer), Counter[str](), Counter[str]()
    for _ in range(60):
        found = bench.addresses('both.example')
        assert sorted(found[:3]) == [f'2001:db8::{n}' for n in (1, 2, 3)]
        assert sorted(found[3:]) == [f'192.0.2.{n}' for n in (1, 2, 3)]
        six[found[0]] += 1
        four[found[3]] += 1
    assert min(six.values()) > 5 and len(six) == 3
    assert min(four.values()) > 5 and len(four) == 3
    assert len(bench.queries) == 2


@pytest.mark.parametrize(('host', 'complaint'), [
    ('nothing.example', 'nothing.example: the host has no address'),
    ('gone.example', 'gone.example: no such host'),
    ('a..example', 'not a domain name'),
    ('', 'empty'),
    ('a' * 64, 'longer than 63'),
    ('straße.example', 'xn--'),
])
def test_hosts_without_address(make: Make, host: str, complaint: str) -> None:
    with pytest.raises(DnsPermanent, match=complaint):
        make(answer).addresses(host)


@pytest.mark.parametrize(('domain', 'exchangers'), [
    ('nothing.example', [(0, 'nothing.example')]),
    ('a.example.', [(0, 'a.example')]),
    ('odd.example', [(10, 'mx.example')]),
    ('Bücher.example', [(10, 'mx.example')]),
    ('[192.0.2.7]', [(0, '192.0.2.7')]),
])
def test_mail_exchangers(make: Make, domain: str, exchangers: list[tuple[int, str]]) -> None:
    assert make(answer).exchangers(domain) == [MX(*row) for row in exchangers]


def test_exchangers_are_random_among_equals(make: Make) -> None:
    bench, second = make(answer), Counter[str]()
    for _ in range(60):
        found = bench.exchangers('mail.example')
        assert [mx.preference for mx in found] == [0, 10, 10, 10, 20]
        assert {mx.host for mx in found[1:4]} == {'b1', 'b2', 'b3'}
        second[found[1].host] += 1
    assert len(second) == 3 and min(second.values()) > 5
    assert len(bench.queries) == 1


def test_a_domain_that_takes_no_mail(make: Make) -> None:
    with pytest.raises(NullMX, match='null.example: the domain takes no mail'):
        make(answer).exchangers('null.example')


def test_a_domain_that_does_not_exist(make: Make) -> None:
    with pytest.raises(DnsPermanent, match=r'gone.example: no such domain \(NXDOMAIN\)'):
        make(answer).exchangers('gone.example')


def test_the_bases_say_what_to_do_next() -> None:
    assert issubclass(DnsTemporary, TemporaryError) and issubclass(DnsPermanent, PermanentError)


def test_one_family_failing_does_not_hide_the_other(make: Make) -> None:
    def only(kind: str) -> Callable[[Query], list[bytes]]:
        return lambda query: (answer(query) if query.type == kind else
                              [dns.reply(query.id, query.name, query.type, rcode=dns.SERVFAIL)])
    assert make(only('A')).addresses('a.example') == ['192.0.2.1']
    assert make(only('AAAA')).addresses('b.example') == ['2001:db8::1']
    for host in ('gone.example', 'nothing.example', 'b.example'):
        with pytest.raises(DnsTemporary, match=f'{host} AAAA: no nameserver gave .* SERVFAIL'):
            make(only('A')).addresses(host)


# the files of the host


def test_the_hosts_file_comes_first_and_may_change(make: Make) -> None:
    bench = make(answer)
    bench.hosts.write_text('10.0.0.1 a.example local\n::1 a.example\n')
    assert bench.addresses('A.example') == ['10.0.0.1', '::1']
    assert bench.exchangers('local') == [MX(0, 'local')]
    assert bench.addresses('local') == ['10.0.0.1']
    bench.hosts.write_text('')
    assert bench.addresses('a.example') == ['192.0.2.1']
    with pytest.raises(DnsPermanent):
        bench.exchangers('local')


def test_overrides_come_before_everything(make: Make) -> None:
    bench = make(answer)
    bench.hosts.write_text('10.0.0.1 a.example\n')
    bench.resolver.overrides = {'a.example': ('10.9.9.9', '::9'), 'mail.example': ('10.8.8.8',), 'b1': ('10.7.7.7',)}
    assert bench.addresses('A.example.') == ['10.9.9.9', '::9']
    assert bench.exchangers('Mail.example') == [MX(0, 'mail.example')]
    assert bench.addresses('mail.example') == ['10.8.8.8'] and bench.addresses('b1') == ['10.7.7.7']
    assert bench.resolver.known_exchangers('mail.example') == ([MX(0, 'mail.example')], 60.0)
    assert bench.queries == []
    bench.resolver.overrides = {}
    assert bench.addresses('a.example') == ['10.0.0.1'] and len(bench.exchangers('mail.example')) == 5


def test_resolv_conf_counts_where_the_configuration_is_silent(make: Make) -> None:
    bench = make(silent, timeout=None, interval=None, attempts=None, rotate=None)
    bench.resolv_conf.write_text('options timeout:7 attempts:2\n')
    with pytest.raises(DnsTemporary):
        bench.addresses('a.example')
    assert len(bench.queries) == 2 * 2
    assert 10 <= bench.reactor.clock.monotonic() < 10.1
    bench.resolv_conf.unlink()
    with pytest.raises(DnsTemporary):
        bench.addresses('b.example')
    assert len(bench.queries) == 2 * 2 + 2 * 5
    assert 27 <= bench.reactor.clock.monotonic() < 27.2


def test_nameservers_of_resolv_conf(make: Make) -> None:
    bench = make(nameservers=(), attempts=1, interval=1.0, timeout=1.0)
    bench.resolv_conf.write_text('nameserver 127.0.0.9\nnameserver ::1\n')
    with pytest.raises(DnsTemporary, match=r'\(127.0.0.9 .*; ::1 .*\)'):
        bench.exchangers('a.example')


def test_a_nameserver_that_is_no_address() -> None:
    with closed_after(Reactor()) as reactor, pytest.raises(ConfigError, match='dns.example'):
        Resolver(reactor, ResolverConfig(nameservers=('dns.example',)))


# joining, caching, capacity


def test_equal_questions_are_joined_and_remembered(make: Make) -> None:
    bench = make(answer)

    async def many() -> list[Any]:
        tasks = [bench.reactor.spawn(bench.resolver.mail_exchangers('mail.example')) for _ in range(50)]
        return [await task for task in tasks]

    found = bench.run(many())
    assert {tuple(sorted(each)) for each in found} == {tuple(sorted(found[0]))}
    assert len(bench.queries) == 1
    bench.exchangers('mail.example')
    assert len(bench.queries) == 1
    bench.run(sleep(bench.reactor, 301))
    bench.exchangers('mail.example')
    assert len(bench.queries) == 2


def test_absence_is_remembered_and_failure_for_seconds_only(make: Make) -> None:
    bench = make(answer)
    assert [type(bench.ask('gone.example', Type.A)) for _ in range(3)] == [NoSuchDomain] * 3
    assert [type(bench.ask('nothing.example', Type.A)) for _ in range(3)] == [NoData] * 3
    assert len(bench.queries) == 2
    bench = make(lambda query: [dns.reply(query.id, query.name, query.type, rcode=2)])
    for _ in range(3):
        bench.ask('a.example', Type.A)
    assert len(bench.queries) == 1
    bench.run(sleep(bench.reactor, 6))
    bench.ask('a.example', Type.A)
    assert len(bench.queries) == 2


@pytest.mark.parametrize('gone', [[0], [1], [0, 1, 2], [0, 1, 2, 3]])
def test_an_asker_that_is_cancelled_does_not_break_the_others(make: Make, gone: list[int]) -> None:
    bench: Bench = make(lambda query: answer(query) if len(bench.queries) > 2 else [])

    async def work() -> list[Any]:
        tasks = [bench.reactor.spawn(bench.resolver.addresses('a.example')) for _ in range(4)]
        await sleep(bench.reactor, 1)
        for number in gone:
            tasks[number].cancel()
        for number in gone:
            with pytest.raises(Cancelled):
                await tasks[number]
        return [await tasks[number] for number in range(4) if number not in gone]

    assert bench.run(work()) == [['192.0.2.1']] * (4 - len(gone))
    bench.run(sleep(bench.reactor, 10))
    asked = len(bench.queries)
    assert bench.addresses('a.example') == ['192.0.2.1']
    assert len(bench.queries) == asked, 'the question ran on into the cache'


def test_an_asker_cancelled_by_another_in_the_turn_of_the_answer(make: Make) -> None:
    bench = make(answer)

    async def work() -> list[Any]:
        question = Question('a.example', Type.A)
        waiting = bench.resolver.ask(question)
        other = bench.reactor.spawn(bench.resolver.ask(question))
        outcomes = await waiting
        other.cancel()
        with pytest.raises(Cancelled):
            await other
        return outcomes

    assert bench.run(work()) == [Answer(('192.0.2.1',), 300)]


def test_no_more_questions_under_way_than_the_capacity(make: Make) -> None:
    bench = make(silent, capacity=3, attempts=1, timeout=5.0)

    async def work() -> None:
        tasks = [bench.reactor.spawn(bench.resolver.ask(Question(f'{n}.example', Type.A))) for n in range(10)]
        await sleep(bench.reactor, 2.5)
        for asked in (3, 6, 9, 10):
            assert len(bench.queries) == asked
            await sleep(bench.reactor, 5)
        for task in tasks:
            await task

    bench.run(work())
    assert [query.name for query in bench.queries] == [f'{n}.example' for n in range(10)]


def test_closing_tells_everybody(make: Make) -> None:
    bench = make(silent, capacity=1)

    async def work() -> None:
        tasks = [bench.reactor.spawn(bench.resolver.addresses(f'{n}.example')) for n in range(3)]
        await sleep(bench.reactor, 1)
        bench.resolver.close()
        for task in tasks:
            task.observed = True
        for task in tasks:
            with pytest.raises(DnsTemporary, match='stopping'):
                await task
        with pytest.raises(DnsTemporary, match='stopping'):
            await bench.resolver.mail_exchangers('later.example')

    bench.run(work())
    assert bench.reactor.clock.monotonic() < 1.1
    assert len(bench.queries) == 1
