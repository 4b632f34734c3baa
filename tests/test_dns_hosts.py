"""/etc/hosts, /etc/resolv.conf and the way nameservers are written in the configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mqlite.dns.hosts import ResolvConf, WatchedFile, parse_hosts, parse_resolv_conf, parse_server
from mqlite.dns.lookup import Server
from mqlite.errors import ConfigError

LOCAL = (Server('127.0.0.1'),)


@pytest.mark.parametrize(('text', 'server', 'shown'), [
    ('192.0.2.1', Server('192.0.2.1', 53), '192.0.2.1'),
    (' 192.0.2.1 ', Server('192.0.2.1', 53), '192.0.2.1'),
    ('192.0.2.1:5353', Server('192.0.2.1', 5353), '192.0.2.1:5353'),
    ('::1', Server('::1', 53), '::1'),
    ('2001:db8::1', Server('2001:db8::1', 53), '2001:db8::1'),
    ('[::1]', Server('::1', 53), '::1'),
    ('[::1]:5353', Server('::1', 5353), '[::1]:5353'),
    ('fe80::1%eth0', Server('fe80::1%eth0', 53), 'fe80::1%eth0'),
])
def test_servers(text: str, server: Server, shown: str) -> None:
    assert parse_server(text) == server
    assert str(server) == shown


@pytest.mark.parametrize('text', [
    '', 'dns.example', '192.0.2.1:', '192.0.2.1:0', '192.0.2.1:65536', '192.0.2.1:x', '192.0.2.1:-1', '[::1', '[::1]:',
    '[::1]5', '[::1]x', '192.0.2', ':53', '[]:53', '192.0.2.1:٣',
])
def test_what_is_no_server(text: str) -> None:
    with pytest.raises(ConfigError, match='write an address'):
        parse_server(text)


@pytest.mark.parametrize(('text', 'conf'), [
    ('', ResolvConf(LOCAL, None, None, False)),
    ('nameserver 192.0.2.1\nnameserver 2001:db8::1\n',
     ResolvConf((Server('192.0.2.1'), Server('2001:db8::1')), None, None, False)),
    ('# nameserver 192.0.2.1\n;nameserver 192.0.2.2\nnameserver 192.0.2.3 # ours\r\n',
     ResolvConf((Server('192.0.2.3'),), None, None, False)),
    ('nameserver\nnameserver dns.example\nsearch corp.example\ndomain x\nsortlist y',
     ResolvConf(LOCAL, None, None, False)),
    ('options timeout:2 attempts:4 rotate ndots:3\n', ResolvConf(LOCAL, 2, 4, True)),
    ('options timeout:2\noptions attempts:1 timeout:7', ResolvConf(LOCAL, 7, 1, False)),
    ('options timeout:0 attempts:x rotated timeout', ResolvConf(LOCAL, None, None, False)),
    ('options timeout:' + '9' * 5000, ResolvConf(LOCAL, None, None, False)),
    ('options\n\0\ufffd\n \t\n', ResolvConf(LOCAL, None, None, False)),
])
def test_resolv_conf(text: str, conf: ResolvConf) -> None:
    assert parse_resolv_conf(text) == conf


def test_hosts() -> None:
    text = '''
# 192.0.2.9 commented.example
127.0.0.1   localhost localhost.localdomain   # the usual
::1         LOCALHOST ip6-localhost
192.0.2.1   mail.example. bücher.example
192.0.2.1   mail.example
192.0.2.2   mail.example
192.0.2.300 bad-address.example
just words
192.0.2.3   bad..name good.example
192.0.2.4
'''
    assert parse_hosts(text) == {
        'localhost': ('127.0.0.1', '::1'),
        'localhost.localdomain': ('127.0.0.1',),
        'ip6-localhost': ('::1',),
        'mail.example': ('192.0.2.1', '192.0.2.2'),
        'xn--bcher-kva.example': ('192.0.2.1',),
        'good.example': ('192.0.2.3',),
    }


def test_a_watched_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path, parsed = tmp_path / 'file', []

    def parse(text: str) -> str:
        parsed.append(text)
        return text

    watched = WatchedFile(str(path), parse)
    assert watched.current() == ''
    path.write_text('one')
    assert watched.current() == watched.current() == 'one'
    path.write_text('two')
    os.utime(path, ns=(1, 1))
    assert watched.current() == watched.current() == 'two'
    path.unlink()
    assert watched.current() == ''
    assert parsed == ['', 'one', 'two', '']


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / 'hosts').write_bytes(b'\xff\xfe\n192.0.2.1 a.example\n')
    assert WatchedFile(str(tmp_path / 'hosts'), parse_hosts).current() == {'a.example': ('192.0.2.1',)}
    assert WatchedFile(str(tmp_path), parse_hosts).current() == {}
