"""Publishing with confirms: many messages under way, each group of them with one outcome.

    publish(group) ─► line ─► at most `throttle` unconfirmed on the wire ─► confirmed ─► group.then(None)
                        └──── link lost, refused, returned ─────────────────────────────► group.then(error)

All that is published in a turn leaves in one write; confirms come as ranges. A message that no queue takes comes back
(mandatory) before its confirm. A group that failed knows what of it is not confirmed (`left`), so that only that is
published again.
"""

from __future__ import annotations

import gzip
from collections import deque
from collections.abc import Sequence
from typing import Callable

from mqlite.amqp.channel import Channel
from mqlite.amqp.client import Link
from mqlite.amqp.events import Confirmed, Returned
from mqlite.errors import MqliteError, PermanentError
from mqlite.loop.reactor import Reactor
from mqlite.queues.contract import Message, QueueError
from mqlite.queues.parking import place
from mqlite.queues.topology import RabbitConfig, properties

STALL_SECONDS = 10.0  # without a confirm: the broker hangs, and clients are told so


class Unroutable(QueueError):
    """No queue takes the message."""

    def __init__(self, queue: str) -> None:
        super().__init__(f'there is no queue {queue} on the broker: create it, correct the name, or set '
                         f'rabbitmq-declare: true')
        self.queue = queue


class Group:
    """Messages that are kept together. `then(error)` is called once; None: all are confirmed."""

    __slots__ = ('error', 'left', 'patient', 'then')

    def __init__(self, messages: Sequence[Message], patient: bool,
                 then: Callable[[MqliteError | None], object]) -> None:
        """`patient`: nobody waits at the other end of a connection; a stalled broker is waited for."""
        self.left = list(messages)
        self.patient = patient
        self.then: Callable[[MqliteError | None], object] | None = then
        self.error: MqliteError | None = None

    def finish(self, error: MqliteError | None) -> None:
        then, self.then = self.then, None
        if then is not None:
            then(error)


class Publisher:
    """Publishes over whatever link there is. The owner attaches links and hands over events."""

    def __init__(self, reactor: Reactor, config: RabbitConfig, on_stall: Callable[[bool], object]) -> None:
        self._reactor = reactor
        self._config = config
        self._on_stall = on_stall
        self._link: Link | None = None
        self._channel: Channel | None = None
        self._line: deque[tuple[Group, Message]] = deque()
        self._sent: dict[int, tuple[Group, Message, str]] = {}  # delivery tag -> with its routing key
        self._scheduled = False
        self._stalled = False
        self._watched = False  # the timer of _look is on
        self._progress = 0.0  # when something was last confirmed, or the wire was empty

    def attach(self, link: Link, channel: Channel) -> None:
        """Publish over this channel, which is in confirm mode, from now on."""
        self._link, self._channel = link, channel
        self._progress = self._reactor.now()
        self._schedule()

    def detach(self, error: MqliteError) -> None:
        """The link is gone: everything unconfirmed fails, and so does what waits for clients."""
        self._link = self._channel = None
        self._stalled = False
        sent, self._sent = self._sent, {}
        groups = [row[0] for row in sent.values()] + [row[0] for row in self._line]
        self._line.clear()
        for group in groups:
            group.finish(error)

    def publish(self, group: Group) -> None:
        if not group.left:
            group.finish(None)
            return
        self._line.extend((group, message) for message in group.left)
        self._schedule()

    def fail_impatient(self, error: MqliteError) -> None:
        """Tell clients now; their messages may still be taken by the broker, and then come twice."""
        groups = [row[0] for row in self._sent.values()] + [row[0] for row in self._line]
        self._line = deque(row for row in self._line if row[0].patient)
        for group in groups:
            if not group.patient:
                group.finish(error)

    def confirmed(self, event: Confirmed) -> None:
        self._progress = self._reactor.turn_time
        for tag in range(event.first, event.last + 1):
            group, message, _ = self._sent.pop(tag)
            if event.ok and group.error is None:
                group.left.remove(message)
                if not group.left:
                    group.finish(None)
            else:
                group.finish(group.error or QueueError(
                    f'the broker refused a message for {message.queue}: its queue is full or not available'))
        if self._stalled:
            self._stalled = False
            self._on_stall(False)
        self._schedule()

    def returned(self, event: Returned) -> None:
        """The confirm of the same message is still to come."""
        for group, _, routing_key in self._sent.values():
            if group.error is None and event.routing_key == routing_key:
                group.error = Unroutable(routing_key)
                return

    def too_large(self, text: str) -> None:
        """The broker closed the channel over the size of a message: the largest one under way."""
        group, message, _ = max(self._sent.values(), key=lambda row: len(row[1].body))
        group.finish(PermanentError(f'a message of {len(message.body)} bytes is too large for the broker: lower '
                                    f'smtp-maxsize or raise its max_message_size ({text})'))

    def _schedule(self) -> None:
        if self._link is not None and not self._scheduled and self._line:
            self._scheduled = True
            self._reactor.call_at_turn_end(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        link, channel, config = self._link, self._channel, self._config
        if link is None or channel is None:
            return
        now = self._reactor.clock.time()
        if not self._sent:
            self._progress = self._reactor.turn_time
        while self._line and len(self._sent) < config.throttle:
            group, message = self._line.popleft()
            exchange, queue, headers = config.exchange, message.queue, None
            if message.due > now and queue == config.outbox:
                exchange = ''
                queue, headers = place(queue, message.due, now)
            body = gzip.compress(message.body, 6, mtime=0) if config.gzip else message.body
            tag = channel.publish(exchange, queue, body, properties(config, message.priority, headers), True)
            self._sent[tag] = group, message, queue
        link.flush()
        if self._sent and not self._watched:
            self._watched = True
            self._reactor.call_later(STALL_SECONDS, self._look)

    def _look(self) -> None:
        """Has the broker confirmed anything lately?"""
        self._watched = bool(self._sent)
        if not self._watched:
            return
        if self._reactor.now() - self._progress >= STALL_SECONDS and not self._stalled:
            self._stalled = True
            self._on_stall(True)
        self._reactor.call_later(STALL_SECONDS / 4, self._look)
