"""To which server the engine delivers: exchangers and smarthosts, never ourselves, and what if none can be reached."""

from __future__ import annotations

from typing import Any

import pytest

from mqlite.delivery.attempt import ADDRESSES_TRIED
from mqlite.delivery.route import Route
from mqlite.host import OwnPlaces
from tests.support import engine
from tests.support.engine import SECOND, Bench, Make
from tests.support.exchanger import DROP, SILENCE, Exchanger
from tests.support.process import HOST

bench, make = engine.bench, engine.make  # fixtures


@pytest.mark.parametrize(('recipient', 'state', 'result', 'final'), [
    ('r@one.example',         'message', 'accepted', True),
    ('r@ONE.Example',         'message', 'accepted', True),
    ('r@bare.example',        'message', 'accepted', True),
    ('r@half.example',        'message', 'accepted', True),
    ('r@[127.0.0.1]',         'message', 'accepted', True),
    ('r@null.example',        'dns',     'error',    True),
    ('r@nothing.example',     'dns',     'error',    True),
    ('r@nohost.example',      'dns',     'error',    True),
    ('r@broken.example',      'dns',     'timeout',  False),
    ('r@lost.example',        'dns',     'timeout',  False),
    ('r@[127.0.0.3]',         'connect', 'error',    False),
])
def test_mail_exchangers(bench: Bench, recipient: str, state: str, result: str, final: bool) -> None:
    bench.publish(recipient=recipient)
    bench.run(50)
    counts = bench.counts()
    assert set(counts) == ({'results', 'success' if result == 'accepted' else 'failure'} if final
                           else {'outbox', 'retry'})
    document = bench.final('results' if final else 'retry')
    assert [(entry['state'], entry['result']) for entry in document['results']] == [(state, result)]
    assert ('to' in document['results'][0]) is (result == 'accepted')
    assert (document['results'][0].get('status') == '5.1.10') is (recipient == 'r@null.example')  # RFC 7505


@pytest.mark.parametrize('first', ['refuses connections', b'421 busy', b'554 go away', b'what?', DROP, SILENCE])
def test_the_next_exchanger_when_the_first_is_down(bench: Bench, first: Any) -> None:
    second = Exchanger(bench.reactor, address=SECOND, port=bench.exchanger.port)
    if isinstance(first, str):
        bench.exchanger.refuse_connections()
    else:
        bench.exchanger.script['CONNECT'] = first
    bench.publish(recipient='r@two.example')
    bench.run(400)
    second.close()
    assert bench.last('state', 'to') == ('message', SECOND) and second.recipients == ['r@two.example']


@pytest.mark.parametrize(('replies', 'state', 'code', 'final'), [
    ((b'554 never', b'550 no'), 'intro', 550, True), ((b'554 never', b'421 busy'), 'intro', 421, False),
    ((b'421 busy', b'554 never'), 'intro', 421, False)])
def test_the_most_hopeful_result_counts(bench: Bench, replies: tuple[bytes, bytes], state: str, code: int,
                                        final: bool) -> None:
    second = Exchanger(bench.reactor, address=SECOND, port=bench.exchanger.port)
    bench.exchanger.script['CONNECT'], second.script['CONNECT'] = replies
    bench.publish(recipient='r@two.example')
    bench.run()
    second.close()
    entry = bench.final('results' if final else 'retry')['results'][-1]
    assert (entry['state'], entry['code']) == (state, code)


