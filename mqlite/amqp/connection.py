"""The connection: channel 0, the channels it owns, and the only door for octets in both directions.

    start ──start──► tune ──tune──► open ──open-ok──► ready ──close()──► closing ──close-ok──► closed
      └── a close by the broker, a protocol error, the end of the stream: from every state ──────► closed

    start     our protocol header is out, connection.start is awaited
    tune      we have logged in; a challenge (secure) or the broker's limits (tune) are awaited
    open      limits are agreed, connection.open is out
    ready     channels may be opened
    closing   we asked for the end: whatever still comes is dropped until close-ok
    closed    nothing more is read; data_to_send() may still hold the last words

Use: write data_to_send() after every call of anything here; hand what was read to receive() and act on its events;
call eof() at the end of the stream. It never raises for what the broker does: that comes as Closed or Failed, after
the events that came before it, so that a confirm in front of a broken frame still counts. This file must not know
sockets or clocks: heartbeat_policy() is told how many seconds passed.
"""

from __future__ import annotations

from typing import Any, Callable

from mqlite.amqp.channel import CLOSED as CHANNEL_CLOSED
from mqlite.amqp.channel import Channel, ChannelGone, fields_of_close
from mqlite.amqp.codec import (
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    HEARTBEAT,
    FrameBuffer,
    ProtocolError,
    Reply,
    encode_frame,
    encode_table,
)
from mqlite.amqp.events import Blocked, Closed, Event, Failed, Opened, Unblocked
from mqlite.amqp.methods import check_from_broker, decode_method, encode_method, find_method
from mqlite.amqp.uri import Address
from mqlite.errors import ConfigError, MqliteError

PROTOCOL_HEADER = b'AMQP\x00\x00\x09\x01'
FRAME_MIN = 4096            # constant frame-min-size: every peer takes frames of this size
FRAME_MAX = 131072          # RabbitMQ's own default; with a broker that has none, our word counts
CHANNEL_MAX = 2047          # RabbitMQ's own default
HEARTBEAT_SECONDS = 60      # RabbitMQ's own default
MAX_BODY = 128 << 20        # RabbitMQ's max_message_size up to 3.13; 4.x has 16 MiB

START, TUNE, OPEN, READY, CLOSING, CLOSED = 'start', 'tune', 'open', 'ready', 'closing', 'closed'

CAPABILITIES = ('publisher_confirms', 'consumer_cancel_notify', 'basic.nack', 'connection.blocked',
                'authentication_failure_close', 'exchange_exchange_bindings')

# What the end of the stream means when no close came first: brokers before RabbitMQ 3.2 refuse by hanging up.
_HUNG_UP = {
    START: 'before its greeting: is this the port of a broker, and if it is the TLS port, is the address amqps://?',
    TUNE: 'after the login: the user name or the password is wrong, or frame-max or heartbeat do not please it',
    OPEN: 'instead of opening the virtual host: it does not exist, or this user has no permission for it',
}


def _response(mechanism: str, address: Address) -> bytes:
    """The SASL response: RFC 4616 for PLAIN; AMQPLAIN is a table without its size; EXTERNAL takes the certificate's."""
    user, password = address.user, address.password
    if mechanism == 'PLAIN':
        return b'\0%b\0%b' % (user.encode('utf-8'), password.encode('utf-8'))
    if mechanism == 'AMQPLAIN':
        return encode_table({'LOGIN': user, 'PASSWORD': password})[4:]
    return b''


