"""BDAT: a message in chunks whose sizes are said beforehand. Pure.

    BDAT 86 CRLF | 86 octets | BDAT 5 LAST CRLF | 5 octets | MAIL FROM ...
                                                            ^ what follows is returned: it belongs to the next command

Source: RFC 3030 section 2. The octets are taken as they are: there are no dots to undouble and no end to look for. The
octets of a chunk that is refused are on their way all the same, and are dropped: whoever took them for commands would
obey the message (CVE-2017-16943 and its kin). BINARYMIME is not offered: lines end with CRLF here, too.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import NamedTuple

_ARGUMENT = re.compile(r'([0-9]{1,20})(?: +(LAST))?', re.IGNORECASE)


class Chunk(NamedTuple):
    """What stands behind BDAT."""

    octets: int
    last: bool
    refusal: bytes = b''  # the reply to it, when it is not wanted


def parse_chunk(argument: str) -> Chunk | None:
    """None: it is not in the grammar, so nobody knows where the octets end and the next command begins."""
    match = _ARGUMENT.fullmatch(argument)
    return Chunk(int(match.group(1)), match.group(2) is not None) if match else None


class ChunkReader:
    """Collects the chunks of one message of at most `limit` bytes; of a larger one nothing is kept."""

    def __init__(self, limit: int) -> None:
        self.too_large = False
        self.size = 0  # bytes of all chunks so far
        self._limit = limit
        self._left = 0  # octets of the chunk that are still to come
        self._data = BytesIO()  # gives its contents away without a copy

    def expect(self, octets: int) -> None:
        """The next chunk has so many."""
        self._left = octets
        if self.size + octets > self._limit:
            self.too_large = True
            self._data = BytesIO()

    def feed(self, data: bytes) -> bytes | None:
        """Take what was received. None: more is to come. Otherwise the chunk is complete and this is what follows."""
        taken = min(self._left, len(data))
        self._left -= taken
        self.size += taken
        if not self.too_large:
            self._data.write(data[:taken])
        return None if self._left else data[taken:]

    def body(self) -> bytes:
        """The message. Call it once, when the last chunk is complete."""
        data, self._data = self._data.getvalue(), BytesIO()
        return data
