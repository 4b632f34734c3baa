"""Where mail data ends and how its dots are doubled. Pure, and done on whole buffers at the speed of C.

The only end of data is CRLF.CRLF (RFC 5321 4.1.1.4), where the CRLF that ends the DATA command counts as the first
one. A bare CR or bare LF inside the data is what SMTP smuggling is made of (CVE-2023-51764 and its kin): such data is
read up to its true end and then refused as a whole.

    feed():  ... CRLF "." CRLF | MAIL FROM ...
                              ^ what follows is returned: it belongs to the next command
"""

from __future__ import annotations

import re
from io import BytesIO

_END = b'\r\n.\r\n'
_LARGE = 1 << 20  # bytes
_LEADING_DOT = re.compile(rb'\n\.')  # few messages have one, and this finds out in half the time of bytes.find


class DataReader:
    """Collects the data of one message of at most `limit` bytes; a larger one is read to its end and dropped.

    The size of a message is that of RFC 1870 section 5: without the doubled dots and without the final line. `_data`
    is one buffer, because a list of what arrives costs forty bytes for each byte of a client that sends them singly;
    it gives its contents away without a copy, so that a message is held once.
    """

    def __init__(self, limit: int) -> None:
        self.too_large = False
        self.size = 0  # bytes on the wire
        self._limit = limit
        self._kept = 0  # bytes of the message that are in _data
        self._data: BytesIO | None = None
        self._last = b''  # what the last read has added: most messages come in one
        self._tail = b'\r\n'  # the last bytes seen: an end may lie across two reads

    def feed(self, data: bytes) -> bytes | None:
        """Take what was received. None: more is to come. Otherwise the data is complete and this is what follows."""
        if not data:
            return None  # nothing has come with the command
        tail = self._tail
        window = tail + data
        first = at = window.find(b'\r\n.')
        if at >= 0 and not window.startswith(_END, at):
            at = window.find(_END, at)
        if at < 0:
            self._tail = window[-4:]
            self.size += len(data)
            self._keep(data if first < 0 else _undoubled(window)[len(_undoubled(tail)):])
            return None
        end = at + len(_END) - len(tail)
        self.size += end
        self._kept -= max(0, len(tail) - at - 3)  # a CR behind the final dot
        self._last = data[:max(0, end - 3)] if first == at else _undoubled(window[:at + 2])[len(_undoubled(tail)):]
        self.too_large = self.too_large or self._kept + len(self._last) > self._limit
        return data[end:]

    def body(self) -> bytes:
        """The message, dots undoubled, each line with its CRLF. Call it once, when the data is complete."""
        data, self._data = self._data, None
        if data is None:
            return self._last
        data.seek(self._kept)
        data.write(self._last)
        data.truncate()
        return data.getvalue()

    def _keep(self, data: bytes) -> None:
        self._kept += len(data)
        if self._kept - 1 > self._limit:  # a CR may belong to the final line
            self.too_large = True
        if self.too_large:
            self._data = None
            return
        if self._data is None:
            self._data = BytesIO()
        self._data.write(data)


def _undoubled(data: bytes) -> bytes:
    """Without the dot that begins each line: it was doubled, or is to go anyway (RFC 5321 4.5.2)."""
    return data.replace(b'\r\n.', b'\r\n') if b'\r\n.' in data else data


def has_bare_line_ends(data: bytes) -> bool:
    """Whether a CR or a LF stands alone: dropping every CR and putting one before every LF then gives other data.

    A large message is counted instead, four times slower, because the comparison needs two copies of it.
    """
    if len(data) > _LARGE:
        pairs = data.count(b'\r\n')
        return data.count(b'\n') != pairs or data.count(b'\r') != pairs
    return data.replace(b'\r', b'').replace(b'\n', b'\r\n') != data


def normalise(data: bytes) -> bytes:
    """Every CR, LF or CRLF becomes CRLF, and the last line is ended."""
    if has_bare_line_ends(data):
        data = data.replace(b'\r\n', b'\n').replace(b'\r', b'\n').replace(b'\n', b'\r\n')
    return ended(data) if data else data


def ended(data: bytes) -> bytes:
    """With a line end at its end: the final dot must stand on a line of its own."""
    return data if data.endswith(b'\r\n') else data + b'\r\n'


def encode_data(mime: bytes) -> bytes:
    """A message with CRLF line ends as it goes on the wire: dots doubled, the final dot behind it."""
    stuffed = mime.replace(b'\r\n.', b'\r\n..') if _LEADING_DOT.search(mime) else mime
    return (b'.' if stuffed[:1] == b'.' else b'') + stuffed + b'.\r\n'
