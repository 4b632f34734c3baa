"""The host we run on: its name and addresses, the lock of a single instance, open files, and the change of user."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import pwd
import resource
from collections.abc import Iterable

from mqlite.errors import ConfigError
from mqlite.smtp.grammar import SyntaxFault, check_helo


def host_name(configured: str) -> str:
    """The name for greetings and traces: the setting, else the host's own, else localhost."""
    name = configured or os.uname().nodename
    try:
        check_helo(name)
    except SyntaxFault as fault:
        if configured:
            raise ConfigError(f'hostname: {fault}') from None
        return 'localhost'
    return name


def local_addresses() -> list[str]:
    """The addresses of this host, IPv4 first. Linux only, from /proc; ConfigError elsewhere."""
    try:
        return _ipv4_addresses() + _ipv6_addresses()
    except OSError as error:
        raise ConfigError(f'cannot list the addresses of this host: {error}') from error


class OwnPlaces:
    """Whether a daemon listens at an address and port; those of this host that there were at its start."""

    def __init__(self, places: Iterable[tuple[str, int]]) -> None:
        """`places`: addresses and ports that it listens at; 0.0.0.0 and :: are all of this host."""
        self._places = set(places)
        self._addresses: frozenset[str] = frozenset()
        if any(address in ('0.0.0.0', '::') for address, _ in self._places):
            with contextlib.suppress(ConfigError):
                self._addresses = frozenset(local_addresses())

    def __call__(self, address: str, port: int) -> bool:
        address = _reached(address)
        if (address, port) in self._places:
            return True
        everywhere = '::' if ':' in address else '0.0.0.0'
        return (everywhere, port) in self._places and (
            address in self._addresses or ipaddress.ip_address(address).is_loopback)


def _reached(address: str) -> str:
    """Where a connection to it goes: what is no address of anybody goes to this host, and ::ffff:192.0.2.1 is IPv4."""
    target = ipaddress.ip_address(address)
    mapped = target.ipv4_mapped if isinstance(target, ipaddress.IPv6Address) else None
    target = mapped or target
    if target.is_unspecified:
        return '127.0.0.1' if target.version == 4 else '::1'
    return str(target)


def _ipv4_addresses() -> list[str]:
    """Local addresses are the /32 routes of type LOCAL: the line behind `|-- address` says so."""
    found, address = [], ''
    with open('/proc/net/fib_trie', encoding='ascii') as file:
        for line in file:
            word = line.strip()
            if word.startswith('|-- '):
                address = word[4:]
            elif word == '/32 host LOCAL' and address not in found:
                found.append(address)
    return found


def _ipv6_addresses() -> list[str]:
    try:
        with open('/proc/net/if_inet6', encoding='ascii') as file:
            rows = [line.split()[0] for line in file]
    except FileNotFoundError:
        return []  # a kernel without IPv6
    groups = [':'.join(row[at:at + 4] for at in range(0, 32, 4)) for row in rows]
    return [str(ipaddress.IPv6Address(text)) for text in groups]


def take_lock(path: str) -> int:
    """Lock the file and write our process id into it; the descriptor, to be kept open. ConfigError when taken."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise ConfigError(f'cannot open the lock file {path}: {error.strerror}; check lock') from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(descriptor, 32).decode('ascii', 'replace').strip()
        os.close(descriptor)
        raise ConfigError(f'another mqlite is running (process {holder or "unknown"}): it holds {path}') from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f'{os.getpid()}\n'.encode('ascii'))
    return descriptor


def allow_open_files(count: int) -> bool:
    """See to it that so many files and connections may be open at once; False when the host allows fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        soft = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft == resource.RLIM_INFINITY or soft >= count


def become_user(name: str) -> None:
    """Give up root for good. ConfigError when there is no such user or we may not change."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f'user: there is no user {name} on this host') from None
    if os.getuid() == entry.pw_uid:
        return
    try:
        os.initgroups(name, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    except PermissionError:
        raise ConfigError(f'user: only root can become {name}; start as root or leave the setting out') from None


def user_name(number: int) -> str:
    """The name of a user; the number when there is no user with it."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