def test_so_many_addresses_are_tried(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    open_at = bench.dialler._open_at

    async def note(place: Any, domain: str, host: str, address: str) -> Any:
        tried.append(address)
        return await open_at(place, domain, host, address)

    monkeypatch.setattr(bench.dialler, '_open_at', note)
    bench.publish(recipient='r@many.example')
    bench.run()
    assert len(set(tried)) == ADDRESSES_TRIED and bench.counts() == {'outbox': 1, 'retry': 1}


def test_exchangers_that_nobody_knows_count_as_tried(bench: Bench) -> None:
    """A name server can name hundreds, and be silent about each of them."""
    bench.publish(recipient='r@quiet.example')
    bench.run(ADDRESSES_TRIED * 7.0)  # two attempts at each: 1 s, and the time-out of 5 s
    assert bench.counts() == {'outbox': 1, 'retry': 1}


def test_a_family_that_this_host_has_no_way_to_leaves_room_for_the_other(bench: Bench) -> None:
    bench.publish(recipient='r@wide.example')
    bench.run(400.0)  # 30 s for each address, where nobody says that there is no way
    assert bench.exchanger.recipients == ['r@wide.example'] and bench.counts() == {'results': 1, 'success': 1}


def test_smarthosts(make: Make) -> None:
    bench = make(smarthost=Route('nothing.example', 25, True))
    bench.publish(recipient='r@nowhere.example', smarthost={'hostname': 'mx1.example', 'port': bench.exchanger.port})
    bench.publish(recipient='r@one.example')
    bench.run()
    assert bench.exchanger.recipients == ['r@nowhere.example']
    assert bench.final('failure')['results'][0]['state'] == 'dns'


@pytest.mark.parametrize(('reply', 'last', 'counts'), [
    (b'235 2.7.0 ok',   ('message', 'accepted', 250, 'PLAIN'),  {'success': 1}),
    (b'535 5.7.8 no',   ('authplain', 'error', 535, None),      {'outbox': 1}),
    (b'454 4.7.0 no',   ('authplain', 'error', 454, None),      {'outbox': 1}),
])
def test_a_smarthost_that_wants_a_login(bench: Bench, reply: bytes, last: tuple[object, ...],
                                        counts: dict[str, int]) -> None:
    """A wrong password is for the operator to mend, and no reason to give a message back."""
    bench.exchanger.extensions.append(b'AUTH PLAIN')
    bench.exchanger.script['AUTH'] = reply
    login = {'hostname': 'mx1.example', 'port': bench.exchanger.port, 'username': 'us', 'password': 'secret'}
    bench.publish(smarthost=login)
    bench.publish(smarthost={**login, 'username': ''}, recipient='r@two.example')
    bench.run()
    done = {document['recipient']: document['results'][-1]
            for queue in ('results', 'retry') for document in bench.take(queue)}
    entry = done['r@one.example']
    assert tuple(entry.get(name) for name in ('state', 'result', 'code', 'authentication')) == last
    assert done['r@two.example']['result'] == 'accepted' and 'authentication' not in done['r@two.example']
    assert bench.exchanger.commands.count(b'AUTH PLAIN AHVzAHNlY3JldA==') == 1
    counts['success'] = counts.get('success', 0) + 1
    assert bench.counts() == counts


# ourselves


@pytest.mark.parametrize(('recipient', 'own', 'tried', 'state', 'status'), [
    ('r@one.example',   HOST,   [],     'dns',     '5.4.6'),   # the only exchanger
    ('r@two.example',   HOST,   [],     'dns',     '5.4.6'),   # the best one; the other one would send it to us
    ('r@two.example',   SECOND, [HOST], 'message', '2.0.0'),   # the second one
    ('r@[127.0.0.1]',   HOST,   [],     'dns',     '5.4.6'),
    ('r@half.example',  HOST,   [],     'dns',     '5.4.6'),   # the first one has no address
])
def test_mail_does_not_go_round_in_a_circle(make: Make, recipient: str, own: str, tried: list[str], state: str,
                                            status: str) -> None:
    bench = make(is_own=lambda address, port: address == own)
    bench.publish(recipient=recipient)
    bench.run()
    assert [client.peer[0] for client in bench.exchanger.clients] == tried
    entry = bench.final()['results'][-1]
    assert (entry['state'], entry['status']) == (state, status)
    assert status != '5.4.6' or 'loops back to us' in entry['description']


@pytest.mark.parametrize(('first', 'queue'), [('mx2.example', 'failure'), ('mx1.example', 'success')])
def test_of_equal_exchangers_the_other_one_is_not_better_than_we(make: Make, monkeypatch: pytest.MonkeyPatch,
                                                                 first: str, queue: str) -> None:
    """Where we are looked at first, nobody is left; where not, the other one may take it."""
    monkeypatch.setattr('mqlite.delivery.attempt.random.sample',
                        lambda group, count: sorted(group, key=lambda host: host != first))
    bench = make(is_own=lambda address, port: address == SECOND)
    bench.publish(recipient='r@equal.example')
    bench.run()
    assert bench.counts() == {'results': 1, queue: 1}


def test_a_better_exchanger_that_is_down_is_waited_for(make: Make) -> None:
    """We are the second one, and hold the mail for the first."""
    bench = make(is_own=lambda address, port: address == SECOND)
    bench.exchanger.refuse_connections()
    bench.publish(recipient='r@two.example')
    bench.run()
    assert bench.final('retry')['results'][-1]['state'] == 'connect' and bench.counts() == {'outbox': 1}


@pytest.mark.parametrize(('places', 'address', 'port', 'own'), [
    ([('192.0.2.1', 25)],          '192.0.2.1',   25, True),
    ([('192.0.2.1', 25)],          '192.0.2.1',   26, False),
    ([('192.0.2.1', 25)],          '192.0.2.2',   25, False),
    ([('0.0.0.0', 25)],            '127.0.0.1',   25, True),
    ([('0.0.0.0', 25)],            '127.8.8.8',   25, True),
    ([('0.0.0.0', 25)],            '127.0.0.1',   26, False),
    ([('0.0.0.0', 25)],            '192.0.2.1',   25, False),
    ([('0.0.0.0', 25)],            '::1',         25, False),
    ([('::', 25)],                 '::1',         25, True),
    ([('127.0.0.1', 25)],          '0.0.0.0',     25, True),
    ([('::1', 25)],                '::',          25, True),
    ([('0.0.0.0', 25)],            '::ffff:127.0.0.1', 25, True),
    ([('192.0.2.1', 25)],          '::ffff:192.0.2.1', 25, True),
    ([('192.0.2.1', 25)],          '0.0.0.0',     25, False),
    ([],                           '127.0.0.1',   25, False),
])
def test_what_is_ourselves(places: list[tuple[str, int]], address: str, port: int, own: bool) -> None:
    assert OwnPlaces(places)(address, port) is own


# servers that cannot be reached


def test_servers_without_an_address_are_no_reason_to_wait(bench: Bench) -> None:
    for _ in range(2):
        bench.publish(recipient='r@nohost.example')
        bench.run()
        assert bench.last('state', 'result') == ('dns', 'error')


def test_a_server_that_is_down_is_not_tried_for_every_message(bench: Bench) -> None:
    """The attempt for the first counts for those that come a moment later, and all are tried again in their time."""
    bench.exchanger.refuse_connections()
    for number in range(30):
        bench.publish(recipient=f'r{number}@one.example')
        bench.run(0.01)
    retried = bench.take('retry')
    assert len(retried) == 30 and bench.counts() == {'outbox': 30}
    descriptions = [document['results'][0]['description'] for document in retried]
    assert sum('the last attempt' in text for text in descriptions) > 25 and bench.exchanger.clients == []
    assert {document['results'][0]['state'] for document in retried} == {'connect'}
    revived = Exchanger(bench.reactor, port=bench.exchanger.port)
    bench.run(601)
    assert len(revived.messages) == 30 and bench.counts() == {'results': 30, 'success': 30}
    revived.close()


def test_an_attempt_for_others_is_nobodys_last(bench: Bench) -> None:
    bench.exchanger.script['CONNECT'] = b'421 busy'
    bench.publish()
    bench.run()
    bench.publish(maxattempts=1)
    bench.run()
    assert bench.counts() == {'outbox': 2, 'retry': 1}
    del bench.exchanger.script['CONNECT']
    bench.run(20)
    assert bench.last('result') == ('accepted',)


def test_a_server_that_turns_us_away_for_good_does_not_do_so_for_messages_to_come(bench: Bench) -> None:
    bench.exchanger.script['CONNECT'] = [b'554 go away']
    bench.publish()
    bench.run()
    bench.publish()
    bench.run()
    assert bench.counts() == {'results': 1, 'failure': 1, 'outbox': 1}
    bench.run(20)
    assert bench.counts() == {'results': 2, 'failure': 1, 'success': 1}


def test_the_neighbour_of_a_server_that_is_down_does_not_wait_for_it(bench: Bench) -> None:
    """The first connection has found out; the others do not try it again and again."""
    second = Exchanger(bench.reactor, address=SECOND, port=bench.exchanger.port)
    second.script['.'] = b'250 kept' + DROP
    bench.exchanger.refuse_connections()
    tried: list[str] = []
    open_at = bench.dialler._open_at

    async def note(place: Any, domain: str, host: str, address: str) -> Any:
        tried.append(address)
        return await open_at(place, domain, host, address)

    bench.dialler._open_at = note  # type: ignore[method-assign]
    for number in range(10):
        bench.publish(recipient=f'r{number}@two.example')
        bench.run()
    assert tried == [HOST, *[SECOND] * 10] and bench.counts() == {'results': 10, 'success': 10}
    bench.run(60)
    bench.publish(recipient='r@two.example')
    bench.run()
    assert tried[-2:] == [HOST, SECOND]
    second.close()
