"""The SMTP client announces the next message with the end of the one before, and what servers make of it."""

from __future__ import annotations

import pytest

from mqlite.smtp.reply import Reply
from tests.support import smtp_client
from tests.support.exchanger import DEAF, DROP
from tests.support.smtp_client import PIPELINING, Make, summary

make = smtp_client.make  # fixture


def test_the_next_message_is_announced(make: Make) -> None:
    bench = make(PIPELINING)
    assert bench.start() is None
    assert [isinstance(outcome, Reply) for outcome in bench.send_two('r@b.example', 'other@b.example')] == [True, True]
    assert (bench.session.messages, bench.session.sent_data, bench.session.ready) == (2, 17, True)
    assert isinstance(bench.send('third@b.example'), Reply)
    assert bench.exchanger.recipients == ['r@b.example', 'other@b.example', 'third@b.example']
    assert bench.exchanger.verbs == ['EHLO', *['MAIL', 'RCPT', 'DATA'] * 3]


def test_the_announcement_leaves_with_the_final_dot(make: Make) -> None:
    bench = make(PIPELINING)
    assert bench.start() is None
    bench.exchanger.script['.'] = DEAF
    bench.send_two('r@b.example', 'other@b.example')
    assert bench.exchanger.clients[0].take() == b'MAIL FROM:<s@a.example>\r\nRCPT TO:<other@b.example>\r\nDATA\r\n'


@pytest.mark.parametrize(('extensions', 'wishes'), [([], {}), ([PIPELINING], {'require_tls': True})])
def test_no_announcement(make: Make, extensions: list[bytes], wishes: dict[str, bool]) -> None:
    bench = make(*extensions)
    assert bench.start() is None
    outcome, = bench.send_two('r@b.example', 'other@b.example', **wishes)
    assert isinstance(outcome, Reply) and bench.session.ready


def test_a_server_that_ignores_what_is_announced(make: Make) -> None:
    """Haraka answers 503 to each command that is here before its answer to the message."""
    bench = make(PIPELINING)
    assert bench.start() is None
    bench.exchanger.script.update({'MAIL': [b'250 ok', b'503 smuggled'], 'RCPT': [b'250 ok', b'503 smuggled'],
                                   'DATA': [b'354 go', b'503 smuggled']})
    assert [isinstance(outcome, Reply) for outcome in bench.send_two('r@b.example', 'other@b.example')] == [True, True]
    assert bench.exchanger.recipients == ['r@b.example', 'other@b.example'] and bench.session.messages == 2
    outcome, = bench.send_two('third@b.example', 'fourth@b.example')
    assert isinstance(outcome, Reply) and bench.session.ready and not bench.session.begun
    assert bench.exchanger.verbs == ['EHLO', *['MAIL', 'RCPT', 'DATA'] * 2, 'RSET', *['MAIL', 'RCPT', 'DATA'] * 2]


#   reply to the first dot, script of the second message; what comes of both, and whether the session can go on
@pytest.mark.parametrize(('dot', 'script', 'outcomes', 'usable'), [
    (b'550 no', {},                       [('message', 'error', 550), 'taken'],                          True),
    (b'450 no', {'RCPT': b'550 never'},   [('message', 'error', 450), ('rcptto', 'error', 550)],         True),
    (b'550 no', {'MAIL': b'503 nested'},  [('message', 'error', 550), 'taken'],                          True),
    (b'550 no', {'MAIL': b'550 nested'},  [('message', 'error', 550), ('mailfrom', 'error', 550)],       False),
    (b'250 ok', {'MAIL': b'550 never'},   ['taken', ('mailfrom', 'error', 550)],                         True),
    (b'250 ok', {'MAIL': b'421 bye'},     ['taken', ('mailfrom', 'error', 421)],                         False),
    (b'250 ok', {'MAIL': DROP},           ['taken', ('mailfrom', 'lost', None)],                         False),
    (b'421 bye' + DROP, {},               [('message', 'error', 421)],                                   False),
    (b'250 ok\r\n250 ok', {},             ['taken', ('data', 'invalid', 250)],                           False),
])
def test_what_was_announced_is_not_mistaken(make: Make, dot: bytes, script: dict[str, bytes], outcomes: list[object],
                                            usable: bool) -> None:
    bench = make(PIPELINING)
    assert bench.start() is None
    bench.exchanger.script.update({'.': [dot], **{stage: [b'250 ok', reply] for stage, reply in script.items()}})
    found = bench.send_two('r@b.example', 'other@b.example')
    assert ['taken' if isinstance(outcome, Reply) else summary(outcome) for outcome in found] == outcomes
    assert bench.session.usable is usable
    assert bench.session.ready is usable
    if usable:
        assert isinstance(bench.send('third@b.example'), Reply)
