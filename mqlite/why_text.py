"""What `why` prints, from the facts that the workers and the queue gave. Pure.

The facts of a worker are those of delivery/explain.py; of the queue there are the messages on the outbox that fit, and
how many there are besides those shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Facts = dict[str, Any]
NOTHING = 'nothing is known of it: no message to it is on the outbox, and none has failed lately'


def write_answer(asked: str, workers: list[Facts], queue: Facts | None, trouble: list[str]) -> str:
    """`queue`: None when it cannot be looked at; `trouble`: what kept us from knowing more."""
    lines = [asked]
    found = [line for part in (_controls(workers), _destinations(workers), _in_hand(workers), _on_queue(queue),
                               _lately(workers)) for line in part]
    lines += [f'  {line}' for line in found or [NOTHING]]
    return '\n'.join([*lines, *(f'  ({text})' for text in trouble)]) + '\n'


def _controls(workers: list[Facts]) -> Iterator[str]:
    for text in dict.fromkeys(worker['suppressed'] for worker in workers if 'suppressed' in worker):
        yield f'it is suppressed: {text}'
    for pause in dict.fromkeys(pause for worker in workers for pause in worker['pauses']):
        yield f'on pause: {pause} (`resume` ends it)'
    for error in dict.fromkeys(error for worker in workers for error in worker['errors']):
        yield f'forced to fail: {error}'


def _destinations(workers: list[Facts]) -> Iterator[str]:
    for worker in workers:
        for facts in worker['destinations']:
            source = f' from {facts["from"]}' if facts['from'] else ''
            yield f'servers: {", ".join(facts["servers"])} port {facts["port"]}{source}'
            opening = f', {facts["connecting"]} being opened for {facts["connecting for"]:g} s'
            opening = opening if facts['connecting'] else ''
            idle = f', {facts["idle"]} idle' if facts['idle'] else ''
            yield f'  {facts["connections"]} connections{idle}{opening}; {facts["waiting"]} messages wait for them'
            limits = [f'{name} {value:g}' for name, value in facts['limits'].items() if value]
            flood = facts['flood']
            after = f' (flood response {flood["name"]!r}{_for_seconds(flood["seconds"])})' if flood else ''
            yield f'  limits: {", ".join(limits) or "none"}{after}'
            for hold in facts['held by']:
                yield f'  held: {hold["reason"]}{_for_seconds(hold["seconds"])}'
            if facts['outside']:
                yield f'  more were put back until their turn, the last one{_for_seconds(facts["outside"])}'


def _in_hand(workers: list[Facts]) -> Iterator[str]:
    count = sum(worker['count'] for worker in workers)
    if not count:
        return
    yield f'{count} in hand:'
    shown = [message for worker in workers for message in worker['messages']]
    for message in shown:
        where = message['where']
        if 'seconds' in message:
            where += f', since {message["seconds"]:g} s'
        if message.get('to'):
            where += f', to {message["to"]}'
        yield f'  {_name(message)}: {where}{_attempts(message)}'
    if count > len(shown):
        yield f'  and {count - len(shown)} more'


def _on_queue(queue: Facts | None) -> Iterator[str]:
    if queue is None or not queue['count']:
        return
    yield f'{queue["count"]} on the outbox:'
    for message in queue['messages']:
        yield f'  {_name(message)}: {message["where"]}{_attempts(message)}'
    if queue['count'] > len(queue['messages']):
        yield f'  and {queue["count"] - len(queue["messages"])} more'


def _lately(workers: list[Facts]) -> Iterator[str]:
    outcomes = [outcome for worker in workers for outcome in worker['lately']]
    if outcomes:
        yield 'failed lately:'
    for outcome in outcomes:
        then = f'tried again after {outcome["again"]}' if outcome['again'] else 'given up'
        yield f'  {outcome["recipient"]}: {_result(outcome)}; {then}'


def _name(message: Facts) -> str:
    number = message.get('id')
    return f'{message.get("recipient", "?")}{f" ({number})" if number else ""}'


def _attempts(message: Facts) -> str:
    if not message['attempts']:
        return ''
    return f'; attempts: {message["attempts"]}, the last one: {_result(message["last"])}'


def _result(last: Facts) -> str:
    reply = ' '.join(str(last[name]) for name in ('code', 'status', 'description') if last.get(name))
    place = f' ({last["to"]})' if last.get('to') else ''
    return f'{last.get("time", "")} {last.get("state", "")}/{last.get("result", "")}{place}: {reply}'.strip()


def _for_seconds(seconds: float) -> str:
    return f', for {seconds:g} s' if seconds else ''
