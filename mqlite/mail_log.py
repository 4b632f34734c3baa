"""The logs of mail: a line for each message that was received, and one for each attempt to deliver one.

A line is made by a template of the operator (`template/`); control characters that come out of it are escaped, so that
what a peer or a message says stays within its line. Files are rotated by others; one that was moved away or removed is
opened anew, and several logs may share a file. A log that cannot be written never stops mail: lines are lost, and the
application log says so once, until it works again.

Must not know: what the variables of a format are. Those who write the lines bring them.
"""

from __future__ import annotations

import os
from typing import Any, Callable

from mqlite.errors import ConfigError
from mqlite.log import LogFile, escape
from mqlite.settings import Settings
from mqlite.template.parser import compile_template
from mqlite.template.values import TemplateError


class MailLog:
    """One of these logs."""

    def __init__(self, path: str, line_format: str, on_fault: Callable[[str], object]) -> None:
        """OSError when the file cannot be opened for appending, TemplateError when the format is wrong."""
        self._path = path
        self._template = compile_template(line_format)
        self._file = LogFile(path)
        self._on_fault = on_fault
        self._failing = False
        self.mentions_extracted = 'extracted' in line_format  # which costs something to make

    def write(self, variables: dict[str, Any]) -> None:
        """A line with the values of these variables."""
        try:
            self._file.write(escape(self._template.render(variables)))
            self._failing = False
        except (TemplateError, OSError, ValueError) as error:
            if not self._failing:
                self._on_fault(f'cannot write the log {self._path}: {error}; lines are lost')
            self._failing = True


def open_mail_log(settings: Settings, kind: str, on_fault: Callable[[str], object]) -> MailLog | None:
    """The log of the settings `kind`-log-*, None when there is none. ConfigError.

    The older spelling of its name, a directory and a name in it, counts where the newer one is not used.
    """
    path, directory = settings.text(f'{kind}-log-file'), settings.text(f'{kind}-log-directory')
    if not path and directory:
        path = os.path.join(directory, settings.text(f'{kind}-log-prefix'))
    if not path:
        return None
    try:
        return MailLog(path, settings.text(f'{kind}-log-format'), on_fault)
    except OSError as error:
        raise ConfigError(f'cannot write the log {path}: {error.strerror}; check {kind}-log-file') from error
    except TemplateError as error:
        raise ConfigError(f'{kind}-log-format: {error}') from error
