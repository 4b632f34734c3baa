"""Memory that the supervisor and its workers share: what plugins are doing, and how much each worker has to do.

It outlives a worker process, so it says in which plugin one died. Made before the fork:

    head         0    1 when a worker has died of a message
    deaths       8    for such a message its digest, and how many have, ENTRY bytes; written by the supervisor
    seats             one per loop, SEAT bytes each; written by the loop's thread, read by the supervisor after a death

    a seat       0    what is being called, as text that NUL ends; empty: no plugin in C
                 112  digest of the message in the plugin's hands; NO_DIGEST: none
                 128  the thread, as threading.get_ident() has it
                 136  sessions; ABSENT: nobody is there

Noting a call is one assignment, since it is made around every call of a plugin in C, and it must be there before the
call: whatever runs after a crash is too late.

A message is condemned when a plugin has killed DEATHS workers with it in hand; whoever takes it off the queue next
gives it up. Only the message of the call itself is blamed, not the others that the worker had; for a crash in a timer
or a watcher, the one that the plugin was in control of, if that was the only one (Context.enter). A queue may hand a
message to the next worker before the supervisor has heard of a death: until then it stands in the seat of the dead.
The counts are forgotten when the supervisor ends.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

DEATHS = 3  # a crash may have nothing to do with the message, and a second one may be chance
DIGEST = 16  # bytes
NO_DIGEST = bytes(DIGEST)
ABSENT = 2 ** 63  # sessions

_HEAD = 8
_CURRENT = re.compile(r'^Current thread (0x[0-9a-f]+) .*\n', re.MULTILINE)
_FRAME = re.compile(r'^  File "(.*)", line ([0-9]+) in (.*)$', re.MULTILINE)
_CRASH = 'Fatal Python error: '
_FRAMES = 6  # shown
_COUNTED = 1000  # messages; the oldest makes room, and may then kill DEATHS workers more
_ENTRY = DIGEST + 1
_SEATS_AT = _HEAD + _COUNTED * _ENTRY
_TEXT = 112  # bytes of a mark
_NOTE = _TEXT + DIGEST
_THREAD, _SESSIONS = struct.Struct('Q'), struct.Struct('Q')
_SEAT = _NOTE + _THREAD.size + _SESSIONS.size


def mark(text: str) -> bytes:
    """The text as a seat keeps it."""
    return text.encode('utf-8', 'replace')[:_TEXT - 1].ljust(_TEXT, b'\0')


def digest(body: bytes) -> bytes:
    """What stands for a message: one that comes back after a crash has the same body."""
    return blake2b(body, digest_size=DIGEST).digest()


class Note(NamedTuple):
    """A call of a plugin that did not return."""

    call: str
    message: bytes  # its digest; NO_DIGEST when it was not about one that is on a queue
    thread: int


class Seat:
    """Where one loop notes what it calls."""

    def __init__(self, page: mmap.mmap, at: int) -> None:
        self._page = page
        self._at = at
        self._end = at + _NOTE
        self.leave_for_good()

    def take(self, thread: int) -> None:
        """A loop begins, in this thread."""
        _THREAD.pack_into(self._page, self._end, thread)

    @property
    def sessions(self) -> int:
        count, = _SESSIONS.unpack_from(self._page, self._end + _THREAD.size)
        return int(count)

    @sessions.setter
    def sessions(self, count: int) -> None:
        _SESSIONS.pack_into(self._page, self._end + _THREAD.size, count)

    def enter(self, marked: bytes, message: bytes = NO_DIGEST) -> None:
        """A plugin is about to be called."""
        self._page[self._at:self._end] = marked + message

    def leave(self) -> None:
        """It has returned."""
        self._page[self._at] = 0

    def leave_for_good(self) -> None:
        """The loop has ended."""
        self.leave()
        self.sessions = ABSENT

    def read(self) -> Note | None:
        noted = self._page[self._at:self._end]
        text, message = noted[:_TEXT].partition(b'\0')[0], noted[_TEXT:]
        thread, = _THREAD.unpack_from(self._page, self._end)
        return Note(text.decode('utf-8', 'replace'), message, thread) if text else None


class Recorder:
    """The whole of it."""

    def __init__(self, seats: int) -> None:
        self._page = mmap.mmap(-1, _SEATS_AT + seats * _SEAT)
        self.seats = [Seat(self._page, _SEATS_AT + number * _SEAT) for number in range(seats)]
        self._next = 0  # entry, for the supervisor

    def blame(self, message: bytes) -> int:
        """A worker died with this message in a plugin's hands; how many have by now. For the supervisor."""
        page, at = self._page, self._find(message)
        if at < 0:
            at = _HEAD + self._next % _COUNTED * _ENTRY
            self._next += 1
            page[at:at + _ENTRY] = message + b'\0'
            page[0] = 1
        page[at + DIGEST] = min(255, page[at + DIGEST] + 1)
        return page[at + DIGEST]

    def is_busiest(self, seat: Seat) -> bool:
        """Whether another loop has clearly less to do: to give way costs both a moment."""
        enough = seat.sessions - 1
        enough -= enough // 8
        return any(other.sessions < enough for other in self.seats)

    def is_condemned(self, body: bytes) -> bool:
        """Whether a message must not be tried again. For the workers; next to nothing as long as there is none."""
        if not self._page[0]:
            return False
        message = digest(body)
        at = self._find(message)
        deaths = self._page[at + DIGEST] if at >= 0 else 0
        if 0 < deaths < DEATHS:
            deaths += sum(note.message == message for seat in self.seats if (note := seat.read()))
        return deaths >= DEATHS

    def _find(self, message: bytes) -> int:
        return self._page.find(message, _HEAD, _SEATS_AT)


def culprits(said: str, notes: Sequence[Note]) -> Sequence[Note]:
    """Which of the calls was the one that crashed, by what faulthandler has said; all of them when it has not."""
    found = _CURRENT.search(said)
    if found is None:
        return [] if in_foreign_thread(said) else notes
    thread = int(found[1], 16)
    return [note for note in notes if note.thread == thread]


def in_foreign_thread(said: str) -> bool:
    """Whether it was a thread that Python knows nothing of: faulthandler has named the others only."""
    return _CRASH in said and _CURRENT.search(said) is None


def frames(said: str) -> str:
    """The innermost lines of Python at a crash, by what faulthandler has said; '' when it has not."""
    found = _CURRENT.search(said)
    if found is None:
        return ''
    rows = _FRAME.findall(said[found.end():].partition('\n\n')[0])[:_FRAMES]
    return ' < '.join(f'{name} {path.rpartition("/")[2]}:{line}' for path, line, name in rows)
