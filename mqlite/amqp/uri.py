"""amqp:// and amqps:// addresses, as RabbitMQ's URI specification has them, and several at once as MailerQ has them.

    amqp[s]://[user[:password]@]host[:port][;host[:port]]...[/vhost][?parameter=value[&...]]

Hosts of one address are separated by ';' or ','; several whole addresses by ',' or ';' as well. Every part may be
percent-encoded, and must be where it holds one of : / ? # [ ] @ ; , %. IPv6 addresses stand in brackets.

One departure from the specification, which says that `amqp://host/` means the virtual host with the empty name: here
that is `/`, the default, as with no path at all. MailerQ's own default address, `amqp://guest:guest@localhost/`,
means that, and its client library reads it so; a virtual host without a name cannot be written.

No error repeats text of an address, because a password with an unescaped '@', '/' or '?' may turn up in any part.
This file must not know files, name lookup or TLS: it hands on what is written.
"""

from __future__ import annotations

import re
from typing import Callable, NamedTuple
from urllib.parse import unquote_to_bytes

from mqlite.errors import ConfigError

MECHANISMS = ('PLAIN', 'AMQPLAIN', 'EXTERNAL')
_PORTS = {'amqp': 5672, 'amqps': 5671}


class Address(NamedTuple):
    """One broker and how to talk to it. None means that the address does not say; connect_timeout is in seconds."""

    host: str = 'localhost'
    port: int = 5672
    tls: bool = False
    user: str = 'guest'
    password: str = 'guest'
    vhost: str = '/'
    mechanisms: tuple[str, ...] = ('PLAIN', 'AMQPLAIN')
    cacertfile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    verify: bool | None = None
    server_name: str | None = None           # for SNI and the certificate's check, instead of the host
    heartbeat: int | None = None             # seconds, 0 is none
    connect_timeout: float | None = None
    channel_max: int | None = None
    frame_max: int | None = None

    def __str__(self) -> str:
        """For logs: without the password."""
        host = f'[{self.host}]' if ':' in self.host else self.host
        return f'amqp{"s" if self.tls else ""}://{self.user}@{host}:{self.port}/{self.vhost.replace("/", "%2f")}'

    def __repr__(self) -> str:
        return str(self)


class _Bad(Exception):
    """What is wrong with an address, for the end of an error's sentence."""


