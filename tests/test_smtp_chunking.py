"""BDAT as bytes: the argument, and chunks in every delivery shape."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator

import pytest

from mqlite.smtp.chunking import Chunk, ChunkReader, parse_chunk


@pytest.mark.parametrize(('argument', 'chunk'), [
    ('0', Chunk(0, False)), ('0 LAST', Chunk(0, True)), ('86', Chunk(86, False)), ('86 last', Chunk(86, True)),
    ('007  Last', Chunk(7, True)), ('9' * 20, Chunk(10 ** 20 - 1, False)),
    ('', None), ('LAST', None), ('x', None), ('-1', None), ('+1', None), ('1.0', None), ('0x10', None), ('1e3', None),
    ('1_0', None), ('9' * 21, None), ('1 LAST LAST', None), ('1 FIRST', None), ('1LAST', None), ('1\tLAST', None),
    ('1\0', None), ('1\n', None), ('²', None), ('１', None), (' 1', None), ('1 2', None),
])
def test_argument(argument: str, chunk: Chunk | None) -> None:
    assert parse_chunk(argument) == chunk


def shapes(data: bytes) -> Iterator[list[bytes]]:
    """Whole, octet by octet, in two pieces at every place, and with empty reads between."""
    yield [data]
    yield [data[n:n + 1] for n in range(len(data))]
    yield [piece for n in range(len(data)) for piece in (b'', data[n:n + 1])]
    yield from ([data[:n], data[n:]] for n in range(1, len(data)))


def read(reader: ChunkReader, sizes: list[int], pieces: list[bytes]) -> bytes:
    """Feed chunks of these sizes; what follows the last one."""
    at, rest = 0, b''
    for size in sizes:
        reader.expect(size)
        found = reader.feed(rest)
        while found is None:
            found = reader.feed(pieces[at])
            at += 1
        rest = found
    return rest + b''.join(pieces[at:])


@pytest.mark.parametrize('trailing', [b'', b'B', b'BDAT 1 LAST\r\nx', b'\r\n.\r\n', b'\n'])
@pytest.mark.parametrize('chunks', [
    [b''], [b'a'], [b'', b'', b''], [b'one\r\n', b'two'], [b'', b'x', b''], [b'\r\n.\r\n', b'.', b'\r\n'],
    [b'MAIL FROM:<a@b>\r\n', b'\0\xff\r', b'\n'], [b'..', b'\n.\n']])
def test_every_octet_is_kept(chunks: list[bytes], trailing: bytes) -> None:
    message = b''.join(chunks)
    for pieces in shapes(message + trailing):
        reader = ChunkReader(len(message))
        assert read(reader, [len(chunk) for chunk in chunks], pieces) == trailing
        assert (reader.body(), reader.too_large, reader.size) == (message, False, len(message))


@pytest.mark.parametrize(('sizes', 'too_large'), [([10], False), ([11], True), ([5, 5], False), ([5, 6], True),
                                                  ([10, 0], False), ([10, 1], True), ([11, 0], True),
                                                  ([12, 5, 0], True)])
def test_limit(sizes: list[int], too_large: bool) -> None:
    for pieces in shapes(b'x' * sum(sizes) + b'NOOP\r\n'):
        reader = ChunkReader(10)
        assert read(reader, sizes, pieces) == b'NOOP\r\n'
        assert reader.too_large is too_large


def test_what_is_too_large_is_not_held() -> None:
    piece = b'x' * 65536
    tracemalloc.start()
    for sizes in ([1 << 40], [1 << 19] * 3):
        reader = ChunkReader(1 << 20)
        for size in sizes:
            reader.expect(size)
            for _ in range(min(size >> 16, 1024)):
                reader.feed(piece)
        assert reader.too_large
        assert tracemalloc.get_traced_memory()[0] < 100_000
    assert tracemalloc.get_traced_memory()[1] < 3 << 20
    tracemalloc.stop()


def test_random_chunks() -> None:
    generator = random.Random(3030)
    for _ in range(2000):
        chunks = [generator.randbytes(generator.randrange(6)) for _ in range(generator.randrange(1, 6))]
        stream, pieces, at = b''.join(chunks) + b'NOOP', [], 0
        while at < len(stream):
            step = generator.randrange(1, 8)
            pieces.append(stream[at:at + step])
            at += step
        reader = ChunkReader(100)
        assert read(reader, [len(chunk) for chunk in chunks], pieces) == b'NOOP'
        assert reader.body() == b''.join(chunks)