class Connection:
    """One connection to one broker. `address` is where and as whom; `client_properties` are added to what we say of
    ourselves (product, version, connection_name); content of more than `max_body` octets comes as TooLarge."""

    def __init__(self, address: Address, client_properties: dict[str, Any] | None = None,
                 max_body: int = MAX_BODY) -> None:
        self.state = START
        self.blocked = False
        self.channel_max = CHANNEL_MAX if address.channel_max is None else address.channel_max
        self.frame_max = FRAME_MAX if address.frame_max is None else address.frame_max
        self.heartbeat_seconds = HEARTBEAT_SECONDS if address.heartbeat is None else address.heartbeat
        self._address = address
        self._client_properties = {'product': 'mqlite', **(client_properties or {}),
                                   'capabilities': dict.fromkeys(CAPABILITIES, True)}
        self._max_body = max_body
        self._mechanism = ''
        self._server_properties: dict[str, Any] = {}
        self._channels: dict[int, Channel] = {}
        self._frames = FrameBuffer(self.frame_max)
        self._out: list[bytes | memoryview] = [PROTOCOL_HEADER]

    # --- for the driver -----------------------------------------------------------------------------------------------

    def data_to_send(self) -> bytes:
        """All octets queued since the last call."""
        data = b''.join(self._out)
        self._out.clear()
        return data

    def receive(self, data: bytes) -> list[Event]:
        """What `data`, the next octets of the stream, brought about; nothing once closed."""
        events: list[Event] = []
        if self.state is CLOSED:
            return events
        channels = self._channels
        try:
            for kind, number, buffer, begin, stop in self._frames.feed(data):
                channel = channels.get(number)
                if channel is None:
                    self._receive_frame(kind, number, buffer[begin:stop], events)
                    if self.state is CLOSED:
                        break
                    continue
                channel.receive(kind, buffer, begin, stop, events)
                if channel.state is CHANNEL_CLOSED:
                    del channels[number]
        except (ProtocolError, ConfigError) as error:
            self._fail(error, events)
        return events

    def eof(self) -> list[Event]:
        """The stream ended, or was given up."""
        state = self.state
        if state is CLOSED:
            return []
        self._end()
        self._out.clear()
        return [Closed(0, 'the broker closed the connection ' + _HUNG_UP.get(state, 'without a word'), 0, 0)]

    def open_channel(self) -> Channel:
        """A new channel under the lowest free number; ChannelOpened tells when the broker has it too."""
        if self.state is not READY:
            raise ChannelGone(f'the connection is not open ({self.state})')
        number = next((n for n in range(1, self.channel_max + 1) if n not in self._channels), 0)
        if not number:
            raise ChannelGone(f'all {self.channel_max} channels of the connection are in use')
        channel = self._channels[number] = Channel(number, self._out, self.frame_max, self._max_body)
        return channel

    def heartbeat(self) -> None:
        """Send a heartbeat; when one is due is up to heartbeat_policy()."""
        if self.state in (OPEN, READY, CLOSING):
            self._out.append(HEARTBEAT)

    def close(self, code: int = 200, text: str = '') -> None:
        """Ask for the end; Closed follows. Before login there is nothing to end: just close the stream."""
        if self.state in (OPEN, READY):
            self._send('connection.close', reply_code=code, reply_text=text)
            self._abandon_channels()
            self.state = CLOSING

    # --- channel 0 ----------------------------------------------------------------------------------------------------

    def _receive_frame(self, kind: int, number: int, payload: bytes, events: list[Event]) -> None:
        """A frame that is not for an open channel."""
        if number:
            if self.state is CLOSING:
                return
            raise ProtocolError(Reply.CHANNEL_ERROR, f'a frame for channel {number}, which is not open')
        if kind == FRAME_HEARTBEAT:
            if payload:
                raise ProtocolError(Reply.FRAME_ERROR, 'a heartbeat with a payload')
            return
        if kind != FRAME_METHOD:
            raise ProtocolError(Reply.CHANNEL_ERROR, 'content on channel 0')
        row = find_method(payload[:4])
        handler = _HANDLERS.get((self.state, row.name)) or _HANDLERS.get(('any', row.name))
        if handler is not None:
            handler(self, decode_method(payload, 0, len(payload))[1], events)
        elif self.state is not CLOSING:
            check_from_broker(row)
            raise ProtocolError(Reply.COMMAND_INVALID, f'{row.name} on channel 0 in state {self.state}')

    def _on_start(self, fields: dict[str, Any], events: list[Event]) -> None:
        if (fields['version_major'], fields['version_minor']) != (0, 9):
            raise ProtocolError(Reply.NOT_ALLOWED, f"the broker speaks AMQP {fields['version_major']}-"
                                f"{fields['version_minor']}, not 0-9-1")
        offered = fields['mechanisms'].decode('ascii', 'replace').split()
        self._mechanism = next((m for m in self._address.mechanisms if m in offered), '')
        if not self._mechanism:
            raise ConfigError(f'the broker offers authentication by {", ".join(offered)}, none of which is in '
                              f'auth_mechanism ({", ".join(self._address.mechanisms)}) of its address')
        self._server_properties = fields['server_properties']
        self._send('connection.start-ok', client_properties=self._client_properties, mechanism=self._mechanism,
                   response=_response(self._mechanism, self._address), locale='en_US')
        self.state = TUNE

    def _on_secure(self, fields: dict[str, Any], events: list[Event]) -> None:
        """A challenge: our mechanisms have one step, so the answer is the one that start-ok gave."""
        self._send('connection.secure-ok', response=_response(self._mechanism, self._address))

    def _on_tune(self, fields: dict[str, Any], events: list[Event]) -> None:
        if 0 < fields['frame_max'] < FRAME_MIN:
            raise ProtocolError(Reply.NOT_ALLOWED, f"frame-max {fields['frame_max']}, the least allowed is {FRAME_MIN}")
        self.channel_max = _lower(self.channel_max, fields['channel_max']) or 65535
        self.frame_max = _lower(self.frame_max, fields['frame_max'])
        if self.heartbeat_seconds:  # else none was asked for, and the broker goes by our answer, not by its proposal
            self.heartbeat_seconds = _lower(self.heartbeat_seconds, fields['heartbeat'])
        self._frames.frame_max = self.frame_max
        self._send('connection.tune-ok', channel_max=self.channel_max, frame_max=self.frame_max,
                   heartbeat=self.heartbeat_seconds)
        self._send('connection.open', virtual_host=self._address.vhost)
        self.state = OPEN

    def _on_open_ok(self, fields: dict[str, Any], events: list[Event]) -> None:
        self.state = READY
        events.append(Opened(self._server_properties, self.channel_max, self.frame_max, self.heartbeat_seconds))

    def _on_blocked(self, fields: dict[str, Any], events: list[Event]) -> None:
        self.blocked = True
        events.append(Blocked(fields['reason']))

    def _on_unblocked(self, fields: dict[str, Any], events: list[Event]) -> None:
        self.blocked = False
        events.append(Unblocked())

    def _on_close(self, fields: dict[str, Any], events: list[Event]) -> None:
        """The broker ends it. What was not sent yet would be read by nobody, so only close-ok goes out."""
        self._out.clear()
        self._send('connection.close-ok')
        self._end()
        events.append(Closed(**fields_of_close(fields)))

    def _on_close_ok(self, fields: dict[str, Any], events: list[Event]) -> None:
        self._end()
        events.append(Closed(200, '', 0, 0))

    # --- the end ------------------------------------------------------------------------------------------------------

    def _fail(self, error: MqliteError, events: list[Event]) -> None:
        """What was not sent yet is dropped: nobody will hear its confirms, and it must be sent again elsewhere."""
        self._out.clear()
        if isinstance(error, ProtocolError) and self.state is not START:
            self._send('connection.close', reply_code=error.code, reply_text=str(error))
        self._end()
        events.append(Failed(error))

    def _end(self) -> None:
        self._abandon_channels()
        self.state = CLOSED

    def _abandon_channels(self) -> None:
        for channel in self._channels.values():
            channel.abandon()
        self._channels.clear()

    def _send(self, name: str, **fields: Any) -> None:
        self._out.append(encode_frame(FRAME_METHOD, 0, encode_method(name, fields)))


