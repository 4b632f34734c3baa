"""Where mail data ends and how its dots are doubled. Pure, and done on whole buffers at the speed of C.

The only end of data is CRLF.CRLF (RFC 5321 4.1.1.4), where the CRLF that ends the DATA command counts as the first
one. A bare CR or bare LF inside the data is what SMTP smuggling is made of (CVE-2023-51764 and its kin): such data is
read up to its true end and then refused as a whole.

    feed():  ... CRLF "." CRLF | MAIL FROM ...
                              ^ what follows is returned: it belongs to the next command
"""

from __future__ import annotations

_END = b'\r\n.\r\n'
_LARGE = 1 << 20  # bytes


class DataReader:
    """Collects the data of one message of at most `limit` bytes; a larger one is read to its end and dropped.

    The size of a message is that of RFC 1870 section 5: without the doubled dots and without the final line. `_data`
    is one buffer, because a list of what arrives costs forty bytes for each byte of a client that sends them singly.
    """

    def __init__(self, limit: int) -> None:
        self.too_large = False
        self.size = 0  # bytes on the wire
        self._limit = limit
        self._dots = 0  # lines that begin with a dot, the final one included
        self._data = bytearray()
        self._tail = b'\r\n'  # the last bytes seen: an end may lie across two reads

    def feed(self, data: bytes) -> bytes | None:
        """Take what was received. None: more is to come. Otherwise the data is complete and this is what follows."""
        tail = self._tail
        window = tail + data
        at = window.find(b'\r\n.')
        if at >= 0:
            first, at = at, at if window.startswith(_END, at) else window.find(_END, at)
            stop = at + len(_END) if at >= 0 else len(window)
            self._dots += window.count(b'\r\n.', first, stop) - tail.count(b'\r\n.')
        if at < 0:
            self._tail = window[-4:]
            self._keep(data)
            return None
        end = at + len(_END) - len(tail)
        self._keep(data[:end])
        return data[end:]

    def body(self) -> bytes:
        """The message, dots undoubled, each line with its CRLF. Call it once, when the data is complete."""
        first = 1 if self._data.startswith(b'.') else 0
        with memoryview(self._data) as view:
            data = bytes(view[first:-3])
        self._data = bytearray()
        return data.replace(b'\r\n.', b'\r\n') if self._dots > 1 else data

    def _keep(self, data: bytes) -> None:
        self.size += len(data)
        if self.size - self._dots - 2 > self._limit:  # the final line: three octets, one of them a dot
            self.too_large = True
        if self.too_large:
            self._data = bytearray()
        else:
            self._data += data


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
    return data if data.endswith(b'\r\n') or not data else data + b'\r\n'


def encode_data(mime: bytes) -> bytes:
    """A message with CRLF line ends as it goes on the wire: dots doubled, the final dot behind it."""
    stuffed = mime.replace(b'\r\n.', b'\r\n..') if b'\r\n.' in mime else mime
    return (b'.' if stuffed[:1] == b'.' else b'') + stuffed + b'.\r\n'
