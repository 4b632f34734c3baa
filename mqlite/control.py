"""The control socket of a worker: a command of the same host asks, the worker answers. One JSON line each way.

Every worker has a file of its own, `control-socket` with its process and number behind it, so that a command finds them
all by name. Those of processes that are gone are taken away by the next worker that starts.

    {"why": "example.org"}  ─►  {"messages": [...], "destinations": [...], ...}
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Sequence
from typing import Any, Callable

from mqlite.errors import MqliteError
from mqlite.log import Log
from mqlite.loop.local import LocalListener, connect_local
from mqlite.loop.reactor import Reactor
from mqlite.loop.stream import LineTooLong, Stream
from mqlite.queues.open import SQLITE
from mqlite.settings import Settings

QUESTION_LIMIT = 65536  # bytes of a line; both sides hold each other to a limit
ANSWER_LIMIT = 16 * 1024 * 1024
SECONDS = 5.0  # for a question, and for its answer
Json = dict[str, Any]


class ControlSocket:
    """One per worker."""

    def __init__(self, reactor: Reactor, base: str, number: int, answer: Callable[[Json], Json], log: Log) -> None:
        """`base`: what names of all workers begin with; `number`: of this one among those of its process."""
        self._reactor = reactor
        self._answer = answer
        self._listener: LocalListener | None = None
        for path in worker_sockets(base):
            if not _is_alive(path):
                os.unlink(path)
        try:
            self._listener = LocalListener(reactor, f'{base}.{os.getpid()}.{number}', self._accepted)
        except OSError as error:
            log.warning(f'there is no control socket {base}: {error.strerror or error}; check control-socket')

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()

    def _accepted(self, stream: Stream) -> None:
        self._reactor.spawn(self._serve(stream), 'control')

    async def _serve(self, stream: Stream) -> None:
        try:
            stream.expire_in(SECONDS)
            question = json.loads(await _read_line(stream, QUESTION_LIMIT))
            stream.write(json.dumps(self._answer(question) if isinstance(question, dict) else {}).encode() + b'\n')
            await stream.drain()
        except (MqliteError, ValueError):
            pass  # it has gone, or is no command of ours
        finally:
            stream.close()


def socket_base(settings: Settings) -> str:
    """What the names of all control sockets begin with; '' when there is no place for them."""
    chosen, queue = settings.text('control-socket'), settings.items('queue-address')
    if chosen:
        return chosen
    if len(queue) == 1 and queue[0].startswith(SQLITE):
        return f'{queue[0][len(SQLITE):]}-control'
    return f'{settings.text("lock")}-control' if settings.text('lock') else ''


def worker_sockets(base: str) -> list[str]:
    return sorted(glob.glob(f'{glob.escape(base)}.*.*'))


async def ask_workers(reactor: Reactor, paths: Sequence[str], question: Json) -> list[Json]:
    """The answers of all that answer. OSError when we may not ask."""
    answers = []
    for path in paths:
        try:
            stream = connect_local(reactor, path)
        except (ConnectionRefusedError, FileNotFoundError, BlockingIOError):
            continue  # gone, or too busy to answer
        try:
            stream.expire_in(SECONDS)
            stream.write(json.dumps(question).encode() + b'\n')
            answers.append(json.loads(await _read_line(stream, ANSWER_LIMIT)))
        except (MqliteError, ValueError):
            continue
        finally:
            stream.close()
    return answers


async def _read_line(stream: Stream, limit: int) -> bytes:
    """MqliteError when none comes."""
    data = b''
    while not data.endswith(b'\n'):
        if len(data) > limit:
            raise LineTooLong(f'no end of line within {limit} bytes')
        await stream.wait_bytes()
        data += stream.take()
    return data


def _is_alive(path: str) -> bool:
    """Whether the process that the name tells is there. In doubt it is."""
    number = path.rsplit('.', 2)[1]
    return not number.isdigit() or os.path.exists(f'/proc/{number}') or not os.path.exists('/proc/self')
