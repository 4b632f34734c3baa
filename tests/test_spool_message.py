"""What a file of the spool directory says: sender, recipients and message, and what is wrong with others."""

from __future__ import annotations

import pytest

from mqlite.errors import PermanentError
from mqlite.spool.message import HEADER_LIMIT, RECIPIENTS, read_submission

TO = b'To: you@example.org\n'


@pytest.mark.parametrize(('header', 'sender'), [
    (b'From: Me <me@example.org>\n',                                                  'me@example.org'),
    (b'Sender: s@example.org\n',                                                      's@example.org'),
    (b'Sender: s@example.org\nFrom: me@example.org\n',                                'me@example.org'),
    (b'From: me@example.org\nReturn-Path: <r@example.org>\n',                         'r@example.org'),
    (b'Return-Path: <r@example.org>\nX-MQ-Envelope: x@example.org\n',                 'x@example.org'),
    (b'x-mq-envelope: <x@example.org>\n',                                             'x@example.org'),
    (b'From: a@example.org, b@example.org\n',                                         'a@example.org'),
    (b'From: nobody\n <me@example.org>\n',                                            'me@example.org'),
    (b'Return-Path: <>\nFrom: MAILER-DAEMON@example.org\n',                           ''),
    (b'return-path:\n <>\nFrom: MAILER-DAEMON@example.org\n',                         ''),
    (b'Return-Path: <>\nx-mq-envelope: x@example.org\n',                              'x@example.org'),
    (b'Return-Path:\nFrom: me@example.org\n',                                         'me@example.org'),
])
def test_the_sender(header: bytes, sender: str) -> None:
    assert read_submission(header + TO + b'\nhello\n', True).sender == sender


def test_the_sender_where_x_mq_headers_do_not_count() -> None:
    submission = read_submission(b'x-mq-envelope: x@example.org\nFrom: me@example.org\n' + TO + b'\n', False)
    assert submission.sender == 'me@example.org' and b'x-mq-envelope' in submission.data


@pytest.mark.parametrize(('header', 'recipients'), [
    (b'To: a@example.org\n',                                          'a@example.org'),
    (b'Cc: a@example.org\n',                                          'a@example.org'),
    (b'Bcc: a@example.org\n',                                         'a@example.org'),
    (b'Bcc: d@e.f\nTo: A <a@e.f>,\n b@e.f\nCc: c@e.f, a@e.f\n',       'a@e.f b@e.f c@e.f d@e.f'),
    (b'To: undisclosed-recipients:;\nBcc: a@example.org\n',           'a@example.org'),
    (b'To: friends: a@e.f, b@e.f;\n',                                 'a@e.f b@e.f'),
])
def test_the_recipients(header: bytes, recipients: str) -> None:
    assert read_submission(b'From: me@example.org\n' + header + b'\n', True).recipients == recipients.split()


def test_the_message_has_crlf_and_no_bcc() -> None:
    submission = read_submission(b'From: me@e.f\r\nBcc: a@e.f,\n b@e.f\nSubject: x\n\n\xff.\n.\nBcc: text', True)
    assert submission.data == b'From: me@e.f\r\nSubject: x\r\n\r\n\xff.\r\n.\r\nBcc: text\r\n'


@pytest.mark.parametrize(('content', 'complaint'), [
    (b'',                                             'it is no message'),
    (b'\n\nhello\n',                                  'it is no message'),
    (b'hello world\n',                                'it is no message'),
    (b'From me@example.org Tue Nov 14\nTo: a@b.c\n',  'it is no message'),
    (b'\x7fELF\x02\x01: \n',                          'it is no message'),
    (b'From: me@example.org\n\nhello',                'there are no recipients'),
    (b'From: me@example.org\n\n' + TO,                'there are no recipients'),
    (TO + b'\nhello',                                 'there is no sender'),
    (TO + b'From: undisclosed:;\n\nhello',            'there is no sender'),
    (TO + b'From: me@example.org\nCc: you\n\n',       'you: the address has no domain'),
    (TO + b'From: me@-b.example\n\n',               'the address is not valid'),
    (TO + b'From: me@example.org\nSubject: \0\n\n',   'there is a NUL in the header'),
    (TO + b'From: me@example.org\nX: ' + b'x' * HEADER_LIMIT, f'larger than {HEADER_LIMIT} bytes'),
    (b'From: me@example.org\nTo: ' + b','.join(b'%d@b.c' % n for n in range(RECIPIENTS + 1)) + b'\n\n',
     f'there are {RECIPIENTS + 1} recipients, at most {RECIPIENTS}'),
])
def test_what_is_refused(content: bytes, complaint: str) -> None:
    with pytest.raises(PermanentError, match=complaint):
        read_submission(content, True)


def test_limits_are_reached() -> None:
    to = b'To: ' + b','.join(b'%d@b.c' % n for n in range(RECIPIENTS)) + b'\n'
    filling = b'X: ' + b'x' * (HEADER_LIMIT - len(to) - 40) + b'\n'
    assert len(read_submission(b'From: me@example.org\n' + to + filling + b'\nhello', True).recipients) == RECIPIENTS
