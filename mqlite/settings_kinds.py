"""The kinds of value that a setting may have: how each is read, and through which accessor it is asked for.

A `Kind` turns the text of a setting into a value, or raises `ValueError` with a complaint that says what would be
right. The caller puts the name of the setting, the file and the line in front of it. Complaints about addresses and
secrets never repeat the text, because it may hold a password. Nothing here knows which settings exist.

Notation, as in MailerQ's file:
    lists      separated by `,` or `;`, blanks around the items do not count, empty items are dropped
    URLs       several are separated by a comma in front of the next `scheme://`, because MailerQ writes
               `amqp://user:password@host1;host2/vhost`, and a file name may hold a comma
    sizes      bytes, or with KB, MB, GB (K, M, G): powers of 1024, whole numbers only
    seconds    plain numbers, decimals allowed where a wait is meant, no suffixes
    booleans   true false 1 0 yes no on off, in any case
    networks   CIDR; host bits may be set (192.168.0.7/16 is 192.168.0.0/16), a single address is a network of one

Limits: 12 digits for a number, 9 for seconds, 255 bytes for the name of a queue (AMQP 0-9-1, short string) or host.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Union

Network = Union[IPv4Network, IPv6Network]

BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
SHORT_STRING = 255

_SIZE = re.compile(r"([0-9]{1,12}) ?(?:([kmg])b?)?", re.IGNORECASE)
_RANGE = re.compile(r"([0-9]{1,5})(?: *- *([0-9]{1,5}))?")
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SCHEME = re.compile(r"([a-z][a-z0-9]*)://(.+)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Kind:
    """One kind of value.

    `label` is what an operator calls it, `accessor` the method of `Settings` that returns it. `read` takes text that is
    stripped and not empty. `empty` is the value of no text, None when there is none. `keeps_empty` says that an
    operator's empty value means just that; otherwise it means the default.
    """

    label: str
    accessor: str
    read: Callable[[str], object]
    empty: object | None = None
    keeps_empty: bool = False

    def value(self, text: str) -> object:
        """The value of `text`. Raises ValueError."""
        if text:
            return self.read(text)
        if self.empty is None:
            raise ValueError(f"is empty, expected {self.label}")
        return self.empty


def split_list(text: str) -> tuple[str, ...]:
    """The items of a list, in order. Raises ValueError when there are separators and no items.

    Silence would be dangerous: a list that came out empty may mean `no limit` to its reader.
    """
    items = tuple(item.strip() for item in re.split("[,;]", text) if item.strip())
    if not items:
        raise ValueError(f"{_quote(text)} is a list without items")
    return items


def split_urls(text: str) -> tuple[str, ...]:
    """The addresses of a cluster: a comma separates only where a `scheme://` follows."""
    return tuple(url.strip() for url in re.split(r",(?=\s*[a-z][a-z0-9]*://)", text, flags=re.IGNORECASE))


def _quote(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _read_text(text: str) -> str:
    return text


def _read_queue(text: str) -> str:
    if len(text.encode()) > SHORT_STRING:
        raise ValueError(f"{_quote(text)} is too long for a queue, at most {SHORT_STRING} bytes")
    return text


def _read_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(f"{_quote(text)} is not 1 to 64 letters, digits, dots, dashes or underscores")
    return text


def _read_host(text: str) -> str:
    """A host name or an address. The unspecified address names no host: it is MailerQ's way to write `none`."""
    try:
        address = ip_address(text)
    except ValueError:
        if len(text) > SHORT_STRING or not _HOST.fullmatch(text):
            raise ValueError(f"{_quote(text)} is no host name or address") from None
        return text
    return "" if address.is_unspecified else str(address)


def _read_address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError(f"{_quote(text)} is no IP address") from None


def _read_flag(text: str) -> bool:
    if text.lower() not in BOOLEANS:
        raise ValueError(f"{_quote(text)} is neither true nor false")
    return BOOLEANS[text.lower()]


def _read_integer(text: str) -> int:
    if not re.fullmatch("[0-9]{1,12}", text):
        raise ValueError(f"{_quote(text)} is no whole number of 0 or more")
    return int(text)


def _read_count(text: str) -> int:
    number = _read_integer(text)
    if number == 0:
        raise ValueError("0 is too small, at least 1")
    return number


def _read_size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if not match or int(match.group(1)) == 0:
        raise ValueError(f"{_quote(text)} is no size, such as 100MB, 64KB or 5000")
    return int(match.group(1)) * UNITS[(match.group(2) or "").lower()]


