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

    def __init__(self, destinations: Sequence[str]) -> None:
        """ConfigError when a file cannot be opened for appending."""
        self._sinks = [_sink(name) for name in destinations]

    def critical(self, text: str) -> None:
        """Somebody must act."""
        self._write('critical', text)

    def warning(self, text: str) -> None:
        self._write('warning', text)

    def info(self, text: str) -> None:
        self._write('info', text)

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
    """A file that is opened again when its name leads elsewhere."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = self._open()

    def write(self, line: str) -> None:
        try:
            here, there = os.fstat(self._file.fileno()), os.stat(self._path)
            moved = (here.st_ino, here.st_dev) != (there.st_ino, there.st_dev)
        except FileNotFoundError:
            moved = True
        if moved:
            self._file.close()
            self._file = self._open()
        self._file.write(line + '\n')

    def _open(self) -> TextIO:
        return open(self._path, 'a', encoding='utf-8', errors='backslashreplace', buffering=1)


def _sink(name: str) -> Sink:
    if name in ('stdout', 'stderr'):
        return lambda _level, line: _print(sys.stdout if name == 'stdout' else sys.stderr, line)
    if name == 'syslog':
        syslog.openlog('mqlite', syslog.LOG_PID, syslog.LOG_MAIL)
        return lambda level, line: syslog.syslog(_LEVELS[level][1], line)
    try:
        file = LogFile(name)
    except OSError as error:
        raise ConfigError(f'cannot write the log {name}: {error.strerror}; check application-log') from error
    return lambda _level, line: file.write(line)


def _print(stream: TextIO, line: str) -> None:
    stream.write(line + '\n')
    stream.flush()
