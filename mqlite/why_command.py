"""`mqlite.pyz why ADDRESS|DOMAIN|IDENTIFIER`: why has this not left? Asks every worker, and looks at the queue.

Nothing is taken, nothing is changed. Without a daemon the queue alone answers; a broker does not show its messages, so
there the workers alone do. With --json the facts are printed as they are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from mqlite.control import ask_workers, socket_base, worker_sockets
from mqlite.delivery.explain import Question, about_message
from mqlite.errors import MqliteError, UsageError
from mqlite.loop.reactor import Reactor
from mqlite.message.document import Document, DocumentError
from mqlite.message.identifier import format_moment
from mqlite.parts import make_store
from mqlite.queues.contract import Seen
from mqlite.queues.embedded import EmbeddedStore
from mqlite.settings import Settings
from mqlite.why_text import write_answer

USAGE = 'usage: why ADDRESS | DOMAIN | IDENTIFIER [--json]'
SHOWN = 20  # messages; the others are counted


def why(settings: Settings, words: Sequence[str], as_json: bool) -> int:
    """Status 0 also when nothing is known."""
    if len(words) != 1:
        raise UsageError(USAGE)
    reactor = Reactor()
    try:
        workers, queue, trouble = reactor.run(_gather(reactor, settings, Question(words[0])))
    finally:
        reactor.close()
    if as_json:
        print(json.dumps({'workers': workers, 'queue': queue, 'trouble': trouble}, indent=2))
    else:
        print(write_answer(words[0], workers, queue, trouble), end='')
    return 0


async def _gather(reactor: Reactor, settings: Settings, question: Question
                  ) -> tuple[list[dict[str, Any]], dict[str, Any] | None, list[str]]:
    trouble: list[str] = []
    workers: list[dict[str, Any]] = []
    base = socket_base(settings)
    try:
        workers = await ask_workers(reactor, worker_sockets(base) if base else [], {'why': question.text})
        if not workers:
            trouble.append('no daemon answers: ' + (f'there is none at {base}' if base else 'set control-socket'))
    except OSError as error:
        trouble.append(f'the daemon cannot be asked: {error.strerror}; only root and its own user may')
    try:
        queue = await _look(reactor, settings, question)
    except MqliteError as error:
        queue = None
        trouble.append(str(error))
    return workers, queue, trouble


async def _look(reactor: Reactor, settings: Settings, question: Question) -> dict[str, Any] | None:
    """The messages on the outbox; None when the queue is on a broker."""
    store = make_store(reactor, settings, lambda text: print(f'mqlite: {text}', file=sys.stderr))
    if not isinstance(store, EmbeddedStore):
        return None
    found: list[dict[str, Any]] = []
    counts = {'count': 0, 'large': 0}
    needle, now = question.domain.encode('utf-8', 'replace'), reactor.clock.time()

    def see(seen: Seen) -> None:
        counts['large'] += seen.body is None
        if seen.body is None or seen.taken or needle not in seen.body.lower():
            return
        try:
            document = Document.decode(seen.body)
        except DocumentError:
            return
        if question.fits(document):
            counts['count'] += 1
            if len(found) < SHOWN:
                found.append({**about_message(document), 'where': _where(seen, document, now)})

    await store.open()
    try:
        await store.look(settings.text('rabbitmq-outbox'), see)
    finally:
        await store.close()
    return {'messages': found, **counts}


def _where(seen: Seen, document: Document, now: float) -> str:
    if seen.due <= now:
        return 'ready, nobody has taken it yet'
    moment = format_moment(seen.due)
    try:
        retry = document.not_before > now
    except DocumentError:
        retry = False
    return f'waits for its next attempt, at {moment}' if retry else f'was put back, and is looked at again at {moment}'
