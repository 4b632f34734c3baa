"""The spool directory on disk: which files are ready, taking one, and what is left of it. Blocking, no loop.

    NAME ──► ready? ──► open, lock, read ──► claim: .mqlite-INODE-NAME ──► published ──► removed
                                │                    │ crash, or the queue did not take it
                                └──► fail directory  └──► found unlocked: taken again, marked as such

What anybody can put there is not trusted. A name is used as it is in this one directory, by its descriptor, and no
link is followed; only a regular file with one name is read. Names that begin with a dot belong to whoever is writing
them, and subdirectories are left alone.

Whoever takes a file holds a lock (flock) on it, which the kernel releases when the process dies in any way; so several
processes may watch one directory, and a program may lock the file while it writes. A file is renamed before it is
published: what could not be removed afterwards is never sent at all. From then on its name says that it may have been
sent, and whoever takes it again says so in the message.

Ready is what was moved in from elsewhere, or has not changed for QUIET_SECONDS. An empty file, or one with two names,
is probably still being made, and gets PATIENCE_SECONDS.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from mqlite.errors import ConfigError, PermanentError
from mqlite.host import user_name

QUIET_SECONDS = 2.0  # without a change, in a file that was not moved in
PATIENCE_SECONDS = 60.0  # with what cannot be a finished file
NAME_LIMIT = 200  # octets of a name, so that what we add to it fits into the 255 of usual file systems

_CLAIM = re.compile(r'\.mqlite-(\d+)-(.+)', re.DOTALL)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILES_FAULT = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class SpoolConfig:
    """What the directory needs to know."""

    path: str
    fail_path: str = ''  # '': what cannot be sent stays where it is
    delay: float = 0.0  # seconds that a file waits at least
    remove: bool = True
    largest: int = 100 << 20  # bytes


@dataclass(frozen=True)
class Mark:
    """Tells a file, and the state it is in, from others."""

    inode: int
    size: int
    changed: int  # nanoseconds since 1970


@dataclass(frozen=True)
class Candidate:
    """A file that is ready."""

    entry: str  # its name in the directory
    mark: Mark

    @property
    def name(self) -> str:
        """As it was dropped."""
        claim = _CLAIM.fullmatch(self.entry)
        return claim.group(2) if claim else self.entry

    @property
    def again(self) -> bool:
        """Somebody has taken it before, and may have sent it."""
        return self.name != self.entry


@dataclass
class Taken:
    """A file in our hands."""

    candidate: Candidate
    file: io.FileIO  # holds the lock, until it is closed or nobody knows of it any more
    content: bytes
    owner: str
    entry: str  # its name in the directory now


class Unusable(PermanentError):
    """The file cannot be sent; the text says why."""


class SpoolDirectory:
    """One directory. OSError from any method: the directory itself cannot be used now."""

    def __init__(self, config: SpoolConfig) -> None:
        """ConfigError when it is not there or we may not do there what we have to."""
        self.config = config
        self._here = self._fail = -1
        self._first_seen: dict[tuple[str, Mark], float] = {}
        self._left: dict[str, Mark] = {}  # what stays there and is not to be taken again
        for path in filter(None, (config.path, config.fail_path)):
            _check(path, config.remove or path == config.fail_path)
        if config.fail_path and os.path.samefile(config.path, config.fail_path):
            raise ConfigError('spool-fail-directory: it cannot be the spool directory itself')

    def close(self) -> None:
        for descriptor in (self._here, self._fail):
            if descriptor >= 0:
                os.close(descriptor)
        self._here = self._fail = -1

    def scan(self, now: float, wall: float, in_hand: frozenset[str]) -> tuple[list[Candidate], list[str]]:
        """What is ready, the oldest first, without the entries in hand; and a line for each file that cannot be used.

        `now`: monotonic seconds; `wall`: seconds since 1970.
        """
        self._open()
        seen: dict[tuple[str, Mark], float] = {}
        gone = set(self._left)  # other threads may add to it meanwhile: what they add is not gone
        ready, complaints = [], []
        for entry, status in self._entries():
            gone.discard(entry)
            candidate = Candidate(entry, _mark(status))
            if self._left.get(entry) == candidate.mark:
                continue
            since = seen[entry, candidate.mark] = self._first_seen.get((entry, candidate.mark), now)
            try:
                if entry not in in_hand and self._is_ready(candidate, status, now - since, wall):
                    ready.append(candidate)
            except Unusable as fault:
                complaints.append(self.set_aside(candidate, str(fault)))
        self._first_seen = seen
        for entry in gone:
            self._left.pop(entry, None)
        ready.sort(key=lambda candidate: (candidate.mark.changed, candidate.name))
        return ready, list(filter(None, complaints))

    def take(self, candidate: Candidate) -> Taken | None:
        """Open, lock and read the file; None when it is not there any more, not as it was, or in other hands.
        Unusable: nobody can read it."""
        try:
            descriptor = os.open(candidate.entry, _READ, dir_fd=self._here)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _judged(error, 'it cannot be read') from error
        with contextlib.ExitStack() as undo:
            file = undo.enter_context(io.FileIO(descriptor))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or _mark(status) != candidate.mark:
                return None
            content = _read(file, status.st_size)
            if _mark(os.fstat(descriptor)) != candidate.mark or not self._is_still(candidate.entry, candidate.mark):
                return None
            undo.pop_all()
        return Taken(candidate, file, content, user_name(status.st_uid), candidate.entry)

    def claim(self, taken: Taken) -> bool:
        """Rename it before it is published; False when somebody was faster, or has put another file in its place.
        Unusable: we may not."""
        if not self.config.remove or taken.candidate.again:
            return True
        claimed = f'.mqlite-{taken.candidate.mark.inode}-{taken.entry}'
        try:
            os.rename(taken.entry, claimed, src_dir_fd=self._here, dst_dir_fd=self._here)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _judged(error, 'it could not be removed after it is sent') from error
        taken.entry = claimed
        return self._is_still(claimed, taken.candidate.mark)

    def finish(self, taken: Taken) -> str:
        """It was published: remove it, or leave it and remember it. A line for the log when something is wrong with
        that, else ''."""
        mark, complaint = taken.candidate.mark, ''
        if self.config.remove:
            try:
                if not self._is_still(taken.entry, mark):
                    return self.set_aside(Candidate(taken.entry, mark),
                                          'it was written to after it had been taken; a part of it was sent')
                os.unlink(taken.entry, dir_fd=self._here)
                return ''
            except OSError as error:
                complaint = f'spool file {taken.entry} was sent and cannot be removed: {error.strerror}'
        self._left[taken.entry] = mark
        return complaint

    def set_aside(self, candidate: Candidate, reason: str) -> str:
        """Move what cannot be sent to the fail directory, the reason beside it, or leave it. A line for the log; ''
        when somebody else has done it."""
        kept = f'spool file {candidate.name} cannot be sent: {reason}'
        if self._fail < 0:
            self._left[candidate.entry] = candidate.mark
            return f'{kept}; it stays where it is'
        try:
            return f'{kept}; it is in {self.config.fail_path} as {self._move(candidate, reason)}'
        except FileNotFoundError:
            return ''
        except OSError as error:
            self._left[candidate.entry] = candidate.mark
            return f'{kept}; it stays, since it cannot be moved to {self.config.fail_path}: {error.strerror}'

    def _move(self, candidate: Candidate, reason: str) -> str:
        """To the fail directory; its name there. The file with the reason comes first: it keeps the name for us."""
        name = self._reserve(candidate.name, f'{candidate.name}: {reason}\n')
        try:
            os.rename(candidate.entry, name, src_dir_fd=self._here, dst_dir_fd=self._fail)
        except OSError:
            os.unlink(f'{name}.reason', dir_fd=self._fail)
            raise
        return name

    # what is there

    def _open(self) -> None:
        """Open both directories, anew when their paths lead elsewhere."""
        self._here = _opened(self.config.path, self._here)
        if self.config.fail_path:
            self._fail = _opened(self.config.fail_path, self._fail)

    def _entries(self) -> Iterator[tuple[str, os.stat_result]]:
        """Everything that may be for us, with what it is itself, not what a link leads to."""
        with os.scandir(self._here) as entries:
            for entry in entries:
                if entry.name.startswith('.') and not _CLAIM.fullmatch(entry.name):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if not stat.S_ISDIR(status.st_mode):
                        yield entry.name, status

    def _is_ready(self, candidate: Candidate, status: os.stat_result, seen: float, wall: float) -> bool:
        """Whether it may be taken; Unusable when it never will. `seen`: for how many seconds it has been like this."""
        if not stat.S_ISREG(status.st_mode):
            raise Unusable('it is not a regular file')
        if status.st_size > self.config.largest:
            raise Unusable(f'it is larger than {self.config.largest} bytes, the limit of smtp-maxsize')
        if len(os.fsencode(candidate.name)) > NAME_LIMIT:
            raise Unusable(f'its name is longer than {NAME_LIMIT} bytes')
        if status.st_nlink > 1 or not status.st_size:
            if seen > PATIENCE_SECONDS:
                raise Unusable('it has several names (hard links)' if status.st_nlink > 1 else 'it is empty')
            return False
        quiet = seen >= QUIET_SECONDS or wall - status.st_mtime >= QUIET_SECONDS
        return candidate.again or quiet and seen >= self.config.delay

    def _is_still(self, entry: str, mark: Mark) -> bool:
        """Whether the name leads to this file."""
        try:
            return _mark(os.stat(entry, dir_fd=self._here, follow_symlinks=False)) == mark
        except FileNotFoundError:
            return False

    def _reserve(self, name: str, reason: str) -> str:
        """A name in the fail directory that nobody has, with the file that says the reason."""
        if len(os.fsencode(name)) > NAME_LIMIT:
            name = name[:NAME_LIMIT // 4]  # a character has four octets at most
        for number in range(1, 1000):
            chosen = f'{name}.{number}' if number > 1 else name
            with contextlib.suppress(FileNotFoundError):
                os.stat(chosen, dir_fd=self._fail, follow_symlinks=False)
                continue
            try:
                descriptor = os.open(f'{chosen}.reason', _CREATE, 0o600, dir_fd=self._fail)
            except FileExistsError:
                continue
            with os.fdopen(descriptor, 'wb') as file:
                file.write(os.fsencode(reason))
            return chosen
        raise OSError(errno.EEXIST, 'there are a thousand files of this name')


def _check(path: str, writes: bool) -> None:
    """ConfigError when the directory cannot be used."""
    if not os.path.isdir(path):
        raise ConfigError(f'{path}: there is no such directory; make it, or change spool-directory')
    if not os.access(path, os.R_OK | os.X_OK | (os.W_OK if writes else 0)):
        raise ConfigError(f'{path}: user {user_name(os.geteuid())} may not read and change this directory; '
                          f'change its owner or mode')


def _opened(path: str, descriptor: int) -> int:
    """A descriptor of the directory: the one given when it is still that one."""
    if descriptor >= 0:
        here, there = os.fstat(descriptor), os.stat(path)
        if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
            return descriptor
    opened = os.open(path, _DIRECTORY)
    if descriptor < 0:
        return opened
    os.dup2(opened, descriptor, inheritable=False)  # in one step, for the threads that use it
    os.close(opened)
    return descriptor


def _judged(error: OSError, what: str) -> Exception:
    """Unusable when it is the file's fault; else the error itself, which may pass (no descriptors, a broken disk)."""
    return Unusable(f'{what}: {error.strerror}') if error.errno in _FILES_FAULT else error


def _mark(status: os.stat_result) -> Mark:
    return Mark(status.st_ino, status.st_size, status.st_mtime_ns)


def _read(file: io.FileIO, size: int) -> bytes:
    """So many bytes, or fewer when the file is cut meanwhile, which its mark then shows."""
    pieces = []
    while size and (piece := file.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b''.join(pieces)
