"""Certificates of the server: which one is shown, when their files are read again, and what is wrong with them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mqlite.errors import ConfigError
from mqlite.log import Log
from mqlite.loop.clock import VirtualClock
from mqlite.loop.tls import TlsContext, TlsError, TlsLayer
from mqlite.loop.x509 import dns_names
from mqlite.smtp.certificates import LOOK_SECONDS, Certificates
from tests.support.peers import Certificate, make_certificate
from tests.support.smtp import any_client_context

CIPHERS = '!aNULL:!eNULL:!LOW:!SSLv2:!EXPORT:!EXPORT56:FIPS:MEDIUM:HIGH:@STRENGTH'  # MailerQ's example
LOCKED_KEY = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAghyrPIJYF3XgICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEAQIEENBGz+B6GWfEO6mA9X6ASaEEgZDk
O9+SuUNJIV0vCxOqDfvOZv+g4GxnfXoX9QQ/f9cv9xyHPjHl+JsbufI71mf4LBDT
G6puWHoCw1/ZrOI5tVr9j0OaEAyKZTs4oSu58r2VdZApHDsmNaqaFnMpOZoDjEZs
Yq0EJ0OG2/NroOmDV+dR62I1nQ0CW805AfY65yq9x0oeJtANGu6mDfzfg8ULj6g=
-----END ENCRYPTED PRIVATE KEY-----
"""


class Lines(Log):
    def __init__(self) -> None:
        super().__init__([])
        self.lines: list[str] = []

    def _write(self, level: str, text: str) -> None:
        self.lines.append(f'{level}: {text}')


class Bench:
    """Certificates whose files stand in a folder, and a clock that the test moves."""

    def __init__(self, *pairs: Certificate, ciphers: str = '') -> None:
        self.clock, self.log = VirtualClock(), Lines()
        self.certificates = Certificates([str(pair.certificate) for pair in pairs], [str(pair.key) for pair in pairs],
                                         ciphers, self.clock, self.log)

    def shown(self, name: str | None = None) -> tuple[str, ...]:
        """The names in what a client sees that asks for this one."""
        return shake_hands(self.certificates.context(), name)

    def later(self) -> None:
        self.clock.elapsed += LOOK_SECONDS


def shake_hands(context: TlsContext, name: str | None, other_name: bytes = b'') -> tuple[str, ...]:
    """`other_name`, as long as the name, is what stands in the client's first message."""
    server, client = TlsLayer(context, True), TlsLayer(any_client_context(), False, name)
    client.handshake(b'')
    hello = client.pending_output()
    server.handshake(hello.replace(name.encode(), other_name) if name and other_name else hello)
    assert client.handshake(server.pending_output())
    assert server.handshake(client.pending_output())
    return dns_names(client._object.getpeercert(binary_form=True) or b'')


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Certificate]:
    folder = tmp_path_factory.mktemp('certificates')
    return [make_certificate(folder, *names) for names in (
        ('mx.example',), ('mail.one.example', '*.one.example'), ('two.example', '*.TWO.example', 'mx.example'))]


@pytest.fixture
def pair(made: list[Certificate], tmp_path: Path) -> Certificate:
    """A copy of the first one, to be changed."""
    return Certificate(*(Path(shutil.copy(path, tmp_path)) for path in made[0]))


def replace(pair: Certificate, other: Certificate, *fields: str) -> None:
    for field in fields:
        shutil.copy(getattr(other, field), getattr(pair, field))


# which one

@pytest.mark.parametrize(('name', 'shown'), [
    (None,                   0),
    ('mx.example',           0),    # two have it: the first
    ('nobody.example',       0),
    ('one.example',          0),    # * stands for one label, and not for none
    ('a.b.one.example',      0),    # or two
    ('mail.one.example',     1),
    ('any.one.example',      1),
    ('ANY.One.Example',      1),
    ('two.example',          2),
    ('a.two.example',        2),
])
def test_the_name_chooses(made: list[Certificate], name: str | None, shown: int) -> None:
    expected = [('mx.example',), ('mail.one.example', '*.one.example'), ('two.example', '*.two.example', 'mx.example')]
    assert Bench(*made).shown(name) == expected[shown]


def test_a_single_certificate_is_for_everybody(made: list[Certificate]) -> None:
    assert Bench(made[0]).shown('nobody.example') == ('mx.example',)


def test_a_key_in_the_file_of_its_certificate(pair: Certificate) -> None:
    pair.certificate.write_text(pair.key.read_text() + pair.certificate.read_text())
    context = Certificates([str(pair.certificate)], [], CIPHERS, VirtualClock(), Lines()).context()
    assert shake_hands(context, None) == ('mx.example',)


def test_a_name_that_is_none_ends_the_handshake(made: list[Certificate], monkeypatch: pytest.MonkeyPatch) -> None:
    """Python does not ask us, and says so where nothing can be raised; the daemon makes a line in the log of it."""
    ignored: list[object] = []
    monkeypatch.setattr(sys, 'unraisablehook', lambda said: ignored.append(said.exc_value))
    with pytest.raises(TlsError, match='callback failed'):
        shake_hands(Bench(*made).certificates.context(), 'xx.example', b'\xff\xfe.example')
    assert [type(error) for error in ignored] == [UnicodeDecodeError]


