"""Which clients belong to which networks, and how much each may do. Pure.

What a client does is counted by address, in IPv6 by /64, which is what one customer gets. Counts are of one worker, and
of minutes that begin for all clients at once: whoever keeps the clock calls `new_minute`. Limits: CLIENTS counted at
once; when there are more, those that are not connected are forgotten.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

CLIENTS = 100000
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
_KNOWN = 10000  # addresses for which the answer is remembered


class ClientRule:
    """Whether a client's address is in one of these networks."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = networks
        self._known: dict[str, bool] = {}

    def __call__(self, client: str) -> bool:
        answer = self._known.get(client)
        if answer is None:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            address = ipaddress.ip_address(client.partition('%')[0])
            answer = self._known[client] = any(address in network for network in self._networks)
        return answer


@dataclass(frozen=True)
class ClientLimits:
    """What one client may do; 0: as much as it likes."""

    connections: int = 0  # at once
    connection_rate: int = 0  # per minute, as the other rates
    message_rate: int = 0
    recipient_rate: int = 0

    def __bool__(self) -> bool:
        return any((self.connections, self.connection_rate, self.message_rate, self.recipient_rate))


class Usage:
    """What one client does: `open` connections now, the rest in this minute."""

    __slots__ = ('limits', 'open', 'connections', 'messages', 'recipients')

    def __init__(self, limits: ClientLimits) -> None:
        self.limits = limits
        self.open = self.connections = self.messages = self.recipients = 0

    def connect(self) -> str:
        """One more connection, that is open until `open` is counted down; the name of the refusal, '' when it may."""
        self.open += 1
        self.connections += 1
        if 0 < self.limits.connections < self.open:
            return 'client-connections'
        return 'client-rate' if 0 < self.limits.connection_rate < self.connections else ''

    @property
    def may_begin(self) -> bool:
        """Whether one more message is not too many."""
        return not 0 < self.limits.message_rate <= self.messages

    @property
    def may_add(self) -> bool:
        """Whether one more recipient is not too many."""
        return not 0 < self.limits.recipient_rate <= self.recipients


class Clients:
    """The clients of one worker that are counted."""

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._usages: dict[str, Usage] = {}

    def usage(self, client: str) -> Usage:
        key = network_of(client)
        usage = self._usages.get(key)
        if usage is None:
            if len(self._usages) >= CLIENTS:
                self._forget()
            usage = self._usages[key] = Usage(self._limits)
        return usage

    def new_minute(self) -> bool:
        """Begin to count anew; whether anybody is left to be counted."""
        self._forget()
        for usage in self._usages.values():
            usage.connections = usage.messages = usage.recipients = 0
        return bool(self._usages)

    def _forget(self) -> None:
        self._usages = {key: usage for key, usage in self._usages.items() if usage.open}


def network_of(client: str) -> str:
    """Under what a client is counted."""
    if ':' not in client:
        return client
    address = ipaddress.IPv6Address(client.partition('%')[0])
    mapped = address.ipv4_mapped
    return str(mapped or ipaddress.IPv6Network((int(address), 64), strict=False))
