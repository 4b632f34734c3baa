"""Identifiers of messages, unique over time and over servers; and the moments in JSON. Pure."""

from __future__ import annotations

import itertools
import re
from datetime import datetime, timezone
from functools import lru_cache

_DIGITS = '0123456789abcdefghijklmnopqrstuvwxyz'
_MOMENT = re.compile(r'[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}')


class Identifiers:
    """A source of identifiers: server, start of the process, a random part, and a count.

    `now`: seconds since 1970. `entropy`: tells apart processes that start in the same second, modulo 36^4.
    """

    def __init__(self, server_id: str, now: float, entropy: int) -> None:
        self._prefix = f'{server_id}{base36(int(now))}{base36(entropy % 36 ** 4)}-'
        self._count = itertools.count(1)

    def next(self) -> str:
        return self._prefix + base36(next(self._count))


def base36(number: int) -> str:
    """A number >= 0 in digits and lower case letters."""
    text = ''
    while True:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
        if not number:
            return text


def format_moment(seconds: float) -> str:
    """Seconds since 1970 as `YYYY-MM-DD HH:MM:SS`, UTC."""
    return _format_second(int(seconds))


@lru_cache(maxsize=16)
def _format_second(second: int) -> str:
    return datetime.fromtimestamp(second, timezone.utc).strftime('%Y-%m-%d %H:%M:%S')


def parse_moment(text: object) -> float:
    """The other way round; ValueError for anything else."""
    if not isinstance(text, str) or not _MOMENT.fullmatch(text):
        raise ValueError('a time must be "YYYY-MM-DD HH:MM:SS" (UTC)')
    return datetime.strptime(text, '%Y-%m-%d %H:%M:%S').replace(tzinfo=timezone.utc).timestamp()
