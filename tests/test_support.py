"""The sinks that end-to-end tests rely on: ours keeps exact bytes, follows its script, speaks TLS; Postfix's works."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable

import pytest

from tests.support.peers import Certificate, SmtpSink, smtp_source
from tests.support.process import HOST
from tests.support.sink import DROP, CapturingSink


def dialogue(sink: CapturingSink) -> smtplib.SMTP:
    return smtplib.SMTP(HOST, sink.port, local_hostname='client.example', timeout=10)


@pytest.mark.parametrize(('message', 'wire'), [
    (b'',                       b''),
    (b'.\r\n',                  b'..\r\n'),
    (b'a: b\r\n\r\n.x\r\n',     b'a: b\r\n\r\n..x\r\n'),
    (b'\xff\x00\r\n' * 70000,   b'\xff\x00\r\n' * 70000),
])
def test_it_keeps_exact_bytes(sink: CapturingSink, message: bytes, wire: bytes) -> None:
    with dialogue(sink) as client:
        client.ehlo()
        assert client.docmd('MAIL', 'FROM:<a@example.org> BODY=8BITMIME')[0] == 250
        assert client.docmd('RCPT', 'TO:<b@example.com>')[0] == 250
        client.send(b'DATA\r\n' + wire + b'.\r\nNOOP\r\n')             # pipelined, all of it
        assert [client.getreply()[0] for _ in range(3)] == [354, 250, 250]
    [kept] = sink.wait_for(1)
    assert (kept.mail, kept.recipients) == (b'MAIL FROM:<a@example.org> BODY=8BITMIME', [b'RCPT TO:<b@example.com>'])
    assert (kept.wire, kept.message, kept.tls, kept.connection) == (wire, message, False, 1)


def test_it_follows_its_script(sink: CapturingSink) -> None:
    sink.script = {'EHLO': b'502 5.5.1 what?', 'RCPT': [b'450 4.2.1 later'], '.': [b'451 4.3.0 no'], 'NOOP': [DROP]}
    with dialogue(sink) as client:
        with pytest.raises(smtplib.SMTPDataError, match='4.3.0 no'):
            client.sendmail('a@example.org', ['b@example.com', 'c@example.com'], 'x')
        assert client.sendmail('a@example.org', ['b@example.com'], 'x') == {}
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.noop()
    accepted = [address for kept in sink.wait_for(2) for address in kept.recipients]
    assert [address.lower() for address in accepted] == [b'rcpt to:<c@example.com>', b'rcpt to:<b@example.com>']
    assert sink.commands[:2] == [b'ehlo client.example', b'helo client.example']


def test_it_speaks_tls(tls_sink: CapturingSink, certificate: Certificate) -> None:
    with dialogue(tls_sink) as client:
        client.starttls(context=ssl.create_default_context(cafile=str(certificate.certificate)))
        client.sendmail('a@example.org', ['b@example.com'], 'x')
    assert tls_sink.wait_for(1)[0].tls


def test_the_sink_of_postfix_takes_what_its_source_sends(smtp_sink: Callable[..., SmtpSink]) -> None:
    sink = smtp_sink()
    smtp_source(sink.port, '-s', '5', '-m', '20')
    sink.wait_for(20)
    assert len(sink.transactions()) == 20 and all(b'X-Rcpt-Args: ' in kept for kept in sink.transactions())
