"""The template language: what templates give, what is wrong with wrong ones, and that none runs for long."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest

from mqlite.template.modifiers import MODIFIERS
from mqlite.template.nodes import VALUE_LIMIT
from mqlite.template.parser import CACHED_TEXT, compile_template
from mqlite.template.pattern import Pattern
from mqlite.template.values import LARGEST, TemplateError, number_of, text_of, truth_of, whole_of

DATA: dict[str, Any] = {
    'name': 'John Doe', 'empty': '', 'zero': 0, 'nought': '0', 'yes': True, 'no': False, 'none': None, 'age': 33,
    'price': 2.5, 'digits': '12 apples', 'list': ['a', 'b', 'c'], 'void': [], 'tag': '<b>"x"</b>',
    'map': {'one': 1, 'two': {'deep': ['x', {'er': 'found'}]}}, 'total-price': 10, 'message_id': 'm',
    'numbered': {'0': 'name wins', 'b': 'second'}, 'lines': 'a\nb', 'players': [{'name': 'R', 'price': 3},
                                                                           {'name': 'M', 'price': 5}],
}


def shown(template: str, **more: Any) -> str:
    return compile_template(template).render({**DATA, **more})


@pytest.mark.parametrize(('template', 'expected'), [
    ('', ''),
    ('plain } text', 'plain } text'),
    ('{$name}', 'John Doe'),
    ('{ $name }', '{ $name }'),
    ('{$name }{ $name}', 'John Doe{ $name}'),
    ('a{$missing}b{$missing.deeper[3].x}c', 'abc'),
    ('{$NAME}', ''),
    ('{$list[1]}{$list[3]}{$list["x"]}{$list[-1]}', 'b'),
    ('{$map.one}{$map["one"]}', '11'),
    ('{$map.two.deep[1].er}', 'found'),
    ('{$map[1].deep[0]}', 'x'),
    ('{$numbered[0]}, {$numbered[1]}{$numbered[2]}', 'name wins, second'),
    ('{$list[$zero]}{$list[$zero + 1]}', 'ab'),
    ('{$name.x}{$name[0]}', ''),
    ('{$total_price}', '10'),
    ('{$message_id}', 'm'),
    ('{$yes} {$no} {$none} {$price} {$age}', 'true false  2.5 33'),
    ('{$list} {$void} {$map}', '[ "a", "b", "c" ] [ ] { "one": 1, "two": { "deep": [ "x", { "er": "found" } ] } }'),
    # literals
    ('{"text"}{\'it\'}{7}{7.50}', 'textit77.5'),
    (r'{"say \"hi\""}{"C:\dir"}', r'say "hi"C:\dir'),
    ('{"}"}{\'{$x}\'}', '}{$x}'),
    # braces
    ('{ldelim}{rdelim}{LDELIM}', '{}{'),
    ('a{literal}{$name} {if}{/literal}b', 'a{$name} {if}b'),
    ('p { color: red }\nq {\n}', 'p { color: red }\nq {\n}'),
    ('{', '{'),
    ('a{* {$name} *}b', 'ab'),
    # arithmetic
    ('{$age + 10}{" "}{$age - 3 * 2}{" "}{($age - 3) * 2}', '43 27 60'),
    ('{7 / 2} {8 / 2} {7 % 4} {(-7 + 1)} {(-$age)} {2 - -3}', '3.5 4 3 -6 -33 5'),
    ('{$digits * 2}{$missing + 1}{$name + 1}', '2411'),
    ('{1 + 2 - 3 - 4}', '-4'),
    ('{0.1 + 0.2}', '0.3'),
    # conditions
    ('{if $name}y{else}n{/if}{if $empty}y{else}n{/if}{if $zero}y{else}n{/if}{if $nought}y{else}n{/if}', 'ynnn'),
    ('{if $yes}y{endif}{if $none}y{/if}{if $void}y{/if}{if $list}y{/if}', 'yy'),
    ('{if $age == 32}a{elseif $age == 33}b{elseif true}c{else}d{/if}', 'b'),
    ('{if false}a{elseif false}b{else}d{/if}', 'd'),
    ('{if false}a{elseif false}b{/if}', ''),
    ('{if $name == "John Doe"}y{/if}{if $name != \'john doe\'}y{/if}', 'yy'),
    ('{if $age == "33"}y{/if}{if $digits == 12}y{/if}{if $yes == true}y{/if}{if $name == true}y{/if}', 'yyyy'),
    ('{if $nought == false}y{/if}{if $missing == ""}y{/if}{if $price == 2}n{/if}', 'yy'),
    ('{if $age > 18 and $age < 65}y{/if}{if $age >= 33 AND $age <= 33 && not false}y{/if}', 'yy'),
    ('{if $age gt 32 and $age gte 33 and $age ge 33 and 1 lt 2 and 2 lte 2 and 2 le 2}y{/if}', 'y'),
    ('{if 1 eq 1 and 1 ne 2 and 1 <> 2}y{/if}', 'y'),
    ('{if false && true || true}y{/if}{if true || false && false}y{/if}{if (true or false) and false}n{/if}', 'yy'),
    ('{if not $age == 33}n{else}y{/if}{if !$missing && $age}y{/if}{if not not $age}y{/if}', 'yyy'),
    ('{if $name|empty}n{else}y{/if}{if not $empty|empty}n{else}y{/if}', 'yy'),
    ('{if $name =~ "^J.*e$"}y{/if}{if $name =~ "^j"}n{/if}{if $name =~ $list[0]}n{/if}{if $name =~ $none}y{/if}', 'yy'),
    ('{IF $age}y{ELSE}n{/IF}', 'y'),
    ('{if\n$age\n}y{/if}', 'y'),
    # loops
    ('{foreach $x in $list}<{$x}>{/foreach}', '<a><b><c>'),
    ('{foreach $list as $x}{$x}{/foreach}{$x}', 'abcc'),
    ('{foreach $list as $i => $x}{$i}{$x}{/foreach}', '0a1b2c'),
    ('{foreach $map as $k => $v}{$k};{/foreach}', 'one;two;'),
    ('{foreach $x in $map}{$x.deep[0]};{/foreach}', ';x;'),
    ('{foreach $x in $void}n{foreachelse}none{/foreach}{foreach $x in $name}n{foreachelse}none{/foreach}', 'nonenone'),
    ('{foreach $x in $list|range:1:3}{$x}{/foreach}', 'bc'),
    ('{foreach $a in $list}{foreach $b in $list}{$a}{$b} {/foreach}{/foreach}', 'aa ab ac ba bb bc ca cb cc '),
    # assignments
    ('{assign $age + 1 to $next}{$next}{$next = $next * 2}{$next}', '3468'),
    ('{$x}-{$x=1}-{$x}', '--1'),
    ('{foreach $p in $players}{assign $t + $p.price to $t}{if $p.price > $top.price}{assign $p to $top}{/if}{/foreach}'
     '{$top.name}{$t}', 'M8'),
])
def test_what_a_template_gives(template: str, expected: str) -> None:
    assert shown(template) == expected


@pytest.mark.parametrize(('expression', 'expected'), [
    ('"a b"|base64_encode', 'YSBi'),
    ('"YSBi"|base64_decode', 'a b'),
    ('"YSBi="|base64_decode', 'a b'),
    ('"a"|base64_decode', 'a'),
    ('$list|base64_encode', '[ "a", "b", "c" ]'),
    ('$name|cat:"x"', 'John Doex'),
    ('$age|cat:"x":1', '33x1'),
    ('$list|count', '3'),
    ('$map|count', '2'),
    ('$name|count', '0'),
    ('$name|count_characters', '7'),
    ('$name|count_characters:true', '8'),
    ('$list|count_characters', '0'),
    ('$lines|count_paragraphs', '2'),
    ('$name|count_words', '2'),
    ('"a - b"|count_words', '2'),
    ('$missing|default:"friend"', 'friend'),
    ('$empty|default:-1', '-1'),
    ('$name|default:"friend"', 'John Doe'),
    ('$missing|empty', 'true'),
    ('$void|empty', 'true'),
    ('$list|empty', 'false'),
    ('$tag|escape', '&lt;b&gt;&quot;x&quot;&lt;/b&gt;'),
    ('$tag|escape:"url"', '%3Cb%3E%22x%22%3C%2Fb%3E'),
    ('"a b"|escape:"base64"', 'YSBi'),
    ('"a b"|escape:"nothing"', 'a b'),
    ('$lines|indent', ' a\n b'),
    ('$lines|indent:2:"-"', '--a\n--b'),
    ('$name|lower', 'john doe'),
    ('$name|tolower|ucfirst', 'John doe'),
    ('$name|toupper', 'JOHN DOE'),
    ('"é"|upper', 'É'),
    ('"abc"|md5', '900150983cd24fb0d6963f7d28e17f72'),
    ('$list|md5', '900150983cd24fb0d6963f7d28e17f72'),
    ('"abc"|sha1', 'a9993e364706816aba3e25717850c26c9cd0d89d'),
    ('"abc"|sha256|truncate:8:"":true', 'ba7816bf'),
    ('"abc"|sha512|substr:0:8', 'ddaf35a1'),
    ('$lines|nl2br', 'a<br />b'),
    ('$list|range:2', '[ "a", "b" ]'),
    ('$list|range:1:2', '[ "b" ]'),
    ('$map|range:1', '{ "one": 1 }'),
    ('$name|range:1', 'John Doe'),
    (r'"a1b22"|regex_replace:"\d+":"#"', 'a#b#'),
    (r'"me@host"|regex_replace:"(\w+)@(\w+)":"$2 at \1, $0 or $&, $9"', 'host at me, me@host or me@host, '),
    ('"abc"|regex_replace:"x*":"-"', '-a-b-c-'),
    ('$list|regex_replace:"a":"b"', '[ "a", "b", "c" ]'),
    ('"hi hi"|replace:"hi":"ho"', 'ho ho'),
    ('"hi"|replace:"":"ho"', 'hi'),
    ('"abc"|spacify', 'a b c'),
    ('"abc"|spacify:"--"', 'a--b--c'),
    ('""|spacify', ''),
    ('$name|strlen', '8'),
    ('$list|strlen', '0'),
    ('$name|strstr:"n"', 'n Doe'),
    ('$name|strstr:"n":true', 'Joh'),
    ('$name|strstr:"x"', ''),
    ('"0123456789"|substr:2', '23456789'),
    ('"0123456789"|substr:4:3', '456'),
    ('"012"|substr:9', '012'),
    ('" \t x \r\n"|trim', 'x'),
    ('"hello wonderful world"|truncate:12', 'hello...'),
    ('"hello wonderful world"|truncate:12:"..":true', 'hello wond..'),
    ('"hello  wonderful"|truncate:9', 'hello...'),
    ('"hello"|truncate:5', 'hello'),
    ('"hello"|truncate:4', 'h...'),
    ('"hello"|truncate:2', '...'),
    ('"hello"|truncate:0', ''),
    ('"a b&c"|urlencode', 'a%20b%26c'),
    ('"a%20b%26c"|urldecode', 'a b&c'),
    ('$name|no_such_thing:1|toupper', 'JOHN DOE'),
    ('$name|TOUPPER', 'JOHN DOE'),
])
def test_modifiers(expression: str, expected: str) -> None:
    assert shown(f'{{{expression}}}') == expected


def test_every_modifier_is_tested() -> None:
    tested = {name for mark in test_modifiers.pytestmark for row in mark.args[1]  # type: ignore[attr-defined]
              for name in re.findall(r'\|([a-z0-9_]+)', row[0])}
    assert set(MODIFIERS) - tested == set()


@pytest.mark.parametrize(('template', 'fault'), [
    ('a\n{if $x}', 'line 2: {if} without {/if}'),
    ('{foreach $x in $y}{else}', 'line 1: {else} belongs to no block'),
    ('{foreach $x in $y}', 'line 1: {foreach} without {/foreach}'),
    ('{if $a}{elseif $b}\n{if $c}{else}', 'line 2: {if} without {/if}'),
    ('\n\n{/if}', 'line 3: {endif} belongs to no block'),
    ('{if $x}{else}{elseif $y}{/if}', 'line 1: {elseif} belongs to no block'),
    ('{foreachelse}', 'line 1: {foreachelse} belongs to no block'),
    ('{color: red}', 'line 1: {color: red}... is no tag; write {ldelim} for a brace'),
    ('{invalid}', 'line 1: {invalid}... is no tag'),
    ('{$name', "line 1: in a tag, '' is not understood"),
    ('{$name ~ 3}', "line 1: in a tag, '~ 3}' is not understood"),
    ('{$}', "line 1: in a tag, '$}' is not understood"),
    ('{"open}', "line 1: in a tag, '\"open}' is not understood"),
    ('{literal}', 'line 1: {literal} without {/literal}'),
    ('{* x', 'line 1: a comment without its end'),
    ('{if }x{/if}', 'line 1: the tag ends too early'),
    ('{if 1 notanoperator 2}x{/if}', "line 1: 'notanoperator' stands where '}' is expected"),
    ('{$a b}', "line 1: 'b' stands where '}' is expected"),
    ('{$a +}', 'line 1: the tag ends too early'),
    ('{$a.3}', 'line 1: a name is expected'),
    ('{$a[1}', "line 1: '}' stands where ']' is expected"),
    ('{($a}', "line 1: '}' stands where ')' is expected"),
    ('{$a|}', 'line 1: the tag ends too early'),
    ('{$a|substr}', 'line 1: |substr takes 1 to 2 values, not 0'),
    ('{$a|regex_replace:"x"}', 'line 1: |regex_replace takes 2 values, not 1'),
    ('{$a|cat:$b}', 'line 1: the values of a modifier are texts and numbers'),
    ('{$a|cat:-true}', 'line 1: the values of a modifier are texts and numbers'),
    ('{$a|regex_replace:"(":""}', "line 1: the regular expression '(': a ( without its )"),
    ('{if $a =~ "["}x{/if}', "line 1: the regular expression '[': it ends too early"),
    ('{foreach $x.y in $z}{/foreach}', 'line 1: before "in" stands one variable'),
    ('{foreach $x}{/foreach}', "line 1: '}' stands where 'as' is expected"),
    ('{foreach $x as y}{/foreach}', 'line 1: a variable is expected'),
    ('{assign 1 to x}', 'line 1: a variable is expected'),
    ('{assign 1}', "line 1: '}' stands where 'to' is expected"),
    ('{if $a}' * 60, 'line 1: more than 50 blocks within each other'),
    ('{' + '(' * 60 + '1}', 'line 1: more than 50 operators within each other'),
    ('{$a' + '+1' * 200 + '}', 'line 1: a tag has more than 300 words and signs'),
])
def test_a_wrong_template(template: str, fault: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(fault)):
        compile_template(template)


def test_the_deepest_and_longest_that_are_allowed_can_be_evaluated() -> None:
    deep = '{if $yes}' * 50 + '{' + '(' * 45 + '$a' + ')' * 45 + '+1' * 80 + '}' + '{/if}' * 50
    assert shown(deep) == '80'


@pytest.mark.parametrize('template', [
    '{foreach $a in $many}{foreach $b in $many}{foreach $c in $many}x{/foreach}{/foreach}{/foreach}',
    '{foreach $a in $many}{foreach $b in $many}{foreach $c in $many}{if false}{/if}{/foreach}{/foreach}{/foreach}',
    '{foreach $a in $many}{foreach $b in $many}{$long|md5}{/foreach}{/foreach}',
    '{foreach $a in $many}{$long}{$long}{$long}{$long}{$long}{$long}{/foreach}',
    '{$x = $long}{foreach $a in $many}{$x = $x|cat:"aaaaaaaa"|replace:"a":"aa"}{/foreach}',
    '{$x = $long|replace:"a":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}',
    '{$x = $long|spacify:"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}',
    '{$x = $long|indent:99999999}',
    '{$x = 3}{foreach $a in $many}{$x = $x * $x}{/foreach}',
    '{foreach $a in $many}{if $long =~ "(a|aa)+$"}{/if}{/foreach}',
    '{$long|regex_replace:"a":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}',
    '{1 / 0}', '{1 % $missing}', '{1.5 / 0}', '{$huge + 1}',
])
def test_what_goes_too_far_is_stopped(template: str) -> None:
    with pytest.raises(TemplateError):
        shown(template, many=list(range(1000)), long='a' * 50000, huge=10 ** 400)


def test_a_value_of_the_largest_size_passes() -> None:
    assert shown('{$x|cat:"b"|strlen}', x='a' * (VALUE_LIMIT - 1)) == str(VALUE_LIMIT)
    with pytest.raises(TemplateError, match='too long'):
        shown('{$x|cat:"b"|strlen}', x='a' * VALUE_LIMIT)


def test_variables_stay_as_they_were() -> None:
    given: dict[str, Any] = {'x': 1}
    assert compile_template('{$x = 2}{$y = 3}{$x}{$y}').render(given) == '23'
    assert given == {'x': 1}


def test_short_templates_are_compiled_once() -> None:
    assert compile_template('{$x} once') is compile_template('{$x} once')
    long = '{$x}' + 'x' * CACHED_TEXT
    assert compile_template(long) is not compile_template(long)


@pytest.mark.parametrize(('value', 'text', 'number', 'truth'), [
    (None, '', 0, False), (True, 'true', 1, True), (False, 'false', 0, False), (0, '0', 0, False), (5, '5', 5, True),
    (2.0, '2', 2, True), (1e300, '1e+300', 1e300, True), (0.1, '0.1', 0.1, True), ('', '', 0, False),
    ('0', '0', 0, False), ('00', '00', 0, True), (' 12', ' 12', 12, True), ('-3.5e1x', '-3.5e1x', -35, True),
    ('x', 'x', 0, True), (10 ** 30, str(10 ** 30), LARGEST - 1, True), ([], '[ ]', 0, False), ({}, '{  }', 0, False),
    (['a"\\', None, 1], '[ "a\\"\\\\", null, 1 ]', 0, True),
])
def test_values(value: Any, text: str, number: float, truth: bool) -> None:
    assert (text_of(value), number_of(value), truth_of(value)) == (text, number, truth)


def test_whole_numbers_stay_in_range() -> None:
    values = [float('inf'), float('-inf'), float('nan'), 1e30, '9' * 18, -2.9]
    assert [whole_of(value) for value in values] == [LARGEST - 1, 1 - LARGEST, 0, LARGEST - 1, 10 ** 18 - 1, -2]


PATTERNS = ['a', 'a*', 'a+b', 'a?b?', '(a|b)*c', 'a{2}', 'a{1,3}', 'a{2,}', '^a', 'a$', '^$', 'a|bc|', '(a*)(b*)',
            '(?:ab)+', '[ab]+', '[^a]b', '[a-b\\d]', r'\w+\s\w', r'\bab', r'\Bb', 'a*?b', 'a+?', '(a+?)(a*)', '.b',
            '((a)|b)+', '(a|ab)(c|bcd)(d*)', '[]a]', '[a-]', r'\.', r'[\]]', 'a{0}b', '(a{0,2}){2}']


@pytest.mark.parametrize('pattern', PATTERNS)
def test_patterns_match_as_python_does(pattern: str) -> None:
    """The same leftmost match, with the same groups, on every text of up to five of these letters."""
    ours, theirs, dice = Pattern(pattern), re.compile(pattern), random.Random(pattern)
    texts = [''.join(dice.choice('aabcd -.]1') for _ in range(dice.randint(0, 6))) for _ in range(200)]
    for text in ['', *texts]:
        expected = theirs.search(text)
        spans = [edge for group in range(theirs.groups + 1) for edge in expected.span(group)] if expected else None
        found = ours.search(text, 0, lambda _: None)
        assert (list(found) if found else None) == spans, text


@pytest.mark.parametrize('pattern', [
    '(', ')', 'a)', '[', '[a', '*', '+a', '(?=a)', '(?P<x>a)', '\\', r'(a)\1', 'a{999}b{99}', '(' * 60,
    '(((((a{10}){10}){10}){10}){10})', 'a{3,2}' + 'x' * 999, '[' + 'a' * 999 + ']'])
def test_patterns_that_are_refused(pattern: str) -> None:
    with pytest.raises(TemplateError, match='regular expression'):
        Pattern(pattern)


def test_hostile_patterns_cost_no_more_than_text_times_pattern() -> None:
    for pattern in ('(a+)+$', '(a|a)*b', '(a*)*b', 'a?' * 30 + 'a{30}', '(.*)(.*)(.*)(.*)x'):
        spent: list[int] = []
        Pattern(pattern).search('a' * 300 + 'c', 0, spent.append)
        assert sum(spent) < 302 * 100


def test_random_templates_give_text_or_an_error() -> None:
    dice = random.Random(5)
    parts = ['{if $a}', '{else}', '{/if}', '{elseif $b == 1}', '{foreach $x in $list}', '{/foreach}', '{$x', '}', '(',
             '|toupper', '|truncate:', '3', ':"', '"', ')', '[', ']', ' + ', ' and ', 'not ', '{literal}', '{/literal}',
             '{$x = 1}', '.a', '{', '\n', '{*', '*}', '-', '{assign ', ' to $y}', '=~ "(a', '|regex_replace:"a":""']
    outcomes: set[type] = set()
    for _ in range(3000):
        text = ''.join(dice.choice(parts) for _ in range(dice.randint(1, 12)))
        try:
            outcomes.add(type(shown(text)))
        except TemplateError:
            outcomes.add(TemplateError)
    assert outcomes == {str, TemplateError}


def test_mailerqs_own_send_log_format() -> None:
    """The example of its logging page, format and line."""
    values = {'date': '2018-08-29 07:20:16', 'attempt': 1,
              'email': {'envelope': 'info@company.com', 'recipient': 'info@outlook.com', 'tags': ['a', 'b']},
              'result': json.loads('{"state": "message", "result": "accepted", "from": "100.20.20.20", "code": 250,'
                                   ' "to": "100.30.30.30", "status": "2.0.0", "description": "Ok (edited)"}')}
    format_ = ('[{$date}] {$result.state}:{$result.result} {$attempt} <{$email.envelope}> <{$email.recipient}> '
               '[{$result.from}] [{$result.to}] {$email.tags} {$result.code} {$result.status} {$result.description}')
    assert compile_template(format_).render(values) == (
        '[2018-08-29 07:20:16] message:accepted 1 <info@company.com> <info@outlook.com> [100.20.20.20] [100.30.30.30] '
        '[ "a", "b" ] 250 2.0.0 Ok (edited)')
