"""What signs a message and how the fields look; held against dkimpy, which verifies DKIM and ARC."""

from __future__ import annotations

import random
import re
import time
from typing import Any

import dkim
import pytest

from mqlite.dkim.sign import Message, read_property
from mqlite.message.document import DocumentError
from tests.support.signing import answer, key_pair, message, records, traditional

NOW = 1_700_000_000.0
MIME = b'From: a@example.org\r\nSubject: hi\r\nX-Own: 1\r\nReceived: x\r\n\r\nbody\r\n'
FORMS = [f'{header}/{body}' for header in ('simple', 'relaxed') for body in ('simple', 'relaxed')]


def sign(mime: bytes, *entries: dict[str, object], verdict: str = 'none') -> bytes:
    return Message(mime).signed(read_property(list(entries)), verdict, 'mx.example.org', NOW)


def seal(mime: bytes) -> bytes:
    """The message with one more ARC set, the chain before it judged by us."""
    parsed = Message(mime)
    return parsed.signed(read_property(key_pair('rsa').entry(protocols=['arc'])), parsed.judge(records()),
                         'mx.example.org', NOW)


def tags(mime: bytes, name: bytes) -> dict[str, str]:
    """The tags of the first field of this name, white space taken out."""
    match = re.search(rb'^%s:((?:.*\r\n[ \t])*.*)\r\n' % name, mime, re.MULTILINE | re.IGNORECASE)
    assert match, mime
    pairs = (part.partition(b'=')[::2] for part in re.sub(rb'\s', b'', match[1]).split(b';'))
    return {tag.decode(): value.decode() for tag, value in pairs}


@pytest.mark.parametrize('kind', ['rsa', 'ed25519'])
@pytest.mark.parametrize('forms', FORMS)
def test_dkimpy_verifies_messages_of_every_shape(kind: str, forms: str) -> None:
    dice = random.Random(forms)
    for number in range(15):
        mime = message(dice)
        signed = sign(mime, key_pair(kind).entry(canonicalization=forms, headers=['x-own', 'comments']))
        assert signed.endswith(mime)
        assert dkim.verify(signed, dnsfunc=answer), (number, signed)
        assert all(len(line) <= 78 for line in signed[:-len(mime)].split(b'\r\n'))


def test_dkimpy_finds_a_changed_message() -> None:
    signed = sign(MIME, key_pair('rsa').entry(headers=['x-own']))
    for before, after in ((b'body', b'Body'), (b'hi', b'ho'), (b'X-Own: 1', b'X-Own: 2')):
        assert not dkim.verify(signed.replace(before, after), dnsfunc=answer)
    # From is signed once more than it is there
    assert not dkim.verify(b'From: b@example.org\r\n' + signed, dnsfunc=answer)
    assert dkim.verify(signed.replace(b'Received: x', b'Received: y'), dnsfunc=answer)


@pytest.mark.parametrize('forms', FORMS)
def test_dkimpy_verifies_chains(forms: str) -> None:
    dice = random.Random(forms)
    for _ in range(4):
        signed = sign(message(dice), key_pair('rsa').entry(canonicalization=forms, protocols=['dkim', 'arc']))
        assert dkim.verify(signed, dnsfunc=answer)
        assert dkim.arc_verify(signed, dnsfunc=answer)[0] == b'pass'
        longer = seal(b'Received: on the way\r\n' + signed)
        assert tags(longer, b'ARC-Seal')['cv'] == 'pass'
        verdict, sets, reason = dkim.arc_verify(longer, dnsfunc=answer)
        assert (verdict, len(sets)) == (b'pass', 2), reason


def test_each_key_for_arc_adds_a_set() -> None:
    entry = key_pair('rsa').entry(protocols=['dkim', 'arc'])
    signed = sign(MIME, entry, {**entry, 'protocols': ['arc']})
    verdict, sets, reason = dkim.arc_verify(signed, dnsfunc=answer)
    assert (verdict, len(sets)) == (b'pass', 2), reason
    assert signed.count(b'DKIM-Signature:') == 1


def test_a_broken_chain_is_said_to_be_broken_and_then_left_alone() -> None:
    broken = seal(seal(MIME).replace(b'body', b'Body'))
    assert tags(broken, b'ARC-Seal')['cv'] == 'fail'
    assert seal(broken) == broken


@pytest.mark.parametrize(('before', 'after'), [
    (b'i=1',       b'i=2'),
    (b'i=1',       b'i=0'),
    (b'i=1',       b'i=x'),
    (b'cv=none',   b'cv=pass'),
    (b'ARC-Seal:', b'X-Seal:'),
    (b's=rsa',     b's=other'),
    (b'h=from',    b'h=arc-seal:from'),
    (b'c=relaxed', b'c=odd'),
    (b'bh=',       b'xh='),
    (b'ARC-Authentication-Results: i=1; mx', b'ARC-Authentication-Results: i=1; my'),
    (b'ARC-Authentication-Results: i=1; mx.example.org; none\r\n', b''),
    (b'From:',     b'ARC-Authentication-Results: i=1; twice\r\nFrom:'),
])
def test_chains_that_do_not_hold(before: bytes, after: bytes) -> None:
    sealed = seal(MIME)
    assert Message(sealed).judge(records()) == 'pass'
    changed = sealed.replace(before, after, 1)
    assert changed != sealed
    assert Message(changed).judge(records()) == 'fail'


