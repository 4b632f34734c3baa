"""The SMTP client and STARTTLS: what is offered, what goes wrong, and what is forgotten."""

from __future__ import annotations

import ssl

import pytest

from mqlite.loop.tls import client_context
from mqlite.smtp.client import TIME_LIMITS
from mqlite.smtp.reply import Reply
from tests.support import smtp_client
from tests.support.exchanger import DEAF, DROP, SILENCE
from tests.support.peers import Certificate
from tests.support.smtp_client import Make, attempt, summary

make = smtp_client.make  # fixture


def test_starttls(make: Make, server_tls: ssl.SSLContext) -> None:
    bench = make(b'PIPELINING', tls=server_tls, client_tls=client_context())
    assert isinstance(attempt(bench), Reply)
    assert bench.exchanger.verbs == ['EHLO', 'STARTTLS', 'EHLO', 'MAIL', 'RCPT', 'DATA']
    cipher = bench.session.stream.cipher
    assert cipher is not None and cipher[1].startswith('TLS')
    bench.quit()
    assert bench.exchanger.verbs[-1] == 'QUIT'


def test_what_was_said_in_clear_is_forgotten(make: Make, server_tls: ssl.SSLContext) -> None:
    bench = make(tls=server_tls, client_tls=client_context())
    bench.exchanger.script['EHLO'] = [b'250-mx.example\r\n250-SIZE\r\n250 STARTTLS', b'502 what?']
    assert isinstance(attempt(bench), Reply)
    assert bench.exchanger.commands[2:5] == [b'EHLO me.example', b'HELO me.example', b'MAIL FROM:<s@a.example>']


def test_no_starttls_without_a_context_or_an_offer(make: Make, server_tls: ssl.SSLContext) -> None:
    for bench in (make(tls=server_tls), make(client_tls=client_context())):
        assert isinstance(attempt(bench), Reply)
        assert 'STARTTLS' not in bench.exchanger.verbs


@pytest.mark.parametrize(('reply', 'outcome'), [
    (b'454 4.7.0 no TLS now',             ('starttls', 'error', 454)),
    (b'554 never',                        ('starttls', 'error', 554)),
    (b'421 bye',                          ('starttls', 'error', 421)),
    (b'354 go',                           ('starttls', 'invalid', 354)),
    (b'what?',                            ('starttls', 'invalid', None)),
    (SILENCE,                             ('starttls', 'timeout', None)),
    (DROP,                                ('starttls', 'lost', None)),
    (b'220 go\r\n250-evil\r\n250 SIZE',   ('starttls', 'invalid', None)),
    (b'220 go\r\n2',                      ('starttls', 'invalid', None)),
    (b'220 go' + DEAF,                    ('handshake', 'timeout', None)),
    (b'220 go' + DROP,                    ('handshake', 'lost', None)),
])
def test_starttls_goes_wrong(make: Make, server_tls: ssl.SSLContext, reply: bytes,
                             outcome: tuple[str, str, int | None]) -> None:
    bench = make(tls=server_tls, client_tls=client_context())
    bench.exchanger.script['STARTTLS'] = reply
    begin = bench.reactor.now()
    assert summary(bench.start()) == outcome
    waited = TIME_LIMITS[outcome[0]] if outcome[1] == 'timeout' else 0
    assert bench.reactor.now() - begin == pytest.approx(waited, abs=0.5)


def test_no_version_in_common(make: Make, server_tls: ssl.SSLContext) -> None:
    server_tls.maximum_version = ssl.TLSVersion.TLSv1_2
    context = client_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    bench = make(tls=server_tls, client_tls=context)
    assert summary(bench.start()) == ('handshake', 'error', None)


def test_tls_1_3_refused_after_the_handshake(make: Make, server_tls: ssl.SSLContext, certificate: Certificate) -> None:
    """A server that insists on a certificate of ours notices that there is none when we think we are done."""
    server_tls.minimum_version = ssl.TLSVersion.TLSv1_3
    server_tls.verify_mode = ssl.CERT_REQUIRED
    server_tls.load_verify_locations(certificate.certificate)
    bench = make(tls=server_tls, client_tls=client_context())
    assert summary(bench.start()) == ('handshake', 'lost', None)
