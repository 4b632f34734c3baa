"""Where messages wait for their time on a broker. Pure: which waiting queue, and for how long.

A RabbitMQ queue is read from its head, and a consumer that holds a message for too long is thrown out. So a message
that may not go yet is moved to a waiting queue, of which there is one for each time of waiting:

    outbox ──not yet──► outbox.wait.1200 ─┐ after 1200 s       every message in a waiting queue waits equally long,
              ├───────► outbox.wait.300  ─┤ after 300 s        so the first in is the first out, and only the head
              ├───────► outbox.wait.60   ─┤ ...                has to be held: at most HELD messages per queue,
              ├───────► outbox.wait.10   ─┤                    however many wait
              └───────► outbox.wait.2    ─┴─► due? back to the outbox : the next waiting queue

Each move is a confirmed publish, then an acknowledgement: a crash in between doubles the copy that waits, nothing is
lost. No hold exceeds 20 minutes; brokers cancel consumers after 30. A message due in 8 hours is moved 24 times.

The moments travel as headers of the AMQP message. They are another clock's, perhaps, or another program's: whatever
they say, a message is held no longer than its queue's time, counted from its arrival here.
"""

from __future__ import annotations

from typing import Any

DELAYS = (1200, 300, 60, 10, 2)  # seconds; the first that is not longer than the time left is taken
HELD = 100  # messages per waiting queue that are in our hands
DUE_HEADER, UNTIL_HEADER = 'x-mqlite-due', 'x-mqlite-until'  # milliseconds since 1970
LOST_HEADER = 'x-mqlite-lost'  # how often a message that was put back had been taken and not settled
MOST_LOST = 1 << 30  # a larger one could not be written again: another program's


def waiting_queue(queue: str, delay: int) -> str:
    return f'{queue}.wait.{delay}'


def place(queue: str, due: float, now: float) -> tuple[str, dict[str, Any]]:
    """The waiting queue for a message that is due later than now, and the headers that say so."""
    delay = next((delay for delay in DELAYS if delay <= due - now), DELAYS[-1])
    until = min(now + delay, due)
    return waiting_queue(queue, delay), {DUE_HEADER: round(due * 1000), UNTIL_HEADER: round(until * 1000)}


def times(headers: dict[str, Any] | None, delay: int, now: float) -> tuple[float, float]:
    """When the message is due (seconds since 1970), and for how many seconds it is to be held here.

    Without our headers (another program's message): 0 and 0, it goes to the outbox at once.
    """
    due, until = (_whole((headers or {}).get(name)) / 1000 for name in (DUE_HEADER, UNTIL_HEADER))
    return due, min(max(0.0, until - now), float(delay))


def times_lost(headers: dict[str, Any] | None) -> int:
    """How often the message was lost before it was put back here; at most MOST_LOST, whatever the header says."""
    return min(max(0, _whole((headers or {}).get(LOST_HEADER))), MOST_LOST)


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