def _whole(low: int, high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not re.fullmatch('[0-9]{1,10}', text, re.ASCII) or not low <= int(text) <= high:
            raise _Bad(f'takes a whole number from {low} to {high}')
        return int(text)
    return convert


def _mechanism(text: str) -> tuple[str, ...]:
    if text.upper() not in MECHANISMS:
        raise _Bad(f'takes {", ".join(MECHANISMS).lower()}')
    return (text.upper(),)


def _verify(text: str) -> bool:
    if text not in ('verify_peer', 'verify_none'):
        raise _Bad('takes verify_peer or verify_none')
    return text == 'verify_peer'


def _text(text: str) -> str:
    if not text:
        raise _Bad('takes a value')
    return text


# THE QUERY PARAMETERS: name: (field of Address, only with amqps, conversion)
PARAMETERS: dict[str, tuple[str, bool, Callable[[str], object]]] = {
    'auth_mechanism':         ('mechanisms',      False, _mechanism),       # may come several times, first preferred
    'heartbeat':              ('heartbeat',       False, _whole(0, 65535)),
    'connection_timeout':     ('connect_timeout', False, lambda text: _whole(1, 3600000)(text) / 1000),   # milliseconds
    'channel_max':            ('channel_max',     False, _whole(0, 65535)),
    'frame_max':              ('frame_max',       False, _whole(4096, 2147483647)),
    'cacertfile':             ('cacertfile',      True,  _text),
    'certfile':               ('certfile',        True,  _text),
    'keyfile':                ('keyfile',         True,  _text),
    'verify':                 ('verify',          True,  _verify),
    'server_name_indication': ('server_name',     True,  _text),
}


def parse_addresses(text: str) -> list[Address]:
    """All brokers that `text` names, in order. ConfigError says which address is wrong, how, and what to write."""
    addresses: list[Address] = []
    for place, one in enumerate(re.split(r'\s*[,;]\s*(?=amqps?://)', text.strip(), flags=re.IGNORECASE), 1):
        try:
            addresses += _parse_one(one)
        except _Bad as error:
            raise ConfigError(f'AMQP address {place}: {error}') from None
    return addresses


def _parse_one(text: str) -> list[Address]:
    match = re.fullmatch(r'(amqps?)://([^/?#]*)(?:/([^?#]*))?(?:\?([^#]*))?', text, re.IGNORECASE)
    if not match:
        raise _Bad('it must look like amqp://user:password@host/vhost or amqps://user:password@host/vhost')
    scheme, authority, vhost, query = match[1].lower(), match[2], match[3] or '', match[4] or ''
    if '@' in vhost + query:
        raise _Bad('an @ behind the host: in a user name or password, / must be percent-encoded as %2f and ? as %3f; '
                   'anywhere else, @ itself as %40')
    login, at, hosts = authority.rpartition('@')
    fields: dict[str, object] = _parse_login(login) if at else {}
    fields['vhost'] = _vhost(vhost)
    fields['tls'] = scheme == 'amqps'
    fields.update(_parse_query(query, scheme) if query else {})
    several = re.split('[;,]', hosts)
    if len(several) > 1 and not all(host.strip() for host in several):
        raise _Bad('an empty name between the separators of its hosts')
    return [Address(*_parse_host(host, _PORTS[scheme]), **fields) for host in several]      # type: ignore[arg-type]


def _parse_login(login: str) -> dict[str, object]:
    if '@' in login:
        raise _Bad('an @ in the user name or password must be written %40')
    user, _, password = login.partition(':')
    decoded = _unescape(user, 'user name'), _unescape(password, 'password')
    if '\0' in decoded[0] + decoded[1]:
        raise _Bad('a user name or password cannot hold %00')
    return {'user': decoded[0], 'password': decoded[1]}


# [IPv6, perhaps with %25 and a zone] or a name; then perhaps a port (RFC 3986, 3.2.2 and 3.2.3; RFC 6874)
_HOST = re.compile(r'(?:\[([0-9A-Fa-f:.]+(?:%25[^\]]+)?)\]|([^:\[\]\s]*))(?::([0-9]{0,5}))?', re.ASCII)


def _parse_host(text: str, port: int) -> tuple[str, int]:
    match = _HOST.fullmatch(text.strip())
    if not match:
        raise _Bad('a host must look like name, name:port or [IPv6]:port; in a user name or password, each of '
                   ': / ? # [ ] @ ; , % must be percent-encoded')
    if match[3] and not 0 < int(match[3]) < 65536:
        raise _Bad('a port must be from 1 to 65535')
    return _unescape(match[1] or match[2], 'host') or 'localhost', int(match[3] or port)


def _vhost(text: str) -> str:
    if '/' in text:
        raise _Bad('a / in the virtual host must be written %2f')
    vhost = _unescape(text, 'virtual host') or '/'
    if len(vhost.encode('utf-8')) > 255:
        raise _Bad('the virtual host is longer than 255 octets')
    return vhost


def _parse_query(query: str, scheme: str) -> dict[str, object]:
    fields: dict[str, object] = {}
    for pair in query.split('&'):
        name, _, text = pair.partition('=')
        if name not in PARAMETERS:
            raise _Bad(f'behind the ? there are only {", ".join(sorted(PARAMETERS))}, separated by &')
        field, tls, convert = PARAMETERS[name]
        if tls and scheme != 'amqps':
            raise _Bad(f'{name} is only for amqps://')
        try:
            value = convert(_unescape(text, name))
        except _Bad as error:
            raise _Bad(f'{name} {error}') from None
        if field == 'mechanisms' and field in fields:
            value = fields[field] + value       # type: ignore[operator]
        fields[field] = value
    return fields


def _unescape(text: str, what: str) -> str:
    if re.search('%(?![0-9A-Fa-f]{2})', text):
        raise _Bad(f'a % in the {what} must be written %25, or be followed by two hexadecimal digits')
    try:
        return unquote_to_bytes(text).decode('utf-8')
    except UnicodeDecodeError:
        raise _Bad(f'the escapes of the {what} are not UTF-8') from None
