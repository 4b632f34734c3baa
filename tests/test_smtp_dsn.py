"""The DSN extension as text: xtext, the parameters as clients write them and as we write them."""

from __future__ import annotations

import random

import pytest

from mqlite.smtp.dsn import (
    NOTHING,
    Request,
    decode_xtext,
    encode_address,
    encode_xtext,
    make_request,
    parse_envid,
    parse_notify,
    parse_orcpt,
    parse_ret,
    split_orcpt,
)
from mqlite.smtp.grammar import SyntaxFault

XTEXT = [
    ('', ''),
    ('plain!*,-<>~', 'plain!*,-<>~'),
    ('a+b', 'a+2Bb'),
    ('a=b c', 'a+3Db+20c'),
    ('+2B', '+2B2B'),
]


@pytest.mark.parametrize(('text', 'wire'), XTEXT)
def test_xtext(text: str, wire: str) -> None:
    assert (encode_xtext(text), decode_xtext(wire)) == (wire, text)


def test_every_printable_text_survives() -> None:
    generator = random.Random(3461)
    alphabet = [chr(code) for code in range(32, 127)]
    for _ in range(2000):
        text = ''.join(generator.choices(alphabet, k=generator.randrange(20)))
        wire = encode_xtext(text)
        assert decode_xtext(wire) == text and ' ' not in wire and '=' not in wire


@pytest.mark.parametrize('wire', [
    '+', 'a+', '+2', '+2b', '+GG', '+2 ', 'a b', 'a=b', 'é', '\x7f', '+00', '+0A', '+0D+0A', '+7F', '+E9', '+ 1',
    'a\n'])
def test_no_xtext(wire: str) -> None:
    with pytest.raises(SyntaxFault):
        decode_xtext(wire)


@pytest.mark.parametrize('text', ['é', 'a\n', '\0', '\x7f', '\udcff'])
def test_text_that_xtext_cannot_hold(text: str) -> None:
    with pytest.raises(SyntaxFault):
        encode_xtext(text)


@pytest.mark.parametrize(('value', 'events'), [
    ('NEVER', 'NEVER'), ('never', 'NEVER'), ('success', 'SUCCESS'), ('DELAY,SUCCESS', 'DELAY,SUCCESS'),
    ('SUCCESS,FAILURE,DELAY', 'SUCCESS,FAILURE,DELAY'), ('Success, Failure', 'SUCCESS,FAILURE'),
    ('SUCCESS,success', 'SUCCESS')])
def test_notify(value: str, events: str) -> None:
    assert parse_notify(value) == events


@pytest.mark.parametrize('value', ['', ',', 'NEVER,SUCCESS', 'NEVER,NEVER,DELAY', 'SUCCESS,', 'ALWAYS', 'DELAY;DELAY'])
def test_bad_notify(value: str) -> None:
    with pytest.raises(SyntaxFault, match='^NOTIFY=NEVER, or some of'):
        parse_notify(value)


def test_ret_and_envid() -> None:
    assert (parse_ret('full'), parse_ret('HDRS')) == ('FULL', 'HDRS')
    assert parse_envid('QQ314159+2B') == 'QQ314159+' and parse_envid('x' * 100) == 'x' * 100


@pytest.mark.parametrize('value', ['', 'BODY', 'FULL,HDRS'])
def test_bad_ret(value: str) -> None:
    with pytest.raises(SyntaxFault, match='^RET=FULL or RET=HDRS$'):
        parse_ret(value)


@pytest.mark.parametrize('value', ['', 'x' * 101, '+20' * 34, '+0A', 'a=b'])
def test_bad_envid(value: str) -> None:
    with pytest.raises(SyntaxFault):
        parse_envid(value)


