"""The AMQP driver: one connection on the loop. It moves octets and events between a stream and the state machine.

    stream ─► Connection.receive ─► events ─► the owner's on_event, or the Waiter of a request
    calls  ─► Connection/Channel ─► out    ─► one write at the end of the turn

The link lives once: `open` it, use it until `ended` is set, and make a new one. Whatever ends it (a close by either
side, a broken frame, a lost connection, two heartbeats missed, the deadline of the handshake) ends it with a reason
for the operator. Requests are answered in the order of asking, per channel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Callable

from mqlite import __version__
from mqlite.amqp.channel import Channel
from mqlite.amqp.connection import Connection, heartbeat_policy
from mqlite.amqp.events import (
    Answer,
    ChannelClosed,
    ChannelOpened,
    Closed,
    Event,
    Failed,
    Got,
    Opened,
    TooLarge,
)
from mqlite.amqp.uri import Address
from mqlite.errors import ConfigError, MqliteError, TemporaryError
from mqlite.loop.connect import connect
from mqlite.loop.reactor import Reactor
from mqlite.loop.stream import ConnectionLost, Stream
from mqlite.loop.task import Task, Timeout, Waiter, timeout
from mqlite.loop.timers import Timer
from mqlite.loop.tls import TlsContext, TlsError, verified_context

HANDSHAKE_SECONDS = 20.0  # from the connection to connection.open-ok; a broker that starts up may be slow
_LEAST_BEAT = 0.01  # seconds between two looks at the heartbeats: rounding must not make us look for ever
_READS = 8  # of 64 KB, in one turn: who gets many messages at a time can do more with each write to others
CLOSE_SECONDS = 2.0  # for the broker's close-ok

#   code   a connection.close that will come again until somebody changes something, and what that is
_REFUSED = {
    402: 'check the virtual host in queue-address',
    403: 'check the user and the password in queue-address',
    530: 'check the virtual host in queue-address, and that the user may use it',
}


class BrokerError(TemporaryError):
    """The broker, or the way to it, failed; the text says what and where. `code`: AMQP reply code, 0 for none."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class BrokerRefused(ConfigError):
    """The broker is there and will not have us as we are: a setting must change. `code`: AMQP reply code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class Link:
    """One connection to one broker. `ended` is set once, with the reason."""

    def __init__(self, reactor: Reactor, address: Address, on_event: Callable[[Event], object]) -> None:
        self.address = address
        self.ended: Waiter[MqliteError] = Waiter(reactor)
        self.version = ''  # of the broker, as it says
        self._reactor = reactor
        self._on_event = on_event
        self._machine = Connection(address, {'version': __version__, 'platform': 'Python'})
        self._stream: Stream | None = None
        self._reader: Task[None] | None = None
        self._opened: Waiter[None] = Waiter(reactor)
        self._goodbye: Waiter[None] | None = None  # whoever closes us
        self._answers: dict[int, deque[Waiter[Any]]] = {}
        self._scheduled = False
        self._heard = self._spoke = 0.0
        self._heart: Timer | None = None

    @property
    def blocked(self) -> bool:
        """The broker takes no publishes now."""
        return self._machine.blocked

    async def open(self, target: str, verify: bool) -> None:
        """Connect to the numeric address `target` and log in. BrokerError or BrokerRefused when that cannot be."""
        address = self.address
        seconds = address.connect_timeout or HANDSHAKE_SECONDS
        try:
            context = _tls_context(address, verify) if address.tls else None
            with timeout(self._reactor, seconds, f'no answer within {seconds:g} s'):
                self._stream = await connect(self._reactor, target, address.port, seconds=seconds)
                if context is not None:
                    await self._stream.start_tls(context, server_side=False,
                                                 hostname=address.server_name or address.host)
                self._heard = self._spoke = self._reactor.now()
                self._reader = self._reactor.spawn(self._read(self._stream), f'reader of {address}')
                self.touch()
                await self._opened
        except (OSError, Timeout, ConnectionLost, TlsError) as error:
            text = (error.strerror if isinstance(error, OSError) else '') or str(error)
            advice = '; check the certificate, or set rabbitmq-verify' if isinstance(error, TlsError) else ''
            self._end(BrokerError(f'{address}: {text}{advice}'))
            raise self.ended.result() from error
        except BaseException as error:
            self._end(error if isinstance(error, MqliteError) else BrokerError(f'{address}: given up'))
            raise
        self._beat()

    async def close(self) -> None:
        """Say goodbye, wait a little for the answer, close."""
        self._machine.close(200, 'mqlite is stopping')
        self.touch()
        if not self.ended.done:
            self._goodbye = Waiter(self._reactor)
            try:
                with timeout(self._reactor, CLOSE_SECONDS):
                    await self._goodbye
            except Timeout:
                self._end(BrokerError(f'{self.address}: closed'))

    def drop(self, reason: str) -> None:
        """End the link at once: it is of no more use."""
        self._end(BrokerError(f'{self.address}: {reason}'))

    async def channel(self) -> Channel:
        """A new channel, open on both sides."""
        channel = self._machine.open_channel()
        await self._answer(channel)
        return channel

    def request(self, channel: Channel, name: str, **fields: Any) -> Waiter[Any]:
        """Its Answer (or Got) event. BrokerError with the broker's code when it closed the channel over it."""
        channel.request(name, **fields)
        return self._answer(channel)

    def touch(self) -> None:
        """Something was queued in the machine: send it with the rest of this turn."""
        if not self._scheduled:
            self._scheduled = True
            self._reactor.call_at_turn_end(self.flush)

    def flush(self) -> None:
        """Send now what is queued: for those who queue at the end of a turn themselves."""
        self._scheduled = False
        data = self._machine.data_to_send()
        if data and self._stream is not None:
            self._spoke = self._reactor.turn_time
            self._stream.write(data)
            self._stream.flush()

    # the stream

    async def _read(self, stream: Stream) -> None:
        try:
            while not self.ended.done:
                reads = 0
                while reads < _READS and stream.look():  # first: the broker may have answered before this task began
                    self._heard, reads = self._reactor.turn_time, reads + 1
                    self._handle(self._machine.receive(stream.take()))
                await stream.wait_bytes()
        except (ConnectionLost, TlsError) as error:
            self._handle(self._machine.eof())
            self._end(BrokerError(f'{self.address}: {error}'))
        except Exception:
            self._end(BrokerError(f'{self.address}: given up after an internal error'))
            raise  # a mistake of ours: the reactor reports it

    def _handle(self, events: Iterable[Event]) -> None:
        for event in events:
            handler = _HANDLERS.get(type(event))
            if handler is None:
                self._on_event(event)
            else:
                handler(self, event)
        self.touch()

    def _answered(self, event: Answer | Got | ChannelOpened) -> None:
        self._answers[event.channel].popleft().set(event)

    def _too_large(self, event: TooLarge) -> None:
        if isinstance(event.message, Got):
            self._answers[event.channel].popleft().set(event)
        else:
            self._on_event(event)

    def _channel_closed(self, event: ChannelClosed) -> None:
        self._fail_answers(event.channel, BrokerError(event.text, event.code))
        self._on_event(event)

    def _logged_in(self, event: Opened) -> None:
        version = event.server_properties.get('version', '')
        self.version = version.decode('utf-8', 'replace') if isinstance(version, bytes) else str(version)
        if not self._opened.done:
            self._opened.set()

    def _failed(self, event: Failed) -> None:
        error = event.error
        self._end(BrokerRefused(f'{self.address}: {error}', 0) if isinstance(error, ConfigError)
                  else BrokerError(f'{self.address}: {error}'))

    def _closed(self, event: Closed) -> None:
        text = f'{self.address}: {event.text or "closed"}' + (f' (code {event.code})' if event.code else '')
        advice = _REFUSED.get(event.code)
        self._end(BrokerRefused(f'{text}; {advice}', event.code) if advice else BrokerError(text, event.code))

    def _end(self, reason: MqliteError) -> None:
        if self.ended.done:
            return
        self.ended.set(reason)
        if self._goodbye is not None and not self._goodbye.done:
            self._goodbye.set()
        self._machine.eof()
        if self._heart is not None:
            self._heart.cancel()
        if self._stream is not None:
            self.flush()
            self._stream.close()
        if not self._opened.done:
            self._opened.fail(reason)
        for number in list(self._answers):
            self._fail_answers(number, reason)

    def _beat(self) -> None:
        """Heartbeats, ours and the broker's."""
        if self.ended.done:
            return
        now = self._reactor.now()
        what, seconds = heartbeat_policy(self._machine.heartbeat_seconds, now - self._spoke, now - self._heard)
        if what == 'dead':
            self.drop('the broker has been silent for two heartbeats')
        elif seconds != float('inf'):
            if what == 'send':
                self._machine.heartbeat()
                self.touch()
            self._heart = self._reactor.call_later(max(seconds, _LEAST_BEAT), self._beat)

    # answers

    def _answer(self, channel: Channel) -> Waiter[Any]:
        waiter: Waiter[Any] = Waiter(self._reactor)
        self._answers.setdefault(channel.number, deque()).append(waiter)
        self.touch()
        return waiter

    def _fail_answers(self, number: int, error: MqliteError) -> None:
        for waiter in self._answers.pop(number, ()):
            waiter.fail(error)


# What the link answers itself; all other events are the owner's.
_HANDLERS: dict[type, Callable[[Link, Any], None]] = {
    Answer:        Link._answered,
    Got:           Link._answered,
    ChannelOpened: Link._answered,
    TooLarge:      Link._too_large,
    ChannelClosed: Link._channel_closed,
    Opened:        Link._logged_in,
    Closed:        Link._closed,
    Failed:        Link._failed,
}


def _tls_context(address: Address, verify: bool) -> TlsContext:
    try:
        return verified_context(verify if address.verify is None else address.verify, address.cacertfile,
                                address.certfile, address.keyfile)
    except (OSError, TlsError) as error:
        text = (error.strerror if isinstance(error, OSError) else '') or str(error)
        raise BrokerRefused(f'{address}: {text}; check cacertfile, certfile and keyfile in queue-address', 0) from error
