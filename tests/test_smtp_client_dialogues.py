"""Golden dialogues from the other side (tests/data/dialogues/client/*.txt): the test plays the server.

What the client says must be what stands there, and no more: a command sent before its turn is found. The server's
words are played whole, and one octet at a time but for files with `together: yes`. `tls: yes`: the client takes TLS
where it is offered; `login: name password`: it logs in; `peer`: where it thinks the server is.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from mqlite.delivery.job import make_envelope
from mqlite.loop.stream import ConnectionLost, Stream
from mqlite.message.document import Document
from mqlite.smtp.client import ClientSession
from mqlite.smtp.dsn import NOTHING
from mqlite.smtp.framing import normalise
from mqlite.smtp.reply import ClientFailure, Reply
from mqlite.smtp.sasl_client import Login
from tests.support.dialogue import Dialogue, Turn, read_dialogue
from tests.support.loop import LoopBench
from tests.support.process import HOST, ROOT
from tests.support.smtp import any_client_context

FILES = sorted((ROOT / 'tests/data/dialogues/client').glob('*.txt'))
CASES = [(path, shape) for path in FILES for shape in ('turns', 'octets')
         if shape == 'turns' or 'together' not in read_dialogue(path).settings]


class Player:
    """The server of a dialogue."""

    def __init__(self, bench: LoopBench, stream: Stream, tls: ssl.SSLContext, one_by_one: bool) -> None:
        self._bench = bench
        self._stream = stream
        self._tls = tls
        self._one_by_one = one_by_one

    async def play(self, dialogue: Dialogue) -> None:
        for turn in dialogue.turns:
            said = await self._read(len(turn.client))
            assert said.decode('utf-8', 'backslashreplace') == turn.client.decode('utf-8', 'backslashreplace')
            await self._bench.settle()
            assert self._stream.take() == b'', f'the client says more than {turn.client!r}'
            if turn.seconds:
                await self._bench.wait(turn.seconds)
            if turn.client_closes:
                await self._bench.settle()
                assert self._stream.lost, 'the client does not hang up'
            await self._answer(turn)

    async def _read(self, count: int) -> bytes:
        data = self._stream.take()
        try:
            while len(data) < count:
                await self._stream.wait_bytes()
                data += self._stream.take()
        except ConnectionLost:
            return data
        self._stream.put_back(data[count:])
        return data[:count]

    async def _answer(self, turn: Turn) -> None:
        step = 1 if self._one_by_one else max(1, len(turn.server))
        for at in range(0, len(turn.server), step):
            self._stream.write(turn.server[at:at + step])
            self._stream.flush()
            if self._one_by_one:
                await self._bench.wait(0)
        if turn.handshake:
            await self._stream.start_tls(self._tls, server_side=True)
        if turn.server_closes:
            self._stream.close()


async def deliver(stream: Stream, dialogue: Dialogue) -> list[str]:
    """Say hello, send the messages of the dialogue, and say goodbye; what came of it."""
    settings = dict(dialogue.settings)
    tls = any_client_context() if settings.pop('tls', 'no') == 'yes' else None
    login = Login(*settings.pop('login').split(' ', 1)) if 'login' in settings else None
    stream.peer = settings.pop('peer', HOST), 25
    assert settings in ({}, {'together': 'yes'}), f'unknown settings {settings}'
    session, results = ClientSession(stream, 'me.example'), []
    try:
        await session.start(tls, 'mx.example', login)
        for kept in dialogue.kept:
            document = Document({'envelope': kept.sender, 'recipient': kept.recipient, **kept.properties})
            envelope = make_envelope(document, NOTHING)
            try:
                results.append(_outcome(await session.send(envelope, normalise(kept.mime))))
            except ClientFailure as failure:
                results.append(_failure(failure))
    except ClientFailure as failure:
        results.append(_failure(failure))
    await session.quit()
    return results


def _outcome(reply: Reply) -> str:
    return f'message accepted {reply.code} {reply.status}'.strip()


def _failure(failure: ClientFailure) -> str:
    reply = failure.reply
    return f'{failure.state} {failure.kind} {f"{reply.code} {reply.status}" if reply else ""}'.strip()


async def play(bench: LoopBench, dialogue: Dialogue, tls: ssl.SSLContext, one_by_one: bool) -> None:
    theirs, ours = bench.stream_pair()
    player = bench.reactor.spawn(Player(bench, theirs, tls, one_by_one).play(dialogue), 'player')
    results = await deliver(ours, dialogue)
    await player
    assert results == dialogue.results
    await bench.settle()
    assert theirs.take() == b'', 'the client says more than the dialogue'


@pytest.mark.parametrize(('path', 'shape'), CASES, ids=lambda value: getattr(value, 'stem', value))
def test_dialogue(path: Path, shape: str, server_tls: ssl.SSLContext) -> None:
    bench = LoopBench()
    try:
        bench.run(play(bench, read_dialogue(path), server_tls, shape == 'octets'))
    finally:
        bench.close()


@pytest.mark.parametrize(('right', 'wrong'), [
    ('C: QUIT', 'C: QUIT now'), ('C: DATA\n', 'C: DATA\nC: .\n'), ('C: QUIT\nS: 221 bye\n', ''),
    ('R: message accepted 250\n', 'R: message accepted 251\n')])
def test_a_wrong_dialogue_fails(tmp_path: Path, right: str, wrong: str, server_tls: ssl.SSLContext) -> None:
    text = (ROOT / 'tests/data/dialogues/client/dsn-unknown.txt').read_text()
    path = tmp_path / 'wrong.txt'
    path.write_text(text.replace(right, wrong))
    bench = LoopBench()
    try:
        with pytest.raises(AssertionError):
            bench.run(play(bench, read_dialogue(path), server_tls, False))
    finally:
        bench.close()
