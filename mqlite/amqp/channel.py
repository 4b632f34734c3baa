"""One channel: everything but the connection's own handshake.

    opening ──open-ok──► open ──close()──► closing ──close-ok──► closed
       └────────────────────┴──── the broker's channel.close ──► closed

    opening   channel.open is on its way; requests may already follow it
    open      in use
    closing   we asked for the end: whatever still comes is dropped until close-ok
    closed    its number may be used again; using the object raises ChannelGone

Requests are answered in the order of asking, so a queue of names matches them. Content comes as method, header, and as
many body frames as it takes, with nothing between; its parts are joined once.

The methods that travel once per message (publish, deliver, ack) are packed and unpacked here with fixed layouts; the
table in methods.py remains the truth and the tests hold these against it. This file must not know sockets or clocks,
nor who is on the other side of its output list, which the connection owns. Bounds: content of more than `max_body`
octets is counted and dropped, and everything else fits one frame.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from struct import Struct
from struct import error as StructError
from typing import Any, Callable

from mqlite.amqp.codec import (
    FRAME_BODY,
    FRAME_HEADER,
    FRAME_METHOD,
    FRAME_OVERHEAD,
    ProtocolError,
    Reply,
    Unencodable,
    encode_frame,
)
from mqlite.amqp.events import (
    Answer,
    Cancelled,
    ChannelClosed,
    ChannelOpened,
    Confirmed,
    Delivered,
    Event,
    Flow,
    Got,
    Returned,
    TooLarge,
)
from mqlite.amqp.methods import (
    BY_NAME,
    METHOD_IDS,
    NO_PROPERTIES,
    Properties,
    check_from_broker,
    decode_method,
    decode_properties,
    encode_method,
    encode_properties,
)
from mqlite.errors import TemporaryError

OPENING, OPEN, CLOSING, CLOSED = 'opening', 'open', 'closing', 'closed'

_DELIVER, _ACK = METHOD_IDS['basic.deliver'], METHOD_IDS['basic.ack']
_BASIC = 60
_ACK_FIELDS = Struct('>QB')             # delivery tag, multiple
_ACK_FRAME = Struct('>BHI4sQBB')        # the same as a whole frame
_ACK_SIZE = 13                          # of its payload
_HEADER_FIELDS = Struct('>HHQ')         # class, weight (unused), body size; the property block follows
_HEADER_FRAME = Struct('>BHIHHQ')
_BODY_FRAME = Struct('>BBHI')           # frame-end of what is before it, then a body frame's head
_END = b'\xce'


class ChannelGone(TemporaryError):
    """The channel, or its connection, is closed: use another one."""


class Channel:
    """Made by Connection.open_channel(). Methods queue octets for data_to_send(); what comes back are events."""

    def __init__(self, number: int, out: list[bytes | memoryview], frame_max: int, max_body: int) -> None:
        self.number = number
        self.state = OPENING
        self._out = out
        self._frame_max = frame_max
        self._max_body = max_body
        self._waiting: deque[str] = deque()         # requests that the broker has not answered yet
        self._confirming = False
        self._published = 0                         # delivery tag of the last publish, once confirming
        self._settled = 0                           # every publish up to this tag is confirmed or refused
        self._settled_beyond: set[int] = set()      # and these, above it
        # Content on its way in: the event to make and its first fields; None when none is
        self._message: tuple[Callable[..., Any], tuple[Any, ...]] | None = None
        self._properties: Properties | None = None       # None until the header is here
        self._size = self._left = 0
        self._parts: list[bytes] = []
        self._send('channel.open')

    # --- what we ask of the broker ------------------------------------------------------------------------------------

    def request(self, name: str, **fields: Any) -> None:
        """Send a method of the table, such as request('queue.declare', queue='outbox', durable=True).

        All of exchange, queue, basic and confirm that has no content. One that has answers and no `nowait` brings an
        Answer event, or ChannelClosed. Errors: Unencodable for a value that does not fit, ChannelGone after the end,
        TypeError for what the table does not have.
        """
        row = BY_NAME.get(name)
        if row is None or row.content or row.sender == 'broker' or row.class_id in (10, 20):
            raise TypeError(f'{name} is not a request')
        self._send(name, **fields)
        if name == 'confirm.select':
            self._confirming = True             # the broker counts from the first publish behind this method

    def publish(self, exchange: str, routing_key: str, body: bytes, properties: Properties = NO_PROPERTIES,
                mandatory: bool = False) -> int:
        """Queue one message; returns its delivery tag for Confirmed, 0 when the channel is not confirming."""
        if self.state not in (OPENING, OPEN):
            raise ChannelGone(f'channel {self.number} is {self.state}')
        prefix = _publish_frame(self.number, exchange, routing_key, mandatory)
        block, size, out = encode_properties(properties), len(body), self._out
        if len(block) + 12 + FRAME_OVERHEAD > self._frame_max:
            raise Unencodable(f'properties of {len(block)} octets do not fit a frame of {self._frame_max}')
        out += (prefix, _HEADER_FRAME.pack(FRAME_HEADER, self.number, 12 + len(block), _BASIC, 0, size), block)
        if 0 < size <= self._frame_max - FRAME_OVERHEAD:
            out += (_BODY_FRAME.pack(0xCE, FRAME_BODY, self.number, size), body, _END)
        else:
            self._publish_parts(body)
        if not self._confirming:
            return 0
        self._published += 1
        return self._published

    def _publish_parts(self, body: bytes) -> None:
        """A body of no frames, or of several."""
        out, step, view = self._out, self._frame_max - FRAME_OVERHEAD, memoryview(body)
        for at in range(0, len(body), step):
            part = view[at:at + step]
            out += (_BODY_FRAME.pack(0xCE, FRAME_BODY, self.number, len(part)), part)
        out.append(_END)

    def ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """Acknowledge a delivery, or with `multiple` all up to it. The same as request('basic.ack', …), but faster."""
        if self.state is not OPEN:
            raise ChannelGone(f'channel {self.number} is {self.state}')
        self._out.append(_ACK_FRAME.pack(FRAME_METHOD, self.number, _ACK_SIZE, _ACK, delivery_tag, multiple, 0xCE))

    def close(self, code: int = 200, text: str = '') -> None:
        """Ask for the end; ChannelClosed follows. Deliveries that were not acknowledged go back to their queues."""
        self._send('channel.close', reply_code=code, reply_text=text)
        self.state = CLOSING

    def abandon(self) -> None:
        """The connection is over: nothing is sent, nothing more will come."""
        self.state = CLOSED
        self._message, self._parts = None, []

    def _send(self, name: str, **fields: Any) -> None:
        if self.state not in (OPENING, OPEN):
            raise ChannelGone(f'channel {self.number} is {self.state}')
        payload = encode_method(name, fields)
        if len(payload) + FRAME_OVERHEAD > self._frame_max:
            raise Unencodable(f'{name} with {len(payload)} octets does not fit a frame of {self._frame_max}')
        self._out.append(encode_frame(FRAME_METHOD, self.number, payload))
        if BY_NAME[name].answers and not fields.get('nowait'):
            self._waiting.append(name)

    def _reply(self, name: str, **fields: Any) -> None:
        self._out.append(encode_frame(FRAME_METHOD, self.number, encode_method(name, fields)))

    # --- what the broker says -----------------------------------------------------------------------------------------

    def receive(self, kind: int, data: bytes, begin: int, stop: int, events: list[Event]) -> None:
        """One frame with payload data[begin:stop]. Adds to `events`; raises ProtocolError."""
        if self.state is CLOSING:
            self._receive_closing(kind, data, begin, stop, events)
        elif kind == FRAME_BODY:
            self._receive_body(data, begin, stop, events)
        elif kind == FRAME_HEADER:
            self._receive_header(data, begin, stop, events)
        elif kind != FRAME_METHOD:
            raise ProtocolError(Reply.FRAME_ERROR, f'a heartbeat on channel {self.number}')
        elif self._message is not None:
            raise ProtocolError(Reply.UNEXPECTED_FRAME, f'a method on channel {self.number} where content goes on')
        else:
            method = data[begin:begin + 4]
            if method == _DELIVER:
                self._message = Delivered, (self.number, *unpack_deliver(data, begin + 4, stop))
            elif method == _ACK and stop - begin == _ACK_SIZE:
                tag, bits = _ACK_FIELDS.unpack_from(data, begin + 4)
                self._settle(tag, bool(bits & 1), True, events)
            else:
                self._receive_method(data, begin, stop, events)

    def _receive_method(self, data: bytes, begin: int, stop: int, events: list[Event]) -> None:
        row, fields = decode_method(data, begin, stop)
        handler = _HANDLERS.get(row.name)
        if handler is not None:
            handler(self, fields, events)
        else:
            check_from_broker(row)
            events.append(Answer(self.number, self._answered(row.name), row.name, fields))

    def _answered(self, method: str) -> str:
        """The request that `method` answers: the oldest one that waits, or the broker has lost count."""
        if not self._waiting or method not in BY_NAME[self._waiting[0]].answers:
            waiting = self._waiting[0] if self._waiting else 'nothing'
            raise ProtocolError(Reply.COMMAND_INVALID, f'{method} on channel {self.number} where {waiting} waits')
        return self._waiting.popleft()

    def _receive_closing(self, kind: int, data: bytes, begin: int, stop: int, events: list[Event]) -> None:
        """Between close and close-ok all is dropped, as the specification asks, but a close that crossed ours."""
        method = data[begin:min(begin + 4, stop)] if kind == FRAME_METHOD else b''
        if method == METHOD_IDS['channel.close']:
            self._reply('channel.close-ok')
        elif method == METHOD_IDS['channel.close-ok']:
            self.abandon()
            events.append(ChannelClosed(self.number, 200, '', 0, 0))

    def _on_open_ok(self, fields: dict[str, Any], events: list[Event]) -> None:
        self._answered('channel.open-ok')
        self.state = OPEN
        events.append(ChannelOpened(self.number))

    def _on_close(self, fields: dict[str, Any], events: list[Event]) -> None:
        self._reply('channel.close-ok')
        self.abandon()
        events.append(ChannelClosed(self.number, **fields_of_close(fields)))

    def _on_flow(self, fields: dict[str, Any], events: list[Event]) -> None:
        self._reply('channel.flow-ok', active=fields['active'])
        events.append(Flow(self.number, fields['active']))

    def _on_cancel(self, fields: dict[str, Any], events: list[Event]) -> None:
        if not fields['nowait']:
            self._reply('basic.cancel-ok', consumer_tag=fields['consumer_tag'])
        events.append(Cancelled(self.number, fields['consumer_tag']))

    def _on_nack(self, fields: dict[str, Any], events: list[Event]) -> None:
        self._settle(fields['delivery_tag'], fields['multiple'], False, events)

    def _on_ack(self, fields: dict[str, Any], events: list[Event]) -> None:
        self._settle(fields['delivery_tag'], fields['multiple'], True, events)

    def _on_return(self, fields: dict[str, Any], events: list[Event]) -> None:
        self._message = Returned, (self.number, *fields.values())

    def _on_get_ok(self, fields: dict[str, Any], events: list[Event]) -> None:
        self._answered('basic.get-ok')
        self._message = Got, (self.number, *fields.values())

    # --- content ------------------------------------------------------------------------------------------------------

    def _receive_header(self, data: bytes, begin: int, stop: int, events: list[Event]) -> None:
        if self._message is None or self._properties is not None:
            raise ProtocolError(Reply.UNEXPECTED_FRAME, f'a content header on channel {self.number} where none is due')
        if stop - begin < _HEADER_FIELDS.size:
            raise ProtocolError(Reply.SYNTAX_ERROR, 'a content header of less than 14 octets')
        class_id, _, self._size = _HEADER_FIELDS.unpack_from(data, begin)
        if class_id != _BASIC:
            raise ProtocolError(Reply.FRAME_ERROR, f'a content header of class {class_id} where 60 is due')
        self._properties = decode_properties(data[begin + 12:stop])
        self._left = self._size
        if not self._size:
            self._finish(b'', events)

    def _receive_body(self, data: bytes, begin: int, stop: int, events: list[Event]) -> None:
        if self._properties is None:
            raise ProtocolError(Reply.UNEXPECTED_FRAME, f'a content body on channel {self.number} where none is due')
        self._left -= stop - begin
        if self._left < 0:
            raise ProtocolError(Reply.FRAME_ERROR, f'content beyond the {self._size} octets that its header names')
        if self._size <= self._max_body and stop > begin:
            self._parts.append(data[begin:stop])
        if not self._left:
            self._finish(self._parts[0] if len(self._parts) == 1 else b''.join(self._parts), events)

    def _finish(self, body: bytes, events: list[Event]) -> None:
        assert self._message is not None
        make, fields = self._message
        message = make(*fields, self._properties, body)
        events.append(message if self._size <= self._max_body else TooLarge(self.number, message, self._size))
        self._message = self._properties = None
        self._parts = []

    # --- confirms -----------------------------------------------------------------------------------------------------

    def _settle(self, tag: int, multiple: bool, ok: bool, events: list[Event]) -> None:
        """basic.ack or basic.nack to us. With `multiple`: all that were open up to `tag`, or up to the last for 0."""
        last = self._published if multiple and not tag else tag
        known = last <= self._published and (multiple or last > self._settled and last not in self._settled_beyond)
        if not self._confirming or not known:
            raise ProtocolError(Reply.PRECONDITION_FAILED, f'a confirm of {tag} on channel {self.number}, '
                                f'where {self._settled + 1} to {self._published} are open')
        if multiple:
            self._settle_to(last, ok, events)
        else:
            self._settled_beyond.add(tag)
            events.append(Confirmed(self.number, tag, tag, ok))
        while self._settled_beyond and self._settled + 1 in self._settled_beyond:
            self._settled += 1
            self._settled_beyond.remove(self._settled)

    def _settle_to(self, last: int, ok: bool, events: list[Event]) -> None:
        """Events for the open tags up to `last`: one range, cut where single confirms came before."""
        first = self._settled + 1
        for gap in sorted(tag for tag in self._settled_beyond if tag <= last):
            if first < gap:
                events.append(Confirmed(self.number, first, gap - 1, ok))
            first = gap + 1
            self._settled_beyond.remove(gap)
        if first <= last:
            events.append(Confirmed(self.number, first, last, ok))
        self._settled = max(self._settled, last)


# The methods that do more than answer a request. All others become Answer events.
_HANDLERS: dict[str, Callable[[Channel, dict[str, Any], list[Event]], None]] = {
    'channel.open-ok': Channel._on_open_ok,
    'channel.close':   Channel._on_close,
    'channel.flow':    Channel._on_flow,
    'basic.cancel':    Channel._on_cancel,
    'basic.ack':       Channel._on_ack,
    'basic.nack':      Channel._on_nack,
    'basic.return':    Channel._on_return,
    'basic.get-ok':    Channel._on_get_ok,
}


def fields_of_close(fields: dict[str, Any]) -> dict[str, Any]:
    """channel.close and connection.close as their events name the fields."""
    return {'code': fields['reply_code'], 'text': fields['reply_text'], 'class_id': fields['class_id'],
            'method_id': fields['method_id']}


# --- once per message: the fixed layouts ------------------------------------------------------------------------------

@lru_cache(maxsize=1024)
def _publish_frame(number: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """The whole method frame: programs publish to the same few queues again and again."""
    return encode_frame(FRAME_METHOD, number, encode_method('basic.publish', {
        'exchange': exchange, 'routing_key': routing_key, 'mandatory': mandatory}))


_DELIVER_MIDDLE = Struct('>QB')         # delivery tag, redelivered


def unpack_deliver(data: bytes, at: int, stop: int) -> tuple[str, int, bool, str, str]:
    """The fields of basic.deliver behind its numbers.

        size consumer-tag   delivery-tag(8) redelivered(1)   size exchange size routing-key

    The lengths only lead forward, so ending exactly at `stop` proves that none led outside.
    """
    try:
        middle = at + 1 + data[at]
        tag, redelivered = _DELIVER_MIDDLE.unpack_from(data, middle)
        names = middle + 9
        key = names + 1 + data[names]
        end = key + 1 + data[key]
    except (IndexError, StructError):
        end = -1
    if end != stop:
        raise ProtocolError(Reply.SYNTAX_ERROR, 'basic.deliver whose fields do not fill its frame')
    exchange, routing_key = _two_names(data[names:stop])
    return _text(data[at + 1:middle]), tag, bool(redelivered & 1), exchange, routing_key


@lru_cache(maxsize=256)
def _two_names(octets: bytes) -> tuple[str, str]:
    """Two short strings, whose sizes have been checked: the same pair for every message of a queue."""
    split = 1 + octets[0]
    return _text(octets[1:split]), _text(octets[split + 1:])


def _text(octets: bytes) -> str:
    return octets.decode('utf-8', 'surrogateescape')
