"""The application log: stdout, stderr, syslog, files; several at once.

    [Info] [2026-11-21 10:26:24] text

One line per event; control characters in the text are escaped, so that what a peer sent cannot forge a line. A file is
opened anew when it was rotated away (its name leads to another file, or to none). A destination that cannot be written
never stops mail: the line is lost there.
"""

from __future__ import annotations

import os
import sys
import syslog
import time
import traceback
from collections.abc import Sequence
from typing import Callable, TextIO

from mqlite.errors import ConfigError

#   level        name in the line  priority of syslog
_LEVELS = {
    'critical': ('Critical', syslog.LOG_CRIT),
    'warning':  ('Warning',  syslog.LOG_WARNING),
    'info':     ('Info',     syslog.LOG_INFO),
}
Sink = Callable[[str, str], None]


class Log:
    """Writes to every destination given."""

    def __init__(self, destinations: Sequence[str], errors: str = '') -> None:
        """`errors`: a file that gets what is worse than info, too. ConfigError when a file cannot be appended to."""
        self._sinks = [_sink(name, 'application-log') for name in destinations]
        if errors:
            self._sinks.append(_without_info(_sink(errors, 'error-log')))

    def critical(self, text: str) -> None:
        """Somebody must act."""
        self._write('critical', text)

    def warning(self, text: str) -> None:
        self._write('warning', text)

    def info(self, text: str) -> None:
        self._write('info', text)

    def mistake(self, error: BaseException, where: str) -> None:
        """A mistake of ours: one task or callback has ended, the others go on."""
        frames = ' < '.join(f'{frame.name} {os.path.basename(frame.filename)}:{frame.lineno}'
                            for frame in reversed(traceback.extract_tb(error.__traceback__)))
        self.critical(f'internal error {where}: {error!r} in {frames}')

    def _write(self, level: str, text: str) -> None:
        shown = escape(text)
        moment = time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())
        for sink in self._sinks:
            try:
                sink(level, f'[{_LEVELS[level][0]}] [{moment}] {shown}')
            except (OSError, ValueError):
                pass  # a full disk or a closed pipe must not stop mail


def escape(text: str) -> str:
    """Control characters as \\xNN: one event stays one line."""
    if text.isprintable():
        return text
    return ''.join(c if c.isprintable() else f'\\x{ord(c):02x}' for c in text)


class LogFile:
    """A file that is opened again when its name leads elsewhere. Open as long as the process runs.

    Several threads may write, and several processes: a line is one write, and the descriptor stays the same.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = self._open()

    def write(self, line: str) -> None:
        try:
            here, there = os.fstat(self._descriptor), os.stat(self._path)
            moved = (here.st_ino, here.st_dev) != (there.st_ino, there.st_dev)
        except FileNotFoundError:
            moved = True
        if moved:
            fresh = self._open()  # where it cannot be opened the old one stays, so that there is a next time
            os.dup2(fresh, self._descriptor, inheritable=False)
            os.close(fresh)
        os.write(self._descriptor, f'{line}\n'.encode('utf-8', 'backslashreplace'))

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o666)


def _without_info(sink: Sink) -> Sink:
    return lambda level, line: None if level == 'info' else sink(level, line)


def _sink(name: str, setting: str) -> Sink:
    if name in ('stdout', 'stderr'):
        return lambda _level, line: _print(sys.stdout if name == 'stdout' else sys.stderr, line)
    if name == 'syslog':
        syslog.openlog('mqlite', syslog.LOG_PID, syslog.LOG_MAIL)
        return lambda level, line: syslog.syslog(_LEVELS[level][1], line)
    try:
        file = LogFile(name)
    except OSError as error:
        raise ConfigError(f'cannot write the log {name}: {error.strerror}; check {setting}') from error
    return lambda _level, line: file.write(line)


def _print(stream: TextIO, line: str) -> None:
    stream.write(line + '\n')
    stream.flush()