@pytest.mark.parametrize('record', ['', 'v=DKIM1; p=', 'v=DKIM2; p=AAAA', 'k=ed25519; p=AAAA', 'v=DKIM1; p=%%%',
                                    'v=DKIM1; p=MAA=', 'v=DKIM1; p=AAAA; p=AAAA'])
def test_keys_that_are_not_published_as_they_should(record: str) -> None:
    assert Message(seal(MIME)).judge({'rsa._domainkey.example.org': record}) == 'fail'


def test_without_a_verdict_nothing_is_sealed() -> None:
    signed = sign(MIME, key_pair('rsa').entry(protocols=['dkim', 'arc']), verdict='')
    assert b'ARC-' not in signed and b'DKIM-Signature' in signed


def test_what_is_signed() -> None:
    found = tags(sign(MIME, key_pair('rsa').entry(headers=['X-Own', 'x-none', 'received'])), b'DKIM-Signature')
    assert found['h'] == 'from:from:subject:x-own'
    assert (found['v'], found['a'], found['c'], found['d'], found['s'], found['t']) == (
        '1', 'rsa-sha256', 'relaxed/simple', 'example.org', 'rsa', '1700000000')
    assert not {'x', 'r', 'l'} & set(found)


def test_expire_and_report() -> None:
    entry = key_pair('rsa').entry(expire='2030-01-01 00:00:00', report=True)
    found = tags(sign(MIME, entry), b'DKIM-Signature')
    assert (found['x'], found['r']) == ('1893456000', 'y')
    assert sign(MIME, {**entry, 'expire': '2020-01-01 00:00:00'}) == MIME


def test_all_keys_sign_and_the_same_one_once() -> None:
    rsa, ed25519 = key_pair('rsa').entry(), key_pair('ed25519').entry()
    signed = sign(MIME, rsa, ed25519, {**rsa, 'key': traditional(key_pair('rsa').pem)})
    assert signed.count(b'DKIM-Signature:') == 2
    assert dkim.verify(signed, dnsfunc=answer) and dkim.DKIM(signed).verify(1, dnsfunc=answer)


@pytest.mark.parametrize(('change', 'why'), [
    ('text',                                        'must be an object'),
    ({'domain': None},                              '"dkim.domain" is missing'),
    ({'selector': ''},                              '"dkim.selector" is missing'),
    ({'key': 5},                                    '"dkim.key" is missing'),
    ({'key': 'x'},                                  'not in PEM form'),
    ({'domain': 'a;b'},                             'names as DNS has them'),
    ({'selector': 'x\r\nY: z'},                     'names as DNS has them'),
    ({'canonicalization': 'loose'},                 '"dkim.canonicalization"'),
    ({'canonicalization': 5},                       '"dkim.canonicalization"'),
    ({'headers': [5]},                              '"dkim.headers"'),
    ({'headers': ['a:b']},                          '"dkim.headers"'),
    ({'expire': 'tomorrow'},                        '"dkim.expire"'),
    ({'protocols': 'dkim'},                         '"dkim.protocols"'),
    ({'protocols': ['pgp']},                        '"dkim.protocols"'),
])
def test_a_property_of_the_wrong_form_is_named(change: Any, why: str) -> None:
    entry = {**key_pair('rsa').entry(), **change} if isinstance(change, dict) else change
    with pytest.raises(DocumentError, match=re.escape(why)):
        read_property(entry)


@pytest.mark.parametrize('field', [
    b'ARC-Seal: i=1; a=x' + b'\r\n\t' * 50000 + b'y; cv=none', b'ARC-Message-Signature: i=1; b=' + b' ' * 200000 + b'=',
    b'ARC-Seal: ' + b'a ' * 50000, b'ARC-Authentication-Results: i' + b' ' * 100000,
], ids=['folded', 'spaces', 'words', 'results'])
def test_a_huge_field_costs_time_in_proportion(field: bytes) -> None:
    """It is looked at whatever the keys are for."""
    begin = time.process_time()
    assert Message(b'From: a@b\r\n' + field + b'\r\n\r\nbody\r\n').chain is not None
    assert time.process_time() - begin < 2.0


def test_arc_needs_rsa() -> None:
    with pytest.raises(DocumentError, match='ARC needs an RSA key'):
        read_property(key_pair('ed25519').entry(protocols=['arc']))
    assert read_property(None) == read_property([]) == []
    with pytest.raises(DocumentError, match='more than 10'):
        read_property([key_pair('rsa').entry()] * 11)
