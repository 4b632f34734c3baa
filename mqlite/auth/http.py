"""HTTP/1.1, as much of it as asking "may this login in?" takes: one GET with Basic credentials, one status. Pure.

2xx is yes. 5xx, 408 and 429 say nothing of the credentials: the endpoint has trouble. Everything else is no, a redirect
too: the credentials are for the host that the operator named. The body of the answer is not read.

Sources: RFC 9112 (messages), RFC 9110 section 15 (status codes), RFC 7617 (Basic, in UTF-8).
Limits: LINE_LIMIT octets of a line, LINES_LIMIT lines in front of the final status.
"""

from __future__ import annotations

import re
from base64 import b64encode

from mqlite.errors import MqliteError

LINE_LIMIT = 8192  # octets with the line end; RFC 9112 section 3 recommends 8000
LINES_LIMIT = 100
_STATUS = re.compile(rb'HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n')
_TROUBLE = (408, 429)


class NotHttp(MqliteError):
    """The peer's fault: what it sent is no HTTP answer, or one without a verdict."""


def basic_request(host: str, port: int | None, target: str, login: str, password: bytes) -> bytes | None:
    """The request; `port` None when it is the scheme's own. None: a login with a colon has no Basic credentials."""
    if ':' in login:
        return None
    place = f'[{host}]' if ':' in host else host
    credentials = b64encode(login.encode() + b':' + password)
    return (f'GET {target} HTTP/1.1\r\nHost: {place}{f":{port}" if port else ""}\r\n'.encode('ascii')
            + b'Authorization: Basic ' + credentials + b'\r\nAccept: */*\r\nConnection: close\r\n\r\n')


def verdict(status: int) -> bool:
    """Whether the status lets the login in; NotHttp when it does not say."""
    if status >= 500 or status in _TROUBLE:
        raise NotHttp(f'it answered with status {status}')
    return 200 <= status < 300


class StatusReader:
    """Finds the final status among the lines of an answer."""

    def __init__(self) -> None:
        self._interim = False  # within the header fields of a 1xx, which announces another answer
        self._lines = 0

    def feed(self, line: bytes) -> int | None:
        """Take one line with its line end; the status when it is the final one. NotHttp."""
        self._lines += 1
        if self._lines > LINES_LIMIT:
            raise NotHttp(f'there is no final status within {LINES_LIMIT} lines')
        if self._interim:
            self._interim = line not in (b'\r\n', b'\n')
            return None
        match = _STATUS.fullmatch(line)
        if match is None:
            raise NotHttp('what it sent is not HTTP')
        status = int(match.group(1))
        self._interim = status < 200
        return None if self._interim else status
