"""Throws random and mutated SMTP dialogues at the server: no traceback, no hang, no reply outside the grammar.

    python3 -m tests.peers.fuzz_smtp [1000000] [--seed 1]

The material is what clients say in tests/data/dialogues. Three of four dialogues go to the command layer and the
readers of data alone; the fourth to the real server over loopback, many at a time, to a server whose settings the seed
chooses. Half of the clients wait for replies, the others send in pieces of any size. The seed decides all, so a finding
is repeated by its seed and number (only the interleaving of sessions is the kernel's). Prints a line of counts; a
finding ends the run with exit status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

from mqlite.smtp.clients import ClientLimits
from mqlite.smtp.commands import LINE_LIMIT, answer
from mqlite.smtp.framing import DataReader
from mqlite.smtp.reply import reply
from mqlite.smtp.server import LAST_WORDS_SECONDS
from mqlite.smtp.session import CHUNK, DATA, Limits, Session
from tests.support.dialogue import read_dialogue
from tests.support.process import ROOT
from tests.support.smtp import Bench, logins

AT_ONCE = 25            # dialogues with one server
HANG_SECONDS = 120      # of the wall clock, for one batch: nothing takes a second
LONGEST = 1 << 16       # octets of a dialogue

# RFC 5321 4.2: Reply-line, textstring, Reply-code, the greeting; 4.5.3.1.5: 512 octets with CRLF.
REPLY = re.compile(rb'''([2-5][0-5][0-9])(?:-[\t\x20-~]*\r\n
                         (?:\1-[\t\x20-~]*\r\n)*
                         \1)?(?:\x20[\t\x20-~]*)?\r\n''', re.VERBOSE)
LINE_MAX = 512

WORDS = [
    b'EHLO x\r\n', b'HELO [192.0.2.4]\r\n', b'MAIL FROM:<a@b>', b'MAIL FROM:<>', b'RCPT TO:<c@local.example>',
    b' SIZE=5', b' BODY=8BITMIME', b' SMTPUTF8', b' RET=HDRS', b' NOTIFY=NEVER', b' ORCPT=rfc822;x', b'\r\n', b'\r\n',
    b'\r\n', b'DATA\r\n', b'.\r\n', b'\r\n.\r\n', b'\n.\n', b'BDAT 5\r\n', b'BDAT 3 LAST\r\n',
    b'BDAT 99999999999999999999\r\n', b'RSET\r\n', b'NOOP\r\n', b'VRFY x\r\n', b'HELP\r\n', b'HELP MAIL\r\n',
    b'QUIT\r\n', b'STARTTLS\r\n', b'AUTH PLAIN ', b'AUTH LOGIN\r\n', b'AGpvZQBwdw==\r\n', b'*\r\n',
    b'GET / HTTP/1.1\r\n', b'PROXY TCP4 ', b'\n', b'\r', b'\0', b'\xff', b'.', b'"', b'<', b'>', b'@', b'\\', b'%',
    b'=', b'\xc3\xa9', b'\xe2\x80\xae', b'x-mq-tag: y\r\n', b'x-mq-queues: z\r\n', b'x-mq-maxattempts: \xc2\xb2\r\n',
    b'x' * 600, b'x' * 3000, b'a' * 70 + b'@', b'\t', b' ',
]


class Fuzz:
    """The material, and dialogues made of it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        dialogues = [read_dialogue(path) for path in sorted((ROOT / 'tests/data/dialogues').glob('*.txt'))]
        self.dialogues = [[turn.client for turn in dialogue.turns if turn.client] for dialogue in dialogues]
        self.turns = [turn for dialogue in self.dialogues for turn in dialogue]
        self.lines = sorted({line for turn in self.turns for line in turn.splitlines(keepends=True)})

    def dialogue(self) -> list[bytes]:
        """The turns of one: words at random, lines at random, or one of ours with its turns and octets changed."""
        pick = self.random.randrange
        how = pick(4)
        if how == 0:
            start = self.random.choice([b'', b'EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@local.example>\r\nDATA\r\n'])
            return (start + b''.join(self.random.choices(WORDS, k=1 + pick(40))))[:LONGEST].splitlines(keepends=True)
        if how == 1:
            return [self.mutate(line)[:LONGEST] for line in self.random.choices(self.lines, k=1 + pick(20))]
        turns = list(self.random.choice(self.dialogues))
        for _ in range(pick(4)):
            at, change = pick(len(turns) + 1), pick(4)
            if change == 0:
                turns.insert(at, self.random.choice(self.turns))
            elif change == 1:
                del turns[at:at + 1]
            elif change == 2:
                turns[at:at] = turns[at:at + 1]
            else:
                turns[at:at + 1] = [self.mutate(turn) for turn in turns[at:at + 1]]
        return [turn[:LONGEST] for turn in turns]

    def mutate(self, data: bytes) -> bytes:
        """Up to four changes: an octet, a word, a cut, a repetition, noise."""
        pick = self.random.randrange
        for _ in range(pick(5)):
            at, how = pick(len(data) + 1), pick(5)
            if how == 0:
                data = data[:at] + bytes((pick(256),)) + data[at + 1:]
            elif how == 1:
                data = data[:at] + self.random.choice(WORDS) + data[at + pick(5):]
            elif how == 2:
                data = data[:at] + data[at + pick(30):]
            elif how == 3:
                data = data[:at] + data[pick(len(data) + 1):][:2000]
            else:
                data = data[:at] + self.random.getrandbits(64).to_bytes(8, 'big')[:pick(9)] + data[at:]
        return data

    def limits(self) -> dict[str, Any]:
        pick = self.random.randrange
        return {'size': self.random.choice([50, 2000, 1 << 20]), 'recipients': 1 + pick(4),
                'errors': self.random.choice([1, 5, 50, 50]), 'commands': self.random.choice([2, 50]),
                'header': self.random.choice([30, 1 << 20]), 'hops': pick(3), 'dsn': pick(2) == 0,
                'loose': pick(2) == 0}

    def session(self) -> Session:
        pick = self.random.randrange
        return Session('mx.example', '192.0.2.7', 4242, ('192.0.2.1', 25), pick(2) == 0, Limits(**self.limits()),
                       _is_local, starttls=pick(2) == 0)

    def bench(self) -> Bench:
        pick = self.random.randrange
        return Bench(relay=pick(2) == 0, is_local=_is_local, desk=logins({'joe': 'pw'}) if pick(2) else None,
                     timeout=60.0, config={'min_rate': 500.0, 'normalises': pick(2) == 0},
                     admission={'client_limits': ClientLimits(0, 0, pick(2) * 30, pick(2) * 30),
                                'session_seconds': 900.0}, **self.limits())

    def pieces(self, turns: list[bytes]) -> Iterator[tuple[bytes, float]]:
        """A client's writes, and how long it waits before each: for replies, or not at all."""
        if self.random.randrange(2):
            yield from ((turn, 0.01) for turn in turns)
            return
        step, data = self.random.choice([1, 7, 100, 1000, LONGEST]), b''.join(turns)
        yield from ((data[at:at + step], 0.0) for at in range(0, len(data), step))


