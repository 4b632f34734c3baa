"""What the machine tells its driver: one small tuple per thing that happened, in the order of the stream.

`channel` is always the channel's number. No event carries a reference to the machine, so that keeping one keeps
nothing else alive. Codes and texts are the broker's, as it sent them: a text is hostile until escaped.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Union

from mqlite.amqp.methods import Properties
from mqlite.errors import MqliteError


class Opened(NamedTuple):
    """The connection can be used; limits as negotiated (frame_max in octets, heartbeat in seconds, 0 is none)."""

    server_properties: dict[str, Any]
    channel_max: int
    frame_max: int
    heartbeat: int


class Blocked(NamedTuple):
    """The broker takes no publishes for now (memory or disk alarm); those that are sent wait in its socket."""

    reason: str


class Unblocked(NamedTuple):
    """Publishes are taken again."""


class Closed(NamedTuple):
    """The end, by close of either side: code 200 when we asked, 0 when the stream ended without a close."""

    code: int
    text: str
    class_id: int
    method_id: int


class Failed(NamedTuple):
    """The end, because the broker said what it must not (ProtocolError) or we cannot log in to it (ConfigError).

    Send what data_to_send() still has, which tells the broker why; then close the stream.
    """

    error: MqliteError


class ChannelOpened(NamedTuple):
    channel: int


class ChannelClosed(NamedTuple):
    """The channel's end; all that it waited for will not come. Code 200 when we asked; the number is free again."""

    channel: int
    code: int
    text: str
    class_id: int
    method_id: int


class Flow(NamedTuple):
    """The broker asks to stop (active false) or resume publishing on a channel; it has been answered."""

    channel: int
    active: bool


class Confirmed(NamedTuple):
    """The broker took (ok) or refused the publishes with delivery tags `first` to `last`, both included."""

    channel: int
    first: int
    last: int
    ok: bool


class Returned(NamedTuple):
    """A mandatory publish that reached no queue; its Confirmed follows, with ok true."""

    channel: int
    code: int
    text: str
    exchange: str
    routing_key: str
    properties: Properties
    body: bytes


class Delivered(NamedTuple):
    """A message for a consumer."""

    channel: int
    consumer_tag: str
    delivery_tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    properties: Properties
    body: bytes


class Got(NamedTuple):
    """The message that basic.get asked for; when there is none, the event is Answer('basic.get-empty')."""

    channel: int
    delivery_tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    message_count: int
    properties: Properties
    body: bytes


class TooLarge(NamedTuple):
    """Content beyond the bound: `message` is what would have come, with an empty body. It still wants its answer.

    Not a protocol error: that would end the connection, and the same message would come again on the next one.
    """

    channel: int
    message: Delivered | Got | Returned
    size: int


class Cancelled(NamedTuple):
    """The broker ended a consumer, as when its queue was deleted. Unanswered deliveries can still be answered."""

    channel: int
    consumer_tag: str


class Answer(NamedTuple):
    """`method` is the answer to the oldest unanswered `request` on this channel, with the answer's fields."""

    channel: int
    request: str
    method: str
    fields: dict[str, Any]


Event = Union[Opened, Blocked, Unblocked, Closed, Failed, ChannelOpened, ChannelClosed, Flow, Confirmed, Returned,
              Delivered, Got, TooLarge, Cancelled, Answer]
