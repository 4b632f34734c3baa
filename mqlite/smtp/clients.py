"""Which clients belong to which networks. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Union

_Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
_KNOWN = 10000  # addresses for which the answer is remembered


class ClientRule:
    """Whether a client's address is in one of these networks."""

    def __init__(self, networks: Sequence[_Network]) -> None:
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
