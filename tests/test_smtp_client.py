"""The SMTP client against a scripted server: every stage and everything that can go wrong in it.

The next message that is announced with the end of the one before is in test_smtp_client_announced.py, TLS in
test_smtp_client_tls.py, whole conversations in test_smtp_client_dialogues.py.
"""

from __future__ import annotations

import pytest

from mqlite.loop.tls import client_context
from mqlite.smtp.client import TIME_LIMITS
from mqlite.smtp.reply import Reply
from tests.support import smtp_client
from tests.support.exchanger import DEAF, DROP, SILENCE, ClientBench
from tests.support.smtp_client import PIPELINING, Make, attempt, failed, summary

bench, make = smtp_client.bench, smtp_client.make  # fixtures
#   stage        state       script before it         pipelining makes a difference
STAGES = [
    ('CONNECT',  'intro',    {},                      False),
    ('EHLO',     'ehlo',     {},                      False),
    ('HELO',     'helo',     {'EHLO': b'502 what?'},  False),
    ('MAIL',     'mailfrom', {},                      True),
    ('RCPT',     'rcptto',   {},                      True),
    ('DATA',     'data',     {},                      True),
    ('.',        'message',  {},                      True),
]
#   reply                        kind       code   usable
REPLIES = [
    (b'451 4.3.0 later',         'error',   451,   True),
    (b'550 5.7.1 never',         'error',   550,   True),
    (b'421 4.3.2 closing',       'error',   421,   False),
    (b'421 4.3.2 closing' + DROP, 'error',  421,   False),
    (b'what?',                   'invalid', None,  False),
    (b'250-one\r\n251 two',      'invalid', None,  False),
    (b'x' * 5000,                'invalid', None,  False),
    (b'250-again\r\n' * 300 + b'250 end', 'invalid', None, False),
    (SILENCE,                    'timeout', None,  False),
    (DROP,                       'lost',    None,  False),
    (b'250-half' + DROP,         'lost',    None,  False),
]
CASES = [(stage, state, before, pipelining, reply, kind, code, usable)
         for stage, state, before, differs in STAGES for reply, kind, code, usable in REPLIES
         for pipelining in ((False, True) if differs else (False,))
         if not (stage == 'EHLO' and code == 550)]  # then HELO is tried: see below


@pytest.mark.parametrize(('stage', 'state', 'before', 'pipelining', 'reply', 'kind', 'code', 'usable'), CASES,
                         ids=[f'{row[0]}-{row[4][:12]!r}-{row[3]}' for row in CASES])
def test_every_stage(make: Make, stage: str, state: str, before: dict[str, bytes], pipelining: bool, reply: bytes,
                     kind: str, code: int | None, usable: bool) -> None:
    bench = make(*([PIPELINING] if pipelining else []))
    bench.exchanger.script.update(before)
    bench.exchanger.script[stage] = reply
    begin = bench.reactor.now()
    assert summary(attempt(bench)) == (state, kind, code)
    assert bench.session.usable is usable
    waited = TIME_LIMITS[state] if kind == 'timeout' else 0
    assert bench.reactor.now() - begin == pytest.approx(waited, abs=0.5)
    assert bench.exchanger.messages == [] or stage == '.'


@pytest.mark.parametrize(('stage', 'state', 'reply'), [
    ('CONNECT', 'intro', b'354 go'), ('EHLO', 'ehlo', b'354 go'), ('MAIL', 'mailfrom', b'354 go'),
    ('RCPT', 'rcptto', b'354 go'), ('DATA', 'data', b'250 fine'), ('.', 'message', b'354 go')])
@pytest.mark.parametrize('extensions', [(), (PIPELINING,)])
def test_a_positive_reply_of_the_wrong_kind(make: Make, extensions: tuple[bytes, ...], stage: str, state: str,
                                            reply: bytes) -> None:
    bench = make(*extensions)
    bench.exchanger.script[stage] = reply
    assert summary(attempt(bench)) == (state, 'invalid', int(reply[:3]))
    assert not bench.session.usable


def test_the_reply_comes_back_whole(bench: ClientBench) -> None:
    bench.exchanger.script['.'] = b'250-2.0.0 kept\r\n250 2.0.0 as 4711'
    assert bench.send() == Reply(250, '2.0.0', ('kept', 'as 4711'))
    bench.exchanger.script['RCPT'] = b'550-5.1.1 no\r\n550 5.1.1 such user'
    failure = failed(bench.send())
    assert failure.reply == Reply(550, '5.1.1', ('no', 'such user')) and failure.text == 'no such user'


