"""The listener and the dialler: refused, silent, from a source address, IPv6, out of descriptors."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from collections.abc import Iterator
from typing import Callable

import pytest

from mqlite.loop.connect import CannotBind, Listener, ListenSocket, connect
from mqlite.loop.stream import ConnectionLost, Stream
from mqlite.loop.task import Cancelled, Timeout, sleep
from tests.support.loop import LoopBench, open_descriptors
from tests.support.process import HOST, free_port


class ListenBench(LoopBench):
    """A bench that listens and keeps what it has accepted."""

    def __init__(self) -> None:
        super().__init__()
        self.accepted: list[Stream] = []
        self.trouble: list[str] = []

    def listen(self, address: str = HOST, on_accept: Callable[[Stream], object] | None = None) -> Listener:
        listener = Listener(self.reactor, ListenSocket(address, 0), on_accept or self.accepted.append,
                            self.trouble.append)
        self._closing.callback(self._close_accepted)
        self._closing.callback(listener.close)
        listener.start()
        return listener

    def _close_accepted(self) -> None:
        for stream in self.accepted:
            stream.close()


@pytest.fixture
def bench(closing: contextlib.ExitStack) -> ListenBench:
    made = ListenBench()
    closing.callback(made.close)
    return made


@pytest.mark.parametrize('address', [HOST, '::1'])
def test_both_ends_know_each_other_and_bytes_pass(bench: ListenBench, address: str) -> None:
    listener = bench.listen(address)

    async def main() -> None:
        with contextlib.closing(await connect(bench.reactor, address, listener.port)) as stream:
            await bench.settle()
            [other] = bench.accepted
            assert stream.peer == other.local == (address, listener.port)
            assert stream.local == other.peer
            stream.write(b'hello\n')
            await stream.drain()
            await other.wait_bytes()
            assert other.next_line(100) == b'hello\n'

    bench.run(main())


@pytest.mark.parametrize('address', [HOST, '0.0.0.0'])
def test_accepted_connections_send_at_once_and_know_their_end(bench: ListenBench, address: str) -> None:
    """TCP_NODELAY is set on the listening socket only, and the kernel hands it on."""
    listener = bench.listen(address)

    async def main() -> None:
        with contextlib.closing(await connect(bench.reactor, HOST, listener.port)):
            await bench.settle()
            [taken] = bench.accepted
            with socket.socket(fileno=os.dup(taken.fileno())) as same:
                assert same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert taken.local == same.getsockname() == (HOST, listener.port)

    bench.run(main())


def test_connecting_from_a_source_address(bench: ListenBench) -> None:
    listener = bench.listen()

    async def main() -> None:
        with contextlib.closing(await connect(bench.reactor, HOST, listener.port, source='127.0.0.9')):
            await bench.settle()
        assert [stream.peer[0] for stream in bench.accepted] == ['127.0.0.9']

    bench.run(main())


@pytest.mark.parametrize(('source', 'text'), [('192.0.2.77', '192.0.2.77'), ('::1', '::1')])
def test_a_source_address_that_is_not_ours(bench: ListenBench, source: str, text: str) -> None:
    async def main() -> None:
        before = open_descriptors()
        with pytest.raises(CannotBind, match=text):
            await connect(bench.reactor, HOST, free_port(), source=source)
        assert open_descriptors() == before

    bench.run(main())


def test_refused(bench: ListenBench) -> None:
    async def main() -> None:
        before = open_descriptors()
        with pytest.raises(ConnectionRefusedError):
            await connect(bench.reactor, HOST, free_port())
        assert open_descriptors() == before

    bench.run(main())


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that does not answer: its backlog is full, and the kernel drops what else comes."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind((HOST, 0))
        server.listen(0)
        for _ in range(8):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def test_silence_is_a_time_out_and_leaves_nothing_open(bench: ListenBench, silent: int) -> None:
    async def main() -> None:
        before = open_descriptors()
        with pytest.raises(Timeout, match=f'no answer from {HOST} port {silent} in 300 s'):
            await connect(bench.reactor, HOST, silent, seconds=300)
        assert bench.reactor.now() == 300
        assert open_descriptors() == before

    bench.run(main())
    assert len(bench.reactor._timers) == 0


def test_cancelled_while_connecting(bench: ListenBench, silent: int) -> None:
    async def main() -> None:
        before = open_descriptors()
        task = bench.reactor.spawn(connect(bench.reactor, HOST, silent, seconds=300))
        await bench.settle()
        task.cancel()
        with pytest.raises(Cancelled):
            await task
        assert open_descriptors() == before

    bench.run(main())
    assert len(bench.reactor._timers) == 0


def test_a_port_in_use(bench: ListenBench) -> None:
    listener = bench.listen()
    before = open_descriptors()
    with pytest.raises(OSError) as caught:
        ListenSocket(HOST, listener.port)
    assert caught.value.errno == errno.EADDRINUSE
    assert open_descriptors() == before


def test_clients_wait_in_the_backlog_until_start_and_none_is_taken_after_close(bench: ListenBench) -> None:
    listener = Listener(bench.reactor, ListenSocket(HOST, 0), bench.accepted.append, print)

    async def main() -> None:
        with contextlib.closing(await connect(bench.reactor, HOST, listener.port)) as stream:
            await bench.settle()
            assert bench.accepted == []
            listener.start()
            await bench.settle()
            [other] = bench.accepted
            listener.close()
            listener.close()
            listener.start()
            with pytest.raises(ConnectionRefusedError):
                await connect(bench.reactor, HOST, listener.port)
            other.close()
            with pytest.raises(ConnectionLost):
                await stream.wait_bytes()

    bench.run(main())


def connect_clients(stack: contextlib.ExitStack, listener: Listener, count: int) -> None:
    for _ in range(count):
        stack.enter_context(socket.create_connection((HOST, listener.port)))


def test_a_busy_listener_leaves_clients_to_others_for_a_moment(bench: ListenBench) -> None:
    place = ListenSocket(HOST, 0)
    others: list[Stream] = []
    busy = Listener(bench.reactor, place.copy(), bench.accepted.append, print, lambda: True)
    idle = Listener(bench.reactor, place, others.append, print, lambda: False)

    async def main() -> None:
        with contextlib.ExitStack() as stack:
            busy.start()
            connect_clients(stack, busy, 1)
            await sleep(bench.reactor, 0.001)
            assert bench.accepted == []
            await sleep(bench.reactor, 0.002)
            assert len(bench.accepted) == 1         # nobody has taken it
            idle.start()
            connect_clients(stack, busy, 5)
            await sleep(bench.reactor, 0.001)
            assert len(bench.accepted) == 1 and len(others) == 5
            busy.close()
            await sleep(bench.reactor, 0.01)        # the moment of grace ends after the end

    bench.run(main())
    idle.close()
    for stream in bench.accepted + others:
        stream.close()


def test_a_listener_takes_what_waits_until_it_is_the_busiest(bench: ListenBench) -> None:
    listener = Listener(bench.reactor, ListenSocket(HOST, 0), bench.accepted.append, print,
                        lambda: len(bench.accepted) >= 3)

    async def main() -> None:
        with contextlib.ExitStack() as stack:
            connect_clients(stack, listener, 5)
            listener.start()
            await sleep(bench.reactor, 0.001)
            assert len(bench.accepted) == 3
            await sleep(bench.reactor, 0.002)
            assert len(bench.accepted) == 4
            listener.close()

    bench.run(main())
    for stream in bench.accepted:
        stream.close()


def test_a_listener_may_close_itself_while_it_accepts(bench: ListenBench) -> None:
    def accept(stream: Stream) -> None:
        bench.accepted.append(stream)
        listener.close()

    listener = bench.listen(on_accept=accept)

    async def main() -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                client = stack.enter_context(socket.socket())
                client.connect((HOST, listener.port))
            await bench.settle()
        assert len(bench.accepted) == 1

    bench.run(main())
    assert bench.trouble == []


def test_a_stream_that_nobody_took_is_closed(bench: ListenBench) -> None:
    def refuse(_stream: Stream) -> None:
        raise ValueError('a bug')

    listener = bench.listen(on_accept=refuse)

    async def main() -> None:
        before = open_descriptors()
        with socket.create_connection((HOST, listener.port)) as client:
            await bench.settle()
            assert client.recv(1) == b''
        assert open_descriptors() == before

    bench.run(main())
    [error] = bench.errors
    assert "ValueError('a bug') in Listener._ready" in error
    bench.errors.clear()


def test_many_clients_at_once_all_get_in(bench: ListenBench) -> None:
    listener = bench.listen()

    async def main() -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(150):
                stack.enter_context(socket.create_connection((HOST, listener.port)))
            for _ in range(5):
                await bench.settle()
            assert len(bench.accepted) == 150

    bench.run(main())


@contextlib.contextmanager
def descriptors_used_up(left: int) -> Iterator[None]:
    """No more than `left` descriptors can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir('/dev/fd'))
    plugs = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                plugs.append(os.dup(0))
        for _ in range(left):
            os.close(plugs.pop())
        yield
    finally:
        for plug in plugs:
            os.close(plug)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_out_of_descriptors_is_a_pause_and_no_busy_loop(bench: ListenBench, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = bench.listen()
    turns: list[float] = []
    turn = bench.reactor._turn

    def counted() -> None:
        turns.append(bench.reactor.now())
        turn()

    monkeypatch.setattr(bench.reactor, '_turn', counted)

    async def main() -> None:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection((HOST, listener.port))) for _ in range(3)]
            with descriptors_used_up(left=1):
                await sleep(bench.reactor, 2.5)
                assert len(bench.accepted) == 1
                with pytest.raises(OSError) as caught:
                    await connect(bench.reactor, HOST, listener.port)
                assert caught.value.errno == errno.EMFILE
            assert len(turns) < 15
            await sleep(bench.reactor, 1)
            assert len(bench.accepted) == len(clients)

    bench.run(main())
    assert set(bench.trouble) == {'cannot accept connections: Too many open files; trying again in 1 s'}
    assert len(bench.trouble) == 3


def test_closing_during_the_pause(bench: ListenBench) -> None:
    listener = bench.listen()

    async def main() -> None:
        with socket.create_connection((HOST, listener.port)):
            with descriptors_used_up(left=0):
                await bench.settle()
            listener.close()
            await sleep(bench.reactor, 5)
        assert bench.accepted == []

    bench.run(main())
    assert len(bench.trouble) == 1
