"""Publishing with confirms: many messages under way, each group of them with one outcome.

    publish(group) ─► line ─► at most `throttle` unconfirmed on the wire ─► every message answered ─► group.then(None)
                        │                                                └─ one refused, returned ─► group.then(error)
                        └──── link lost ───────────────────────────────────────────────────────────► group.then(error)

All that is published in a turn leaves in one write, and that of the next LINGER_TURNS with it while descriptors are
ready; confirms come as ranges. A message that no queue takes comes back (mandatory) before its confirm. A group has its
outcome when none of its messages is under way any more; it then knows what of it is not kept (`left`), so that only
that is published again. While the broker blocks, messages wait in line.

Of large messages no more than WIRE_BYTES are on the wire, and those in line are not made yet: one that came for a
thousand recipients is not held a thousand times.
"""

from __future__ import annotations

import gzip
import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from mqlite.amqp.channel import OPEN, Channel
from mqlite.amqp.client import Link
from mqlite.amqp.codec import Unencodable
from mqlite.amqp.events import Confirmed, Returned
from mqlite.errors import MqliteError, PermanentError
from mqlite.loop.reactor import Reactor
from mqlite.queues.contract import LargeMessage, Message, Publishable, QueueError
from mqlite.queues.parking import LOST_HEADER, place
from mqlite.queues.topology import RabbitConfig, properties

LINGER_TURNS = 4  # each write wakes the broker: while others have something to say, theirs may come with it
WIRE_BYTES = 32 << 20  # unconfirmed; one message goes whatever its size
STALL_SECONDS = 10.0  # without a confirm: the broker hangs, and clients are told so


class Unroutable(QueueError):
    """No queue takes the message."""

    def __init__(self, queue: str) -> None:
        super().__init__(f'there is no queue {queue} on the broker: create it, or correct the name')
        self.queue = queue


class TooLargeForBroker(PermanentError):
    """The broker takes no message of this size."""

    def __init__(self, size: int, limit: int) -> None:
        most = f', which takes {limit}' if limit else ''
        super().__init__(f'a message of {size} bytes is too large for the broker{most}: lower smtp-maxsize, or raise '
                         f'its max_message_size')


@dataclass
class Forwarded(Message):
    """A message that goes on with its body as it came; `encoding` is the content-encoding of that body."""

    encoding: str | None = None


@dataclass
class Unmade(Message):
    """A large message: its body is made when it is sent."""

    large: LargeMessage | None = None


def unmade(message: Publishable) -> Message:
    """The same for a group."""
    if isinstance(message, Message):
        return message
    return Unmade(message.queue, b'', message.priority, message.due, large=message)


class Group:
    """Messages that are kept together. `then(error)` is called once; None: all are confirmed."""

    __slots__ = ('error', 'left', 'patient', 'pending', 'then')

    def __init__(self, messages: Sequence[Message], patient: bool,
                 then: Callable[[MqliteError | None], object]) -> None:
        """`patient`: nobody waits at the other end of a connection; a stalled broker is waited for."""
        self.left = list(messages)
        self.pending = len(self.left)  # in line, or on the wire
        self.patient = patient
        self.then: Callable[[MqliteError | None], object] | None = then
        self.error: MqliteError | None = None  # the first one

    def answered(self, message: Message, error: MqliteError | None) -> None:
        """One message is kept, or will not be."""
        self.pending -= 1
        if error is None:
            self.left.remove(message)
        elif self.error is None:
            self.error = error
        if not self.pending:
            self.finish(self.error)

    def finish(self, error: MqliteError | None) -> None:
        then, self.then = self.then, None
        if then is not None:
            then(error)


class Sent:
    """One message on the wire."""

    __slots__ = ('body', 'group', 'message', 'returned', 'routing_key')

    def __init__(self, group: Group, message: Message, routing_key: str, body: bytes) -> None:
        self.group = group
        self.message = message
        self.routing_key = routing_key
        self.body = body  # as it was sent, perhaps compressed
        self.returned = False