# the commands, as they go out


@pytest.mark.parametrize(('extensions', 'mime', 'mail'), [
    ([],                              b'a\r\n',          b'MAIL FROM:<s@a.example>'),
    ([b'SIZE'],                       b'.\r\n',          b'MAIL FROM:<s@a.example> SIZE=3'),
    ([b'size 1000'],                  b'a\r\n',          b'MAIL FROM:<s@a.example> SIZE=3'),
    ([b'8BITMIME'],                   b'a\r\n',          b'MAIL FROM:<s@a.example>'),
    ([b'8BITMIME'],                   b'\xc3\xa4\r\n',   b'MAIL FROM:<s@a.example> BODY=8BITMIME'),
    ([b'8BITMIME', b'SIZE 0'],        b'\xe4\r\n',       b'MAIL FROM:<s@a.example> SIZE=3 BODY=8BITMIME'),
    ([],                              b'\xe4\r\n',       b'MAIL FROM:<s@a.example>'),
    ([b'  ', b'PIPELINING', b'SIZE'], b'a\r\n',          b'MAIL FROM:<s@a.example> SIZE=3'),
])
def test_mail_parameters(make: Make, extensions: list[bytes], mime: bytes, mail: bytes) -> None:
    bench = make(*extensions)
    assert bench.start() is None
    assert isinstance(bench.send(mime=mime), Reply)
    assert bench.exchanger.commands == [b'EHLO me.example', mail, b'RCPT TO:<r@b.example>', b'DATA']


def test_messages_one_after_the_other(bench: ClientBench) -> None:
    assert bench.session.mta == 'mx.example'
    assert isinstance(bench.send(mime=b'.a\r\n..\r\n'), Reply)
    assert (bench.session.messages, bench.session.sent_data) == (1, len(b'..a\r\n...\r\n.\r\n'))
    assert isinstance(bench.send(sender='', mime=b'b\r\n'), Reply)
    assert (bench.session.messages, bench.session.ready) == (2, True)
    bench.quit()
    assert bench.exchanger.messages == [
        (b'MAIL FROM:<s@a.example>', [b'RCPT TO:<r@b.example>'], b'..a\r\n...\r\n'),
        (b'MAIL FROM:<>', [b'RCPT TO:<r@b.example>'], b'b\r\n')]
    assert bench.exchanger.verbs == ['EHLO', *['MAIL', 'RCPT', 'DATA'] * 2, 'QUIT']
    assert bench.session.stream.closed


@pytest.mark.parametrize(('extensions', 'together'), [([], b''), ([PIPELINING], b'RCPT TO:<r@b.example>\r\nDATA\r\n')])
def test_what_leaves_in_one_write(make: Make, extensions: list[bytes], together: bytes) -> None:
    bench = make(*extensions)
    assert bench.start() is None
    bench.exchanger.script['MAIL'] = DEAF
    bench.send()
    assert bench.exchanger.clients[0].take() == together


def test_helo_after_ehlo_is_refused(make: Make) -> None:
    bench = make(PIPELINING, b'SIZE', b'STARTTLS', client_tls=client_context())
    bench.exchanger.script['EHLO'] = b'500-what\r\n500 PIPELINING'
    assert isinstance(attempt(bench), Reply)
    assert bench.exchanger.commands[:3] == [b'EHLO me.example', b'HELO me.example', b'MAIL FROM:<s@a.example>']


def test_a_long_name_in_the_greeting_is_cut(make: Make) -> None:
    bench = make()
    bench.exchanger.script['CONNECT'] = b'220 ' + b'm' * 4000
    assert bench.start() is None
    assert bench.session.mta == 'm' * 255


def test_a_greeting_without_a_name(make: Make) -> None:
    bench = make()
    bench.exchanger.script['CONNECT'] = b'220'
    assert isinstance(attempt(bench), Reply)
    assert bench.session.mta == ''


@pytest.mark.parametrize(('limits', 'messages'), [
    (b'LIMITS RCPTMAX=1 MAILMAX=2', 2), (b'limits mailmax=1', 1), (b'LIMITS RCPTMAX=1', 9), (b'LIMITS MAILMAX=0', 9),
    (b'LIMITS XMAILMAX=1', 9), (b'LIMITS MAILMAX=x', 9)])
