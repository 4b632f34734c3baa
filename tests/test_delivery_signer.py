"""What signs a message on its way out: the keys of the database, and what DNS says of the seals before ours."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import ExitStack
from pathlib import Path
from struct import pack
from typing import Callable

import dkim
import pytest

from mqlite.database.live import Database
from mqlite.database.signing_keys import SigningKeys
from mqlite.delivery.signer import MailSigner
from mqlite.dkim.sign import read_property
from mqlite.message.headers import sender_of
from tests.support import dns
from tests.support.database import Notes, execute, insert, make_database
from tests.support.dns import Query
from tests.support.dns_bench import Bench, silent
from tests.support.signing import answer as dns_answer
from tests.support.signing import key_pair, records

MIME = b'From: Joe <joe@Example.org>\r\nSubject: hi\r\n\r\nbody\r\n'


class Signing:
    """A signer on a reactor of its own, with a nameserver and a database."""

    def __init__(self, folder: Path, script: Callable[[Query], list[bytes]], *statements: str) -> None:
        self.bench, self.notes = Bench(folder, script), Notes()
        stored = None
        if statements:
            path = str(folder / 'database.db')
            make_database(path).close()
            execute(path, *statements)
            stored = SigningKeys(Database(self.bench.reactor, make_database(path), 600, self.notes))
        self.signer = MailSigner(self.bench.reactor.clock, self.bench.resolver, 'mx.example.org', stored)

    def sign(self, mime: bytes, *entries: dict[str, object]) -> bytes:
        sign = self.signer.for_message(read_property(list(entries)))
        signed: bytes = mime if sign is None else self.bench.run(_done(sign(mime)))
        return signed


async def _done(work: Awaitable[bytes]) -> bytes:
    return await work


@pytest.fixture
def make(tmp_path: Path, closing: ExitStack) -> Callable[..., Signing]:
    """make(statement, ..., script=...): a signer; with statements, they fill its database."""
    def start(*statements: str, script: Callable[[Query], list[bytes]] = published) -> Signing:
        signing = Signing(tmp_path, script, *statements)
        closing.callback(signing.bench.close)
        return signing
    return start


def published(query: Query) -> list[bytes]:
    """The nameserver: it has the keys, long ones in several strings."""
    text = records().get(query.name, '').encode()
    if not text:
        return [dns.reply(query.id, query.name, query.type, authority=[dns.soa('example.org', 600, 600)], rcode=3)]
    strings = b''.join(pack('B', len(part)) + part for part in (text[at:at + 200] for at in range(0, len(text), 200)))
    return [dns.reply(query.id, query.name, query.type, dns.record(query.name, 'TXT', 300, strings))]


def stored_key(number: int, kind: str = 'rsa', **columns: object) -> str:
    pem = key_pair(kind).pem
    values = {'id': number, 'domain': 'Example.org', 'selector': kind, 'privatekey': pem}
    return insert('dkim_keys', **{**values, **columns})


def pattern(sign: str, kind: str, key: int) -> str:
    return insert('dkim_patterns', sign=sign, type=kind, dkim_key=key)


@pytest.mark.parametrize(('sign', 'kind', 'signs'), [
    ('example.org',      'exact',   True),
    ('EXAMPLE.ORG',      '',        True),
    ('joe@example.org',  'exact',   True),
    ('example.com',      'exact',   False),
    ('*.org',            'fnmatch', True),
    ('*.com',            'fnmatch', False),
    ('xample',           'substr',  True),
    (r'^ex.mple\.',      'regex',   True),
    ('',                 'global',  True),
    ('',                 'exact',   False),
])
def test_patterns_of_the_database(make: Callable[..., Signing], sign: str, kind: str, signs: bool) -> None:
    signed = make(stored_key(7), pattern(sign, kind, 7)).sign(MIME)
    assert dkim.verify(signed, dnsfunc=dns_answer) if signs else signed == MIME


def test_a_key_of_the_database_signs_once_and_beside_those_of_the_document(make: Callable[..., Signing]) -> None:
    signing = make(stored_key(1, expire=10 ** 9), pattern('', 'global', 1), pattern('example.org', '', 1))
    signed = signing.sign(MIME, key_pair('ed25519').entry())
    assert signed.count(b'DKIM-Signature:') == 2
    assert b'x=2700000000' in signed
    assert all(dkim.DKIM(signed).verify(number, dnsfunc=dns_answer) for number in (0, 1))


def test_rows_that_cannot_be_used_are_named(make: Callable[..., Signing]) -> None:
    signing = make(stored_key(1, privatekey='secret'), stored_key(2), pattern('(', 'regex', 2),
                   pattern('', 'global', 9))
    assert signing.sign(MIME) == MIME
    lines = [line for line in signing.notes.lines if 'left out' in line]
    assert lines == ['warning: row 1 of table dkim_keys (Example.org) is left out: it is not in PEM form: '
                     '-----BEGIN ... PRIVATE KEY-----',
                     "warning: row 1 of table dkim_patterns is left out: '(' is no regular expression: missing ), "
                     "unterminated subpattern at position 0"]


def test_without_keys_nothing_is_done(make: Callable[..., Signing]) -> None:
    assert make().sign(MIME) is MIME
    assert make(pattern('', 'global', 1)).sign(MIME) is MIME


def test_a_chain_goes_on(make: Callable[..., Signing]) -> None:
    entry, signing = key_pair('rsa').entry(protocols=['arc']), make()
    twice = signing.sign(signing.sign(MIME, entry), entry)
    assert dkim.arc_verify(twice, dnsfunc=dns_answer)[0] == b'pass'
    assert twice.count(b'ARC-Seal:') == 2
    assert [query.type for query in signing.bench.queries] == ['TXT']  # nothing was to be asked for the first one


def test_a_key_that_is_not_published_breaks_the_chain(make: Callable[..., Signing]) -> None:
    entry, signing = key_pair('rsa').entry(protocols=['arc']), make()
    twice = signing.sign(signing.sign(MIME, {**entry, 'selector': 'other'}), entry)
    assert b'cv=fail' in twice


def test_when_dns_cannot_say_nothing_is_sealed(make: Callable[..., Signing]) -> None:
    entry = key_pair('rsa').entry(protocols=['dkim', 'arc'])
    signed = make(script=silent).sign(make().sign(MIME, {**entry, 'protocols': ['arc']}), entry)
    assert signed.count(b'ARC-Seal:') == 1 and signed.count(b'DKIM-Signature:') == 1


@pytest.mark.parametrize(('mime', 'sender'), [
    (MIME,                                                       'joe@Example.org'),
    (b'FROM :\r\n =?utf-8?q?J=C3=B6?= <a@b.c>, d@e.f\r\n\r\n',   'a@b.c'),
    (b'Subject: From: x@y.z\r\n\r\nFrom: body@y.z\r\n',          ''),
    (b'From: undisclosed\r\n\r\n',                               'undisclosed'),
    (b'From:\r\n\r\n',                                           ''),
])
def test_the_sender_in_from(mime: bytes, sender: str) -> None:
    assert sender_of(mime) == sender
