"""BDAT: the argument, chunks in every delivery shape, and what the server does around them.

What it answers is in the dialogues (tests/data/dialogues/chunk*.txt).
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqlite.smtp.chunking import Chunk, ChunkReader, parse_chunk
from tests.support.plugins import LOG, PluginBench
from tests.support.smtp import Bench

ENVELOPE = (b'EHLO client.example', b'MAIL FROM:<a@client.example>', b'RCPT TO:<b@example.org>')


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


# the server


def test_plugins_are_asked_about_the_whole_message_once(tmp_path: Path) -> None:
    async def client() -> None:
        stream = await bench.client(greeted=False)
        assert (await bench.read_line(stream))[:3] == b'220'
        assert await bench.talk(stream, *ENVELOPE, b'BDAT 3\r\na', b'BDAT 0') == b'250 250 250 250 250'
        assert LOG.said() == []
        assert await bench.talk(stream, b'BDAT 3 LAST\r\nb', b'NOOP') == b'550 250'
        assert LOG.said() == [r"b'a\r\nb\r\n'"]

    (tmp_path / 'plugin.py').write_text('''
def mq_smtp_in_data(context, connection, mime):
    context.log(repr(mime))
    connection.reject(550, '5.7.1', 'no')
''')
    with PluginBench(tmp_path) as bench:
        bench.run(client())
        assert bench.documents() == []


def test_a_message_that_has_begun_is_finished_while_we_stop() -> None:
    async def client() -> None:
        begun, idle = await bench.client(), await bench.client()
        await bench.talk(begun, *ENVELOPE, b'BDAT 3\r\na')
        stop = bench.reactor.spawn(bench.server.stop(60.0))
        assert (await bench.read(idle, 100))[:3] == b'421'
        assert await bench.talk(begun, b'BDAT 3\r\nb', b'BDAT 0 LAST') == b'250 250'
        assert (await bench.read(begun, 100))[:3] == b'421'
        await stop

    with Bench() as bench:
        bench.run(client())
        assert [document['mime'][-6:] for document in bench.documents()] == ['a\r\nb\r\n']


@pytest.mark.parametrize('envelope', [ENVELOPE, ENVELOPE[:1]], ids=['too large', 'not wanted'])
def test_a_huge_chunk_takes_no_memory(envelope: tuple[bytes, ...]) -> None:
    async def client() -> None:
        stream = await bench.client()
        await bench.talk(stream, *envelope)
        stream.write(b'BDAT %d LAST\r\n' % (64 * 65536 + 2))
        for _ in range(64):
            stream.write(bytes(65536))
            await stream.drain()
        assert await bench.talk(stream, b'', b'NOOP') == (b'552' if len(envelope) > 1 else b'503') + b' 250'

    with Bench(size=1 << 20) as bench:
        tracemalloc.start()
        bench.run(client())
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
        tracemalloc.stop()


def test_empty_chunks_bring_no_message_nearer() -> None:
    async def client() -> None:
        stream = await bench.client()
        await bench.talk(stream, *ENVELOPE)
        stream.write(b'BDAT 0\r\n' * 10)
        stream.flush()
        said = await bench.read(stream, 1 << 16)
        assert said.splitlines()[-2:] == [b'250 2.0.0 0 octets received',
                                          b'421 4.7.0 Too many commands without a message, closing the connection']

    with Bench(relay=False, is_local=lambda address: True, commands=5) as bench:
        bench.run(client())
