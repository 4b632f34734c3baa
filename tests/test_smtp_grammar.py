"""The grammar of SMTP arguments: paths, addresses, parameters, hello names, and what may be shown of them."""

from __future__ import annotations

import random
import time

import pytest

from mqlite.smtp.grammar import (
    PATH_LIMIT,
    SyntaxFault,
    check_address,
    check_helo,
    parse_literal,
    parse_parameters,
    parse_path,
    printable,
    split_address,
)

LONGEST = f'{"l" * 64}@{".".join(["d" * 63] * 2)}.{"e" * (PATH_LIMIT - 2 - 65 - 128)}'[:PATH_LIMIT - 2]

GOOD_ADDRESSES = [
    'a@b',
    'user@example.org',
    'User+tag@EXAMPLE.org',
    "!#$%&'*+/=?^_`{|}~-@example.org",
    'a.b.c@x-y.example',
    '""@example.org',
    '"a b"@example.org',
    '"a@b"@example.org',
    r'"a\"b\\c"@example.org',
    '"<>,;:"@example.org',
    'a@1.2.3.4',                        # a domain of digits
    'a@_spf.example.org',               # underscores are no host names, but they are in use
    'é@b', '"é "@b', 'ａ@b', 'a@é', 'a@ß.example', '用户@例子.测试', 'é@[192.0.2.1]', '👪@b', 'अजय@डाटा.भारत',
    'بامداد‌@نامه‌ای.example',                 # a joiner, which has no width
    f'{"é" * 125}@bbb',
    'a@[192.0.2.1]',
    'a@[IPv6:2001:db8::1]',
    'a@[ipv6:::ffff:192.0.2.1]',
    f'{"v" * 150}@example.org',         # VERP: more than the 64 octets that everybody must take
    f'a@{"d" * 63}.example',
    LONGEST,
]

BAD_ADDRESSES = [
    '', '@', 'a', 'a@', '@b', 'a@b@c', 'a b@c', 'a@b c', ' a@b', 'a@b ', 'a@b.', 'a@.b', 'a@b..c', '.a@b', 'a.@b',
    'a..b@c',
    'a@-b', 'a@b-', f'a@{"d" * 64}.example', 'a@b\r', 'a@b\n', 'a\r\n@b', 'a\0@b', 'a@b\0', 'a\t@b', 'a\x7f@b',
    '"a"b@c', 'a"b"@c', '"a@b', '"a"@', '"a""b"@c', '"a\n"@b', '"a\0"@b', '"a\\"@b', '"\t"@b', 'a@\udcff',
    '\udcc3\udca9@b', 'a@b,c@d', '<a@b>', 'a(comment)@b', 'a@b>c', 'a@b;c', 'a@b/c',
    'a@[]', 'a@[1.2.3]', 'a@[1.2.3.256]', 'a@[1.2.3.4/8]', 'a@[192.0.2.1', 'a@192.0.2.1]', 'a@[::1]', 'a@[IPv6:]',
    'a@[IPv6:1]', 'a@[IPv6:::1%eth0]', 'a@[IPv6:fe80::1%>x]', 'a@[IPv4:1.2.3.4]', 'a@[tag:text]', 'a@[1.2.3.4]x',
    'a@[١.2.3.4]', LONGEST + 'x', 'x' * 100000,
    'a\u0301\u202e@b', 'é\u2028@b', 'é\xa0x@b', '"é\n"@b', 'é\x85@b', '\ue000@b', f'{"é" * 126}@bbb',
    'a@ｂ', 'a@é．b', 'a@é。b', 'a@é｡b', 'a@e\u0301', 'a@é b', 'a@é..b', 'a@-é', 'é', 'é@', '@é', 'é@[é]',
    f'{"a." * 50000}@b', '"' * 100000,
]


@pytest.mark.parametrize('address', GOOD_ADDRESSES)
def test_good_address(address: str) -> None:
    check_address(address)
    assert parse_path(f'<{address}>') == (address, {})
    local, domain = split_address(address)
    assert f'{local}@{domain}' == address and '@' not in domain


@pytest.mark.parametrize('address', BAD_ADDRESSES, ids=lambda text: ascii(text[:30]))
def test_bad_address(address: str) -> None:
    with pytest.raises(SyntaxFault):
        check_address(address)
    if address:  # `<>` is the null reverse-path
        with pytest.raises(SyntaxFault):
            parse_path(f'<{address}>')


