"""The AMQP driver against a broker that is a plain socket in the test's hands: order, silence, broken brokers."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from mqlite.amqp import client
from mqlite.amqp.client import BrokerError, BrokerRefused, Link
from mqlite.amqp.events import Event
from mqlite.amqp.uri import Address
from mqlite.errors import MqliteError
from mqlite.loop.connect import connect
from mqlite.loop.task import sleep
from tests.support.amqp import START, method, tune
from tests.support.loop import LoopBench
from tests.support.process import HOST

OPEN_OK = method(0, 'connection.open-ok')


class Bench(LoopBench):
    """`broker` is the other end of the link, once it is connected; `first` is sent before the link's reader begins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.links: list[Link] = []
        self.first = b''
        self.broker = socket.socket()
        self._server = socket.create_server((HOST, 0))
        monkeypatch.setattr(client, 'connect', self._connect)

    async def _connect(self, *arguments: Any, **options: Any) -> Any:
        stream = await connect(*arguments, **options)
        self.broker.close()
        self.broker, _ = self._server.accept()
        self.broker.settimeout(5)
        self.broker.sendall(self.first)
        return stream

    def link(self, **address: Any) -> Link:
        port = self._server.getsockname()[1]
        self.links.append(Link(self.reactor, Address(host=HOST, port=port, **address), self.events.append))
        return self.links[-1]

    async def opened(self, **address: Any) -> Link:
        self.first = START + tune(heartbeat=address.get('heartbeat', 0)) + OPEN_OK
        link = self.link(**address)
        await link.open(HOST, True)
        return link

    def close(self) -> None:
        for link in self.links:
            link.drop('the end')
        self.broker.close()
        self._server.close()
        super().close()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with contextlib.closing(Bench(monkeypatch)) as made:
        yield made


def test_a_broker_that_answers_before_we_listen_is_heard(bench: Bench) -> None:
    bench.run(bench.opened())


@pytest.mark.parametrize(('first', 'kind', 'text'), [
    (b'',                                  BrokerError,   'no answer within 20 s'),
    (b'220 mail.example ESMTP\r\n',        BrokerError,   'octet|frame|220|AMQP'),
    (START,                                BrokerError,   'no answer within 20 s'),
    (START + method(0, 'connection.close', reply_code=403, reply_text='ACCESS_REFUSED', class_id=0, method_id=0),
     BrokerRefused, 'check the user and the password in queue-address'),
    (START + tune() + method(0, 'connection.close', reply_code=530, reply_text='NOT_ALLOWED', class_id=0, method_id=0),
     BrokerRefused, 'check the virtual host in queue-address'),
], ids=['silent', 'another protocol', 'silent after start', 'refused', 'no virtual host'])
def test_a_broker_that_does_not_let_us_in(bench: Bench, first: bytes, kind: type[MqliteError], text: str) -> None:
    bench.first = first
    link = bench.link()
    with pytest.raises(kind, match=text):
        bench.run(link.open(HOST, True))
    assert link.ended.done and 'guest' not in str(link.ended.result()).replace('guest@', '')


def test_a_silent_broker_is_given_up_after_two_heartbeats_and_not_before(bench: Bench) -> None:
    async def main() -> None:
        link = await bench.opened(heartbeat=10)
        await sleep(bench.reactor, 15)
        bench.broker.sendall(b'\x08\0\0\0\0\0\0\xce')          # a heartbeat
        await sleep(bench.reactor, 19)
        assert not link.ended.done
        await sleep(bench.reactor, 2)
        assert 'silent for two heartbeats' in str(link.ended.result())
        received = bench.broker.recv(65536)
        assert received.count(b'\x08\0\0\0\0\0\0\xce') >= 5      # ours

    bench.run(main())


def test_heartbeats_that_we_do_not_want_are_neither_sent_nor_missed(bench: Bench) -> None:
    async def main() -> None:
        bench.first = START + tune(heartbeat=60) + OPEN_OK
        link = bench.link(heartbeat=0)
        await link.open(HOST, True)
        await sleep(bench.reactor, 3600)
        assert not link.ended.done
        assert b'\x08\0\0\0\0\0\0\xce' not in bench.broker.recv(65536)

    bench.run(main())


@pytest.mark.parametrize('end', ['closed', 'broken', 'forced'])
def test_whoever_waits_for_an_answer_is_told_when_the_link_ends(bench: Bench, end: str) -> None:
    async def main() -> None:
        link = await bench.opened()
        asking = bench.reactor.spawn(link.channel())
        await bench.settle()
        if end == 'closed':
            bench.broker.close()
        elif end == 'broken':
            bench.broker.sendall(b'x' * 8)
        else:
            bench.broker.sendall(method(0, 'connection.close', reply_code=320, reply_text='FORCED', class_id=0,
                                        method_id=0))
        with pytest.raises(BrokerError):
            await asking
        assert link.ended.done
        with pytest.raises(MqliteError):
            await link.channel()

    bench.run(main())


def bug(_event: Event) -> None:
    raise KeyError('bug')


def test_a_mistake_of_the_owner_ends_the_link_and_is_reported(bench: Bench) -> None:
    async def main() -> None:
        link = await bench.opened()
        link._on_event = bug
        bench.broker.sendall(method(0, 'connection.blocked', reason='memory'))
        await link.ended

    bench.run(main())
    assert len(bench.errors) == 1 and "KeyError('bug')" in bench.errors[0]
    bench.errors.clear()
