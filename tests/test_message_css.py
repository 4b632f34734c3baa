"""The property `inlinecss`: which rules become attributes, which win, and that nothing else of the HTML changes."""

from __future__ import annotations

import email
import email.policy
import random
import time

import pytest

from mqlite.errors import PermanentError
from mqlite.message import inline_css
from mqlite.message.css import SHEET_LIMIT, parse_declarations, parse_selector, parse_sheet
from mqlite.message.inline_css import inline_html, inline_styles


def styled(sheet: str, body: str) -> str:
    """The body with the styles of the sheet."""
    made = inline_html(f'<html><head><style>{sheet}</style></head><body>{body}</body></html>')
    return made[made.index('<body'):made.rindex('</body>')].partition('>')[2]


@pytest.mark.parametrize(('sheet', 'body', 'expected'), [
    # selectors
    ('p{color:red}', '<p>x</p><b>y</b>', '<p style="color: red">x</p><b>y</b>'),
    ('P{color:red}', '<p>x</P>', '<p style="color: red">x</P>'),
    ('.a{color:red}', '<p class="b a">x</p><p class=aa>', '<p style="color: red" class="b a">x</p><p class=aa>'),
    ('#a{color:red}', '<p id=a>x</p><p id=b>', '<p style="color: red" id=a>x</p><p id=b>'),
    ('p.a.b#c{color:red}', '<p class="a b" id="c"><p class=a id=c>',
     '<p style="color: red" class="a b" id="c"><p class=a id=c>'),
    ('[align]{color:red}', '<p align=left><p>', '<p style="color: red" align=left><p>'),
    ('p[align="left"]{color:red}', "<p align='left'><p align=right>",
     "<p style=\"color: red\" align='left'><p align=right>"),
    ('div p{color:red}', '<div><b><p>x</p></b></div><p>', '<div><b><p style="color: red">x</p></b></div><p>'),
    ('div > p{color:red}', '<div><p>x</p><b><p>y</p></b></div>',
     '<div><p style="color: red">x</p><b><p>y</p></b></div>'),
    ('div>p b{color:red}', '<div><p><i><b>x</b></i></p></div>', '<div><p><i><b style="color: red">x</b></i></p></div>'),
    ('i b > u{color:red}', '<i><b><b><u>x', '<i><b><b><u style="color: red">x'),
    ('i > b u{color:red}', '<i><b><b><u>x', '<i><b><b><u style="color: red">x'),
    ('i > b > u{color:red}', '<i><b><b><u>x', '<i><b><b><u>x'),
    ('p, .a{color:red}', '<p><b class=a>', '<p style="color: red"><b style="color: red" class=a>'),
    ('body > p{color:red}', '<p>', '<p style="color: red">'),
    # the cascade
    ('p{color:red}p{color:blue}', '<p>', '<p style="color: blue">'),
    ('.a{color:red}p{color:blue}', '<p class=a>', '<p style="color: red" class=a>'),
    ('#a{color:red}p.a.b.c{color:blue}', '<p class="a b c" id=a>', '<p style="color: red" class="a b c" id=a>'),
    ('div p{color:red}p{color:blue}', '<div><p>', '<div><p style="color: red">'),
    ('p{color:red;margin:0}', '<p style="COLOR:blue">', '<p style="margin: 0; color: blue">'),
    ('p{color:red !important}', '<p style="color:blue">', '<p style="color: red">'),
    ('p{color:red!IMPORTANT}', '<p style="color:blue !important">', '<p style="color: blue">'),
    ('p{color:red !important}.a{color:blue}', '<p class=a>', '<p style="color: red" class=a>'),
    ('p{margin-top:5px}.a{margin:0}', '<p class=a>', '<p style="margin-top: 5px; margin: 0" class=a>'),
    ('p{margin:0}.a{margin-top:5px}', '<p class=a>', '<p style="margin: 0; margin-top: 5px" class=a>'),
    ('p{margin:0;margin-top:1px}.a{margin:2px}', '<p class=a>', '<p style="margin-top: 1px; margin: 2px" class=a>'),
    # declarations
    ('p{background:url("a;b.png"); font-family: "A B", x}', '<p>',
     '<p style="background: url(&quot;a;b.png&quot;); font-family: &quot;A B&quot;, x">'),
    ('p{background:url(data:image/png;base64,xx);color:red}', '<p>',
     '<p style="background: url(data:image/png;base64,xx); color: red">'),
    ('p{color;:red;color:;;1x:2;color:red}', '<p>', '<p style="color: red">'),
    ('p{--My-Var:1;mso-x:2;-webkit-y:3}', '<p>', '<p style="--My-Var: 1; mso-x: 2; -webkit-y: 3">'),
    ('p{/* ; } */color:/**/red}', '<p>', '<p style="color: red">'),
    ('<!-- p{color:red} -->', '<p>', '<p style="color: red">'),
    ('p{color:red', '<p>', '<p style="color: red">'),
    # the attribute
    ('p{color:red}', "<p title='a > b' style='margin: 0' x>", '<p title=\'a > b\' style="color: red; margin: 0" x>'),
    ('p{color:red}', '<p STYLE = "font: &quot;x&quot;">', '<p style="color: red; font: &quot;x&quot;">'),
    ('p{color:red}', '<p style>', '<p style="color: red">'),
    ('img{border:0}', '<img src=x/><img src="x"/><img src="x" />',
     '<img style="border: 0" src=x/><img style="border: 0" src="x"/><img style="border: 0" src="x" />'),
    # elements
    ('p p{color:red}li li{color:red}td td{color:red}',
     '<p>1<p>2<ul><li>3<li>4</ul><table><tr><td>5<td>6<tr><td>7</table>',
     '<p>1<p>2<ul><li>3<li>4</ul><table><tr><td>5<td>6<tr><td>7</table>'),
    ('li li{color:red}', '<ul><li><ul><li>x', '<ul><li><ul><li style="color: red">x'),
    ('br b{color:red}', '<br><b>', '<br><b>'),
    ('div b{color:red}', '<div></i></div><b>', '<div></i></div><b>'),
    ('b{color:red}', '<!-- <b> --><textarea><b></textarea><script>"<b>"</script>< b><b',
     '<!-- <b> --><textarea><b></textarea>'
     '<script>"<b>"</script>< b><b'),
    ('p{color:red}', 'a < b <p>', 'a < b <p style="color: red">'),
    ('title,b{color:red}', '<b>', '<b style="color: red">'),
])
def test_styles(sheet: str, body: str, expected: str) -> None:
    assert styled(sheet, body) == expected