@pytest.mark.parametrize(('text', 'address', 'parameters'), [
    ('<>', '', {}),
    ('<> SIZE=1', '', {'SIZE': '1'}),
    ('<a@b> BODY=8BITMIME size=10', 'a@b', {'BODY': '8BITMIME', 'SIZE': '10'}),
    ('<a@b>   X  Y-Z=1  ', 'a@b', {'X': '', 'Y-Z': '1'}),
    ('<@x:a@b>', 'a@b', {}),
    ('<@x.example,@y.example:"q, @z:"@b>', '"q, @z:"@b', {}),
    ('<"a>b"@c> X', '"a>b"@c', {'X': ''}),
    (r'<"a\">b"@c>', r'"a\">b"@c', {}),
])
def test_paths(text: str, address: str, parameters: dict[str, str]) -> None:
    assert parse_path(text) == (address, parameters)


@pytest.mark.parametrize(('text', 'complaint'), [
    ('', 'angle brackets'),
    ('a@b', 'angle brackets'),
    ('<a@b', 'angle brackets'),
    ('a@b>', 'angle brackets'),
    ('<a@b>SIZE=1', 'angle brackets'),
    ('<<a@b>>', 'angle brackets'),
    ('<"a>@b>', 'angle brackets'),
    ('<a@b> <c@d>', 'bad parameter <c@d>'),
    ('<a@b> A=1 a=2', 'A given twice'),
    ('<a@b> =1', 'bad parameter'),
    ('<a@b> -A=1', 'bad parameter'),
    ('<a@b> A=b=c', 'bad parameter'),
    ('<a@b> A\x01', r'bad parameter A\\x01'),
    ('<a@b>\tSIZE=1', 'angle brackets'),
    ('<a@b> A\tB', r'bad parameter A\\x09B'),
    ('<a@b> Ä=1', r'bad parameter \\xc4=1'),
    ('<a@b> é', r'bad parameter \\xe9'),
    ('<@x:>', 'address is missing'),
    ('<@x,y:a@b>', 'not valid'),
    ('<@x a@b>', 'not valid'),
    ('<postmaster>', 'no domain'),
    (f'<@x:{LONGEST}x>', 'longer than 254'),
])
def test_bad_paths(text: str, complaint: str) -> None:
    with pytest.raises(SyntaxFault, match=complaint):
        parse_path(text)


LOOSE = ['a..b@c', '.a@c', 'a.@c', 'a b@c', 'a@b@c', '"@c', 'a"b@c', '"a"b@c', '\\@c', '(a)@c', 'a,b;c:d@e', 'é..é@c',
         '[a]@c', ' a @c', f'{"." * 250}@c']
NEITHER = ['', '@c', 'a', 'a@', 'a@b..c', 'a@-b', 'a@b c', 'a<b@c', 'a>b@c', 'a>@c', '<a@c', 'a\r@c', 'a\nb@c', 'a\0@c',
           'a\t@c', 'a\x7f@c', '\udcff@c', 'é\x85@c', 'é\u2028@c', f'{"." * 254}@c', 'a@[1.2.3]', 'a@ｃ']


@pytest.mark.parametrize('address', LOOSE)
def test_what_is_good_only_loosely(address: str) -> None:
    check_address(address, loose=True)
    assert parse_path(f'<{address}> X=1', loose=True) == (address, {'X': '1'})
    with pytest.raises(SyntaxFault):
        check_address(address)
    with pytest.raises(SyntaxFault):
        parse_path(f'<{address}>')


@pytest.mark.parametrize('address', GOOD_ADDRESSES)
def test_what_is_good_strictly_is_good_loosely(address: str) -> None:
    check_address(address, loose=True)
    assert parse_path(f'<{address}>', loose=True) == (address, {})


@pytest.mark.parametrize('address', NEITHER, ids=lambda text: ascii(text[:30]))
def test_what_is_not_even_good_loosely(address: str) -> None:
    with pytest.raises(SyntaxFault):
        check_address(address, loose=True)


@pytest.mark.parametrize(('text', 'address', 'parameters'), [
    ('<>', '', {}), ('<@x:a..b@c> Y', 'a..b@c', {'Y': ''}), ('<"a>b"@c>', '"a>b"@c', {}),
    ('<a"@c> X', 'a"@c', {'X': ''})])
