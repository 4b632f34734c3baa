"""What certificates say, from those that openssl makes, and from what is none."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from mqlite.der import BadDer
from mqlite.loop.tls import first_certificate
from mqlite.loop.x509 import describe, dns_names
from tests.support.process import find_program


def make(folder: Path, *options: str) -> bytes:
    """A certificate in DER."""
    subprocess.run([find_program('openssl'), 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
                    '-nodes', '-keyout', folder / 'key', '-out', folder / 'certificate', *options],
                   check=True, capture_output=True)
    return first_certificate((folder / 'certificate').read_text())


@pytest.mark.parametrize(('options', 'names'), [
    (('-subj', '/CN=One.Example'),                                                                  ('one.example',)),
    (('-subj', '/C=NL/O=x/CN=one.example/CN=two.example'),                          ('one.example', 'two.example')),
    (('-subj', '/CN=one.example', '-addext', 'subjectAltName=DNS:two.example,IP:192.0.2.1,DNS:*.Three.example'),
     ('two.example', '*.three.example')),
    (('-subj', '/CN=one.example', '-addext', 'subjectAltName=critical,DNS:two.example'),            ('two.example',)),
    (('-subj', '/CN=one.example', '-addext', 'subjectAltName=IP:192.0.2.1'),                        ('one.example',)),
    (('-subj', '/O=nobody'),                                                                        ()),
    (('-subj', '/CN=é', '-utf8'),                                                                   ('��',)),
    (('-subj', '/CN=x', '-addext', 'subjectAltName=' + ','.join(f'DNS:{n}.example' for n in range(300))),
     tuple(f'{n}.example' for n in range(300))),
])
def test_names(tmp_path: Path, options: tuple[str, ...], names: tuple[str, ...]) -> None:
    assert dns_names(make(tmp_path, *options)) == names


@pytest.mark.parametrize(('options', 'subject'), [
    (('-subj', '/C=NL/ST=Noord-Holland/L=Amsterdam/O=Firm/OU=Mail/CN=one.example'),
     {'country': 'NL', 'state': 'Noord-Holland', 'locality': 'Amsterdam', 'organization': 'Firm', 'unit': 'Mail',
      'common': 'one.example'}),
    (('-subj', '/CN=one.example/CN=two.example/serialNumber=5/emailAddress=a@b.example'), {'common': 'one.example'}),
    (('-subj', '/O=Müller/CN=é', '-utf8'), {'organization': 'Müller', 'common': 'é'}),
    (('-subj', '/CN=x', '-days', '40000'), {'common': 'x'}),  # its end is a GeneralizedTime
])
def test_a_description(tmp_path: Path, options: tuple[str, ...], subject: dict[str, str]) -> None:
    found = describe(make(tmp_path, *options))
    # Python's own reader of certificates, which only its tests may use
    known = ssl._ssl._test_decode_cert(str(tmp_path / 'certificate'))  # type: ignore[attr-defined]
    assert (found.subject, found.issuer, found.self_issued) == (subject, subject, True)
    assert found.version == known['version'] == 3
    assert (found.not_before, found.not_after) == tuple(ssl.cert_time_to_seconds(known[name])
                                                        for name in ('notBefore', 'notAfter'))


def test_what_is_cut_off_or_changed_is_refused_or_read(tmp_path: Path) -> None:
    """Nothing else is ever raised."""
    whole = make(tmp_path, '-subj', '/CN=one.example', '-addext', 'subjectAltName=DNS:two.example')
    for size in range(len(whole)):
        for read in (dns_names, describe):
            with pytest.raises(BadDer):
                read(whole[:size])
    assert dns_names(whole + b'and more') == ('two.example',)
    for at in range(len(whole)):
        for value in (0x00, 0x30, 0x7f, 0x80, 0x84, 0xff):
            try:
                describe(whole[:at] + bytes([value]) + whole[at + 1:])
            except BadDer:
                pass


@pytest.mark.parametrize('data', [b'', b'\x30', b'\x30\x00', b'\x30\x02\x30\x00', b'\x30\x80\x00\x00', b'\x02\x01\x00',
                                  b'\x30\x85\x01\x00\x00\x00\x00', b'\x30\x84\xff\xff\xff\xff'])
def test_what_is_no_certificate(data: bytes) -> None:
    for read in (dns_names, describe):
        with pytest.raises(BadDer):
            read(data)


@pytest.mark.parametrize('text', ['', 'text', '-----BEGIN CERTIFICATE-----', '-----END CERTIFICATE-----',
                                  '-----BEGIN CERTIFICATE-----\n=\n-----END CERTIFICATE-----'])
def test_what_is_no_pem(text: str) -> None:
    assert first_certificate(text) == b''