@pytest.mark.parametrize(('sheet', 'rest'), [
    ('p{color:red}', ''),
    ('a:hover{color:red}', 'a:hover{color:red}'),
    ('p, a:hover{color:red}', 'a:hover {color:red}'),
    ('p + b{x:y} p ~ b{x:y} p::before{x:y} *{x:y} a[b^=c]{x:y}',
     'p + b{x:y} p ~ b{x:y} p::before{x:y} *{x:y} a[b^=c]{x:y}'),
    ('@media print { p { color: red } } p{x:y}', '@media print { p { color: red } }'),
    ('@import "x.css"; @charset "y"; p{x:y}', '@import "x.css"; @charset "y";'),
    ('@font-face { font-family: x; src: url(y) }p{x:y}', '@font-face { font-family: x; src: url(y) }'),
    ('@media x { @media y { p { a: b } } q { c: d } }p{x:y}', '@media x { @media y { p { a: b } } q { c: d } }'),
    ('p{x:y}}q{x:y}', '}'),
    ('{x:y}', '{x:y}'),
    ('> p{x:y} p >{x:y} a >> b{x:y}', '> p{x:y} p >{x:y} a >> b{x:y}'),
    ('p{x:y} nonsense', 'nonsense'),
    ('a{b:"}"}', ''),
])
def test_what_stays_in_the_sheet(sheet: str, rest: str) -> None:
    found = parse_sheet(sheet)[1]
    assert found.split() == rest.split()
    assert parse_sheet(found) == ([], found)


def test_style_blocks() -> None:
    sheets = ('<style>p{a:b}</style><STYLE type="text/css">a:hover{c:d}</STYLE><style media=print>p{e:f}</style>'
              '<style media="screen">p{g:h}</style>')
    assert inline_html(f'<head>{sheets}</head><p>') == (
        '<head><STYLE type="text/css">\na:hover{c:d}\n</STYLE><style media=print>p{e:f}</style></head>'
        '<p style="a: b; g: h">')
    assert inline_html('<p><style>p{a:b}</style>') == '<p style="a: b">'
    assert inline_html('<p><style>p{a:b}') == '<p style="a: b">'