# What a broker may say on channel 0, and when. Anything else there is Reply.COMMAND_INVALID.
_HANDLERS: dict[tuple[str, str], Callable[[Connection, dict[str, Any], list[Event]], None]] = {
    (START,   'connection.start'):     Connection._on_start,
    (TUNE,    'connection.secure'):    Connection._on_secure,
    (TUNE,    'connection.tune'):      Connection._on_tune,
    (OPEN,    'connection.open-ok'):   Connection._on_open_ok,
    (READY,   'connection.blocked'):   Connection._on_blocked,
    (READY,   'connection.unblocked'): Connection._on_unblocked,
    (CLOSING, 'connection.close-ok'):  Connection._on_close_ok,
    ('any',   'connection.close'):     Connection._on_close,
}


def _lower(ours: int, theirs: int) -> int:
    """Negotiation of a limit where 0 is none: the lower of the two, or the one that there is."""
    return min(ours, theirs) if ours and theirs else ours or theirs


def heartbeat_policy(interval: int, sent_ago: float, received_ago: float) -> tuple[str, float]:
    """What to do now, given the seconds since octets were last sent and received: 'send', 'dead' or 'wait'; and the
    seconds until it is time to look again.

    Any octets count as a heartbeat (specification 4.2.7). One is due when half the interval passed in silence, as
    RabbitMQ does it; the broker is dead when two intervals passed, which is two heartbeats missed. Interval 0: never.
    """
    if not interval:
        return 'wait', float('inf')
    if received_ago >= 2 * interval:
        return 'dead', 0.0
    if sent_ago >= interval / 2:
        return 'send', min(interval / 2, 2 * interval - received_ago)
    return 'wait', min(interval / 2 - sent_ago, 2 * interval - received_ago)