#   on the wire                           SMTPUTF8  what it says, and how we write it: without SMTPUTF8, and with it
ORCPT = [
    ('rfc822;a@b',                        False, 'rfc822;a@b',      'rfc822;a@b',                  'rfc822;a@b'),
    ('RFC822;a+2Bc@b',                    False, 'RFC822;a+c@b',    'RFC822;a+2Bc@b',              'RFC822;a+2Bc@b'),
    ('rfc822;"a+20;"@d',                  False, 'rfc822;"a ;"@d',  'rfc822;"a+20;"@d',            'rfc822;"a+20;"@d'),
    ('x400;c+3Duk',                       False, 'x400;c=uk',       'x400;c+3Duk',                 'x400;c+3Duk'),
    ('utf-8;a@b',                         False, 'utf-8;a@b',       'utf-8;a@b',                   'utf-8;a@b'),
    (r'utf-8;\x{fc}\x{2B}@b',             False, 'utf-8;ü+@b',      r'utf-8;\x{FC}\x{2B}@b',       r'utf-8;ü\x{2B}@b'),
    (r'utf-8;\x{1F600}@b',                True,  'utf-8;😀@b',      r'utf-8;\x{1F600}@b',          'utf-8;😀@b'),
    ('utf-8;ü@b',                         True,  'utf-8;ü@b',       r'utf-8;\x{FC}@b',             'utf-8;ü@b'),
    (r'utf-8;"\x{5C}\x{5C}\x{20}"@b',     False, r'utf-8;"\\ "@b',  r'utf-8;"\x{5C}\x{5C}\x{20}"@b',
     r'utf-8;"\x{5C}\x{5C}\x{20}"@b'),
]


@pytest.mark.parametrize(('wire', 'utf8', 'text', 'plain', 'international'), ORCPT)
def test_orcpt(wire: str, utf8: bool, text: str, plain: str, international: str) -> None:
    assert parse_orcpt(wire, utf8) == text
    assert (encode_address(text, False), encode_address(text, True)) == (plain, international)
    assert parse_orcpt(plain, False) == parse_orcpt(international, True) == text


@pytest.mark.parametrize('wire', [
    '', 'a@b', 'rfc822;', ';a@b', 'rfc 822;a@b', 'rfc822;a b', 'rfc822;+0A', 'rfc822;ü@b', 'rfc822;' + 'x' * 500,
    'utf-8;ü@b', r'utf-8;\x{}', r'utf-8;\x{A}', r'utf-8;\x{110000}', r'utf-8;\x{D800}', r'utf-8;\x{0A}',
    r'utf-8;\y', 'utf-8;a+b', 'utf-8;a=b', r'utf-8;\x{202E}'])
def test_bad_orcpt(wire: str) -> None:
    with pytest.raises(SyntaxFault):
        parse_orcpt(wire, False)


@pytest.mark.parametrize('wire', ['rfc822;ü@b', 'utf-8;\udcff@b', 'utf-8;\u2028@b', 'utf-8;ü+@b'])
def test_bad_orcpt_with_smtputf8(wire: str) -> None:
    with pytest.raises(SyntaxFault):
        parse_orcpt(wire, True)


@pytest.mark.parametrize(('text', 'kind', 'address'), [
    ('a@b', 'rfc822', 'a@b'), ('ü@b', 'utf-8', 'ü@b'), ('rfc822;a@b', 'rfc822', 'a@b'), ('x-y;z', 'x-y', 'z'),
    ('"a;b"@c', 'rfc822', '"a;b"@c')])
def test_the_type_of_an_address(text: str, kind: str, address: str) -> None:
    assert split_orcpt(text) == (kind, address)


def test_a_request_as_parameters() -> None:
    request = make_request('success, delay', 'hdrs', 'a b', 'ü@b')
    assert request == Request(('SUCCESS', 'DELAY'), 'HDRS', 'a b', 'ü@b')
    assert request.mail_parameters() == ' RET=HDRS ENVID=a+20b'
    assert request.rcpt_parameters(False) == r' NOTIFY=SUCCESS,DELAY ORCPT=utf-8;\x{FC}@b'
    assert request.rcpt_parameters(True) == ' NOTIFY=SUCCESS,DELAY ORCPT=utf-8;ü@b'
    assert make_request('', '', '', '') is NOTHING
    assert NOTHING.mail_parameters() == NOTHING.rcpt_parameters(True) == ''


@pytest.mark.parametrize('said', [
    ('SOMETIMES', '', '', ''), ('NEVER,DELAY', '', '', ''), ('', 'ALL', '', ''), ('', '', 'a\r\nRCPT TO:<x@y>', ''),
    ('', '', 'é', ''), ('', '', 'x' * 101, ''), ('', '', ' ' * 34, ''), ('', '', '', 'rfc822;'),
    ('', '', '', 'a@b\r\n'), ('', '', '', 'utf-8;a\nb'), ('', '', '', 'rfc822;ü@b'), ('', '', '', 'é' * 84)])
def test_what_cannot_be_asked_for(said: tuple[str, str, str, str]) -> None:
    with pytest.raises(SyntaxFault):
        make_request(*said)
