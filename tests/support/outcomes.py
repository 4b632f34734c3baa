"""What becomes of messages that a daemon delivers: the last result of each, and the queue where that was told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.daemon import Daemon
from tests.support.process import HOST, wait_until

QUEUES = ('success', 'failure', 'retry')


class Outcome(NamedTuple):
    state: str
    result: str
    code: int | None
    queue: str


KEPT = Outcome('message', 'accepted', 250, 'success')


class Ended(NamedTuple):
    """Where a message ended, and as what."""
    queue: str
    document: dict[str, Any]

    @property
    def last(self) -> dict[str, Any]:
        """The last result."""
        found: dict[str, Any] = self.document['results'][-1]
        return found

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.last['state'], self.last['result'], self.last.get('code'), self.queue)


def make_sender(folder: Path) -> Daemon:
    """A daemon with a queue for each kind of result; not started."""
    return Daemon(folder, hostname='mqlite.example', rabbitmq_results='',
                  **{f'rabbitmq_{queue}': queue for queue in QUEUES})


def deliver(daemon: Daemon, port: int, messages: Mapping[str, Mapping[str, object]]) -> dict[str, Ended]:
    """Send messages, all at once, to the server at this port; where each ended, by the names that the test gives them.

    The values are properties of the documents, for others than the usual ones. A message that is to be tried again
    within a minute has not ended.
    """
    documents = [{'envelope': 's@a.example', 'recipient': 'r@b.example', 'mime': f'Subject: {name}\n\nfrom mqlite\n',
                  'smarthost': {'hostname': HOST, 'port': port}, 'retries': [3600], **fields, 'name': name}
                 for name, fields in messages.items()]
    done = daemon.cli('queue', 'publish', 'outbox', input=b''.join(json.dumps(d).encode() + b'\n' for d in documents))
    assert done.returncode == 0, done.stderr
    ended: dict[str, Ended] = {}

    def all_ended() -> bool:
        for queue in QUEUES:
            for line in daemon.cli('queue', 'get', queue).stdout.splitlines():
                document = json.loads(line)
                if queue != 'retry' or document['retries'][0] >= 60:
                    assert document['name'] not in ended, f'{document["name"]} ended twice'
                    ended[document['name']] = Ended(queue, document)
        return len(ended) == len(documents)
    try:
        wait_until(all_ended, 'all messages to end', 30, every=0.02)
    except AssertionError as error:
        missing = ', '.join(name for name in messages if name not in ended)
        raise AssertionError(f'{error}; without an end: {missing}; the log:\n{daemon.output()}') from None
    return ended
