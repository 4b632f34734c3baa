"""One question, step by step: golden dialogues between a Lookup and its nameservers, without a socket or a clock."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from mqlite.dns.lookup import MAX_CHAIN, Answer, Ask, Failed, Lookup, NoData, NoSuchDomain, Plan, Server
from mqlite.dns.message import MX, FormatError, Question, Type
from tests.support import dns

ONE = (Server('10.0.0.1'),)
THREE = (Server('10.0.0.1'), Server('10.0.0.2', 5353), Server('::3'))
NAME = 'example.com'

FOUND = {'answers': [dns.mx(NAME, 10, 'mx.example.com')]}
ANSWER = Answer((MX(10, 'mx.example.com'),), 300)
SILENCE, BROKEN = 'silence', 'broken'
SERVFAIL, REFUSED = {'rcode': 2}, {'rcode': 5}
TRUNCATED = {'truncated': True}
GARBAGE = {'cut': 1}



def plan(servers: tuple[Server, ...] = ONE, attempts: int = 3) -> Plan:
    return Plan(servers, attempts, interval=3, timeout=60)


def describe(ask: Ask) -> str:
    """'udp 10.0.0.1 example.com MX 3' and the remarks 'plain' (no EDNS) and 'after 3' (a pause)."""
    query = dns.read_query(ask.query)
    words = ['tcp' if ask.tcp else 'udp', str(ask.server), query.name, query.type, f'{ask.wait:g}']
    return ' '.join(words + ['plain'] * (not query.edns) + [f'after {ask.pause:g}'] * bool(ask.pause))


def play(lookup: Lookup, ask: Ask, event: Any) -> None:
    """Let one thing happen to the Ask: silence, a broken socket, or a reply with the given fields."""
    if event == SILENCE:
        lookup.silent()
    elif event == BROKEN:
        lookup.broken('refused the connection')
    else:
        fields = dict(event)
        answers, cut = fields.pop('answers', []), fields.pop('cut', 0)
        query = dns.read_query(ask.query)
        wire = dns.reply(query.id, query.name, query.type, *answers, **fields)
        assert lookup.heard(wire[:len(wire) - cut])


def converse(lookup: Lookup, dialogue: list[tuple[str, Any]]) -> Any:
    for expected, event in dialogue:
        ask = lookup.next()
        assert isinstance(ask, Ask), ask
        assert describe(ask) == expected
        play(lookup, ask, event)
    outcome = lookup.next()
    assert not isinstance(outcome, Ask), describe(outcome)
    assert lookup.next() == outcome
    return outcome


def soa(ttl: int, minimum: int) -> dict[str, Any]:
    return {'authority': [dns.soa('com', ttl, minimum)]}


Q = 'example.com MX'
ALIAS = dns.alias(NAME, 'other.example', ttl=200)

DIALOGUES = [
    ('answered at once', plan(), [(f'udp 10.0.0.1 {Q} 3', FOUND)], ANSWER),
    ('the smallest ttl counts, copies count once', plan(),
     [(f'udp 10.0.0.1 {Q} 3', {'answers': [dns.mx(NAME, 5, host, ttl) for host, ttl in
                                           (('a', 90), ('a', 80), ('b', 99))]})],
     Answer((MX(5, 'a'), MX(5, 'b')), 80)),
    ('records of others in the answer are not believed', plan(),
     [(f'udp 10.0.0.1 {Q} 3', {'answers': [dns.mx('bank.example', 10, 'evil'), dns.address(NAME, '192.0.2.1')]})],
     NoData(0)),

    # absence
    ('NODATA', plan(), [(f'udp 10.0.0.1 {Q} 3', soa(900, 60))], NoData(60)),
    ('NODATA, the ttl of the SOA is the smaller', plan(), [(f'udp 10.0.0.1 {Q} 3', soa(30, 60))], NoData(30)),
    ('NODATA without SOA', plan(), [(f'udp 10.0.0.1 {Q} 3', {})], NoData(0)),
    ('NXDOMAIN', plan(), [(f'udp 10.0.0.1 {Q} 3', {'rcode': 3, **soa(900, 60)})], NoSuchDomain(60)),
    ('NXDOMAIN without SOA', plan(), [(f'udp 10.0.0.1 {Q} 3', {'rcode': 3})], NoSuchDomain(0)),
    ('a referral is not absence', plan(),
     [(f'udp 10.0.0.1 {Q} 3', {'authority': [dns.record('com', 'NS', 9, b'\1a\0')]})],
     Failed('example.com MX: no nameserver gave a usable answer '
            '(10.0.0.1 refers to other servers: it is not a recursive resolver)')),

    # aliases
    ('an alias with its target', plan(),
     [(f'udp 10.0.0.1 {Q} 3', {'answers': [ALIAS, dns.mx('other.example', 10, 'mx.example.com')]})],
     Answer((MX(10, 'mx.example.com'),), 200)),
    ('aliases in any order', plan(),
     [(f'udp 10.0.0.1 {Q} 3', {'answers': [dns.mx('c', 1, 'mx'), dns.alias('b', 'c', 50), dns.alias(NAME, 'b')]})],
     Answer((MX(1, 'mx'),), 50)),
    ('an alias without its target', plan(),
     [(f'udp 10.0.0.1 {Q} 3', {'answers': [ALIAS]}),
      ('udp 10.0.0.1 other.example MX 3', {'answers': [dns.mx('other.example', 7, 'mx')]})],
     Answer((MX(7, 'mx'),), 200)),
    ('an alias without its target, which does not exist', plan(),
     [(f'udp 10.0.0.1 {Q} 3', {'answers': [ALIAS]}),
      ('udp 10.0.0.1 other.example MX 3', {'rcode': 3, **soa(900, 800)})],
     NoSuchDomain(200)),
    ('an alias to nothing', plan(), [(f'udp 10.0.0.1 {Q} 3', {'answers': [ALIAS], 'rcode': 3, **soa(900, 60)})],
     NoSuchDomain(60)),
    ('an alias to a name without MX', plan(), [(f'udp 10.0.0.1 {Q} 3', {'answers': [ALIAS], **soa(900, 60)})],
     NoData(60)),
    ('two aliases in a circle', plan(),
     [(f'udp 10.0.0.1 {Q} 3', {'answers': [dns.alias(NAME, 'b'), dns.alias('b', NAME)]})],
     Failed('example.com MX: more than 16 aliases (CNAME) in a row, or a circle')),
    ('an alias to a name that cannot be asked for', plan(),
     [(f'udp 10.0.0.1 {Q} 3', {'answers': [dns.record(NAME, 'CNAME', 9, b'\2a\0\0')]})],
     Failed("example.com MX is an alias (CNAME): 'a\\\\000' is not a domain name: its label 'a\\\\000' is empty, "
            'longer than 63 or has a character that no host name has')),
    ('the target is asked for over UDP again', plan(),
     [(f'udp 10.0.0.1 {Q} 3', TRUNCATED), (f'tcp 10.0.0.1 {Q} 3', {'answers': [ALIAS]}),
      ('udp 10.0.0.1 other.example MX 3', {})],
     NoData(0)),

    # other transports
    ('truncated', plan(), [(f'udp 10.0.0.1 {Q} 3', TRUNCATED), (f'tcp 10.0.0.1 {Q} 3', FOUND)], ANSWER),
    ('truncated, cut within a record', plan(),
     [(f'udp 10.0.0.1 {Q} 3', {**FOUND, **TRUNCATED, 'cut': 3}), (f'tcp 10.0.0.1 {Q} 3', FOUND)], ANSWER),
    ('truncated over TCP', plan(THREE),
     [(f'udp 10.0.0.1 {Q} 3', TRUNCATED), (f'tcp 10.0.0.1 {Q} 3', TRUNCATED), (f'udp 10.0.0.2:5353 {Q} 3', FOUND)],
     ANSWER),
    ('TCP is refused', plan(THREE),
     [(f'udp 10.0.0.1 {Q} 3', TRUNCATED), (f'tcp 10.0.0.1 {Q} 3', BROKEN), (f'udp 10.0.0.2:5353 {Q} 3', FOUND)],
     ANSWER),
    ('TCP is silent', plan(),
     [(f'udp 10.0.0.1 {Q} 3', TRUNCATED), (f'tcp 10.0.0.1 {Q} 3', SILENCE), (f'udp 10.0.0.1 {Q} 3', FOUND)], ANSWER),
    ('FORMERR, as of old servers, without the question', plan(),
     [(f'udp 10.0.0.1 {Q} 3', {'rcode': 1, 'question': False}), (f'udp 10.0.0.1 {Q} 3 plain', FOUND)], ANSWER),
    ('NOTIMP', plan(), [(f'udp 10.0.0.1 {Q} 3', {'rcode': 4}), (f'udp 10.0.0.1 {Q} 3 plain', FOUND)], ANSWER),
    ('BADVERS', plan(),
     [(f'udp 10.0.0.1 {Q} 3', {'additional': [b'\0\0\x29\4\xd0\1\0\0\0\0\0']}), (f'udp 10.0.0.1 {Q} 3 plain', FOUND)],
     ANSWER),
    ('FORMERR without EDNS', plan(),
     [(f'udp 10.0.0.1 {Q} 3', {'rcode': 1}), (f'udp 10.0.0.1 {Q} 3 plain', {'rcode': 1})],
     Failed('example.com MX: no nameserver gave a usable answer (10.0.0.1 answered FORMERR)')),

    # servers that fail
    ('silence', plan(),
     [(f'udp 10.0.0.1 {Q} 3', SILENCE), (f'udp 10.0.0.1 {Q} 3', SILENCE), (f'udp 10.0.0.1 {Q} 60', SILENCE)],
     Failed('example.com MX: no nameserver gave a usable answer (10.0.0.1 did not answer in time)')),
    ('silence goes round', plan(THREE, 4),
     [(f'udp 10.0.0.1 {Q} 3', SILENCE), (f'udp 10.0.0.2:5353 {Q} 3', SILENCE), (f'udp ::3 {Q} 3', SILENCE),
      (f'udp 10.0.0.1 {Q} 60', FOUND)], ANSWER),
    ('every server gets one query', plan(THREE, 1),
     [(f'udp 10.0.0.1 {Q} 3', SILENCE), (f'udp 10.0.0.2:5353 {Q} 3', SILENCE), (f'udp ::3 {Q} 60', FOUND)], ANSWER),
    ('refusals are final for a server', plan(THREE, 9),
     [(f'udp 10.0.0.1 {Q} 3', SERVFAIL), (f'udp 10.0.0.2:5353 {Q} 3', SILENCE), (f'udp ::3 {Q} 3', REFUSED),
      (f'udp 10.0.0.2:5353 {Q} 3', {'rcode': 9})],
     Failed('example.com MX: no nameserver gave a usable answer (10.0.0.1 answered SERVFAIL; 10.0.0.2:5353 answered 9; '
            '::3 answered REFUSED)')),
    ('SERVFAIL without the question', plan(THREE),
     [(f'udp 10.0.0.1 {Q} 3', {**SERVFAIL, 'question': False}), (f'udp 10.0.0.2:5353 {Q} 3', FOUND)], ANSWER),
    ('garbage', plan(THREE),
     [(f'udp 10.0.0.1 {Q} 3', {**FOUND, **GARBAGE}), (f'udp 10.0.0.2:5353 {Q} 3', FOUND)], ANSWER),
    ('a closed port gets its second chance after a pause', plan(THREE[:2], 4),
     [(f'udp 10.0.0.1 {Q} 3', BROKEN), (f'udp 10.0.0.2:5353 {Q} 3', SILENCE), (f'udp 10.0.0.1 {Q} 3 after 3', FOUND)],
     ANSWER),
]


@pytest.mark.parametrize(('how', 'dialogue', 'outcome'), [pytest.param(*row[1:], id=row[0]) for row in DIALOGUES])
def test_dialogues(how: Plan, dialogue: list[tuple[str, Any]], outcome: Any) -> None:
    lookup = Lookup(Question(NAME, Type.MX), how, 0, count(1).__next__)
    found = converse(lookup, dialogue)
    assert found == outcome and type(found) is type(outcome)
    assert lookup.ignored == 0


def test_only_absence_is_permanent() -> None:
    """Every reply code but NOERROR and NXDOMAIN, from every server, ends in Failed."""
    for rcode in set(range(16)) - {0, 3}:
        lookup = Lookup(Question(NAME, Type.A), plan(THREE), 0, count(1).__next__)
        step = lookup.next()
        while isinstance(step, Ask):
            play(lookup, step, {'rcode': rcode})
            step = lookup.next()
        assert isinstance(step, Failed)


def test_rotation() -> None:
    for first in range(3):
        lookup = Lookup(Question(NAME, Type.A), plan(THREE), first, count(1).__next__)
        asked = []
        for _ in range(3):
            ask = lookup.next()
            assert isinstance(ask, Ask)
            asked.append(ask.server)
            lookup.silent()
        assert asked == [THREE[(first + turn) % 3] for turn in range(3)]


def test_an_alias_chain_over_many_replies_is_bounded() -> None:
    lookup = Lookup(Question('0.example', Type.A), plan(), 0, count(1).__next__)
    dialogue = [(f'udp 10.0.0.1 {n}.example A 3', {'answers': [dns.alias(f'{n}.example', f'{n + 1}.example')]})
                for n in range(MAX_CHAIN + 1)]
    assert isinstance(converse(lookup, dialogue), Failed)


@pytest.mark.parametrize('forged', [
    dns.reply(2, NAME, 'MX', dns.mx(NAME, 0, 'evil')),
    dns.reply(1, 'example.org', 'MX', dns.mx(NAME, 0, 'evil')),
    dns.reply(1, NAME, 'A', dns.mx(NAME, 0, 'evil')),
    dns.reply(1, NAME, 'MX', dns.mx(NAME, 0, 'evil'), question=False),
    dns.reply(1, NAME, 'MX', rcode=3, question=False),
    dns.reply(1, NAME, 'MX', dns.mx(NAME, 0, 'evil'), flags=0x0180),
    dns.reply(1, NAME, 'MX', dns.mx(NAME, 0, 'evil'), flags=0x9180),
    dns.reply(2, NAME, 'MX', rcode=2),
    dns.reply(2, NAME, 'MX', truncated=True),
    dns.reply(2, NAME, 'MX')[:-1],
    b'\0\2', b'\1', b'',
], ids=['id', 'name', 'type', 'no question', 'NXDOMAIN without question', 'a query', 'opcode', 'id of SERVFAIL',
        'id of truncated', 'garbage with another id', 'two octets', 'one octet', 'nothing'])
def test_what_is_no_reply_is_ignored_and_counted(forged: bytes) -> None:
    lookup = Lookup(Question(NAME, Type.MX), plan(), 0, lambda: 1)
    ask = lookup.next()
    assert isinstance(ask, Ask)
    assert not lookup.heard(forged)
    assert not lookup.heard(forged)
    assert lookup.ignored == 2
    play(lookup, ask, FOUND)
    assert lookup.next() == ANSWER


def test_case_of_the_reply_does_not_matter() -> None:
    lookup = Lookup(Question(NAME, Type.MX), plan(), 0, lambda: 1)
    lookup.next()
    assert lookup.heard(dns.reply(1, 'EXAMPLE.Com', 'MX', dns.mx('exAMPLE.com', 10, 'MX.example.com')))
    assert lookup.next() == ANSWER


def test_every_query_has_an_id_of_its_own() -> None:
    lookup = Lookup(Question(NAME, Type.MX), plan(), 0, count(1).__next__)
    for query_id in (1, 2, 3):
        ask = lookup.next()
        assert isinstance(ask, Ask) and dns.read_query(ask.query).id == query_id
        assert not lookup.heard(dns.reply(query_id - 1, NAME, 'MX', dns.mx(NAME, 1, 'late')))
        lookup.silent()


def test_a_name_that_cannot_be_asked_for() -> None:
    with pytest.raises(FormatError):
        Lookup(Question('a..b', Type.A), plan(), 0, lambda: 1)