def test_no_more_messages_than_the_server_wants(make: Make, limits: bytes, messages: int) -> None:
    """RFC 9422. A refused one counts, too; the goodbye does not."""
    bench = make(limits)
    assert bench.start() is None
    bench.exchanger.script['RCPT'] = [b'550 no']
    while bench.session.ready and len(bench.exchanger.messages) < 8:
        bench.send()
    assert bench.session.messages == messages
    bench.quit()
    assert bench.exchanger.verbs[-1] == 'QUIT'


# after a refusal


@pytest.mark.parametrize('stage', ['MAIL', 'RCPT', 'DATA', '.'])
@pytest.mark.parametrize('reply', [b'451 later', b'550 never'])
def test_the_next_message_follows_a_reset(bench: ClientBench, stage: str, reply: bytes) -> None:
    bench.exchanger.script[stage] = [reply]
    assert failed(bench.send()).reply == Reply(int(reply[:3]), '', (reply[4:].decode(),))
    assert bench.session.ready
    assert isinstance(bench.send('other@b.example'), Reply)
    assert isinstance(bench.send('third@b.example'), Reply)
    assert bench.exchanger.recipients == ['other@b.example', 'third@b.example']
    assert bench.exchanger.verbs[-7:] == ['RSET', *['MAIL', 'RCPT', 'DATA'] * 2]


@pytest.mark.parametrize(('reply', 'kind'), [(b'502 what?', 'invalid'), (b'421 bye', 'invalid'), (DROP, 'lost')])
def test_a_server_that_does_not_reset_is_not_used_again(bench: ClientBench, reply: bytes, kind: str) -> None:
    bench.exchanger.script.update({'RCPT': [b'550 no'], 'RSET': reply})
    bench.send()
    failure = failed(bench.send())
    assert (failure.state, failure.kind, failure.reply, bench.session.usable) == ('mailfrom', kind, None, False)
    assert bench.exchanger.verbs[-1] == 'RSET'


@pytest.mark.parametrize('stage', ['MAIL', 'RCPT', 'DATA'])
def test_who_refuses_and_hangs_up_has_refused(bench: ClientBench, stage: str) -> None:
    bench.exchanger.script[stage] = b'550 5.7.1 never' + DROP
    assert summary(bench.send())[1:] == ('error', 550)
    bench.settle()
    assert not bench.session.ready


#   the replies that follow                                  usable  an empty message is sent
@pytest.mark.parametrize(('script', 'usable', 'dot'), [
    ({'DATA': b'354 go'},                                    True,  True),
    ({'DATA': b'354 go', '.': b'554 no recipients'},         True,  True),
    ({'DATA': b'354 go', '.': b'421 bye'},                   False, True),
    ({'DATA': b'354 go', '.': DROP},                         False, True),
    ({'DATA': b'554 no recipients'},                         True,  False),
    ({'DATA': b'421 bye'},                                   False, False),
    ({'DATA': SILENCE},                                      False, False),
    ({'DATA': b'what?'},                                     False, False),
])
def test_pipelined_replies_behind_a_refused_recipient(make: Make, script: dict[str, bytes], usable: bool,
                                                      dot: bool) -> None:
    bench = make(PIPELINING)
    bench.exchanger.script.update(script)
    bench.exchanger.script['RCPT'] = b'550 5.1.1 no such user'
    assert bench.start() is None
    assert summary(bench.send()) == ('rcptto', 'error', 550)
    assert bench.session.usable is usable
    bench.settle()
    assert bench.session.stream.sent == len(b''.join(line + b'\r\n' for line in bench.exchanger.commands)) + 3 * dot


def test_data_for_a_refused_sender_is_not_given(make: Make) -> None:
    """The dot would be a message to a recipient whom the server has accepted."""
    bench = make(PIPELINING)
    bench.exchanger.script.update({'MAIL': b'550 never', 'RCPT': b'250 ok', 'DATA': b'354 go'})
    assert bench.start() is None
    assert summary(bench.send()) == ('mailfrom', 'error', 550)
    assert not bench.session.usable
    bench.quit()
    assert bench.exchanger.messages == []


# replies that nobody asked for


@pytest.mark.parametrize(('stage', 'reply', 'outcome'), [
    ('CONNECT', b'220 hello\r\n250 hello',        ('ehlo', 'invalid', None)),
    ('EHLO',    b'250 hello\r\n250 sender',       ('mailfrom', 'invalid', None)),
    ('DATA',    b'354 go\r\n250 2.0.0 kept',      ('data', 'invalid', 250)),
    ('DATA',    b'354 go\r\n552 too large',       ('data', 'error', 552)),
    ('DATA',    b'354 go\r\n421 bye' + DROP,      ('data', 'error', 421)),
    ('DATA',    b'354 go\r\n25',                  ('data', 'invalid', None)),
])
@pytest.mark.parametrize('extensions', [(), (PIPELINING,)])
@pytest.mark.parametrize('size', [10, 3_000_000])
def test_one_reply_too_many(make: Make, extensions: tuple[bytes, ...], stage: str, reply: bytes,
                            outcome: tuple[str, str, int | None], size: int) -> None:
    bench = make(*extensions)
    bench.exchanger.script[stage] = reply
    result = bench.start() or bench.send(mime=b'x' * size + b'\r\n')
    assert summary(result) == outcome
    assert not bench.session.usable


