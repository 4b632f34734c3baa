"""What every store of messages promises. Nothing above this file knows which store it talks to.

The promises:
- `publish` is kept when its Waiter is set: it survives a crash of the process and of the machine. All of the messages
  given in one call are kept, or the Waiter fails with QueueError.
- A delivery stays ours until it is settled or released. When this process dies it comes back, to whoever consumes,
  with `lost` one higher. At least once, never at most once.
- `settle` publishes what the delivery led to (results, the retry) first and takes the delivery off after that: a crash
  in between gives a duplicate, never a loss.
- While the store cannot keep anything, `trouble` says why, and `publish` fails at once instead of waiting.
- A message that can never be kept (too large, an impossible queue) fails `publish` and `settle` with PermanentError, at
  once and with nothing done: what was to be settled is still in hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Callable, NamedTuple, Protocol, Union

from mqlite.errors import TemporaryError
from mqlite.loop.task import Waiter


class QueueError(TemporaryError):
    """The store cannot do this now; the text says why and what the operator can do."""


@dataclass
class Message:
    """One message to publish. `due`: seconds since 1970 before which nobody consumes it, 0 for now. `lost`: of one that
    is put back, that of its delivery."""

    queue: str
    body: bytes
    priority: int = 0
    due: float = 0.0
    lost: int = 0


@dataclass(frozen=True)
class LargeMessage:
    """One to publish whose body is too large to be held as a whole: it is made anew, piece by piece, whenever it is
    wanted, also in another thread.
    """

    queue: str
    pieces: Iterable[bytes]
    priority: int = 0
    due: float = 0.0

    def whole(self) -> Message:
        """For a store that cannot do with pieces. They are not held beside it: `join` would make a list of them."""
        body = BytesIO()
        for piece in self.pieces:
            body.write(piece)
        return Message(self.queue, body.getvalue(), self.priority, self.due)


Publishable = Union[Message, LargeMessage]


def to_publish(queue: str, body: bytes | Iterable[bytes], priority: int = 0, due: float = 0.0) -> Publishable:
    """The message of a body that is whole, or comes in pieces."""
    if isinstance(body, bytes):
        return Message(queue, body, priority, due)
    return LargeMessage(queue, body, priority, due)


class Delivery:
    """One message that was taken from a queue and is in our hands.

    `lost`: how often it was taken before by somebody who did not settle it. `fault`: why the body cannot be read, ''
    when it can.
    """

    __slots__ = ('body', 'fault', 'lost', 'priority', 'queue', 'tag')

    def __init__(self, queue: str, tag: int, body: bytes, priority: int, lost: int, fault: str = '') -> None:
        self.queue = queue
        self.tag = tag
        self.body = body
        self.priority = priority
        self.lost = lost
        self.fault = fault


class Seen(NamedTuple):
    """A message as a look shows it; `body` is None for one that is large."""

    due: float  # seconds since 1970; 0 for now
    priority: int
    taken: bool  # it is in somebody's hands
    body: bytes | None


@dataclass(frozen=True)
class QueueStatus:
    """What `queue list` shows of one queue; None for what the store cannot tell."""

    name: str
    ready: int  # messages that may go now
    waiting: int  # messages whose time has not come
    taken: int | None  # messages in somebody's hands
    size: int | None  # bytes of all bodies


class Consumer(Protocol):
    """A standing order for messages of one queue."""

    def stop(self) -> None:
        """No new deliveries. Those in hand stay ours until they are settled or released."""


class Store(Protocol):
    """A store of queues."""

    trouble: str | None

    async def open(self) -> None:
        """Make ready. ConfigError: it will never work. QueueError: not now, but the store goes on trying."""

    async def close(self) -> None:
        """Give back what was not settled, and close; whoever still waits for a settlement gets QueueError."""

    def publish(self, messages: Sequence[Publishable]) -> Waiter[None]:
        """Keep all of them. See above."""

    def settle(self, delivery: Delivery, messages: Sequence[Message]) -> Waiter[None]:
        """Publish these, then take the delivery off its queue. Tried again until it works, or the store is closed.

        A delivery is settled or released once; KeyError the second time.
        """

    def release(self, delivery: Delivery) -> None:
        """Put the delivery back as it was; whoever consumes its queue may get it at once."""

    def consume(self, queue: str, prefetch: int, prefetch_bytes: int,
                on_delivery: Callable[[Delivery], object]) -> Consumer:
        """Call on_delivery for each message, with at most so many messages, and about so many bytes, in hand."""

    async def fetch(self, queue: str, count: int, waiting: bool = False) -> list[Delivery]:
        """Take up to `count` messages that are due, now; `waiting`: those whose time has not come. To be awaited to its
        end: a caller that is cancelled meanwhile leaves them in our hands until the store is closed."""

    async def purge(self, queue: str) -> int:
        """Delete what is on the queue and in nobody's hands; how many that were."""

    async def list_queues(self) -> list[QueueStatus]:
        """All queues with messages, by name."""
