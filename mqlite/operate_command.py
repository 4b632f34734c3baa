"""`mqlite.pyz pause|resume|suppress|requeue ...`: what an operator does while the daemon runs.

Pauses and suppressions are rows of the database; a daemon that runs obeys within a second or two, and they outlast a
restart. After a `resume`, messages that were put back because of a pause go at once.

    pause SELECTION [for SECONDS]      SELECTION: any of `domain D`, `ip A` (of a server), `mta A` (of ours), `pool P`,
    pause list                                    `tag T`, all of which must fit; nothing: everything
    resume SELECTION | all
    suppress add ADDRESS|DOMAIN [CODE [STATUS [TEXT...]]]
    suppress remove ADDRESS|DOMAIN
    suppress list
    requeue ADDRESS | DOMAIN | all
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Sequence
from typing import Callable

from mqlite.database.file import DatabaseFile
from mqlite.database.tables import Row
from mqlite.delivery.pauses import Pause, read_pauses
from mqlite.delivery.route import numeric
from mqlite.delivery.suppressions import DEFAULT_CODE, kind_of, plain
from mqlite.errors import UsageError
from mqlite.loop.reactor import Reactor
from mqlite.loop.task import sleep
from mqlite.message.document import Document
from mqlite.message.identifier import format_moment
from mqlite.parts import database_file
from mqlite.queue_command import with_store
from mqlite.queues.contract import Store
from mqlite.requeue import hurry
from mqlite.settings import Settings

#   word      column of `paused`
SELECTION = {
    'domain': 'target',
    'ip':     'target',
    'mta':    'localip',
    'pool':   'pool',
    'tag':    'tag',
}
_COLUMNS = ('localip', 'pool', 'target', 'tag')
OBEYED_SECONDS = 2.0  # after which every daemon has seen a change of the database
USAGE = {
    'pause':    'pause [domain D | ip A] [mta A | pool P] [tag T] [for SECONDS] | pause list',
    'resume':   'resume [domain D | ip A] [mta A | pool P] [tag T] | resume all',
    'suppress': 'suppress add ADDRESS|DOMAIN [CODE [STATUS [TEXT...]]] | remove ADDRESS|DOMAIN | list',
    'requeue':  'requeue ADDRESS | DOMAIN | all',
}


def pause(settings: Settings, words: Sequence[str]) -> int:
    """Add or change a pause, or list all."""
    if list(words) == ['list']:
        with database_file(settings) as file:
            for one in _pauses(file):
                print(f'{one}{f", until {format_moment(one.expire)}" if one.expire else ""}')
        return 0
    seconds = 0
    if len(words) >= 2 and words[-2] == 'for':
        seconds, words = _number(words[-1], 'pause', 10 ** 9), words[:-2]
    row = _selection(words, 'pause')
    with database_file(settings) as file:
        for other in file.read().rows['paused']:
            if _selected(other) == row:
                file.remove('paused', {column: other.text(column) for column in _COLUMNS})
        file.add('paused', {**row, 'expire': int(time.time()) + seconds if seconds else 0})
    return 0


def resume(settings: Settings, words: Sequence[str]) -> int:
    """Take off a pause, or all; then messages that were put back because of one go. Status 1 when there was none."""
    everything = list(words) == ['all']
    selection = {} if everything else _selection(words, 'resume')
    with database_file(settings) as file:
        rows = file.read().rows['paused']
        chosen = [row for row in rows if everything or _selected(row) == selection]
        for row in chosen:
            file.remove('paused', {column: row.text(column) for column in _COLUMNS})
        left = _pauses(file)
    if not chosen:
        print(f'there is no such pause; on pause: {"; ".join(map(str, left)) or "nothing"}', file=sys.stderr)
        return 1
    _wait(OBEYED_SECONDS)
    now = time.time()
    return _hurry(settings, lambda document: document.not_before <= now)


def suppress(settings: Settings, words: Sequence[str]) -> int:
    """Add, remove or list suppressed recipients and domains."""
    command, rest = (words[0] if words else ''), list(words[1:])
    if command == 'list' and not rest:
        with database_file(settings) as file:
            for row in file.read().rows['suppressions']:
                print(' '.join(filter(None, (row.text('value'), str(row.number('code') or DEFAULT_CODE),
                                             row.text('extended'), row.text('description')))))
        return 0
    if command not in ('add', 'remove') or not rest or (command == 'remove' and len(rest) > 1):
        raise UsageError(f'usage: {USAGE["suppress"]}')
    value = rest[0].strip().lower()
    with database_file(settings) as file:
        removed = file.remove('suppressions', {'value': value})
        if command == 'add':
            file.add('suppressions', {'type': kind_of(value), 'value': value, **_reply(rest[1:])})
        elif not removed:
            print(f'{value} is not there', file=sys.stderr)
            return 1
    return 0


def requeue(settings: Settings, words: Sequence[str]) -> int:
    """Messages that wait for their time go now: those to an address or a domain, or all."""
    if len(words) != 1:
        raise UsageError(f'usage: {USAGE["requeue"]}')
    wanted = words[0].lower()
    if wanted == 'all':
        return _hurry(settings, lambda document: True)
    wanted = plain(wanted)
    if '@' in wanted:
        return _hurry(settings, lambda document: plain(document.recipient) == wanted)
    return _hurry(settings, lambda document: document.domain == wanted)


COMMANDS: dict[str, Callable[[Settings, Sequence[str]], int]] = {
    'pause': pause, 'resume': resume, 'suppress': suppress, 'requeue': requeue}


def _hurry(settings: Settings, wanted: Callable[[Document], bool]) -> int:
    async def work(store: Store) -> int:
        print(f'{await hurry(store, settings.text("rabbitmq-outbox"), wanted)} go now', file=sys.stderr)
        return 0
    return with_store(settings, work)


def _wait(seconds: float) -> None:
    with contextlib.closing(Reactor()) as reactor:
        reactor.run(sleep(reactor, seconds))


def _selection(words: Sequence[str], command: str) -> dict[str, str]:
    """The columns of `paused` that the words name; those that they do not name are empty."""
    row = dict.fromkeys(_COLUMNS, '')
    if len(words) % 2:
        raise UsageError(f'usage: {USAGE[command]}')
    for word, value in zip(words[::2], words[1::2]):
        column = SELECTION.get(word)
        if column is None or row[column]:
            raise UsageError(f'usage: {USAGE[command]}')
        address = numeric(value)
        if word in ('ip', 'mta') and not address:
            raise UsageError(f'{word} {value}: that is no address')
        if word == 'domain' and address:
            raise UsageError(f'domain {value}: that is an address; ip is for servers, mta for our own')
        row[column] = address if word in ('ip', 'mta') else value.lower().rstrip('.') if word == 'domain' else value
    return row


def _pauses(file: DatabaseFile) -> Sequence[Pause]:
    return read_pauses(file.read().rows['paused']).items.all


def _selected(row: Row) -> dict[str, str]:
    """What a row of `paused` selects, in the form of `_selection`."""
    target = row.text('target').strip()
    return {'localip': numeric(row.text('localip')), 'pool': row.text('pool'),
            'target': numeric(target) or target.lower().rstrip('.'), 'tag': row.text('tag')}


def _reply(words: Sequence[str]) -> dict[str, int | str]:
    """Code, enhanced status code and text of a suppression."""
    code = _number(words[0], 'suppress', 599) if words else DEFAULT_CODE
    if not 400 <= code <= 599:
        raise UsageError(f'{code} is no code for a failure; 550 is usual')
    status = words[1] if len(words) > 1 else ''
    if status and not re.fullmatch(r'[45]\.[0-9]{1,3}\.[0-9]{1,3}', status):
        raise UsageError(f'{status} is no enhanced status code; 5.1.1 is one')
    return {'code': code, 'extended': status, 'description': ' '.join(words[2:])}


def _number(text: str, command: str, largest: int) -> int:
    if not re.fullmatch('[0-9]{1,10}', text) or not 0 < int(text) <= largest:
        raise UsageError(f'{text} is no number from 1 to {largest}; usage: {USAGE[command]}')
    return int(text)
