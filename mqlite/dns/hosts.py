"""The two files of the host that a resolver honours: /etc/hosts and /etc/resolv.conf (hosts(5), resolv.conf(5)).

Of resolv.conf: `nameserver`, and of `options` timeout, attempts and rotate. `search`, `domain` and `ndots` are ignored
on purpose: they complete what a person types at a prompt, while the domain of a mail address is complete, and mail to a
mistyped one must not reach a host of ours that happens to have that name. Unlike in the C library, more than three
nameservers count. Lines that make no sense are passed over, as there.

The parsers are pure. `read_text` is the one function that touches a file; `WatchedFile` reads again when it has
changed. The files are the operator's, like the configuration: their size is not bounded.
"""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from typing import Callable, Generic, NamedTuple, TypeVar

from mqlite.dns.lookup import DNS_PORT, Server
from mqlite.dns.message import FormatError, normal_name
from mqlite.errors import ConfigError

_NUMBER = re.compile('[1-9][0-9]{0,4}')
_WITH_PORT = re.compile(r'(?:\[([^\[\]]+)\]|([^:\[\]]+))(?::([^:]+))?')  # [IPv6]:port or IPv4:port
T = TypeVar('T')


class ResolvConf(NamedTuple):
    """What resolv.conf says; None where it says nothing."""

    servers: tuple[Server, ...]
    timeout: float | None  # seconds
    attempts: int | None
    rotate: bool


def parse_server(text: str) -> Server:
    """'192.0.2.1', '192.0.2.1:5353', '2001:db8::1' or '[2001:db8::1]:5353'. ConfigError when it is none of these."""
    match = _WITH_PORT.fullmatch(text.strip())
    address, port = (match[1] or match[2], match[3] or str(DNS_PORT)) if match else (text.strip(), str(DNS_PORT))
    try:
        ip_address(address)
        if not _NUMBER.fullmatch(port) or int(port) > 65535:
            raise ValueError(f'{port!r} is not a port number')
    except ValueError as error:
        raise ConfigError(f'nameserver {text!r}: {error}; write an address, address:port or [IPv6]:port') from error
    return Server(address, int(port))


def parse_resolv_conf(text: str) -> ResolvConf:
    """Without a nameserver line, the one of this host (resolv.conf(5))."""
    servers: list[Server] = []
    options: dict[str, str] = {}
    for line in text.splitlines():
        keyword, *values = line.split('#')[0].split(';')[0].split() or ['']
        if keyword == 'nameserver' and values:
            try:
                servers.append(Server(str(ip_address(values[0]))))
            except ValueError:
                continue
        elif keyword == 'options':
            options.update((name, value) for name, _, value in (option.partition(':') for option in values))
    timeout, attempts = _number(options, 'timeout'), _number(options, 'attempts')
    return ResolvConf(tuple(servers) or (Server('127.0.0.1'),), timeout, attempts, 'rotate' in options)


def _number(options: dict[str, str], name: str) -> int | None:
    value = options.get(name, '')
    return int(value) if _NUMBER.fullmatch(value) else None


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Addresses by name, in the order of the file."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        address, *names = line.split('#')[0].split() or ['']
        try:
            address = str(ip_address(address))
        except ValueError:
            continue
        for name in names:
            try:
                addresses = found.setdefault(normal_name(name), [])
            except FormatError:
                continue
            if address not in addresses:
                addresses.append(address)
    return {name: tuple(addresses) for name, addresses in found.items()}


def read_text(path: str) -> str:
    """The file's text; '' when it cannot be read, which for these two files means the same as an empty one."""
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return file.read()
    except OSError:
        return ''


class WatchedFile(Generic[T]):
    """What a file says, parsed anew when its time of change, size or inode is another."""

    def __init__(self, path: str, parse: Callable[[str], T]) -> None:
        self._path = path
        self._parse = parse
        self._seen = self._signature()
        self._value = parse(read_text(path))

    def current(self) -> T:
        signature = self._signature()
        if signature != self._seen:
            self._seen, self._value = signature, self._parse(read_text(self._path))
        return self._value

    def _signature(self) -> tuple[int, int, int]:
        try:
            status = os.stat(self._path)
        except OSError:
            return 0, 0, 0
        return status.st_mtime_ns, status.st_size, status.st_ino
