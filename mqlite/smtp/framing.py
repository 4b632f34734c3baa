"""Where mail data ends and how its dots are doubled. Pure, and done on whole buffers at the speed of C.

The only end of data is CRLF.CRLF (RFC 5321 4.1.1.4), where the CRLF that ends the DATA command counts as the first
one. A bare CR or bare LF inside the data is what SMTP smuggling is made of (CVE-2023-51764 and its kin): such data is
read up to its true end and then refused as a whole.

    feed():  ... CRLF "." CRLF | MAIL FROM ...
                              ^ what follows is returned: it belongs to the next command
"""

from __future__ import annotations

_END = b'\r\n.\r\n'


class DataReader:
    """Collects the data of one message, at most `limit` bytes of it; what comes beyond is counted and dropped."""

    def __init__(self, limit: int) -> None:
        self.size = 0  # bytes on the wire, dots and final line included
        self.too_large = False
        self._dots = False  # a line may begin with a dot
        self._limit = limit
        self._parts: list[bytes] = []
        self._tail = b'\r\n'  # the last bytes seen: an end may lie across two reads

    def feed(self, data: bytes) -> bytes | None:
        """Take what was received. None: more is to come. Otherwise the data is complete and this is what follows."""
        tail = self._tail
        window = tail + data
        at = window.find(b'\r\n.')
        if at >= 0 and window[at + 3:at + 5] != b'\r\n':
            self._dots = True
            at = window.find(_END, at)
        if at < 0:
            self._tail = window[-4:]
            self._keep(data)
            return None
        end = at + len(_END) - len(tail)
        self._keep(data[:end])
        return data[end:]

    def body(self) -> bytes:
        """The message, dots undoubled, each line with its CRLF. Call it once, when the data is complete."""
        data = self._parts[0] if len(self._parts) == 1 else b''.join(self._parts)
        self._parts = []
        data = data[:-3]
        if self._dots:
            if data[:1] == b'.':
                data = data[1:]
            data = data.replace(b'\r\n.', b'\r\n')
        return data

    def _keep(self, data: bytes) -> None:
        self.size += len(data)
        if self.size - 3 > self._limit:
            self.too_large = True
            self._parts = []
        else:
            self._parts.append(data)


def has_bare_line_ends(data: bytes) -> bool:
    """Whether a CR or a LF stands alone."""
    pairs = data.count(b'\r\n')
    return data.count(b'\n') != pairs or data.count(b'\r') != pairs


def normalise(data: bytes) -> bytes:
    """Every CR, LF or CRLF becomes CRLF, and the last line is ended."""
    if has_bare_line_ends(data):
        data = data.replace(b'\r\n', b'\n').replace(b'\r', b'\n').replace(b'\n', b'\r\n')
    return data if data.endswith(b'\r\n') or not data else data + b'\r\n'


def encode_data(mime: bytes) -> bytes:
    """A message with CRLF line ends as it goes on the wire: dots doubled, the final dot behind it."""
    stuffed = mime.replace(b'\r\n.', b'\r\n..') if b'\r\n.' in mime else mime
    return (b'.' if stuffed[:1] == b'.' else b'') + stuffed + b'.\r\n'
