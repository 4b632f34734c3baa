"""A hundred mail exchangers and their name server, in one process of its own: `python -m tests.support.farm PORT`.

Exchanger k of the farm is mxK.farm.test at 127.7.0.K and the port given; dN.eK.farm.test are domains of it. The last
twelve do not behave: five answer each message after SLOW_SECONDS, three take connections and say nothing, two refuse
them, one takes BUSY connections and turns others away, and one (`paced`) notes when its messages came.

Prints `READY DNS-PORT`; each line on standard input is answered with the counts so far, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any, cast

from tests.support import dns

EXCHANGERS = 100
SLOW, MUTE, REFUSING = range(88, 93), range(93, 96), range(96, 98)
BUSY, PACED = 98, 99
SLOW_SECONDS, BUSY_CONNECTIONS = 5.0, 4


def address(number: int) -> str:
    return f'127.7.0.{number + 1}'


class Farm:
    def __init__(self) -> None:
        self.taken: Counter[int] = Counter()
        self.connects: Counter[int] = Counter()
        self.open: Counter[int] = Counter()
        self.most_open: Counter[int] = Counter()
        self.refused: Counter[int] = Counter()
        self.last: dict[int, float] = {}
        self.paced: list[float] = []
        self.begin = 0.0

    def took(self, number: int) -> None:
        now = time.monotonic()
        self.begin = self.begin or now
        self.taken[number] += 1
        self.last[number] = now - self.begin
        if number == PACED:
            self.paced.append(now - self.begin)

    def report(self) -> str:
        return json.dumps({'taken': self.taken, 'connects': self.connects, 'most_open': self.most_open,
                           'refused': self.refused, 'last': self.last, 'paced': self.paced})


class Exchanger(asyncio.Protocol):
    """Takes everything, as fast as it comes."""

    def __init__(self, farm: Farm, number: int) -> None:
        self.farm, self.number = farm, number
        self.buffer = b''
        self.in_data = self.owing = False     # owing: the answer to a message, before which nothing else is answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        farm, number = self.farm, self.number
        farm.connects[number] += 1
        farm.open[number] += 1
        if number == BUSY and farm.open[number] > BUSY_CONNECTIONS:
            farm.refused[number] += 1
            self.transport.write(b'421 4.7.0 too many connections\r\n')
            self.transport.close()
        elif number not in MUTE:
            farm.most_open[number] = max(farm.most_open[number], farm.open[number])
            self.transport.write(b'220 mx ESMTP\r\n')

    def connection_lost(self, error: Exception | None) -> None:
        self.farm.open[self.number] -= 1

    def data_received(self, data: bytes) -> None:
        if self.number in MUTE:
            return
        self.buffer += data
        out = b''
        while not self.owing:
            end = b'\r\n.\r\n' if self.in_data else b'\r\n'
            head, found, rest = self.buffer.partition(end)
            if not found:
                break
            self.buffer = rest
            if self.in_data:
                self.in_data = False
                if self.number in SLOW:
                    self.owing = True
                    asyncio.get_running_loop().call_later(SLOW_SECONDS, self.answer_late)
                else:
                    self.farm.took(self.number)
                    out += b'250 2.0.0 kept\r\n'
            else:
                out += self.reply(head.upper())
        if out:
            self.transport.write(out)

    def reply(self, line: bytes) -> bytes:
        if line.startswith(b'EHLO'):
            return b'250-mx\r\n250 PIPELINING\r\n'
        if line == b'DATA':
            self.in_data = True
            return b'354 go\r\n'
        return b'221 bye\r\n' if line == b'QUIT' else b'250 ok\r\n'

    def answer_late(self) -> None:
        self.farm.took(self.number)
        self.transport.write(b'250 2.0.0 kept\r\n')
        self.owing = False
        self.data_received(b'')


class NameServer(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, peer: Any) -> None:
        query = dns.read_query(data)
        labels = query.name.split('.')
        number = int(labels[-3][1:].lstrip('x'))
        if query.type == 'MX' and len(labels) == 4:
            answers = [dns.mx(query.name, 10, f'mx{number}.farm.test')]
        elif query.type == 'A' and len(labels) == 3:
            answers = [dns.address(query.name, address(number))]
        else:
            answers = []
        self.transport.sendto(dns.reply(query.id, query.name, query.type, *answers,
                                        authority=[] if answers else [dns.soa('farm.test', 600, 600)]), peer)


async def main(port: int) -> None:
    farm, loop = Farm(), asyncio.get_running_loop()

    def maker(number: int) -> Any:
        return lambda: Exchanger(farm, number)
    for number in range(EXCHANGERS):
        if number not in REFUSING:
            await loop.create_server(maker(number), address(number), port, backlog=200)
    transport, _ = await loop.create_datagram_endpoint(NameServer, ('127.0.0.1', 0))
    print('READY', transport.get_extra_info('sockname')[1], flush=True)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print(farm.report(), flush=True)


if __name__ == '__main__':
    asyncio.run(main(int(sys.argv[1])))