def _is_local(address: str) -> bool:
    return address.endswith('@local.example')


def check_replies(said: bytes) -> str:
    """The code of the last reply; AssertionError unless all is a greeting or refusal and complete replies behind it."""
    at, last = 0, b''
    while at < len(said):
        match = REPLY.match(said, at)
        assert match, f'not a reply: {said[at:at + 600]!r}'
        assert all(len(line) <= LINE_MAX for line in match[0].splitlines(keepends=True)), f'too long: {match[0]!r}'
        at, last = match.end(), match[0]
    return last[:3].decode()


def talk(session: Session, data: bytes, waits: bool) -> bytes:
    """What is said to it by the command layer and the readers of data, without a server."""
    said = session.greeting()
    while data and not session.ended:
        rest: bytes | None = None
        if session.then == DATA:
            reader = DataReader(session.limits.size)
            rest = reader.feed(data)
            if rest is not None:
                said += session.failed(reply('too-large', 0)) if reader.too_large else reply('ok')
                reader.body()
                session.reset()
        elif session.then == CHUNK:
            rest = _take_chunk(session, data)
            if rest is not None:
                said += session.chunk_ended() or reply('ok')
                session.then = ''
        elif not session.then:
            end = data.find(b'\n', 0, LINE_LIMIT) + 1
            session.pipelines = not (session.in_range or waits) and len(data) > end
            if end:
                said, rest = said + answer(session, data[:end]), data[end:]
        if rest is None:
            break  # the rest never comes
        data = rest
    return said


