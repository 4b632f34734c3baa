"""One question on its way to its answer: decides what to ask next, and asks nobody itself.

    next() ──► Ask (send this to that server, wait so long) ──► heard(bytes) | silent() | broken(error)
       ▲                                                                 │
       └─────────────────────────────────────────────────────────────────┘      until next() gives the Outcome

What an Ask came to                                    and what follows
    answer, NXDOMAIN or NODATA                         the outcome
    an alias (CNAME) without its target                the target is asked for, at most MAX_CHAIN times
    truncated                                          the same server over TCP
    FORMERR, NOTIMP or BADVERS to a query with EDNS    the same server without EDNS
    SERVFAIL, REFUSED, anything malformed              the next server; this one is not asked again
    silence                                            the next server; this one has its turn again
    the socket fails (refused, unreachable)            the same, but it gets a pause first: it may be restarting
    another id, another question, no reply at all      ignored and counted: the wait goes on (RFC 5452 section 9)

Only NXDOMAIN and NODATA are permanent, because only they are said by somebody who knows. Everything else is Failed, and
worth asking again later. A name in an alias that cannot be asked for is Failed too: its owner may repair it.

Takes no clock, socket or random numbers: times are seconds in an Ask, and ids come from the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, NamedTuple, Union

from mqlite.dns.message import (
    SOA,
    Data,
    FormatError,
    Message,
    Question,
    Rcode,
    Record,
    Type,
    build_query,
    encode_name,
    parse_message,
)

DNS_PORT = 53
MAX_CHAIN = 16  # aliases in a row; dnspython has the same
FAILURE_TTL = 5.0  # seconds that a failure is remembered: at least 1, at most 300 (RFC 9520 section 3.2)
# To these, servers may reply without repeating a question that they did not read.
_QUESTION_OPTIONAL = (Rcode.FORMERR, Rcode.SERVFAIL, Rcode.NOTIMP, Rcode.REFUSED)
_NO_EDNS = (Rcode.FORMERR, Rcode.NOTIMP, Rcode.BADVERS)


class Server(NamedTuple):
    """A nameserver: numeric address and port."""

    address: str
    port: int = DNS_PORT

    def __str__(self) -> str:
        if self.port == DNS_PORT:
            return self.address
        return f'[{self.address}]:{self.port}' if ':' in self.address else f'{self.address}:{self.port}'


@dataclass(frozen=True)
class Plan:
    """Whom to ask, how often and how patiently."""

    servers: tuple[Server, ...]
    attempts: int  # queries before giving up; every server gets one even so
    interval: float  # seconds of silence before the next attempt
    timeout: float  # seconds of silence after the last


class Ask(NamedTuple):
    """Wait `pause` seconds, send `query` to `server`, and wait `wait` seconds for what it says."""

    server: Server
    tcp: bool
    query: bytes
    wait: float
    pause: float


class Answer(NamedTuple):
    """At least one record of the type that was asked for."""

    records: tuple[Data, ...]
    ttl: int  # seconds


class NoData(NamedTuple):
    """The name exists, and has no record of this type."""

    ttl: int


class NoSuchDomain(NamedTuple):
    """The name does not exist."""

    ttl: int


class Failed(NamedTuple):
    """Nobody knows at the moment. The reason is for the operator."""

    reason: str
    ttl: float = FAILURE_TTL


Outcome = Union[Answer, NoData, NoSuchDomain, Failed]


class Lookup:
    """The state of one question. `ignored` counts replies that were none to it: forged, late or confused."""

    def __init__(self, question: Question, plan: Plan, first: int, new_id: Callable[[], int]) -> None:
        """Start with the server at index `first`. FormatError when the name cannot be asked for."""
        encode_name(question.name)
        self.question = question
        self.ignored = 0
        self._plan = plan
        self._new_id = new_id
        self._servers = list(plan.servers[first:] + plan.servers[:first])  # whom to ask, the next one first
        self._attempts = max(plan.attempts, len(plan.servers))  # still allowed
        self._down: set[Server] = set()  # a socket to these failed: pause before the next try
        self._asked = question  # with the name of the last alias
        self._id = 0
        self._tcp = False
        self._edns = True
        self._alias_ttls: list[int] = []
        self._problems: dict[Server, str] = {}
        self._outcome: Outcome | None = None

    def next(self) -> Ask | Outcome:
        """What is to be done now; the same Outcome for ever once there is one."""
        if self._outcome is None and not (self._servers and self._attempts):
            self._outcome = Failed(self._explanation())
        if self._outcome is not None:
            return self._outcome
        plan, server = self._plan, self._servers[0]
        self._id = self._new_id()
        return Ask(server, self._tcp, build_query(self._id, self._asked, self._edns),
                   plan.interval if self._attempts > 1 else plan.timeout,
                   plan.interval if server in self._down else 0.0)

    # what became of an Ask

    def heard(self, data: bytes) -> bool:
        """The server's socket gave these bytes. True: the Ask is over. False: go on waiting."""
        try:
            message = parse_message(data)
        except FormatError as error:
            if data[:2] != self._id.to_bytes(2, 'big'):
                self.ignored += 1
                return False
            self._give_up_on_server(f'sent a malformed reply: {error}')
            return True
        if not self._is_reply(message):
            self.ignored += 1
            return False
        self._judge(message)
        return True

    def silent(self) -> None:
        """The wait is over without a reply."""
        self._next_server('did not answer in time')

    def broken(self, reason: str) -> None:
        """The socket failed: refused, unreachable, closed."""
        self._down.add(self._servers[0])
        self._next_server(reason)

    # judging

    def _is_reply(self, message: Message) -> bool:
        omitted = not message.questions and message.rcode in _QUESTION_OPTIONAL
        return message.is_reply and message.id == self._id and (omitted or message.questions == (self._asked,))

    def _judge(self, message: Message) -> None:
        if message.truncated and not self._tcp:
            self._tcp = True
        elif message.truncated:
            self._give_up_on_server('truncated its reply over TCP')
        elif message.rcode in _NO_EDNS and self._edns:
            self._edns = False
        elif message.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN):
            self._conclude(message)
        else:
            known = message.rcode in list(Rcode)
            self._give_up_on_server(f'answered {Rcode(message.rcode).name if known else message.rcode}')

    def _conclude(self, message: Message) -> None:
        """The answer, however far the aliases in this reply lead towards it."""
        name, kind = self._asked
        aliases = {record.name: record for record in message.answers if record.type == Type.CNAME}
        found = _records(message, name, kind)
        while not found and name in aliases:
            if len(self._alias_ttls) == MAX_CHAIN:
                self._outcome = Failed(f'{self.question}: more than {MAX_CHAIN} aliases (CNAME) in a row, or a circle')
                return
            self._alias_ttls.append(aliases[name].ttl)
            name = str(aliases[name].data)
            found = _records(message, name, kind)
        if found:
            ttl = min([record.ttl for record in found] + self._alias_ttls)
            self._outcome = Answer(tuple(dict.fromkeys(record.data for record in found)), ttl)
        else:
            self._conclude_absence(message, name)

    def _conclude_absence(self, message: Message, name: str) -> None:
        absence = [min(record.ttl, record.data.minimum) for record in message.authority if isinstance(record.data, SOA)]
        ttl = min(absence[:1] + self._alias_ttls) if absence else 0  # 0: nobody said how long (RFC 2308 section 5)
        if message.rcode == Rcode.NXDOMAIN:
            self._outcome = NoSuchDomain(ttl)
        elif absence:
            self._outcome = NoData(ttl)
        elif name != self._asked.name:
            self._ask_for(name)
        elif any(record.type == Type.NS for record in message.authority):
            self._give_up_on_server('refers to other servers: it is not a recursive resolver')
        else:
            self._outcome = NoData(ttl)

    # moving on

    def _ask_for(self, name: str) -> None:
        """Only the alias came: its target is the next question."""
        try:
            encode_name(name)
        except FormatError as error:
            self._outcome = Failed(f'{self.question} is an alias (CNAME): {error}')
            return
        self._asked, self._tcp = Question(name, self._asked.type), False

    def _next_server(self, problem: str) -> None:
        self._problems[self._servers[0]] = problem
        self._servers.append(self._servers.pop(0))
        self._attempts -= 1
        self._tcp = False

    def _give_up_on_server(self, problem: str) -> None:
        self._next_server(problem)
        self._servers.pop()

    def _explanation(self) -> str:
        problems = '; '.join(f'{server} {problem}' for server, problem in self._problems.items())
        return f'{self.question}: no nameserver gave a usable answer ({problems})'


def _records(message: Message, name: str, kind: int) -> list[Record]:
    return [record for record in message.answers if record.name == name and record.type == kind]
