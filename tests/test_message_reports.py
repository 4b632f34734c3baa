"""Which messages are reports: samples in tests/data/reports, named after what they are; and hostile ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqlite.message.bounce import Notice, make_notification
from mqlite.message.mime import FIELD_LIMIT, HEADER_LIMIT
from mqlite.message.reports import PARTS, report_kind
from mqlite.smtp.dsn import make_request
from mqlite.smtp.framing import normalise
from tests.support.process import ROOT

FILES = sorted((ROOT / 'tests/data/reports').glob('*.eml'))
DSN_PART = b'--x\r\nContent-Type: message/delivery-status\r\n\r\n\r\n'
REPORT = b'Content-Type: multipart/report; boundary=x\r\n\r\n'
DMARC = b'a.example!b.example!1!2'


@pytest.mark.parametrize('path', FILES, ids=[path.stem for path in FILES])
def test_a_sample(path: Path) -> None:
    kind = path.stem.partition('-')[0]
    assert report_kind(normalise(path.read_bytes())) == kind.replace('none', '')


def test_every_kind_has_samples() -> None:
    assert {path.stem.partition('-')[0] for path in FILES} == {'dsn', 'mdn', 'arf', 'tls', 'dmarc', 'none'}


@pytest.mark.parametrize('path', FILES, ids=[path.stem for path in FILES])
def test_a_sample_cut_off_anywhere_is_no_other_report(path: Path) -> None:
    mime = normalise(path.read_bytes())
    kind = report_kind(mime)
    assert {report_kind(mime[:length]) for length in range(len(mime))} <= {kind, ''}


@pytest.mark.parametrize(('mime', 'kind'), [
    (b'',                                                                     ''),
    (b'\r\n',                                                                 ''),
    (b'Content-Type: multipart/report; boundary=x',                           ''),
    (REPORT,                                                                  ''),
    (REPORT + DSN_PART,                                                       'dsn'),
    (b'Subject: x\r\n' + REPORT + DSN_PART,                                   'dsn'),
    (b'X-Content-Type: a/b\r\n' + REPORT + DSN_PART,                          'dsn'),
    (b'Content-Type: text/plain\r\n' + REPORT + DSN_PART,                     ''),     # the first one counts
    (b'Content-Type: multipart/report; boundary=""\r\n\r\n' + DSN_PART,       ''),
    (b'Content-Type: multipart/report; boundary="\xff"\r\n\r\n' + DSN_PART,   ''),
    (b'Content-Type: multipart\r\n\r\n' + DSN_PART,                           ''),
    (b'Content-Type: ; boundary=x\r\n\r\n' + DSN_PART,                        ''),
    (b'Content-Type: multipart/mixed; boundary=x\r\n\r\n' + DSN_PART,         ''),
    (REPORT + b'--x\r\n\r\nhi\r\n' * PARTS + DSN_PART,                        ''),
    (REPORT + b'--x\r\n\r\nhi\r\n' * (PARTS - 1) + DSN_PART,                  'dsn'),
    (b'x: ' + b'x' * HEADER_LIMIT + b'\r\n' + REPORT + DSN_PART,              ''),
    (b'Content-Type: multipart/report;' + b' ' * FIELD_LIMIT + b'boundary=x\r\n\r\n' + DSN_PART, ''),
    (b'Content-Type: application/gzip; name="%b.xml.gz"\r\n\r\n' % DMARC,     'dmarc'),
    (b'Content-Type: application/x-zip-compressed; name="%b.zip"\r\n\r\n' % DMARC, 'dmarc'),
    (b'Content-Type: application/gzip; name="%b.exe"\r\n\r\n' % DMARC,        ''),
    (b'Content-Type: application/gzip; name="x/%b.xml.gz"\r\n\r\n' % DMARC,   ''),
    (b'Content-Type: image/png; name="%b.xml.gz"\r\n\r\n' % DMARC,            ''),
    (b"Content-Type: application/gzip; name*=utf-8''%b.xml.gz\r\n\r\n" % DMARC.replace(b'!', b'%21'), 'dmarc'),
    (b"Content-Type: application/gzip; name*=no-such-charset''%b.xml.gz\r\n\r\n" % DMARC, 'dmarc'),
])
def test_shapes(mime: bytes, kind: str) -> None:
    assert report_kind(mime) == kind


@pytest.mark.parametrize('sender', ['a@client.example', 'ä@client.example'])
def test_our_own_notifications_are_reports(sender: str) -> None:
    notice = Notice('failed', sender, 'b@example.org', make_request('', 'HDRS', '', ''), 'mx.example', '5.1.1', 0.0)
    assert report_kind(make_notification(notice, b'Subject: x\r\n\r\nhello\r\n')) == 'dsn'


HOSTILE = {
    'fields':      b'Subject: x\r\n' * 1_000_000 + b'\r\n',
    'parameters':  b'Content-Type: multipart/report; ' + b'a;' * 5_000_000 + b'\r\n\r\n',
    'quotes':      b'Content-Type: multipart/report; ' + b'";' * 5_000_000 + b'\r\n\r\n',
    'folds':       b'Content-Type:' + b'\r\n a' * 3_000_000 + b'\r\n\r\n',
    'blanks':      b'content-type' + b' ' * 10_000_000,
    'pieces':      b'content-type: application/zip; ' + b''.join(b'name*%d*=x;' % n for n in range(500)) + b'\r\n\r\n',
    'parts':       REPORT + b'--x\r\n\r\n' * 1_000_000,
    'no end':      REPORT + b'--x\r\n' + b'a' * 10_000_000,
    'almost':      REPORT + b'\r\n--' * 3_000_000,
}


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_messages_cost_little(name: str) -> None:
    """10 MB each: a look without bounds does not end before the test run is given up."""
    assert report_kind(HOSTILE[name]) == ''