def test_loose_paths(text: str, address: str, parameters: dict[str, str]) -> None:
    assert parse_path(text, loose=True) == (address, parameters)


@pytest.mark.parametrize('text', ['a..b@c', '<a..b@c', '<a..b@c>X', '<a..b@c> <d@e>', '<a"b>c"@d>', '<a@b> <c@d>'])
def test_bad_loose_paths(text: str) -> None:
    with pytest.raises(SyntaxFault):
        parse_path(text, loose=True)


@pytest.mark.parametrize('name', ['postmaster', 'Postmaster', 'POSTMASTER'])
def test_postmaster_needs_no_domain_where_there_is_a_home(name: str) -> None:
    assert parse_path(f'<{name}>', 'mx.example') == (f'{name}@mx.example', {})
    with pytest.raises(SyntaxFault, match='no domain'):
        parse_path('<webmaster>', 'mx.example')


def test_parameters_are_empty_without_text() -> None:
    assert parse_parameters('') == parse_parameters('   ') == {}


@pytest.mark.parametrize(('domain', 'address'), [
    ('[192.0.2.1]', '192.0.2.1'),
    ('[IPv6:2001:DB8:0:0::1]', '2001:db8::1'),
])
def test_literal(domain: str, address: str) -> None:
    assert parse_literal(domain) == address


@pytest.mark.parametrize('name', [
    'example.org', 'example.org.', 'localhost', 'A-b.C', '127.0.0.1', '_x.y', '[127.0.0.1]', '[IPv6:::1]', 'd' * 63])
def test_good_hello(name: str) -> None:
    check_helo(name)


@pytest.mark.parametrize('name', [
    '', '.', 'a..', 'a..b', '.a', 'a b', 'a\tb', 'a\0', 'a\r', 'é.example', '-a', 'a-', 'd' * 64, '[', '[]',
    '[127.0.0.1', '[a]',
    '[::1]', '[IPv6:::1%\0]', '[IPv6:::1%a\r\nb]', '[IPv6:::1% ]', '<script>', 'a(b)', f'{"a." * 127}bc', 'a' * 100000])
def test_bad_hello(name: str) -> None:
    with pytest.raises(SyntaxFault):
        check_helo(name)


@pytest.mark.parametrize(('text', 'shown'), [
    ('plain ~', 'plain ~'),
    ('a\r\nb\0\x7f', r'a\x0d\x0ab\x00\x7f'),
    ('é€😀\udcff', r'\xe9\x20ac\x1f600\xdcff'),
    ('x' * 61, 'x' * 60 + '...'),
])
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def reference_is_local_part(text: str) -> bool:
    """RFC 5321 4.1.2, Local-part, letter by letter."""
    if text[:1] != '"':
        atext = set('é') | set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~")
        return all(atom and set(atom) <= atext for atom in text.split('.'))
    at = 1
    while at < len(text):
        if text[at] == '"':
            return at == len(text) - 1
        at += 1 if text[at] == '\\' else 0
        if at >= len(text) or not (' ' <= text[at] <= '~' or (text[at] == 'é' and text[at - 1] != '\\')):
            return False
        at += 1
    return False


def test_random_local_parts_against_the_reference() -> None:
    generator, good = random.Random(5321), 0
    for _ in range(20000):
        inside = ''.join(generator.choice('ab.."\\ @<>\0é\r') for _ in range(generator.randrange(6)))
        local = generator.choice([inside, f'"{inside}"'])
        expected = reference_is_local_part(local)
        good += expected
        try:
            check_address(f'{local}@example.org')
            assert expected, local
        except SyntaxFault:
            assert not expected, local
    assert 1000 < good < 19000


@pytest.mark.parametrize('text', [
    '<' + '"' * 2040, '<' + '\\"' * 1020, '<"' + '\\\\' * 1000, '<' + 'a.' * 1000 + '@', '<' + '@a,' * 600,
    '<a@b>' + ' A' * 1000,
    '<a@' + 'a-' * 1000 + '>', '<' + '@' + 'a-' * 1000 + ':', '<"' + 'a' * 2000 + '@b>'])
def test_no_line_takes_long(text: str) -> None:
    """2 KiB of anything: a pattern that backtracks would need seconds."""
    begin = time.perf_counter()
    with pytest.raises(SyntaxFault):
        parse_path(text)
    assert time.perf_counter() - begin < 2.0
