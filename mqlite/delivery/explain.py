"""Why a message has not left: facts for the operator, as JSON can carry them. Pure.

A Question names an address, a domain, or the identifier of a message. What holds a destination is said in the order in
which destination.py looks at it; several things may hold it at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mqlite.delivery.destination import Destination
from mqlite.delivery.job import Job
from mqlite.message.document import Document, DocumentError
from mqlite.message.identifier import format_moment
from mqlite.message.result import Result

Facts = dict[str, Any]
LAST = ('time', 'state', 'result', 'code', 'status', 'description', 'mta', 'to')  # what is shown of a result


@dataclass(frozen=True)
class Question:
    """What is asked about, in lower case, and as it was written (identifiers mind upper and lower case)."""

    text: str

    @property
    def domain(self) -> str:
        """'' when it may only be an identifier."""
        return self.text.lower().rpartition('@')[2].rstrip('.')

    def is_about(self, recipient: str) -> bool:
        """Whether it asks about this address, which is in lower case."""
        return recipient == self.text.lower() if '@' in self.text else recipient.rpartition('@')[2] == self.domain

    def fits(self, document: Document) -> bool:
        """Whether it asks about this message."""
        if document.fields.get('message-id') == self.text:
            return True
        try:
            return self.is_about(document.recipient.lower())
        except DocumentError:
            return False


def about_message(document: Document) -> Facts:
    """What is known of it, wherever it is: the attempts so far and the last of them."""
    fields = document.fields
    results = fields.get('results')
    attempts = [result for result in results if isinstance(result, dict)] if isinstance(results, list) else []
    facts: Facts = {'recipient': fields.get('recipient'), 'id': fields.get('message-id'), 'attempts': len(attempts)}
    if attempts:
        facts['last'] = {name: attempts[-1][name] for name in LAST if name in attempts[-1]}
    return {name: value for name, value in facts.items() if value is not None}


def about_job(job: Job, place: str, **more: Any) -> Facts:
    """`place`: where it is."""
    return {**about_message(job.document), 'where': place, **more}


def about_outcome(recipient: str, result: Result, now: float, due: float | None) -> Facts:
    """A failure, when it was, and when the message is tried again."""
    shown = result.fields(now)
    facts = {name: shown[name] for name in LAST if name in shown}
    return {'recipient': recipient, **facts, 'again': None if due is None else format_moment(due)}


def about_destination(destination: Destination, now: float, opening: float, no_places: bool) -> Facts:
    """`opening`: since when the first of its connections that are not open yet is being opened. `no_places`: it wants
    another connection, and all that may be open are."""
    capacity, place, flood = destination.capacity, destination.place, destination.flood
    slowing = None if flood is None else flood.slowing
    return {
        'servers': [host for group in place.exchangers for host in group], 'port': place.port, 'from': place.source,
        'waiting': len(destination.line), 'connections': destination.sessions, 'connecting': destination.connecting,
        'connecting for': round(now - opening, 1),
        'idle': len(destination.idle),
        'limits': {'connections': capacity.connections, 'messages per connection': capacity.connection_messages,
                   'messages per minute': capacity.messages, 'connects per minute': capacity.connects,
                   'connections per address': capacity.address_connections,
                   'messages per minute and address': capacity.address_messages,
                   'connects per minute and address': capacity.address_connects},
        'flood': None if slowing is None else {'name': slowing[0].name, 'seconds': round(slowing[1] - now, 1)},
        'outside': round(max(0.0, destination.tail - now), 1),
        'held by': [{'reason': reason, 'seconds': round(seconds, 1)}
                    for reason, seconds in what_holds(destination, now, no_places)],
    }


def what_holds(destination: Destination, now: float, no_places: bool) -> list[tuple[str, float]]:
    """Reasons, each with the seconds that it lasts; 0 where time alone changes nothing."""
    d, found = destination, []
    if not d.most and d.flood is not None and d.flood.pausing is not None:
        return [(f'nothing is sent after an answer: flood response {d.flood.pausing[0].name!r}',
                 d.flood.pause_left(now))]
    left = d.backoff.left(now)
    if left and not d.sessions and d.trouble is not None:
        found.append((f'it could not be reached ({d.backoff.failures} times in a row): {d.trouble}', left))
    if not d.line:
        return found
    if d.pace.wait(now):
        found.append((f'at most {d.capacity.messages:g} messages per minute', d.pace.wait(now)))
    if d.connects.wait(now) and not d.idle:
        found.append((f'at most {d.capacity.connects:g} attempts to connect per minute', d.connects.wait(now)))
    if d.full > now:
        found.append(('no address of its servers may have another connection', d.full - now))
    if d.idle_held(now):
        found.append((f'at most {d.capacity.address_messages:g} messages per minute and address', d.idle_held(now)))
    if d.carriers >= d.most:
        found.append((f'at most {d.most} connections', 0.0))
    elif d.window.held_until(now) and d.carriers >= d.window.size:
        found.append((f'it refused more than {d.window.size} connections', d.window.held_until(now) - now))
    elif d.connecting and not d.sessions:
        found.append(('the first connections are being opened', 0.0))
    elif d.carriers >= d.window.size:
        found.append((f'{d.window.size} connections until it has answered more messages', 0.0))
    if no_places:
        found.append(('no place for another connection: smtp-connections, smtp-connections-out', 0.0))
    return found