@pytest.mark.parametrize(('stage', 'reply'), [('MAIL', b'250 sender\r\n250 again'), ('RCPT', b'250 ok\r\n250 again')])
def test_one_reply_too_many_in_the_middle(bench: ClientBench, stage: str, reply: bytes) -> None:
    bench.exchanger.script[stage] = reply
    assert failed(bench.send()).kind == 'invalid'
    assert not bench.session.usable and bench.exchanger.messages == []


@pytest.mark.parametrize('words', [b'250 again', b'421 too idle', b'x'])
def test_words_after_the_message_make_the_session_unfit(bench: ClientBench, words: bytes) -> None:
    bench.exchanger.script['.'] = b'250 2.0.0 kept\r\n' + words
    assert isinstance(bench.send(), Reply)
    bench.settle()
    assert not bench.session.ready
    assert failed(bench.send()).state == 'mailfrom'


def test_a_session_that_the_server_has_left_is_not_ready(bench: ClientBench) -> None:
    bench.exchanger.script['.'] = b'250 2.0.0 kept' + DROP
    assert isinstance(bench.send(), Reply)
    bench.settle()
    assert not bench.session.ready
    assert summary(bench.send()) == ('mailfrom', 'lost', None)


# large messages


def test_a_large_message_arrives_whole(bench: ClientBench) -> None:
    mime = b'.' + b'0123456789' * 100_000 + b'\r\n.\r\n'
    assert isinstance(bench.send(mime=mime), Reply)
    assert bench.exchanger.messages[0][2] == b'..' + mime[1:-3] + b'..\r\n'
    assert bench.session.sent_data == len(mime) + 2 + 3


def test_a_server_that_stops_reading(bench: ClientBench) -> None:
    bench.exchanger.script['DATA'] = b'354 go' + DEAF
    begin = bench.reactor.now()
    assert summary(bench.send(mime=b'x' * 20_000_000)) == ('data', 'timeout', None)
    assert bench.reactor.now() - begin == pytest.approx(TIME_LIMITS['block'], abs=1)


def test_a_server_that_has_had_enough(bench: ClientBench) -> None:
    bench.exchanger.script['DATA'] = b'354 go\r\n552 5.3.4 too large'
    assert summary(bench.send(mime=b'x' * 20_000_000)) == ('data', 'error', 552)
    assert bench.session.stream.sent < 1_000_000


def test_a_server_that_has_had_enough_and_hangs_up(bench: ClientBench) -> None:
    bench.exchanger.script['DATA'] = b'354 go' + DEAF

    def refuse() -> None:
        bench.exchanger.clients[0].write(b'552 5.3.4 too large\r\n')
        bench.exchanger.clients[0].close()

    bench.reactor.call_later(10, refuse)
    assert summary(bench.send(mime=b'x' * 20_000_000)) == ('data', 'error', 552)
    assert not bench.session.usable


def test_a_server_that_hangs_up_in_the_middle(bench: ClientBench) -> None:
    bench.exchanger.script['DATA'] = b'354 go' + DROP
    assert summary(bench.send(mime=b'x' * 20_000_000)) == ('data', 'lost', None)


# goodbye


def test_a_goodbye_without_answer_ends(bench: ClientBench) -> None:
    bench.exchanger.script['QUIT'] = SILENCE
    begin = bench.reactor.now()
    bench.quit()
    assert bench.reactor.now() - begin == pytest.approx(TIME_LIMITS['quit'], abs=0.5)
    assert bench.session.stream.closed and bench.exchanger.verbs[-1] == 'QUIT'


@pytest.mark.parametrize('reply', [b'421 bye', b'what?', DROP])
def test_no_goodbye_to_who_has_left(bench: ClientBench, reply: bytes) -> None:
    bench.exchanger.script['MAIL'] = reply
    bench.send()
    bench.quit()
    assert 'QUIT' not in bench.exchanger.verbs and bench.session.stream.closed
