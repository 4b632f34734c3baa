"""What each address of a destination's servers is given: the columns `ip_…` of the table `capacity`. Pure.

A carrier is at one address, its Visit. Where the limits of an address leave no room for a connection, the others of the
same preference are asked, and after that the messages wait: servers of a worse preference are for when the better ones
fail, not for when we do not let them have more.

Destinations that are one to the servers (twins, see `destinations.py`) share the paces of each address.

Limits: other destinations that share a server do not know of each other.
"""

from __future__ import annotations

import math

from mqlite.delivery.capacity import Capacity
from mqlite.delivery.pace import Pace

FULL_SECONDS = 60.0  # until we look again although no connection has ended: addresses of servers change
MOST = 100  # addresses without a connection that are remembered


Paces = tuple[Pace, Pace]  # of messages, and of attempts to connect


class Server:
    """One address."""

    __slots__ = ('connections', 'connects', 'messages')

    def __init__(self, paces: Paces) -> None:
        self.connections = 0  # of ours, with those that are being opened
        self.messages, self.connects = paces


class Servers:
    """All addresses of one destination."""

    __slots__ = ('_all', '_capacity', '_paces')

    def __init__(self, paces: dict[str, Paces] | None = None) -> None:
        """`paces`: of the addresses, shared with those of twins."""
        self._all: dict[str, Server] = {}
        self._paces: dict[str, Paces] = {} if paces is None else paces
        self._capacity = Capacity()

    def limit(self, capacity: Capacity, now: float) -> None:
        """From now on."""
        self._capacity = capacity
        for server in self._all.values():
            self._limit(server, now)

    def wait(self, address: str, now: float) -> float:
        """Seconds until one more connection to it may be of use; 0 for now."""
        server, most = self._all.get(address), self._capacity.address_connections
        full = FULL_SECONDS if server is not None and 0 < most <= server.connections else 0.0
        return max([full, *(pace.wait(now) for pace in self._paces.get(address, ()))])

    def enter(self, address: str, now: float) -> Server:
        """There is to be one more connection to it."""
        server = self._all.get(address)
        if server is None:
            if len(self._all) >= MOST:
                self._all = {name: server for name, server in self._all.items() if server.connections}
                for name in self._paces.keys() - self._all.keys():
                    del self._paces[name]
            server = self._all[address] = Server(self._paces.setdefault(address, (Pace(), Pace())))
            self._limit(server, now)
        server.connections += 1
        for pace in (server.connects, server.messages):
            pace.begin(now)
            pace.take(now)
        return server

    def is_crowded(self, server: Server) -> bool:
        """Whether it has more connections than are allowed."""
        return 0 < self._capacity.address_connections < server.connections

    def _limit(self, server: Server, now: float) -> None:
        server.messages.limit(self._capacity.address_messages, now)
        server.connects.limit(self._capacity.address_connects, now)


class Visit:
    """What one carrier has of them. It comes for a message, which counts from then on: two do not come for the same."""

    __slots__ = ('_came_for_one', '_server', '_servers')

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._server: Server | None = None
        self._came_for_one = False

    def wait(self, address: str, now: float) -> float:
        """See Servers."""
        return self._servers.wait(address, now)

    def enter(self, address: str, now: float) -> None:
        self._server, self._came_for_one = self._servers.enter(address, now), True

    def leave(self) -> bool:
        """Whether that makes room."""
        server, self._server = self._server, None
        if server is not None:
            server.connections -= 1
        return server is not None

    def missed(self) -> None:
        """There was no message for it when it came."""
        self._came_for_one = False

    @property
    def is_crowded(self) -> bool:
        return self._server is not None and self._servers.is_crowded(self._server)

    def message_wait(self, now: float) -> float:
        """Seconds until the next message may go there; without end when it is over."""
        if self._server is None:
            return math.inf
        return 0.0 if self._came_for_one else self._server.messages.wait(now)

    def take(self, now: float) -> None:
        """A message goes there."""
        if self._came_for_one:
            self._came_for_one = False
        elif self._server is not None:
            self._server.messages.begin(now)
            self._server.messages.take(now)

    def give_back(self) -> None:
        """The last one did not go there after all."""
        if self._server is not None:
            self._server.messages.give_back()
