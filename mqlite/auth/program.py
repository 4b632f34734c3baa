"""`exec://`: a program of the operator's decides, one run per login.

It gets two lines on standard input, the login and the password, each ended by a line feed, and nothing on its command
line, which every user of the host can read. Its environment has PATH, and TCPREMOTEIP, the client's address, as the
programs of qmail's world know it. What it prints is thrown away. Its exit status is the verdict:

    0                       yes
    75, 111                 temporarily no verdict (sysexits.h EX_TEMPFAIL; checkpassword)
    126, 127, a signal      it did not get as far as a verdict (sh: cannot be run, not found)
    anything else           no
"""

from __future__ import annotations

import os
import stat

from mqlite.auth.contract import AuthUnavailable
from mqlite.errors import ConfigError
from mqlite.loop.process import run_program
from mqlite.loop.reactor import Reactor
from mqlite.smtp.sasl import Password

_NO_VERDICT = (75, 111, 126, 127)


class ProgramLogins:
    """Asks a program."""

    def __init__(self, reactor: Reactor, path: str, seconds: float) -> None:
        """ConfigError when it is no program that we may run. `seconds`: for one run."""
        self._reactor = reactor
        self._path = path
        self._seconds = seconds
        try:
            regular = stat.S_ISREG(os.stat(path).st_mode)
        except OSError as error:
            raise ConfigError(f'exec:// {path}: {error.strerror}') from None
        if not regular or not os.access(path, os.X_OK):
            raise ConfigError(f'exec:// {path} is no program that mqlite may run')

    async def check(self, password: Password, client: str) -> bool:
        if b'\n' in password.password:
            return False  # it could not be told from two lines
        given = password.login.encode() + b'\n' + password.password + b'\n'
        environment = {'PATH': os.environ.get('PATH', os.defpath), 'TCPREMOTEIP': client}
        status = await run_program(self._reactor, [self._path], given, environment, self._seconds)
        if status < 0 or status in _NO_VERDICT:
            ended = f'signal {-status}' if status < 0 else f'status {status}'
            raise AuthUnavailable(f'it ended with {ended}, without a verdict')
        return status == 0

    def stop(self) -> None:
        """A program that runs ends with the task that waits for it."""
