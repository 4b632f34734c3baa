"""The PROXY header: the parser by tables in every delivery shape, then in front of a session, and haproxy itself."""

from __future__ import annotations

import ipaddress
import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqlite.smtp.admission import PROXY_SECONDS
from mqlite.smtp.clients import ClientRule
from mqlite.smtp.proxy import V1_LIMIT, V2_LIMIT, Header, ProxyFault, read_header
from tests.support.daemon import SecureDaemon
from tests.support.load import send
from tests.support.peers import Certificate
from tests.support.process import HOST, Process, find_program, free_port
from tests.support.smtp import GREETING, Bench

SIGNATURE = b'\r\n\r\n\0\r\nQUIT\n'
V4 = bytes([192, 0, 2, 7, 198, 51, 100, 9]) + (56324).to_bytes(2, 'big') + (25).to_bytes(2, 'big')
SIX, MAPPED = ipaddress.IPv6Address('2001:db8::7'), ipaddress.IPv6Address('::ffff:192.0.2.7')
TLVS = b'\x04\0\3abc\x20\0\5\1\0\0\0\0'


def v2(command: int, family: int, block: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + len(block).to_bytes(2, 'big') + block


def v6(address: ipaddress.IPv6Address) -> bytes:
    return address.packed * 2 + (56324).to_bytes(2, 'big') + (25).to_bytes(2, 'big')


CLIENT = ('192.0.2.7', 56324)
HEADERS = [
    (b'PROXY TCP4 192.0.2.7 198.51.100.9 56324 25\r\n',                  CLIENT,                 False),
    (b'PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n',      ('255.255.255.255', 65535), False),
    (b'PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n',                              ('0.0.0.0', 0),         False),
    (b'PROXY TCP6 2001:db8::7 2001:DB8::9 56324 25\r\n',                 ('2001:db8::7', 56324), False),
    (b'PROXY TCP6 2001:0db8:0000:0000:0000:0000:0000:0007 ::1 1 2\r\n',  ('2001:db8::7', 1),     False),
    (b'PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.9 56324 25\r\n',    CLIENT,                 False),
    (b'PROXY UNKNOWN\r\n',                                               None,                   False),
    (b'PROXY UNKNOWN whatever it is\xff\r\n',                            None,                   False),
    (b'PROXY UNKNOWN'.ljust(V1_LIMIT - 2, b' ') + b'\r\n',               None,                   False),
    (v2(0x21, 0x11, V4),                                                 CLIENT,                 False),
    (v2(0x21, 0x11, V4 + TLVS),                                          CLIENT,                 False),
    (v2(0x21, 0x21, v6(SIX)),                                            ('2001:db8::7', 56324), False),
    (v2(0x21, 0x21, v6(MAPPED)),                                         CLIENT,                 False),
    (v2(0x21, 0x21, v6(SIX) + bytes(V2_LIMIT - 16 - 36)),                ('2001:db8::7', 56324), False),
    (v2(0x21, 0x00, b''),                                                None,                   False),
    (v2(0x21, 0x00, V4),                                                 None,                   False),
    (v2(0x21, 0x10, V4),                                                 None,                   False),
    (v2(0x21, 0x12, V4),                                                 None,                   False),  # UDP
    (v2(0x21, 0x22, v6(SIX)),                                            None,                   False),
    (v2(0x21, 0x31, bytes(216)),                                         None,                   False),  # UNIX
    (v2(0x21, 0x32, bytes(216)),                                         None,                   False),
    (v2(0x20, 0x00, b''),                                                None,                   True),
    (v2(0x20, 0x11, V4),                                                 None,                   True),
    (v2(0x20, 0xff, TLVS),                                               None,                   True),
]

# What may not stand between `PROXY ` and the end of the line.
LINE_FAULTS = [
    '', 'TCP4', 'TCP5 1.2.3.4 1.2.3.4 1 2', 'UNKNOWNX', 'UDP4 1.2.3.4 1.2.3.4 1 2', 'tcp4 1.2.3.4 1.2.3.4 1 2',
    'TCP4 1.2.3.4 1.2.3.4 1', 'TCP4 1.2.3.4 1.2.3.4 1 2 3', 'TCP4 1.2.3.4 1.2.3.4 1 2 ', ' TCP4 1.2.3.4 1.2.3.4 1 2',
    'TCP4  1.2.3.4 1.2.3.4 1 2', 'TCP4 1.2.3.4 1.2.3.4 1 2\r', 'TCP4 1.2.3 1.2.3.4 1 2', 'TCP4 1.2.3.4 1.2.3.456 1 2',
    'TCP4 01.2.3.4 1.2.3.4 1 2', 'TCP4 2001:db8::7 1.2.3.4 1 2', 'TCP4 1.2.3.4 2001:db8::7 1 2', 'TCP4 x y 1 2',
    'TCP6 1.2.3.4 ::1 1 2', 'TCP6 ::1%eth0 ::1 1 2', 'TCP6 ::1 ::1%1 1 2', 'TCP6 [::1] ::1 1 2', 'TCP6 ::1::1 ::1 1 2',
    'TCP6 :: ::12345 1 2', 'TCP4 1.2.3.4 1.2.3.4 01 2', 'TCP4 1.2.3.4 1.2.3.4 1 02', 'TCP4 1.2.3.4 1.2.3.4 65536 2',
    'TCP4 1.2.3.4 1.2.3.4 1 65536', 'TCP4 1.2.3.4 1.2.3.4 -1 2', 'TCP4 1.2.3.4 1.2.3.4 +1 2',
    'TCP4 1.2.3.4 1.2.3.4 \xb2 2', 'TCP4 1.2.3.4 1.2.3.4 1_0 2', 'TCP4 1.2.3.4 1.2.3.4 0x1 2',
    'TCP4 1.2.3.4\t1.2.3.4 1 2', 'UNKNOWN'.ljust(V1_LIMIT - 7),
]
FAULTS = [
    *(b'PROXY %b\r\n' % text.encode('latin-1') for text in LINE_FAULTS),
    b'EHLO x\r\n', b'\0', b'\n', b'proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n', b'PROXY\tTCP4', b'PROXY\r\n', b'PROXZ',
    b'\r\nEHLO x\r\n', b'\r\n\r\n\0\r\nQUIT\r\n\r\n',
    b'PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n', b'PROXY UNKNOWN\n', b'PROXY TCP4 '.ljust(V1_LIMIT, b'1'),
    v2(0x22, 0x11, V4), v2(0x2f, 0x11, V4), v2(0x11, 0x11, V4), v2(0x31, 0x11, V4), v2(0x01, 0x11, V4),
    v2(0x21, 0x41, V4), v2(0x21, 0x13, V4), v2(0x21, 0xf0, b''), v2(0x21, 0x0f, b''),
    v2(0x21, 0x11, b''), v2(0x21, 0x11, V4[:-1]), v2(0x21, 0x21, v6(SIX)[:-1]),
    v2(0x21, 0x21, v6(SIX) + bytes(V2_LIMIT - 16 - 35)),
    SIGNATURE + b'\x21\x11\xff\xff', SIGNATURE + b'\x20\x00\xff\xff',
]


@pytest.mark.parametrize(('wire', 'client', 'own'), HEADERS)
def test_header(wire: bytes, client: tuple[str, int] | None, own: bool) -> None:
    expected = Header(len(wire), client, own)
    for rest in (b'', b'E', b'EHLO x\r\n', SIGNATURE, b'PROXY UNKNOWN\r\n'):
        assert read_header(wire + rest) == expected
    assert [read_header(wire[:n]) for n in range(len(wire))] == [None] * len(wire)


@pytest.mark.parametrize('wire', FAULTS)
def test_what_is_no_header(wire: bytes) -> None:
    with pytest.raises(ProxyFault, match='PROXY'):
        read_header(wire)
    for n in range(len(wire)):
        try:
            assert read_header(wire[:n]) is None
        except ProxyFault:
            break


# in front of a session

NETWORK = ClientRule([ipaddress.ip_network('127.0.0.0/8')])
ASK = (b'EHLO client.example', b'MAIL FROM:<a@client.example>', b'RCPT TO:<b@example.org>', b'DATA', b'.')


@pytest.fixture
def proxied() -> Iterator[Bench]:
    """Its clients are proxies; 192.0.2.0/24 and the proxies themselves may relay."""
    range_ = ClientRule([ipaddress.ip_network('192.0.2.0/24'), ipaddress.ip_network('127.0.0.0/8')])
    with Bench(in_range=range_, is_proxy=NETWORK) as made:
        yield made


@pytest.mark.parametrize(('header', 'codes'), [
    (b'PROXY TCP4 192.0.2.7 198.51.100.9 56324 25\r\n',   b'250 250 250 354 250'),
    (v2(0x21, 0x11, V4 + TLVS),                           b'250 250 250 354 250'),
    (v2(0x21, 0x21, v6(MAPPED)),                          b'250 250 250 354 250'),
    (b'PROXY TCP4 198.51.100.9 192.0.2.7 56324 25\r\n',   b'250 250 550 554 500'),
    (b'PROXY TCP6 2001:db8::7 2001:db8::9 56324 25\r\n',  b'250 250 550 554 500'),
    (b'PROXY UNKNOWN\r\n',                                b'250 250 550 554 500'),   # not with the rights of the proxy
    (v2(0x21, 0x00, b''),                                 b'250 250 550 554 500'),
    (v2(0x20, 0x00, b''),                                 b'250 250 250 354 250'),   # the proxy itself
])
@pytest.mark.parametrize('in_pieces', [False, True])
def test_the_client_of_the_header_is_the_client(proxied: Bench, header: bytes, codes: bytes, in_pieces: bool) -> None:
    async def client() -> None:
        stream = await proxied.client(greeted=False)
        for piece in [header[n:n + 1] for n in range(len(header))] if in_pieces else [header]:
            await proxied.quiet(0.01)
            assert stream.take() == b'', 'greeted before the header'
            stream.write(piece)
            stream.flush()
        assert await proxied.read(stream, len(GREETING)) == GREETING
        assert await proxied.talk(stream, *ASK) == codes

    proxied.run(client())
    address, port = '127.0.0.1' if header[12:13] == b'\x20' else '192.0.2.7', 56324
    for document in proxied.documents():
        assert document['connection']['remote-ip'] == address
        assert (document['connection']['remote-port'] == port) == (address != '127.0.0.1')
        assert f'from client.example ([{address}])' in document['mime']
    assert proxied.notes == []


@pytest.mark.parametrize(('wire', 'reason'), [
    (b'EHLO client.example\r\n', 'does not begin with a PROXY header'),
    (b'PROXY TCP4 1.2.3.4\r\n', 'in a form that does not exist'),
    (b'PROXY TCP4 ' + b'1' * 200, 'more than 107 octets'),
    (b'', 'no PROXY header within 5 s'),
    (b'PROXY TCP4 1.2.3.4 1.2.3.4 1 ', 'no PROXY header within 5 s'),
    (SIGNATURE + b'\x21\x11\x0f\x00', 'no PROXY header within 5 s'),
])
def test_without_a_header_there_is_no_greeting(proxied: Bench, wire: bytes, reason: str) -> None:
    async def client() -> None:
        stream = await proxied.client(greeted=False)
        stream.write(wire)
        stream.flush()
        assert await proxied.read(stream, 200) == (b'421 4.3.5 A PROXY header must come first on connections from this '
                                                 b'address\r\n')
        assert proxied.clock.elapsed < PROXY_SECONDS + 1

    proxied.run(client())
    assert len(proxied.notes) == 1 and proxied.notes[0].startswith('127.0.0.1, which is in smtp-proxy: ')
    assert reason in proxied.notes[0]


def test_a_header_that_dribbles_in_has_no_more_time(proxied: Bench) -> None:
    async def client() -> None:
        stream = await proxied.client(greeted=False)
        for octet in b'PROXY TCP4':
            stream.write(bytes([octet]))
            stream.flush()
            await proxied.quiet(1.0)
        assert (await proxied.read(stream, 200))[:4] == b'421 ' and proxied.clock.elapsed < 12

    proxied.run(client())


def test_a_proxy_that_only_looks_whether_we_are_there(proxied: Bench) -> None:
    """Connects and closes, as health checks do: that is nothing to tell anybody."""
    async def client() -> None:
        (await proxied.client(greeted=False)).close()
        await proxied.quiet(10.0)
        assert len(proxied.server) == 0

    proxied.run(client())
    assert proxied.notes == []


@pytest.mark.parametrize('header', [b'PROXY TCP4 192.0.2.7 198.51.100.9 56324 25\r\n', b'PROXY UNKNOWN\r\n'])
def test_a_stranger_does_not_speak_for_others(header: bytes) -> None:
    async def client() -> None:
        stream = await bench.client()
        stream.write(header + b'EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n')
        stream.flush()
        assert await bench.read(stream, 200) == (b'421 4.3.5 No PROXY header is taken from this address, closing the '
                                                 b'connection\r\n')

    with Bench() as bench:
        bench.run(client())


def test_a_binary_header_of_a_stranger_is_no_command() -> None:
    async def client() -> None:
        stream = await bench.client()
        stream.write(v2(0x21, 0x11, V4) + b'\r\nNOOP\r\n')
        stream.flush()
        said = await bench.read(stream, 1 << 16)
        assert {line[:3] for line in said.splitlines()[:-2]} == {b'500'} and b'250 2.0.0' in said

    with Bench(timeout=1.0) as bench:
        bench.run(client())


# the real ones

CONFIG = '''
global
    log stdout format raw local0
defaults
    mode tcp
    log global
    timeout connect 5s
    timeout client 20s
    timeout server 20s
    retries 5
    default-server source 127.0.0.3 check-send-proxy inter 100ms
listen one
    bind 127.0.0.1:{}
    option smtpchk EHLO haproxy.example
    server mqlite 127.0.0.1:{clear} send-proxy check
listen two
    bind 127.0.0.1:{}
    option smtpchk EHLO haproxy.example
    server mqlite 127.0.0.1:{clear} send-proxy-v2 proxy-v2-options ssl,unique-id,crc32c check
listen tls
    bind 127.0.0.1:{}
    server mqlite 127.0.0.1:{tls} send-proxy-v2
'''


@pytest.fixture(scope='module')
def daemon(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[SecureDaemon]:
    """Clients from 127.0.0.2 may relay, and nobody else: what arrives was let in by the address in the header."""
    made = SecureDaemon(tmp_path_factory.mktemp('proxied'), certificate, smtp_proxy='127.0.0.3/32',
                        smtp_range='127.0.0.2/32')
    made.start()
    yield made
    made.close()


def test_haproxy_in_front(daemon: SecureDaemon, tmp_path: Path) -> None:
    """Both versions, and in front of a port for TLS, where the header comes before the handshake. Meanwhile it checks
    with headers of its own whether the server is well.
    """
    *ports, tls_port = free_port(), free_port(), free_port()
    (tmp_path / 'haproxy.cfg').write_text(CONFIG.format(*ports, tls_port, clear=daemon.port, tls=daemon.secure_port))
    haproxy = Process([find_program('haproxy'), '-db', '-f', tmp_path / 'haproxy.cfg'], tmp_path)
    try:
        for port in (*ports, tls_port):
            haproxy.wait_listening(port)
        for port in ports:
            send(port, source='127.0.0.2')
        context = ssl.create_default_context(cafile=daemon.certificate)
        with smtplib.SMTP_SSL('localhost', tls_port, context=context, source_address=('127.0.0.2', 0)) as client:
            client.sendmail('sender@example.org', 'recipient@example.com', b'Subject: x\r\n\r\nx\r\n')
        assert 'DOWN' not in haproxy.output() and 'smtp-proxy' not in daemon.output(), haproxy.output()
    finally:
        haproxy.close()
    documents = daemon.take('inbox', 3)
    assert [document['connection']['remote-ip'] for document in documents] == ['127.0.0.2'] * 3
    assert all('([127.0.0.2])' in document['mime'] for document in documents)


@pytest.mark.parametrize('options', [
    '--proxy-version 1 --proxy-family TCP4',
    '--proxy-version 2 --proxy-family AF_INET',
    '--proxy-version 2 --proxy-family AF_INET --tls-on-connect',
])
def test_swaks_as_a_proxy(daemon: SecureDaemon, options: str) -> None:
    port = daemon.secure_port if 'tls' in options else daemon.port
    done = subprocess.run(
        [find_program('swaks'), '--server', HOST, '--port', str(port), '--local-interface', '127.0.0.3',
         '--from', 'sender@example.org', '--to', 'recipient@example.com', *options.split(), '--proxy-source',
         '127.0.0.2', '--proxy-source-port', '4242', '--proxy-dest', '192.0.2.1', '--proxy-dest-port', '25'],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    [document] = daemon.take('inbox', 1)
    assert (document['connection']['remote-ip'], document['connection']['remote-port']) == ('127.0.0.2', 4242)