def test_specificity() -> None:
    for text, expected in {'p': (0, 0, 1), 'p.a': (0, 1, 1), '#a .b [c] d': (1, 2, 1), 'a > b c': (0, 0, 3)}.items():
        selector = parse_selector(text)
        assert selector is not None and selector.specificity == expected


def test_declarations() -> None:
    text = 'A: b ;; c:d ! Important; e; :f; g:; h: !x; i: !important'
    assert [(d.name, d.value, d.important) for d in parse_declarations(text)] == [
        ('a', 'b', False), ('c', 'd', True), ('h', '!x', False)]


def test_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PermanentError, match='style sheet has more'):
        parse_sheet('x' * (SHEET_LIMIT + 1))
    with pytest.raises(PermanentError, match='more than 2000 selectors'):
        parse_sheet('a,b,c{d:e}' * 700)
    monkeypatch.setattr(inline_css, 'ELEMENTS', 10)
    with pytest.raises(PermanentError, match='more than 10 elements'):
        inline_html('<style>p{x:y}</style>' + '<p>' * 10)
    monkeypatch.setattr(inline_css, 'MATCHES', 20)
    with pytest.raises(PermanentError, match='too many elements for so many selectors'):
        inline_html('<style>p{x:y}p{x:y}p{x:y}</style>' + '<p>' * 9)
    monkeypatch.setattr(inline_css, 'MATCHES', 100)
    monkeypatch.setattr(inline_css, 'STYLES', 100)
    with pytest.raises(PermanentError, match='the attributes would have more than 100 characters'):
        inline_html(f'<style>p{{x:{"y" * 40}}}</style>' + '<p>' * 3)
    monkeypatch.setattr(inline_css, 'TEXT_LIMIT', 100)
    with pytest.raises(PermanentError, match='the HTML has more than 100 characters'):
        inline_html('x' * 101)


@pytest.mark.parametrize('text', ['<a "' * 50000, '<a \'"' * 50000, '<!--' * 50000, '<style>' * 30000, '<' * 100000,
                                  '<div>' * 15000 + '<style>div div div div p{x:y}</style><p>', '</p>' * 100000,
                                  '<style>' + '{' * 100000, '<style>' + 'a{"' * 50000, '<style>' + '/*' * 50000,
                                  '<a ' + 'b ' * 50000 + '=' * 50000 + '>', '<' + 'a' * 100000, '<a' * 100000,
                                  '<title>' + '</title' * 200000, '<style>' + '@a;' * 50000 + '{' * 50000,
                                  '<style>p{x: y' + ' ' * 100000 + 'z}</style><p>'], ids=range(16))
def test_hostile_html_takes_no_time(text: str) -> None:
    """None of these is quadratic: they would take minutes then."""
    begin = time.process_time()
    assert inline_html(text + '<style>q{x:y}</style>')
    assert time.process_time() - begin < 2.0


def test_random_html_keeps_its_text() -> None:
    """Without styles in it nothing changes; and styles are all that is added."""
    dice = random.Random(19)
    pieces = ['<p>', '</p>', '<b class="a">', '<', '>', '"', "'", '<!-- x -->', 'text', '<td>', '<br/>',
             '<i id=a', '</i>', '\n',
              '<script>', '</script>', '&lt;', '<a href="x>y">']
    for _ in range(2000):
        body = ''.join(dice.choice(pieces) for _ in range(dice.randint(0, 20)))
        assert inline_html(body) == body
        made = inline_html(f'<style>.a,p,#a{{x:y}}</style>{body}')
        assert made.replace(' style="x: y"', '') == body


def test_a_message() -> None:
    html_part = '<style>p{color:red}</style><p>grün</p>'
    mime = ('MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n'
            '--b\r\n\r\n<style>p{x:y}</style><p>\r\n'
            '--b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n'
            '<style>p{color:red}</style><p>gr=C3=BCn</p>\r\n'
            '--b\r\nContent-Type: text/html\r\nContent-Disposition: attachment\r\n\r\n' + html_part + '\r\n--b--\r\n')
    made = inline_styles(mime.encode())
    message = email.message_from_bytes(made, policy=email.policy.default)
    plain, inlined, attached = (part.get_payload(decode=True) for part in message.walk() if not part.is_multipart())
    assert plain == b'<style>p{x:y}</style><p>'
    assert inlined == '<p style="color: red">grün</p>'.encode()
    assert attached == html_part.encode()
    assert made.endswith(b'--b--\r\n')