def _take_chunk(session: Session, data: bytes) -> bytes | None:
    assert session.chunk is not None
    octets, _last, refusal = session.chunk
    if session.chunks is None or refusal:
        return data[octets:] if len(data) >= octets else None
    session.chunks.expect(octets)
    return session.chunks.feed(data)


async def converse(bench: Bench, fuzz: Fuzz, turns: list[bytes]) -> bytes:
    """What the real server says to it until it closes; the client closes its sending side when it has said all."""
    stream = await bench.client(greeted=False)
    try:
        for piece, pause in fuzz.pieces(turns):
            await bench.quiet(pause)
            stream.write(piece)
            stream.flush()
        with contextlib.suppress(OSError):
            stream._sock.shutdown(1)
        said = await bench.read(stream, 1 << 22)
        assert stream.lost, 'the server says more than anybody can read'
        return said
    finally:
        stream.close()
        bench.clients.remove(stream)


def serve(fuzz: Fuzz, dialogues: list[list[bytes]]) -> list[str]:
    """All of them at once, with one server; the code of the last reply to each."""
    with fuzz.bench() as bench:
        async def everybody() -> list[bytes]:
            tasks = [bench.reactor.spawn(converse(bench, fuzz, turns)) for turns in dialogues]
            said = [await task for task in tasks]
            await bench.quiet(LAST_WORDS_SECONDS + 1)
            assert len(bench.server) == 0, 'a session goes on without its client'
            return said

        return [check_replies(said) for said in bench.run(everybody())]


def run(inputs: int, seed: int) -> Counter[str]:
    """Counts of 'target code of the last reply'."""
    fuzz, counts = Fuzz(seed), Counter[str]()
    before = signal.signal(signal.SIGALRM, _hang)
    try:
        for first in range(0, inputs, AT_ONCE * 4):
            signal.alarm(HANG_SECONDS)
            run_batch(fuzz, counts, seed, first, min(first + AT_ONCE * 4, inputs))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return counts


def run_batch(fuzz: Fuzz, counts: Counter[str], seed: int, first: int, end: int) -> None:
    among = min(first + AT_ONCE, end)
    served = [fuzz.dialogue() for _ in range(first, among)]
    try:
        counts.update(f'server {code}' for code in serve(fuzz, served))
    except Exception as error:
        raise AssertionError(f'inputs {first} to {among} of seed {seed}, server: {error!r}') from error
    for number in range(among, end):
        data, waits = b''.join(fuzz.dialogue()), fuzz.random.randrange(2) == 0
        try:
            counts[f'commands {check_replies(talk(fuzz.session(), data, waits))}'] += 1
        except Exception as error:
            raise AssertionError(f'input {number} of seed {seed}, commands: {error!r}, {data!r}') from error


def _hang(_number: int, _frame: object) -> None:
    raise AssertionError(f'nothing has come of a batch in {HANG_SECONDS} seconds')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0] if __doc__ else None)
    parser.add_argument('inputs', type=int, nargs='?', default=1_000_000)
    parser.add_argument('--seed', type=int, default=1)
    options = parser.parse_args()
    counts = run(options.inputs, options.seed)
    print(f'{options.inputs} dialogues, seed {options.seed}: no finding')
    for what, count in sorted(counts.items()):
        print(f'{count:9}  {what}')


if __name__ == '__main__':
    main()
