"""Throws mutated AMQP at every decoder and at the state machine: ProtocolError may come out, and nothing else.

    python3 -m tests.peers.fuzz_amqp [--inputs 1000000] [--seed 1]

The material is the captured sessions of tests/data/amqp. An input is one mutated piece of it, or random octets, given
to one target; the seed decides all, so a finding is repeated by its seed and number. Prints a line of counts; a finding
ends the run with a traceback and exit status 1.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from typing import Callable

from mqlite.amqp.codec import FRAME_HEADER, FRAME_METHOD, ProtocolError, Reader, encode_frame, encode_table
from mqlite.amqp.connection import Connection
from mqlite.amqp.events import Failed
from mqlite.amqp.methods import decode_method, decode_properties, encode_method, encode_properties
from mqlite.amqp.uri import Address, parse_addresses
from mqlite.errors import ConfigError
from tests.support.amqp import CAPTURES, captured, confirming, frames

MAX_FRAMES = 12         # of the stream that one input to the machine is made of
ADDRESSES = ('amqp://user:pass@host:10000/v%2fhost?heartbeat=5&channel_max=7', 'amqps://[::1]:1,h;i/?verify=verify_peer',
             'amqp://u%C3%A9:p@a/b,amqp://c?auth_mechanism=plain&connection_timeout=10')
INTERESTING = (b'\0', b'\xff', b'\x7f', b'\x80', b'\xce', b'\0\0\0\0', b'\xff\xff\xff\xff', b'\x7f\xff\xff\xff', b'F',
               b'A', b'V')


class Fuzz:
    """The material, the random numbers, and one method per target; each returns what came out."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        streams = [side for name in CAPTURES for side in captured(name)]
        self.frames = [frame for stream in streams for frame in frames(stream)]
        self.payloads = [payload for kind, _, payload in self.frames if kind == FRAME_METHOD]
        self.blocks = [payload[12:] for kind, _, payload in self.frames if kind == FRAME_HEADER]
        self.tables = [encode_table({'a': [{'b': None}] * 3}), encode_table({'a': 1, 'b': 1.5, 'c': [True, b'x']})]
        self.targets: tuple[Callable[[], str], ...] = (
            self.method, self.method, self.properties, self.table, self.machine, self.machine, self.address)

    def mutate(self, data: bytes) -> bytes:
        """Up to four changes: an octet, something interesting, a cut, a repetition, noise, a splice."""
        pick = self.random.randrange
        for _ in range(pick(5)):
            at, how = pick(len(data) + 1), pick(6)
            if how == 0:
                data = data[:at] + bytes((pick(256),)) + data[at + 1:]
            elif how == 1:
                data = data[:at] + self.random.choice(INTERESTING) + data[at + pick(5):]
            elif how == 2:
                data = data[:at]
            elif how == 3:
                data = data[:at] + data[pick(len(data) + 1):]
            elif how == 4:
                data = data[:at] + self.random.getrandbits(64).to_bytes(8, 'big')[:pick(9)] + data[at:]
            else:
                data = data[:at] + self.random.choice(self.payloads)[:64] + data[at:]
        return data[:1 << 16]

    def method(self) -> str:
        payload = self.mutate(self.random.choice(self.payloads))
        row, fields = decode_method(payload, 0, len(payload))
        again = encode_method(row.name, fields)
        assert repr(decode_method(again, 0, len(again))) == repr((row, fields))     # repr, because NaN is not NaN
        return 'decoded'

    def properties(self) -> str:
        properties = decode_properties(self.mutate(self.random.choice(self.blocks)))
        assert repr(decode_properties(encode_properties(properties))) == repr(properties)
        return 'decoded'

    def table(self) -> str:
        octets = self.mutate(self.random.choice(self.tables))
        Reader(octets, 0, len(octets)).table()
        return 'decoded'

    def machine(self) -> str:
        """Some frames, a few of them mutated, one of them perhaps as octets; in pieces, at a machine in some state."""
        pick, start = self.random.randrange, self.random.randrange(len(self.frames))
        stream = b''.join(
            encode_frame(kind, number if pick(40) else pick(3), payload if pick(4) else self.mutate(payload))
            for kind, number, payload in self.frames[start:start + 1 + pick(MAX_FRAMES)])
        stream = stream if pick(3) else self.mutate(stream)
        connection, failed = self.some_machine(), False
        while stream:
            step = pick(len(stream)) + 1 if pick(2) else len(stream)
            events = connection.receive(stream[:step])
            assert not (failed and events), 'events after the end'
            failed = failed or bool(events) and isinstance(events[-1], Failed)
            assert failed <= (connection.state == 'closed')
            connection.data_to_send()
            stream = stream[step:]
        connection.eof()
        return 'failed' if failed else 'accepted'

    def some_machine(self) -> Connection:
        state = self.random.randrange(5)
        if state == 0:
            return Connection(Address())
        connection, channel = confirming()
        for name in ('queue.declare', 'basic.consume', 'basic.get', 'queue.bind')[self.random.randrange(4):]:
            channel.request(name, queue='q')
        for _ in range(self.random.randrange(6)):
            channel.publish('', 'q', b'x')
        if state == 1:
            channel.close()
        if state == 2:
            connection.close()
        return connection

    def address(self) -> str:
        text = self.mutate(self.random.choice(ADDRESSES).encode()).decode('utf-8', 'replace')
        try:
            for address in parse_addresses(text):
                str(address)
        except ConfigError:
            return 'refused'
        return 'accepted'


def run(inputs: int, seed: int) -> Counter[str]:
    """Counts of 'target outcome'. Anything but ProtocolError comes out as it is, with the input's number in a note."""
    fuzz, counts = Fuzz(seed), Counter[str]()
    for number in range(inputs):
        target = fuzz.targets[number % len(fuzz.targets)]
        try:
            outcome = target()
        except ProtocolError as error:
            assert 400 <= error.code < 600 and str(error)
            outcome = f'refused {error.code}'
        except Exception as error:
            raise AssertionError(f'input {number} of seed {seed}, target {target.__name__}: {error!r}') from error
        counts[f'{target.__name__} {outcome}'] += 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0] if __doc__ else None)
    parser.add_argument('--inputs', type=int, default=1_000_000)
    parser.add_argument('--seed', type=int, default=1)
    options = parser.parse_args()
    counts = run(options.inputs, options.seed)
    print(f'{options.inputs} inputs, seed {options.seed}: no finding')
    for what, count in sorted(counts.items()):
        print(f'{count:9}  {what}')


if __name__ == '__main__':
    main()
