"""The end of data, dots, and line ends: tables in every delivery shape, and a slow reference on random input."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterable, Iterator

import pytest

from mqlite.smtp.framing import DataReader, encode_data, has_bare_line_ends, normalise

# wire (what follows the CRLF of the DATA command), the message in it
MESSAGES = [
    (b'.\r\n', b''),
    (b'\r\n.\r\n', b'\r\n'),
    (b'a\r\n.\r\n', b'a\r\n'),
    (b'a\r\n\r\nb\r\n.\r\n', b'a\r\n\r\nb\r\n'),
    (b'..\r\n.\r\n', b'.\r\n'),
    (b'...\r\n.\r\n', b'..\r\n'),
    (b'..a\r\n..b\r\n.\r\n', b'.a\r\n.b\r\n'),
    (b'.a\r\n.b\r\n.\r\n', b'a\r\nb\r\n'),              # a dot that was not doubled goes too (RFC 5321 4.5.2)
    (b'a\r\n..\r\n.\r\n', b'a\r\n.\r\n'),
    (b'a.\r\n.\r\n', b'a.\r\n'),
    (b'a\r\n. \r\n.\r\n', b'a\r\n \r\n'),
    (b'a\r\n..\r\n..\r\n\r\n.\r\n', b'a\r\n.\r\n.\r\n\r\n'),
    (b'\0\xff\x80\r\n.\r\n', b'\0\xff\x80\r\n'),
]

# What is no end: each stands between two lines, and the message goes on behind it. (CVE-2023-51764 and its kin.)
FALSE_ENDS = [
    b'\n.\n', b'\n.\r\n', b'\r\n.\n', b'\r.\r', b'\r.\r\n', b'\r\n.\r', b'\n.\r', b'\r.\n', b'\n\n.\n\n',
    b'\r\n\n.\r\n',
    b'\r\n.\0\r\n', b'\r\n\0.\r\n', b'\r\n.\r\0\n', b'\r\0\n.\r\n', b'\r\n. \r\n', b'\r\n .\r\n', b'\r\n.\r\r\n',
    b'\r\r\n.\n',
    b'\n\r\n.\n\r\n', b'\r\n\r.\r\n', b'\x85.\x85', b'\x0b.\x0b', b'\x0c.\x0c', b'\xe2\x80\xa8.\xe2\x80\xa8',
    b'\r\n.\r\x0b\n',
]
HARMLESS = (b'\r\n. \r\n', b'\r\n .\r\n', b'\r\n.\0\r\n', b'\r\n\0.\r\n')  # no bare CR or LF: they may pass
TRAILING = (b'', b'Q', b'QUIT\r\n', b'.\r\n', b'\r\n.\r\n', b'\n')


def feed(pieces: Iterable[bytes], limit: int = 1 << 20) -> tuple[DataReader, bytes]:
    """(the reader at the end of data, what follows of all pieces)."""
    reader, rest, pieces = DataReader(limit), None, iter(pieces)
    for piece in pieces:
        rest = reader.feed(piece)
        if rest is not None:
            break
    assert rest is not None, 'no end was found'
    return reader, rest + b''.join(pieces)


def shapes(data: bytes) -> Iterator[list[bytes]]:
    """Whole, octet by octet, in two pieces at every place, and with empty reads between."""
    yield [data]
    yield [data[n:n + 1] for n in range(len(data))]
    yield [piece for n in range(len(data)) for piece in (b'', data[n:n + 1])]
    yield from ([data[:n], data[n:]] for n in range(1, len(data)))


@pytest.mark.parametrize('trailing', TRAILING)
@pytest.mark.parametrize(('wire', 'message'), MESSAGES)
def test_message(wire: bytes, message: bytes, trailing: bytes) -> None:
    for pieces in shapes(wire + trailing):
        reader, rest = feed(pieces)
        assert (reader.body(), rest, reader.too_large) == (message, trailing, False), pieces


@pytest.mark.parametrize('end', FALSE_ENDS)
def test_false_end(end: bytes) -> None:
    """The data goes on to the true end, and is found to be bad as a whole."""
    wire = b'one' + end + b'RSET\r\nMAIL FROM:<evil@example.org>\r\n.\r\n'
    for pieces in shapes(wire + b'NOOP\r\n'):
        reader, rest = feed(pieces)
        assert rest == b'NOOP\r\n', pieces
        body = reader.body()
        assert body.endswith(b'<evil@example.org>\r\n')
        assert has_bare_line_ends(body) == (end not in HARMLESS and (b'\r' in end or b'\n' in end))


@pytest.mark.parametrize('end', FALSE_ENDS)
def test_false_end_first(end: bytes) -> None:
    """The CRLF of the DATA command counts as the first one, but it does not make an end of these."""
    wire = end + b'x\r\n.\r\n'
    for pieces in shapes(wire):
        assert feed(pieces)[1] == b''


@pytest.mark.parametrize(('size', 'limit', 'too_large'), [(10, 10, False), (11, 10, True), (0, 0, False), (2, 1, True)])
@pytest.mark.parametrize('line', [b'x' * 1000, b'.' * 1000])
def test_limit(size: int, limit: int, too_large: bool, line: bytes) -> None:
    message = (line[:size - 2] + b'\r\n') if size else b''
    for pieces in shapes(encode_data(message) + b'NOOP\r\n'):
        reader, rest = feed(pieces, limit)
        assert (reader.too_large, rest) == (too_large, b'NOOP\r\n')
        if not too_large:
            assert reader.body() == message


def test_a_message_of_dots_may_be_as_large_as_the_limit() -> None:
    message = b'.\r\n' * 1000
    for size in (1, 2, 3, 4, 5, 7, 64, 10000):
        wire = encode_data(message)
        pieces = [wire[n:n + size] for n in range(0, len(wire), size)]
        assert feed(pieces, len(message))[0].body() == message
        assert feed(pieces, len(message) - 1)[0].too_large


def test_what_is_too_large_is_not_held() -> None:
    reader, piece = DataReader(1 << 20), b'x' * 65536
    tracemalloc.start()
    for _ in range(1024):
        assert reader.feed(piece) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 << 20
    assert reader.feed(b'\r\n.\r\nNOOP') == b'NOOP' and reader.too_large


def test_small_pieces_cost_no_more_than_large_ones() -> None:
    reader, count = DataReader(1 << 20), 20000
    tracemalloc.start()
    for n in range(count):
        reader.feed(b'%02d' % (n % 100))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 2 * 2 * count


def reference_read(stream: bytes) -> tuple[bytes, bytes]:
    """Octet by octet, as RFC 5321 4.5.2 says it: (message, what follows)."""
    message, line, at = b'', b'', 0
    while True:
        line += stream[at:at + 1]
        at += 1
        if line == b'.\r\n':
            return message, stream[at:]
        if line.endswith(b'\r\n'):
            message += line[1:] if line.startswith(b'.') else line
            line = b''


def reference_is_bare(data: bytes) -> bool:
    pairs = {n for n in range(len(data) - 1) if data[n:n + 2] == b'\r\n'}
    return any(octet == 13 and n not in pairs or octet == 10 and n - 1 not in pairs for n, octet in enumerate(data))


def test_random_streams_against_the_reference() -> None:
    generator = random.Random(1870)
    alphabet = [b'\r', b'\n', b'.', b'\r\n', b'\r\n.', b'x', b'\r\n.\r', b'\0']
    for _ in range(5000):
        stream = b''.join(generator.choices(alphabet, k=generator.randrange(12))) + b'\r\n.\r\n' + b'NOOP\r\n.'
        expected, pieces, at = reference_read(stream), [], 0
        while at < len(stream):
            step = generator.randrange(1, 8)
            pieces.append(stream[at:at + step])
            at += step
        for shape in ([stream], pieces):
            reader, rest = feed(shape, len(expected[0]))
            assert not reader.too_large, stream
            assert (reader.body(), rest) == expected, stream
            if expected[0]:
                assert feed(shape, len(expected[0]) - 1)[0].too_large, stream
        assert has_bare_line_ends(stream) == reference_is_bare(stream), stream


def test_random_messages_survive_the_wire() -> None:
    generator = random.Random(5322)
    for _ in range(2000):
        message = b''.join(generator.choices([b'.', b'..', b'\r\n', b'x', b'\r\n.', b' '], k=generator.randrange(10)))
        message = normalise(message)
        wire = encode_data(message)
        assert reference_read(wire + b'QUIT') == (message, b'QUIT')
        reader, rest = feed([wire + b'QUIT'])
        assert (reader.body(), rest) == (message, b'QUIT')


@pytest.mark.parametrize(('data', 'bare'), [
    (b'', False), (b'a', False), (b'\r\n', False), (b'a\r\nb\r\n', False), (b'\r', True), (b'\n', True),
    (b'\n\r', True),
    (b'\r\r\n', True), (b'\r\n\n', True), (b'a\rb\nc', True), (b'\r\n\r', True), (b'\0\x85\x0b\x0c', False)])
def test_bare_line_ends(data: bytes, bare: bool) -> None:
    assert has_bare_line_ends(data) is bare
    assert has_bare_line_ends(b'line\r\n' * 200_000 + data) is bare  # large ones are looked at in another way


@pytest.mark.parametrize(('data', 'normal'), [
    (b'', b''), (b'a', b'a\r\n'), (b'a\r\n', b'a\r\n'), (b'a\nb', b'a\r\nb\r\n'), (b'a\rb', b'a\r\nb\r\n'),
    (b'a\r\nb\nc\rd', b'a\r\nb\r\nc\r\nd\r\n'), (b'\n\r', b'\r\n\r\n'), (b'\r\r\n', b'\r\n\r\n'), (b'a\r', b'a\r\n'),
    (b'x\n.\r\nMAIL FROM:<a@b>\r\n', b'x\r\n.\r\nMAIL FROM:<a@b>\r\n')])
def test_normalise(data: bytes, normal: bytes) -> None:
    assert normalise(data) == normal
    assert normalise(normal) == normal and not has_bare_line_ends(normal)


@pytest.mark.parametrize('end', FALSE_ENDS)
def test_nothing_is_smuggled_out(end: bytes) -> None:
    """Whatever a document holds: at the peer it is one message and no command."""
    wire = encode_data(normalise(b'one' + end + b'MAIL FROM:<evil@example.org>'))
    assert reference_read(wire)[1] == b''
    assert wire.count(b'\r\n.\r\n') == 1 and not has_bare_line_ends(wire)