# read again

def test_a_changed_file_is_looked_at_after_a_while(made: list[Certificate], pair: Certificate) -> None:
    bench = Bench(pair)
    replace(pair, made[1], 'certificate', 'key')
    assert bench.shown() == ('mx.example',)
    bench.later()
    assert bench.shown() == ('mail.one.example', '*.one.example')
    bench.later()
    assert bench.shown() == ('mail.one.example', '*.one.example')
    assert bench.log.lines == ['info: smtp-certificate: the files have changed, and are in use']


def test_the_certificate_comes_before_its_key(made: list[Certificate], pair: Certificate) -> None:
    bench = Bench(pair)
    replace(pair, made[1], 'certificate')
    for _ in range(3):
        bench.later()
        assert bench.shown() == ('mx.example',)
    replace(pair, made[1], 'key')
    bench.later()
    assert bench.shown() == ('mail.one.example', '*.one.example')
    assert [line.partition(': ')[0] for line in bench.log.lines] == ['warning', 'info']
    assert bench.log.lines[0] == (f'warning: smtp-key: {pair.key} is no key in PEM for {pair.certificate}: key values '
                                  f'mismatch; the certificates of before stay in use')


@pytest.mark.parametrize('what', ['certificate', 'key'])
def test_a_file_that_is_half_written_or_gone(made: list[Certificate], pair: Certificate, what: str) -> None:
    bench = Bench(pair)
    path: Path = getattr(pair, what)
    whole = path.read_text()
    for count, broken in enumerate([whole[:len(whole) // 2], '', None], 1):
        if broken is None:
            path.unlink()
        else:
            path.write_text(broken)
        for _ in range(2):
            bench.later()
            assert bench.shown() == ('mx.example',)
        assert len(bench.log.lines) == count and all('stay in use' in line for line in bench.log.lines)
    path.write_text(whole)
    bench.later()
    assert bench.shown() == ('mx.example',)
    assert bench.log.lines[3:] == ['info: smtp-certificate: the files have changed, and are in use']


def test_one_of_several_is_broken(made: list[Certificate], pair: Certificate) -> None:
    """All or none: the names of one certificate must not lead to another one's key."""
    bench = Bench(made[1], pair)
    pair.certificate.write_text('')
    bench.later()
    assert bench.shown('mx.example') == ('mx.example',)
    assert bench.shown() == ('mail.one.example', '*.one.example')
    assert len(bench.log.lines) == 1


# what is wrong with them

@pytest.mark.parametrize(('certificates', 'keys', 'ciphers', 'complaint'), [
    (['absent'],       ['key'],        '',  'smtp-certificate: {}/absent cannot be read: No such file or directory'),
    (['.'],            ['key'],        '',  'smtp-certificate: {}/. cannot be read: Is a directory'),
    (['empty'],        ['key'],        '',  'smtp-certificate: {}/empty holds no certificate in PEM'),
    (['key'],          ['key'],        '',  'smtp-certificate: {}/key holds no certificate in PEM'),
    (['garbled'],      ['key'],        '',  'smtp-certificate: {}/garbled holds no certificate in PEM'),
    (['cert'],         ['absent'],     '',  'smtp-key: {}/absent cannot be read: No such file or directory'),
    (['cert'],         ['empty'],      '',  'smtp-key: {}/empty is no key in PEM for {}/cert: '),
    (['cert'],         [],             '',  'smtp-key: {}/cert is no key in PEM for {}/cert: '),
    (['cert'],         ['another'],    '',  'smtp-key: {}/another is no key in PEM for {}/cert: key values mismatch'),
    (['cert'],         ['locked'],     '',  'smtp-key: {}/locked is no key in PEM for {}/cert: the key is encrypted'),
    (['cert'],         ['key', 'key'], '',  'smtp-key: 2 keys for 1 certificates'),
    (['cert', 'cert'], ['key'],        '',  'smtp-key: 1 keys for 2 certificates'),
    (['cert'],         ['key'],        'x', 'smtp-ciphers: no cipher can be selected'),
])
def test_complaints_name_the_setting(made: list[Certificate], tmp_path: Path, certificates: Sequence[str],
                                     keys: Sequence[str], ciphers: str, complaint: str) -> None:
    shutil.copy(made[0].certificate, tmp_path / 'cert')
    shutil.copy(made[0].key, tmp_path / 'key')
    shutil.copy(made[1].key, tmp_path / 'another')
    (tmp_path / 'empty').touch()
    (tmp_path / 'garbled').write_text('-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n')
    (tmp_path / 'locked').write_text(LOCKED_KEY)
    with pytest.raises(ConfigError) as caught:
        Certificates([f'{tmp_path}/{name}' for name in certificates], [f'{tmp_path}/{name}' for name in keys], ciphers,
                     VirtualClock(), Lines())
    assert str(caught.value).startswith(complaint.replace('{}', str(tmp_path)))
