"""The header of a message: x-mq-* taken out, Received put in, recipients and Bcc."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest

from mqlite.message.headers import Trace, extract, header_end, received_header, recipients_of, without_bcc

NO_QUEUES = {'results': None, 'failure': None, 'success': None, 'retry': None}

# header lines, the properties that they ask for
PROPERTIES = [
    (b'x-mq-envelope: a@b', {'envelope': 'a@b'}),
    (b'x-mq-ip: 192.0.2.1\r\nx-mq-ip: 192.0.2.2', {'ips': ['192.0.2.1', '192.0.2.2']}),
    (b'x-mq-pool: main', {'pool': 'main'}),
    (b'x-mq-tag: one\r\nx-mq-tag: two, three', {'tags': ['one', 'two, three']}),
    (b'x-mq-delayed: 2030-01-01 00:00:00', {'nextattempt': {'time': '2030-01-01 00:00:00'}}),
    (b'x-mq-maxdelivertime: 2030-01-01 00:00:00', {'maxdelivertime': '2030-01-01 00:00:00'}),
    (b'x-mq-maxattempts: 3', {'maxattempts': 3}),
    (b'x-mq-maxattempts: three', {'maxattempts': 'three'}),
    (b'x-mq-retries: 300,600, 3600', {'retries': [300, 600, 3600]}),
    (b'x-mq-retries: 300 often', {'retries': '300 often'}),
    (b'x-mq-retries:', {'retries': ''}),
    (b'x-mq-inlinecss: 1', {'inlinecss': True}),
    (b'x-mq-inlinecss: no', {'inlinecss': False}),
    (b'x-mq-keepmime: true', {'keepmime': True}),
    (b'x-mq-keepmime: 0', {'keepmime': False}),
    (b'x-mq-results-queue: r', {'queues': {**NO_QUEUES, 'results': 'r'}}),
    (b'x-mq-failure-queue: f\r\nx-mq-success-queue: s', {'queues': {**NO_QUEUES, 'failure': 'f', 'success': 's'}}),
    (b'x-mq-retry-queue: t', {'queues': {**NO_QUEUES, 'retry': 't'}}),
    (b'x-mq-smarthost-hostname: h\r\nx-mq-smarthost-port: 587\r\nx-mq-smarthost-username: u\r\n'
     b'x-mq-smarthost-password: p',
     {'smarthost': {'hostname': 'h', 'port': 587, 'username': 'u', 'password': 'p'}}),
    (b'x-mq-dsn-notify: FAILURE\r\nx-mq-dsn-ret: HDRS\r\nx-mq-dsn-orcpt: rfc822;a@b\r\nx-mq-dsn-envid: id',
     {'dsn': {'notify': 'FAILURE', 'ret': 'HDRS', 'orcpt': 'rfc822;a@b', 'envid': 'id'}}),
    (b'x-mq-custom-identifier: my-id', {'custom-identifier': 'my-id'}),
    (b'X-MQ-CamelCase: Kept', {'camelcase': 'Kept'}),
    (b'x-mq-a \t:  b  ', {'a': 'b'}),
    (b'x-mq-a: b\r\n\t c\r\n  d', {'a': 'b  c  d'}),
    (b'x-mq-a:\r\n b', {'a': 'b'}),
    (b'x-mq-a: one\r\nx-mq-a: two', {'a': 'two'}),
    (b'x-mq-a: \xc3\xa9\xff\0', {'a': 'é\ufffd'}),
    (b'x-mq-a: b: c', {'a': 'b: c'}),
    # taken out, and nothing more
    (b'x-mq-: empty', {}),
    (b'x-mq-no-colon', {}),
    (b'x-mq-two words: a', {}),
    (b'x-mq-\xc3\xa9: a', {}),
    (b'x-mq-\0: a', {}),
    (b'x-mq-folded\r\n name: a', {}),
    (b'x-mq-recipient: a@b', {}),
    (b'x-mq-mime: a', {}),
    (b'x-mq-message-id: a', {}),
    (b'x-mq-connection: a', {}),
    (b'x-mq-results: a', {}),
    (b'x-mq-checks: pass', {}),
    # numbers that are none for int()
    (b'x-mq-maxattempts: \xc2\xb2', {'maxattempts': '²'}),
    (b'x-mq-maxattempts: ' + b'9' * 5000, {'maxattempts': '9' * 5000}),
    (b'x-mq-maxattempts: -1', {'maxattempts': '-1'}),
    (b'x-mq-retries: 1,\xc2\xb2', {'retries': '1,²'}),
    (b'x-mq-retries: ' + b'9' * 5000, {'retries': '9' * 5000}),
    # a custom header with the name of a property that has parts
    (b'x-mq-queues: a\r\nx-mq-results-queue: r', {'queues': {**NO_QUEUES, 'results': 'r'}}),
    (b'x-mq-results-queue: r\r\nx-mq-queues: a', {'queues': {**NO_QUEUES, 'results': 'r'}}),
    (b'x-mq-queues: a', {}),
    (b'x-mq-nextattempt: a\r\nx-mq-delayed: b', {'nextattempt': {'time': 'b'}}),
    (b'x-mq-smarthost: a\r\nx-mq-smarthost-port: 1', {'smarthost': {'port': 1}}),
    (b'x-mq-dsn: a\r\nx-mq-dsn-ret: b', {'dsn': {'ret': 'b'}}),
    (b'x-mq-ips: a\r\nx-mq-ip: b', {'ips': ['b']}),
    (b'x-mq-tags: a\r\nx-mq-tag: b', {'tags': ['b']}),
]


@pytest.mark.parametrize(('lines', 'properties'), PROPERTIES, ids=lambda value: str(value)[:40])
def test_extract(lines: bytes, properties: dict[str, Any]) -> None:
    """The same at the beginning, in the middle, and at the end of a header, with and without a body."""
    rest = b'Subject: x\r\n folded\r\nTo: y\r\n'
    for body in (b'\r\nx-mq-tag: body\r\n', b'\r\n', b''):
        assert extract(lines + b'\r\n' + rest + body) == (rest + body, properties)
        assert extract(rest + lines + b'\r\n' + body) == (rest + body, properties)
        middle = rest.replace(b'To', lines + b'\r\nTo')
        assert extract(middle + body) == (rest + body, properties)
    assert extract(rest + lines) == (rest, properties)


@pytest.mark.parametrize('message', [
    b'',
    b'\r\n',
    b'\r\nx-mq-tag: in the body\r\n',
    b'Subject: x-mq-tag: in a value\r\n\r\n',
    b'Subject: a\r\n x-mq-tag: in a folded line\r\n\r\n',
    b'Subject: a\r\n\r\nx-mq-tag: in the body\r\n',
    b'X-MQX: a\r\n\r\n',
    b'not a header at all\r\n',
])
def test_nothing_to_extract(message: bytes) -> None:
    assert extract(message) == (message, {})


@pytest.mark.parametrize('header', [
    b'X-MQ-a: ' + b'y' * (8 << 20),
    b'X-MQ-a: b' + b'\r\n y' * (1 << 20),
    b'X-MQ-' + b'y' * (8 << 20),
    b'X: y' + b'\r\n y' * (1 << 20) + b'\r\nx-mq-a: b',
], ids=['long', 'folded', 'name', 'other'])
def test_a_huge_header_costs_time_and_memory_in_proportion(header: bytes) -> None:
    begin = time.perf_counter()
    tracemalloc.start()
    message, _properties = extract(header + b'\r\n\r\nbody')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message.endswith(b'\r\nbody') and b'mq' not in message.lower()
    assert peak < 8 * len(header)
    assert time.perf_counter() - begin < 5.0


@pytest.mark.parametrize(('message', 'end'), [
    (b'', 0), (b'\r\nbody', 0), (b'A: b\r\n\r\nbody', 6), (b'A: b\r\n', 6), (b'A: b', 4), (b'A: b\r\n\r\n\r\n', 6)])
def test_header_end(message: bytes, end: int) -> None:
    assert header_end(message) == end


@pytest.mark.parametrize(('trace', 'recipient', 'line'), [
    (Trace('client.example', '192.0.2.1', 'ESMTP'), 'b@example.org',
     b'Received: from client.example ([192.0.2.1])\r\n\tby mx.example (mqlite) with ESMTP id id-1'
     b'\r\n\tfor <b@example.org>;\r\n\tThu, 01 Jan 1970 00:00:00 +0000\r\n'),
    (Trace('[IPv6:::1]', '::1', 'SMTP'), '',
     b'Received: from [IPv6:::1] ([IPv6:::1])\r\n\tby mx.example (mqlite) with SMTP id id-1;'
     b'\r\n\tThu, 01 Jan 1970 00:00:00 +0000\r\n'),
    (Trace('', '', 'local'), '',
     b'Received: by mx.example (mqlite) with local id id-1;\r\n\tThu, 01 Jan 1970 00:00:00 +0000\r\n'),
])
def test_received(trace: Trace, recipient: str, line: bytes) -> None:
    assert received_header(trace, 'mx.example', 'id-1', recipient, 'Thu, 01 Jan 1970 00:00:00 +0000') == line


@pytest.mark.parametrize(('message', 'recipients'), [
    (b'To: a@b\r\n\r\n', ['a@b']),
    (b'TO: A <a@b>, "c, d" <c@d>\r\ncc: a@b,\r\n e@f\r\nBcc: g@h\r\n\r\nTo: x@y\r\n', ['a@b', 'c@d', 'e@f', 'g@h']),
    (b'Subject: none\r\n\r\n', []),
])
def test_recipients(message: bytes, recipients: list[str]) -> None:
    assert recipients_of(message) == recipients


@pytest.mark.parametrize(('message', 'without'), [
    (b'To: a\r\nBcc: b,\r\n c\r\nbcc : d\r\nX: y\r\n\r\nBcc: body\r\n', b'To: a\r\nX: y\r\n\r\nBcc: body\r\n'),
    (b'Bcc: b', b''),
    (b'Bccx: b\r\n\r\n', b'Bccx: b\r\n\r\n'),
])
def test_without_bcc(message: bytes, without: bytes) -> None:
    assert without_bcc(message) == without