class Publisher:
    """Publishes over whatever link there is. The owner attaches links and hands over events."""

    def __init__(self, reactor: Reactor, config: RabbitConfig, on_stall: Callable[[], object]) -> None:
        """`on_stall` is told when `stalled` has changed."""
        self.stalled = False
        self.limit = 0  # bytes; the broker has refused larger ones. 0: none so far
        self._reactor = reactor
        self._config = config
        self._on_stall = on_stall
        self._link: Link | None = None
        self._channel: Channel | None = None
        self._line: deque[tuple[Group, Message]] = deque()
        self._sent: dict[int, Sent] = {}  # by delivery tag
        self._on_wire = 0  # bytes of these
        self._scheduled = False
        self._lingering = 0  # turns
        self._watched = False  # the timer of _look is on
        self._progress = 0.0  # when something was last confirmed, or the wire was empty
        self._lost_by_size = False

    @property
    def busy(self) -> bool:
        """Something has no outcome yet."""
        return bool(self._sent or self._line)

    def attach(self, link: Link, channel: Channel) -> None:
        """Publish over this channel, which is in confirm mode, from now on."""
        self._link, self._channel = link, channel
        if not self._lost_by_size:
            self.limit = 0  # this broker may take more
        self._lost_by_size = False
        self.resume()

    def detach(self, error: MqliteError) -> None:
        """The link is gone: everything unconfirmed fails, and so does what waits in line."""
        self._link = self._channel = None
        self.stalled = False
        groups = self._groups()
        self._sent.clear()
        self._on_wire = 0
        self._line.clear()
        for group in groups:
            group.finish(group.error or error)

    def publish(self, group: Group) -> None:
        if not group.left:
            group.finish(None)
            return
        self._line.extend((group, message) for message in group.left)
        self._schedule()

    def resume(self) -> None:
        """The broker takes messages (again)."""
        self._progress = self._reactor.now()
        self._schedule()

    def fail_impatient(self, error: MqliteError) -> None:
        """Tell clients now. What is on the wire may still be taken by the broker, and then comes twice."""
        groups = [group for group in self._groups() if not group.patient]
        self._line = deque(row for row in self._line if row[0].patient)
        for group in groups:
            group.finish(error)

    def fail_waiting(self, error: MqliteError) -> None:
        """Tell those clients whose messages are not on the wire: for them it is certain."""
        on_wire = {sent.group for sent in self._sent.values()}
        groups = dict.fromkeys(group for group, _ in self._line if not group.patient and group not in on_wire)
        self._line = deque(row for row in self._line if row[0] not in groups)
        for group in groups:
            group.finish(error)

    def confirmed(self, event: Confirmed) -> None:
        self._progress = self._reactor.turn_time
        for tag in range(event.first, event.last + 1):
            sent = self._sent.pop(tag, None)
            if sent is None:
                continue  # of a link that is gone
            self._on_wire -= len(sent.body)
            error: MqliteError | None = None
            if sent.returned:
                error = Unroutable(sent.routing_key)
            elif not event.ok:
                error = QueueError(f'the broker refused a message for queue {sent.routing_key}: the queue is full, or '
                                   f'not available')
            sent.group.answered(sent.message, error)
        if self.stalled:
            self.stalled = False
            self._on_stall()
        self._schedule()

    def returned(self, event: Returned) -> None:
        """The confirm of the same message is still to come. It is known by its body: of equal ones, any will do. A body
        that was too large to come back is not compared."""
        for sent in self._sent.values():
            if not sent.returned and sent.routing_key == event.routing_key and event.body in (sent.body, b''):
                sent.returned = True
                return

    def too_large(self, text: str) -> None:
        """The broker closes the channel over the size of a message: those above its limit fail for good."""
        named = re.search(r'max size (\d+)', text)
        largest = max((len(sent.body) for sent in self._sent.values()), default=1)
        self.limit = int(named[1]) if named else largest - 1
        self._lost_by_size = True
        for tag, sent in list(self._sent.items()):
            if len(sent.body) > self.limit:
                del self._sent[tag]
                self._on_wire -= len(sent.body)
                sent.group.answered(sent.message, TooLargeForBroker(len(sent.body), self.limit))

    def fits(self, message: Message) -> bool:
        """Not larger than what the broker has refused."""
        return not 0 < self.limit < len(self._encode(message)[0])

    def _groups(self) -> Iterable[Group]:
        return list(dict.fromkeys([sent.group for sent in self._sent.values()] + [row[0] for row in self._line]))

    def _schedule(self) -> None:
        if self._link is not None and not self._scheduled and self._line:
            self._scheduled = True
            self._reactor.call_at_turn_end(self._flush)

    def _flush(self) -> None:
        if self._reactor.busy and self._lingering < LINGER_TURNS:
            self._lingering += 1
            self._reactor.call_at_turn_end(self._flush)
            return
        self._scheduled, self._lingering = False, 0
        link, channel = self._link, self._channel
        if link is None or channel is None or channel.state != OPEN or link.blocked:
            return
        now = self._reactor.clock.time()
        if not self._sent:
            self._progress = self._reactor.turn_time
        while self._line and len(self._sent) < self._config.throttle and self._on_wire < WIRE_BYTES:
            group, message = self._line.popleft()
            if group.error is None:
                self._send(channel, group, message, now)
            else:
                group.answered(message, group.error)
        link.flush()
        if self._sent and not self._watched:
            self._watched = True
            self._reactor.call_later(STALL_SECONDS, self._look)

    def _send(self, channel: Channel, group: Group, message: Message, now: float) -> None:
        config = self._config
        exchange, queue = config.exchange, message.queue
        headers: dict[str, Any] | None = {LOST_HEADER: message.lost} if message.lost else None
        if message.due > now and queue == config.outbox:
            exchange = ''
            queue, moments = place(queue, message.due, now)
            headers = {**moments, **(headers or {})}
        body, encoding = self._encode(message)
        if 0 < self.limit < len(body):
            group.answered(message, TooLargeForBroker(len(body), self.limit))
            return
        try:
            tag = channel.publish(exchange, queue, body, properties(config, message.priority, encoding, headers), True)
        except Unencodable as error:
            group.answered(message, error)
        else:
            self._sent[tag] = Sent(group, message, queue, body)
            self._on_wire += len(body)

    def _encode(self, message: Message) -> tuple[bytes, str | None]:
        """The body as it is sent, and its content-encoding."""
        if isinstance(message, Forwarded):
            return message.body, message.encoding
        body = message.large.whole().body if isinstance(message, Unmade) and message.large else message.body
        return (gzip.compress(body, 6, mtime=0), 'gzip') if self._config.gzip else (body, None)

    def _look(self) -> None:
        """Has the broker confirmed anything lately?"""
        self._watched = bool(self._sent)
        if not self._watched:
            return
        silent = self._reactor.now() - self._progress >= STALL_SECONDS
        if silent and not self.stalled and self._link is not None and not self._link.blocked:
            self.stalled = True
            self._on_stall()
        self._reactor.call_later(STALL_SECONDS / 4, self._look)
