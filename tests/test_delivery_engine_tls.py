"""TLS to servers: the levels of security, and what is done where TLS is broken."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from mqlite.delivery.protection import BROKEN_SECONDS
from mqlite.loop.tls import client_context
from tests.support import engine
from tests.support.engine import Make
from tests.support.exchanger import DROP, SILENCE, Exchanger
from tests.support.peers import Certificate, make_certificate
from tests.support.process import HOST

bench, make = engine.bench, engine.make  # fixtures


def test_with_tls(make: Make, server_tls: ssl.SSLContext) -> None:
    bench = make(tls=server_tls)
    bench.publish()
    bench.run()
    cipher, certificate, result = bench.last('cipher', 'certificate', 'result')
    assert result == 'accepted'
    assert cipher == {'name': 'TLS_AES_256_GCM_SHA384', 'bits': 256, 'algbits': 256, 'version': 'TLSv1.3', 'id': 0x1302}
    assert {name: certificate[name] for name in ('version', 'verified', 'result', 'self-signed')} == {
        'version': 3, 'verified': False, 'result': 'not checked', 'self-signed': True}
    assert certificate['subject'] == certificate['issuer'] and certificate['notbefore'] < certificate['notafter']


@pytest.mark.parametrize(('security', 'host', 'trusted', 'entry'), [
    ('optional',      'mx1.example', True,  ('message', 'accepted', False)),
    ('opportunistic', 'mx1.example', False, ('message', 'accepted', True)),
    ('required',      'mx1.example', False, ('message', 'accepted', True)),
    ('verified',      'mx1.example', False, ('handshake', 'error', False)),     # nobody vouches for it
    ('verified',      'mx1.example', True,  ('handshake', 'error', False)),     # the name system said it, and lies
    ('verified',      'one.example', True,  ('message', 'accepted', True)),
])
def test_levels_of_security(make: Make, tmp_path: Path, security: str, host: str, trusted: bool,
                            entry: tuple[str, str, bool]) -> None:
    certificate = make_certificate(tmp_path, host)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.certificate, certificate.key)
    verifying = client_context(verify=True)
    if trusted:
        verifying.load_verify_locations(certificate.certificate)
    bench = make(tls=server, verifying=verifying, max_attempts=1)
    bench.publish(security=security)
    bench.run()
    last = bench.final()['results'][-1]
    assert (last['state'], last['result'], 'cipher' in last) == entry
    if 'cipher' in last:
        assert last['certificate']['verified'] is (security == 'verified')
    assert len(bench.exchanger.clients) == 1, 'no second try in clear'


@pytest.mark.parametrize('security', ['required', 'verified'])
@pytest.mark.parametrize('reply', ['no STARTTLS', b'454 not now', b'554 never', b'220 go' + DROP])
def test_what_must_be_protected_never_goes_in_clear(make: Make, server_tls: ssl.SSLContext, security: str,
                                                    reply: Any) -> None:
    """It waits for better times, as whoever strips STARTTLS may be on the way only now."""
    bench = make(tls=None if reply == 'no STARTTLS' else server_tls, max_attempts=2)
    bench.exchanger.script['STARTTLS'] = reply if isinstance(reply, bytes) else b''
    bench.publish(security=security)
    bench.run(700)
    document = bench.final()
    assert len(document['results']) == 2 and bench.exchanger.messages == []
    assert all(entry['state'] in ('starttls', 'handshake') for entry in document['results'])
    assert 'MAIL' not in bench.exchanger.verbs


def test_a_server_whose_tls_is_broken_is_spared_it_for_a_while(make: Make, server_tls: ssl.SSLContext) -> None:
    bench = make(tls=server_tls)
    bench.exchanger.script['STARTTLS'] = b'454 not now'
    for seconds in (60, BROKEN_SECONDS, 60):
        bench.publish()
        bench.run(seconds)
        assert bench.last('result', 'cipher') == ('accepted', None)
    assert bench.exchanger.verbs.count('STARTTLS') == 2 and len(bench.exchanger.clients) == 5


def test_only_the_server_whose_tls_is_broken_is_spared_it(make: Make, server_tls: ssl.SSLContext) -> None:
    bench = make(tls=server_tls)
    bench.exchanger.script['STARTTLS'] = b'454 not now'
    other = Exchanger(bench.reactor, tls=server_tls)  # at the same address
    for port, secured in ((bench.exchanger.port, False), (other.port, True)):
        bench.publish(smarthost={'hostname': HOST, 'port': port})
        bench.run()
        assert ('cipher' in bench.final()['results'][0]) is secured
    other.close()


@pytest.mark.parametrize('reply', [b'454 not now', b'554 never', b'220 go\r\n250 evil', b'220 go' + DROP, SILENCE])
def test_broken_tls_is_followed_by_an_attempt_in_clear(make: Make, server_tls: ssl.SSLContext, reply: bytes) -> None:
    bench = make(tls=server_tls)
    bench.exchanger.script['STARTTLS'] = reply
    bench.publish()
    bench.run(301)
    assert bench.last('result', 'cipher') == ('accepted', None)
    assert bench.exchanger.verbs.count('EHLO') == 2 and len(bench.exchanger.clients) == 2


def test_in_clear_only_once(make: Make, server_tls: ssl.SSLContext) -> None:
    bench = make(tls=server_tls)
    bench.exchanger.script.update({'STARTTLS': b'454 not now', 'EHLO': [
        b'250-mx.example\r\n250 STARTTLS', b'451 later']})
    bench.publish()
    bench.run()
    assert bench.final('retry')['results'][-1]['state'] == 'ehlo' and len(bench.exchanger.clients) == 2


def test_no_login_in_clear_where_tls_is_broken(make: Make, certificate: Certificate) -> None:
    """Whoever breaks the handshake does not learn the password."""
    broken = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # without a certificate no handshake succeeds
    bench = make(broken)
    bench.exchanger.extensions.append(b'AUTH PLAIN')
    bench.exchanger.script['AUTH'] = b'235 ok'
    server = {'hostname': 'mx1.example', 'port': bench.exchanger.port}
    bench.publish(smarthost={**server, 'username': 'us', 'password': 'secret'})
    bench.publish(smarthost=server, recipient='r@two.example')
    bench.run()
    assert [document['results'][0]['state'] for document in bench.take('retry')] == ['handshake']
    assert bench.exchanger.recipients == ['r@two.example'] and 'AUTH' not in bench.exchanger.verbs
