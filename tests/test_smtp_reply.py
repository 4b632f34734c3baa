"""Replies: the table of ours, their form, and the reader of those that we get."""

from __future__ import annotations

import re

import pytest

from mqlite.smtp.reply import LINES_LIMIT, REPLIES, BadReply, Reply, ReplyReader, format_reply, reply

HOSTILE = 'a\r\n250 2.0.0 forged\0\x1b[2J<script>é😀\udcff' + 'x' * 1000


def read(*lines: bytes) -> Reply:
    """The reply that these lines are; all but the last one must leave it incomplete."""
    reader = ReplyReader()
    for line in lines[:-1]:
        assert reader.feed(line) is None
    found = reader.feed(lines[-1])
    assert found is not None
    return found


@pytest.mark.parametrize('name', REPLIES)
def test_each_of_ours_is_a_reply(name: str) -> None:
    code, status, text = REPLIES[name]
    assert 200 <= code <= 559
    assert status == '' if code == 354 else re.fullmatch(r'[245]\.[0-7]\.[0-9]+', status)
    assert status[:1] in ('', str(code)[0])
    values = ['x'] * text.count('{}')
    sent = reply(name, *values)
    assert re.fullmatch(rb'[2-5][0-5][0-9] [ -~]+\r\n', sent) and len(sent) <= 512
    assert read(sent) == Reply(code, status, (text.format(*values),))


@pytest.mark.parametrize('name', [name for name, row in REPLIES.items() if '{}' in row[2]])
def test_hostile_values_stay_in_their_line(name: str) -> None:
    sent = reply(name, HOSTILE)
    assert re.fullmatch(rb'[ -~]+\r\n', sent) and len(sent) <= 512
    assert rb'a\x0d\x0a250 2.0.0 forged\x00\x1b[2J<script>' in sent


@pytest.mark.parametrize(('code', 'status', 'lines', 'sent'), [
    (250, '', ('one',), b'250 one\r\n'),
    (250, '2.1.0', ('one',), b'250 2.1.0 one\r\n'),
    (250, '', ('one', 'two', 'three'), b'250-one\r\n250-two\r\n250 three\r\n'),
    (214, '2.0.0', ('one', 'two'), b'214-2.0.0 one\r\n214 2.0.0 two\r\n'),
    (250, '', ('é',), b'250 \\xe9\r\n'),
])
def test_format(code: int, status: str, lines: tuple[str, ...], sent: bytes) -> None:
    assert format_reply(code, status, *lines) == sent
    assert read(*sent.splitlines(keepends=True)).code == code


@pytest.mark.parametrize(('lines', 'expected'), [
    ((b'250 Ok\r\n',), Reply(250, '', ('Ok',))),
    ((b'250\r\n',), Reply(250, '', ('',))),
    ((b'250 \r\n',), Reply(250, '', ('',))),
    ((b'250 Ok\n',), Reply(250, '', ('Ok',))),
    ((b'250 2.0.0\r\n',), Reply(250, '2.0.0', ('',))),
    ((b'250 2.0.0 Ok\r\n',), Reply(250, '2.0.0', ('Ok',))),
    ((b'250 2.0.0  Ok\r\n',), Reply(250, '2.0.0', ('Ok',))),
    ((b'550 5.7.509 no\r\n',), Reply(550, '5.7.509', ('no',))),
    ((b'550 4.7.1 not ours: the class is not that of the code\r\n',),
     Reply(550, '', ('4.7.1 not ours: the class is not that of the code',))),
    ((b'550 5.7 no status\r\n',), Reply(550, '', ('5.7 no status',))),
    ((b'550 5.7.1234 no status\r\n',), Reply(550, '', ('5.7.1234 no status',))),
    ((b'550 5.7.1text\r\n',), Reply(550, '', ('5.7.1text',))),
    ((b'354 go\r\n',), Reply(354, '', ('go',))),
    ((b'250-mx.example\r\n', b'250-SIZE 10\r\n', b'250 HELP\r\n'), Reply(250, '', ('mx.example', 'SIZE 10', 'HELP'))),
    ((b'550-5.1.1 one\r\n', b'550-5.1.1 two\r\n', b'550 5.1.1 three\r\n'),
     Reply(550, '5.1.1', ('one', 'two', 'three'))),
    ((b'550-one\r\n', b'550 5.1.1 two\r\n'), Reply(550, '5.1.1', ('one', 'two'))),
    ((b'250-\r\n', b'250\r\n'), Reply(250, '', ('', ''))),
    ((b'550 caf\xc3\xa9 \xff\0\r\n',), Reply(550, '', ('café \ufffd\0',))),
])
def test_replies_of_others(lines: tuple[bytes, ...], expected: Reply) -> None:
    assert read(*lines) == expected
    assert expected.text == ' '.join(expected.lines)


@pytest.mark.parametrize('lines', [
    (b'\r\n',), (b'',), (b'25\r\n',), (b'2500 x\r\n',), (b'250x\r\n',), (b'250\tx\r\n',), (b' 250 x\r\n',),
    (b'150 x\r\n',),
    (b'650 x\r\n',), (b'050 x\r\n',), (b'HTTP/1.1 400\r\n',), (b'\xd9\xa2\xd9\xa5\xd9\xa0 x\r\n',),
    (b'250-a\r\n', b'251 b\r\n'),
    (b'250-a\r\n', b'b\r\n'), (b'\x16\x03\x01\r\n',)])
def test_no_reply(lines: tuple[bytes, ...]) -> None:
    with pytest.raises(BadReply):
        read(*lines)


def test_a_reply_has_a_bound() -> None:
    assert len(read(*[b'250-x\r\n'] * (LINES_LIMIT - 1), b'250 x\r\n').lines) == LINES_LIMIT
    with pytest.raises(BadReply, match='more than'):
        read(*[b'250-x\r\n'] * LINES_LIMIT, b'250 x\r\n')


def test_one_reader_reads_one_reply_after_the_other() -> None:
    reader = ReplyReader()
    assert [reader.feed(line) for line in (b'250-a\r\n', b'250 b\r\n', b'550 c\r\n', b'250 d\r\n')] == [
        None, Reply(250, '', ('a', 'b')), Reply(550, '', ('c',)), Reply(250, '', ('d',))]


def test_the_complaint_shows_hostile_text_escaped() -> None:
    with pytest.raises(BadReply, match=r'^not an SMTP reply: \\x1b\[2J<b>\\x00$'):
        read(b'\x1b[2J<b>\0\r\n')