def _read_seconds(text: str) -> float:
    if not _SECONDS.fullmatch(text):
        raise ValueError(f"{_quote(text)} is no number of seconds")
    return float(text)


def _read_duration(text: str) -> float:
    seconds = _read_seconds(text)
    if seconds == 0:
        raise ValueError("0 seconds is too short")
    return seconds


def _read_ports(text: str) -> tuple[int, ...]:
    """Ports in the order given, each once: a port cannot be opened twice."""
    ports: list[int] = []
    for item in split_list(text):
        match = _RANGE.fullmatch(item)
        if not match:
            raise ValueError(f"{_quote(item)} is no port or range of ports, such as 25 or 1024-1026")
        first, last = int(match.group(1)), int(match.group(2) or match.group(1))
        if not 1 <= first <= last <= 65535:
            raise ValueError(f"{_quote(item)} is out of range, ports are 1 to 65535")
        ports.extend(range(first, last + 1))
    return tuple(dict.fromkeys(ports))


def _read_port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ValueError(f"{_quote(text)} is no port, 1 to 65535")
    return int(text)


def _read_network(item: str) -> Network:
    try:
        return ip_network(item, strict=False)
    except ValueError:
        raise ValueError(f"{_quote(item)} is no network, such as 192.168.0.0/16 or ::1/128") from None


def _read_networks(text: str) -> tuple[Network, ...]:
    return tuple(_read_network(item) for item in split_list(text))


def _read_intervals(text: str) -> tuple[int, ...]:
    return tuple(_read_count(item) for item in split_list(text))


def _read_addresses(text: str) -> tuple[str, ...]:
    return tuple(_read_address(item) for item in split_list(text))


def _one_url(text: str, schemes: tuple[str, ...]) -> str:
    match = _SCHEME.fullmatch(text)
    if not match or match.group(1).lower() not in schemes:
        raise ValueError(f"is no address that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    return f"{match.group(1).lower()}://{match.group(2)}"


def _one_choice(text: str, words: tuple[str, ...]) -> str:
    for word in words:
        if text.lower() == word.lower():
            return word
    raise ValueError(f"{_quote(text)} is not {' or '.join(words)}")


#                 what an operator calls it  accessor     reader           empty       does empty stand?
TEXT       = Kind("text",                    "text",      _read_text,      empty="")
SECRET     = Kind("secret",                  "text",      _read_text,      empty="")
NAME       = Kind("name",                    "text",      _read_name)
PATH       = Kind("path",                    "text",      _read_text,      empty="",   keeps_empty=True)
QUEUE_NAME = Kind("queue",                   "text",      _read_queue)
QUEUE      = Kind("queue or nothing",        "text",      _read_queue,     empty="",   keeps_empty=True)
HOST       = Kind("host",                    "text",      _read_host,      empty="")
ADDRESS    = Kind("IP address",              "text",      _read_address,   empty="")
FLAG       = Kind("boolean",                 "flag",      _read_flag)
INTEGER    = Kind("number",                  "integer",   _read_integer)
COUNT      = Kind("number from 1",           "integer",   _read_count)
SIZE       = Kind("bytes, KB, MB or GB",     "integer",   _read_size)
PORT       = Kind("port",                    "integer",   _read_port)
SECONDS    = Kind("seconds",                 "seconds",   _read_seconds)
DURATION   = Kind("seconds, more than 0",    "seconds",   _read_duration)
INTERVALS  = Kind("list of seconds",         "intervals", _read_intervals)
PORTS      = Kind("list of ports, ranges",   "ports",     _read_ports,     empty=(),   keeps_empty=True)
NETWORKS   = Kind("list of networks",        "networks",  _read_networks,  empty=())
ADDRESSES  = Kind("list of IP addresses",    "items",     _read_addresses, empty=())
LIST       = Kind("list",                    "items",     split_list,      empty=(),   keeps_empty=True)


def url(*schemes: str) -> Kind:
    """The kind of one address with one of these schemes."""
    return Kind("URL", "text", lambda text: _one_url(text, schemes), empty="")


def urls(*schemes: str) -> Kind:
    """The kind of a list of such addresses."""
    return Kind("list of URLs", "items", lambda text: tuple(_one_url(u, schemes) for u in split_urls(text)), empty=())


def one_of(*words: str) -> Kind:
    """The kind of one of these words, in any case; the value is spelt as here."""
    return Kind("|".join(words), "text", lambda text: _one_choice(text, words), empty="")


def some_of(*words: str) -> Kind:
    """The kind of a list of these words."""
    return Kind(f"list of {'|'.join(words)}", "items",
                lambda text: tuple(_one_choice(item, words) for item in split_list(text)), empty=())
