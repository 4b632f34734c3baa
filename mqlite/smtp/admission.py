"""Who is let in: whether there is room, who the client is, and what a stranger may do. It awaits; it parses nothing.

    accept ─► room? ─► (PROXY header: who is it?) ─► (stranger: one too many?) ─► (TLS) ─► (speaks early?) ─► greeting

Strangers are all whose address is not in smtp-range. When all places are taken, a new client takes that of the one that
has been silent for longest, if that was for SILENT_SECONDS: thousands that connect and stall keep nobody out.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import nsmallest
from operator import itemgetter
from typing import Callable

from mqlite.errors import MqliteError
from mqlite.loop.reactor import Reactor
from mqlite.loop.stream import Stream
from mqlite.loop.task import Task, Timeout
from mqlite.smtp.clients import ClientLimits, ClientRule, Clients
from mqlite.smtp.proxy import Header, ProxyFault, read_header
from mqlite.smtp.session import Refused, Session
from mqlite.smtp.shares import Share

PROXY_SECONDS = 5.0  # for a PROXY header to arrive: time to repeat a lost segment
SILENT_SECONDS = 10.0  # what Postfix, under stress, allows for a command
_LOOK_SECONDS = 1.0  # between two looks through all sessions for silent ones
_FOUND = 1000  # of them at most in one look

Sessions = Mapping[Task[None], tuple[Stream, Session]]


class Displaced(MqliteError):
    """Nobody's fault: the place is needed, and this client has been silent."""


@dataclass(frozen=True)
class AdmissionConfig:
    """What decides who is let in."""

    share: Share  # of the connections
    in_range: Callable[[str], bool]  # whom we know by the address
    is_proxy: Callable[[str], bool] = ClientRule([])  # the connections of these begin with a PROXY header
    client_limits: ClientLimits = ClientLimits()  # of a stranger
    session_seconds: float = math.inf  # that a stranger's session may last
    greeting_delay: float = 0.0  # seconds in which a stranger must not speak


class Admission:
    """The door of one server."""

    def __init__(self, reactor: Reactor, config: AdmissionConfig) -> None:
        self._reactor = reactor
        self._config = config
        self._silent: deque[tuple[float, Task[None]]] = deque()  # heard when, the longest silent first
        self._next_look = 0.0  # for silent ones
        self._clients = Clients(config.client_limits) if config.client_limits else None
        self._counts = False  # a minute has begun

    def enter(self, sessions: Sessions) -> bool:
        """Take a place, if need be that of a silent one; False when there is none."""
        share = self._config.share
        if share.full and not self._displace(sessions):
            return False
        share.take()
        return True

    def leave(self, session: Session) -> None:
        """Give the place back."""
        self._config.share.give_back()
        if session.usage is not None:
            session.usage.open -= 1

    async def identify(self, stream: Stream, session: Session) -> None:
        """Who it is, and whether it is one connection too many: ProxyFault, Refused."""
        if self._config.is_proxy(session.client):
            await self._learn_client(stream, session)
        if not session.in_range:
            self._limit_stranger(session)

    async def speaks_early(self, stream: Stream) -> bool:
        """Whether the client speaks before it is greeted: it would not listen."""
        delay = self._config.greeting_delay
        if not stream.look() and delay:
            stream.expire_in(delay)
            with contextlib.suppress(Timeout):
                await stream.wait_bytes()
        return stream.buffered > 0

    def _displace(self, sessions: Sessions) -> bool:
        """End the session that has been silent for longest; False when none was silent for long enough."""
        now = self._reactor.turn_time
        if not self._silent and now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            silent = ((stream.heard, task) for task, (stream, _) in sessions.items()
                      if stream.heard <= now - SILENT_SECONDS)
            self._silent.extend(nsmallest(_FOUND, silent, key=itemgetter(0)))
        while self._silent:
            heard, task = self._silent.popleft()
            stream, _session = sessions.get(task, (None, None))
            if stream is not None and stream.heard == heard and stream.waits_for_peer:
                task.cancel(Displaced())
                return True
        return False

    async def _learn_client(self, stream: Stream, session: Session) -> None:
        """A proxy says for whom it speaks. Whom it cannot name gets none of the proxy's own rights."""
        stream.expire_in(PROXY_SECONDS)
        try:
            header = await self._read_proxy_header(stream)
        except Timeout:
            raise ProxyFault(f'no PROXY header within {PROXY_SECONDS:g} s') from None
        if header.client is not None:
            stream.peer = session.client, session.client_port = header.client
        elif not header.own:
            session.in_range, session.desk = False, None
            return
        session.in_range = self._config.in_range(session.client)

    async def _read_proxy_header(self, stream: Stream) -> Header:
        while True:
            data = stream.take()
            header = read_header(data)
            stream.put_back(data[header.length:] if header else data)
            if header is not None:
                return header
            await stream.wait_bytes()

    def _limit_stranger(self, session: Session) -> None:
        session.ends = self._reactor.turn_time + self._config.session_seconds
        if self._clients is None:
            return
        if not self._counts:
            self._counts = True
            self._reactor.call_later(60.0, self._new_minute)
        session.usage = self._clients.usage(session.client)
        refusal = session.usage.connect()
        if refusal:
            raise Refused(refusal, session.client)

    def _new_minute(self) -> None:
        assert self._clients is not None
        self._counts = self._clients.new_minute()
        if self._counts:
            self._reactor.call_later(60.0, self._new_minute)
