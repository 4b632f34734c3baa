"""The result of one delivery attempt, as it is appended to the document's `results`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mqlite.message.identifier import format_moment

#: Where an attempt can end. Only the states that this version can reach.
STATES = ('process', 'suppression', 'storage', 'responsive', 'personalize', 'rewrite', 'dns', 'bind', 'connect',
          'intro', 'ehlo', 'helo', 'starttls', 'handshake', 'authplain', 'authlogin', 'authusername', 'authpassword',
          'authcram', 'authresponse', 'mailfrom', 'rcptto', 'data', 'message')

#: How: accepted (only with `message`), timeout, lost, invalid (not an SMTP answer), error.
RESULTS = ('accepted', 'timeout', 'lost', 'invalid', 'error')


@dataclass
class Connected:
    """What is known once there is a TCP connection."""

    mta: str  # the name in the peer's greeting
    source: str  # our address
    target: str  # the peer's address
    messages: int  # sent over this connection so far
    sent_connection: int  # bytes
    sent_data: int  # bytes of MIME, as they went over the wire
    authentication: str = ''  # the mechanism of our login
    tls: Mapping[str, Any] = field(default_factory=dict)  # `cipher` and `certificate`


@dataclass
class Result:
    """One attempt. `permanent`: trying again gives the same answer."""

    state: str
    result: str
    permanent: bool = False
    code: int | None = None
    status: str = ''
    description: str = ''
    dsn: bool | None = None  # on success: the peer has the DSN extension
    connected: Connected | None = None
    redelivered: bool = False  # the message was in somebody's hands before, who may have sent it
    wait: int | None = None  # seconds until the next attempt, where somebody has decided
    more: Mapping[str, Any] = field(default_factory=dict)  # properties that the operator has ordered

    def fields(self, now: float) -> dict[str, Any]:
        """The entry in `results`; `now`: seconds since 1970."""
        entry: dict[str, Any] = {'state': self.state, 'result': self.result, 'time': format_moment(now)}
        link = self.connected
        if link is not None:
            entry.update({'mta': link.mta, 'from': link.source, 'to': link.target, 'messages': link.messages,
                          'sent': {'connection': link.sent_connection, 'data': link.sent_data}})
            if link.authentication:
                entry['authentication'] = link.authentication
            entry.update(link.tls)
        if self.code is not None:
            entry['code'] = self.code
        if self.status:
            entry['status'] = self.status
        if self.dsn is not None:
            entry['dsn'] = self.dsn
        if self.description:
            entry['description'] = self.description
        if self.redelivered:
            entry['redelivered'] = True
        entry.update(self.more)
        return entry
