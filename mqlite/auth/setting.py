"""The text of `smtp-auth`, read. Pure: whether files and hosts are there is for others to see.

    hardcoded://login:password,login2:password2          passwords in clear
    file:///path                                         login:hash lines, see accounts.py
    users://user1,user2,client*                          accounts of this host
    exec:///path                                         a program, see program.py
    http://host[:port]/path   https://host[:port]/path   HTTP Basic; 2xx is yes
    ldap://host[:port]/base                              bind as uid=login,base
    radius://identifier:secret@host[:port]

In the last three every part may be percent-encoded, and must be where it holds one of : / @ %; the target of an HTTP
request goes out as it stands. IPv6 addresses stand in brackets. Hardcoded logins and passwords are taken as they stand:
a login cannot hold a colon, nor a password a comma. No error repeats text of the setting, because a password may turn
up in any part of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Callable, Union
from urllib.parse import unquote_to_bytes

from mqlite.errors import ConfigError


@dataclass(frozen=True)
class Hardcoded:
    passwords: dict[str, bytes] = field(repr=False)


@dataclass(frozen=True)
class File:
    path: str


@dataclass(frozen=True)
class Users:
    names: tuple[str, ...]  # `*` stands for any text


@dataclass(frozen=True)
class Program:
    path: str


@dataclass(frozen=True)
class Http:
    host: str
    port: int
    target: str  # path and query, as it goes into the request
    tls: bool


@dataclass(frozen=True)
class Ldap:
    host: str
    port: int
    base: str


@dataclass(frozen=True)
class Radius:
    host: str
    port: int
    identifier: str  # NAS-Identifier
    secret: bytes = field(repr=False)


Setting = Union[Hardcoded, File, Users, Program, Http, Ldap, Radius]

# [IPv6] or a name; then perhaps a port (RFC 3986, 3.2.2 and 3.2.3)
_HOST = re.compile(r'(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?')
_TARGET = re.compile(r'/[!-"$-~]*')  # printable ASCII without blanks and #
_IDENTIFIER_LIMIT = 253  # octets, RFC 2865 section 5.32


def parse_setting(text: str) -> Setting:
    """ConfigError says what the form must look like."""
    scheme, _, rest = text.strip().partition('://')
    parse = _FORMS.get(scheme.lower())
    if parse is None:
        raise ConfigError(f'it must begin with {", ".join(f"{name}://" for name in _FORMS)}')
    return parse(rest)


def _hardcoded(rest: str) -> Hardcoded:
    passwords: dict[str, bytes] = {}
    for place, item in enumerate(rest.split(','), 1):
        login, colon, password = item.partition(':')
        login = login.strip()
        if not login or not password:
            raise ConfigError(f'hardcoded:// login {place} is not login:password; several are separated by commas')
        if login in passwords:
            raise ConfigError(f'hardcoded:// login {place} has come before')
        passwords[login] = password.encode()
    return Hardcoded(passwords)


def _path(rest: str, scheme: str) -> str:
    if not rest.startswith('/') or rest == '/':
        raise ConfigError(f'{scheme}:// takes an absolute path: {scheme}:///path/to/file, with three slashes')
    return rest


def _users(rest: str) -> Users:
    names = tuple(name.strip() for name in rest.split(','))
    if not all(names) or any(':' in name for name in names):
        raise ConfigError('users:// takes names of accounts, separated by commas; * stands for any text')
    return Users(names)


def _http(rest: str, tls: bool) -> Http:
    scheme = 'https' if tls else 'http'
    place, slash, path = rest.partition('/')
    if '@' in place:
        raise ConfigError(f'{scheme}:// takes no login of its own: those of the clients are sent')
    host, port = _host(place, scheme, 443 if tls else 80)
    target = slash + path or '/'
    if not _TARGET.fullmatch(target):
        raise ConfigError(f'{scheme}:// the path must be printable ASCII, anything else and # percent-encoded')
    return Http(host, port, target, tls)


def _ldap(rest: str) -> Ldap:
    place, _, base = rest.partition('/')
    host, port = _host(place, 'ldap', 389)
    name = _unescape(base, 'ldap')
    if '=' not in name or '?' in base or '\0' in name:
        raise ConfigError('ldap:// takes a host and a base DN, and nothing else: ldap://host/ou=people,dc=example')
    return Ldap(host, port, name)


def _radius(rest: str) -> Radius:
    login, at, place = rest.rpartition('@')
    identifier, colon, secret = login.partition(':')
    name = _unescape(identifier, 'radius')
    if not at or not colon or not secret or not 0 < len(name.encode()) <= _IDENTIFIER_LIMIT:
        raise ConfigError('radius:// must look like radius://identifier:secret@host:1812')
    return Radius(*_host(place.rstrip('/'), 'radius', 1812), name, _unescape(secret, 'radius').encode())


def _host(text: str, scheme: str, port: int) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    if match is None:
        raise ConfigError(f'{scheme}:// the host must look like name, name:port or [IPv6]:port')
    if match[3] and not 0 < int(match[3]) < 65536:
        raise ConfigError(f'{scheme}:// the port must be from 1 to 65535')
    return match[1] or match[2], int(match[3] or port)


def _unescape(text: str, scheme: str) -> str:
    if re.search('%(?![0-9A-Fa-f]{2})', text):
        raise ConfigError(f'{scheme}:// a % must be written %25, or be followed by two hexadecimal digits')
    try:
        return unquote_to_bytes(text).decode('utf-8')
    except UnicodeDecodeError:
        raise ConfigError(f'{scheme}:// the escapes are not UTF-8') from None


_FORMS: dict[str, Callable[[str], Setting]] = {
    'hardcoded': _hardcoded,
    'file':      lambda rest: File(_path(rest, 'file')),
    'users':     _users,
    'exec':      lambda rest: Program(_path(rest, 'exec')),
    'http':      lambda rest: _http(rest, tls=False),
    'https':     lambda rest: _http(rest, tls=True),
    'ldap':      _ldap,
    'radius':    _radius,
}
