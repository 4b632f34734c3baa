"""The SMTP server's driver: limits, deadlines by the virtual clock, shutting down, and clients that mean harm."""

from __future__ import annotations

import pytest

from mqlite.loop.stream import Stream
from mqlite.smtp.admission import SILENT_SECONDS
from mqlite.smtp.commands import LINE_LIMIT
from mqlite.smtp.server import FAREWELLS, LAST_WORDS_SECONDS, OUTPUT_LIMIT
from mqlite.smtp.session import Session
from tests.support.smtp import GREETING, Bench

ENVELOPE = (b'HELO client.example', b'MAIL FROM:<a@client.example>', b'RCPT TO:<b@example.org>', b'DATA')
SHUTDOWN = b'421 4.3.2 The server is shutting down, try again later\r\n'
TOO_SLOW = b'421 4.4.2 Too slow, closing the connection\r\n'
TOO_BUSY = b'421 4.7.0 Too many connections, try again later\r\n'
INTERNAL = b'421 4.3.0 Internal error, closing the connection, try again later\r\n'

def accepted_by(bench: Bench) -> list[Stream]:
    """The server's ends of the connections that will be made."""
    accepted: list[Stream] = []
    serve = bench.server.accept

    def accept(stream: Stream) -> None:
        accepted.append(stream)
        serve(stream)

    bench.listener._on_accept = accept
    return accepted


# who may do what

def test_who_may_relay_is_asked_with_the_address() -> None:
    sessions: list[Session] = []

    async def receive(session: Session, data: bytes) -> bytes:
        sessions.append(session)
        return b'250 2.0.0 Ok\r\n'

    async def client() -> None:
        stream = await bench.client()
        assert await bench.talk(stream, *ENVELOPE, b'.') == b'250 250 250 354 250'
        assert stream.local[1] == sessions[0].client_port

    with Bench(receive) as bench:
        bench.run(client())
    assert sessions[0].client == '127.0.0.1' and sessions[0].local == ('127.0.0.1', bench.listener.port)


# limits

@pytest.mark.parametrize(('length', 'code'),
                         [(LINE_LIMIT, b'250'), (LINE_LIMIT + 1, b'500'), (10 * LINE_LIMIT, b'500')])
def test_length_of_a_line(length: int, code: bytes) -> None:
    async def client() -> None:
        stream = await bench.client()
        line = b'NOOP '.ljust(length - 2, b'x')
        assert await bench.talk(stream, line, b'NOOP') == code + b' 250'

    with Bench() as bench:
        bench.run(client())


def test_an_endless_line_has_no_more_time_than_a_command() -> None:
    async def client() -> None:
        stream = await bench.client()
        for _ in range(10):
            stream.write(bytes(65536))
            await stream.drain()
            await bench.quiet(29.0)
        assert bench.clock.elapsed < 300
        assert await bench.read(stream, 100) == TOO_SLOW

    with Bench() as bench:
        bench.run(client())


@pytest.mark.parametrize('command', [b'HELP\r\n', b'NOOP\r\n', b'EHLO x\r\n', b'VRFY x\r\n'])
def test_a_client_that_does_not_read_is_not_read_from(command: bytes) -> None:
    """Its replies wait in the kernel and, up to a bound, with us; then it has to take them, or its time runs out."""
    async def client() -> None:
        stream = await bench.client()
        stream._want(0)  # the client's kernel takes what it can, the client takes nothing
        for _ in range(1000):
            stream.write(command * 4096)
            stream.flush()
            await bench.quiet(0)
            if stream.unsent > 1 << 20:
                break
        assert stream.unsent > 1 << 20, 'the server reads on'
        assert max(other.unsent for other in accepted) < 8 * OUTPUT_LIMIT
        await bench.quiet(300 + LAST_WORDS_SECONDS + 1)
        assert len(bench.server) == 0 and all(other.closed for other in accepted)

    with Bench() as bench:
        accepted = accepted_by(bench)
        bench.run(client())


def test_a_slow_reader_gets_every_reply() -> None:
    count = 30000

    async def client() -> None:
        stream = await bench.client()
        stream.write(b'HELP\r\n' * count + b'QUIT\r\n')
        stream.flush()
        await bench.quiet(100)
        said = await bench.read(stream, 1 << 30)
        assert said.count(b'214 2.0.0 QUIT\r\n') == count and said.endswith(b'221 2.0.0 Bye\r\n')

    with Bench() as bench:
        bench.run(client())


def test_too_many_connections() -> None:
    async def client() -> None:
        first = await bench.client()
        await bench.client()
        third = await bench.client(greeted=False)
        assert await bench.read(third, 100) == TOO_BUSY and third.lost
        assert await bench.talk(first, b'QUIT') == b'221'
        await bench.client()
        assert len(bench.server) == 2

    with Bench(connections=2) as bench:
        bench.run(client())


def test_the_other_direction_has_its_share() -> None:
    async def client() -> None:
        for _ in range(18):
            await bench.client()
        third = await bench.client(greeted=False)
        assert await bench.read(third, 100) == TOO_BUSY
        for _ in range(2):
            assert not bench.shares.outgoing.full
            bench.shares.outgoing.take()
        bench.shares.outgoing.give_back()
        assert await bench.talk(bench.clients[0], b'QUIT') == b'221'
        await bench.client()
        await bench.quiet(LAST_WORDS_SECONDS)
        assert bench.shares.incoming.used == len(bench.server) == 18

    with Bench(connections=20) as bench:
        bench.run(client())
    assert bench.shares.incoming.used == 0


@pytest.mark.parametrize('said', [(), ENVELOPE[:1], ENVELOPE[:3], ENVELOPE])
def test_the_silent_make_room(said: tuple[bytes, ...]) -> None:
    """The one that has been silent for longest goes; who talks, or waits for us, stays."""
    async def client() -> None:
        waiting = await bench.client()
        await bench.talk(waiting, *ENVELOPE)
        waiting.write(b'.\r\n')
        waiting.flush()
        bench.store.held = True
        silent = []
        for _ in range(3):
            await bench.quiet(3.0)
            silent.append(await bench.client())
            await bench.talk(silent[-1], *said)
        await bench.quiet(6.0)
        silent[0].write(b'NOOP\r\n')
        silent[0].flush()
        late = await bench.client(greeted=False)
        assert await bench.read(late, 100) == TOO_BUSY, 'nobody was silent for long enough'
        await bench.quiet(SILENT_SECONDS - 8.5)
        begin = bench.clock.elapsed
        await bench.client()
        assert await bench.read(silent[1], 100) == TOO_BUSY and not silent[0].lost and not silent[2].lost
        late = await bench.client(greeted=False)
        assert await bench.read(late, 100) == TOO_BUSY
        assert bench.clock.elapsed - begin < 1
        bench.store.keep_all()
        assert (await bench.ask(waiting, b''))[-1][:4] == b'250 '

    with Bench(connections=4) as bench:
        bench.run(client())


def test_stalled_clients_give_their_places_to_many() -> None:
    async def client() -> None:
        for _ in range(90):
            await bench.talk(await bench.client(), *ENVELOPE)
        await bench.quiet(SILENT_SECONDS)
        begin = bench.clock.elapsed
        for _ in range(90):
            assert await bench.talk(await bench.client(), *ENVELOPE, b'.') == b'250 250 250 354 250'
        assert bench.clock.elapsed - begin < 1 and len(bench.server) == 90

    with Bench(connections=100, timeout=1e6) as bench:
        bench.run(client())


def test_those_that_are_sent_away_do_not_pile_up() -> None:
    async def client() -> None:
        await bench.client()
        for _ in range(FAREWELLS + 50):
            await bench.client(greeted=False)
        await bench.quiet()
        open_still = [stream for stream in accepted if not stream.closed]
        assert len(open_still) == FAREWELLS + 1
        assert await bench.read(bench.clients[-1], 100) == TOO_BUSY
        await bench.quiet(LAST_WORDS_SECONDS + 1)
        assert len([stream for stream in accepted if not stream.closed]) == 1

    with Bench(connections=1) as bench:
        accepted = accepted_by(bench)
        bench.run(client())


def test_a_refused_client_reads_why_though_it_has_sent_much() -> None:
    """Closing with unread input would be a reset, and the reply would be lost."""
    async def client() -> None:
        await bench.client()
        stream = await bench.client(greeted=False)
        stream.write(b'EHLO x\r\n' * 20000)
        stream.flush()
        assert await bench.read(stream, 100) == TOO_BUSY

    with Bench(connections=1) as bench:
        bench.run(client())


def test_too_many_errors_are_told_though_more_was_sent() -> None:
    async def client() -> None:
        stream = await bench.client()
        stream.write(b'what\r\n' * 50000)
        stream.flush()
        said = await bench.read(stream, 1 << 20)
        assert said.count(b'500 5.5.2') == 20
        assert said.endswith(b'421 4.7.0 Too many errors, closing the connection\r\n')

    with Bench() as bench:
        bench.run(client())


# time

@pytest.mark.parametrize('said', [(), ENVELOPE[:1], ENVELOPE[:3], ENVELOPE, (b'NOOP',)])
def test_silence(said: tuple[bytes, ...]) -> None:
    async def client() -> None:
        stream = await bench.client()
        await bench.talk(stream, *said)
        begin = bench.clock.elapsed
        assert await bench.read(stream, 100) == b'421 4.4.2 Too slow, closing the connection\r\n'
        assert 59 <= bench.clock.elapsed - begin <= 61

    with Bench(timeout=60.0) as bench:
        bench.run(client())
        assert bench.store.queues == {}


def test_a_command_that_dribbles_in_has_no_more_time() -> None:
    async def client() -> None:
        stream = await bench.client()
        for _ in range(7):
            stream.write(b'N')
            stream.flush()
            await bench.quiet(9.0)
        assert await bench.read(stream, 100) == TOO_SLOW
        assert bench.clock.elapsed < 70

    with Bench(timeout=60.0) as bench:
        bench.run(client())


def test_data_that_goes_on_arriving_has_time_for_each_piece() -> None:
    async def client() -> None:
        stream = await bench.client()
        await bench.talk(stream, *ENVELOPE)
        for _ in range(10):
            stream.write(b'line\r\n')
            stream.flush()
            await bench.quiet(50.0)
        assert await bench.talk(stream, b'.') == b'250'

    with Bench(timeout=60.0) as bench:
        bench.run(client())


def test_keeping_may_take_longer_than_the_client_may() -> None:
    """The client's time begins anew when it has its reply."""
    async def client() -> None:
        stream = await bench.client()
        await bench.talk(stream, *ENVELOPE)
        stream.write(b'.\r\n')
        stream.flush()
        await bench.quiet(500.0)
        bench.store.keep_all()
        assert (await bench.ask(stream, b''))[-1][:4] == b'250 '
        await bench.quiet(50.0)
        assert await bench.talk(stream, b'NOOP') == b'250'
        assert await bench.read(stream, 100) == TOO_SLOW

    with Bench(timeout=60.0) as bench:
        bench.store.held = True
        bench.run(client())


# the end

def test_stop_says_421_to_the_idle_and_finishes_messages() -> None:
    async def client() -> None:
        idle, sending, keeping = [await bench.client() for _ in range(3)]
        await bench.talk(idle, *ENVELOPE[:3])
        await bench.talk(sending, *ENVELOPE)
        await bench.talk(keeping, *ENVELOPE)
        keeping.write(b'kept\r\n.\r\nNOOP\r\n')
        keeping.flush()
        bench.store.held = True
        await bench.quiet()
        stop = bench.reactor.spawn(bench.server.stop(60.0))
        assert await bench.read(idle, 100) == SHUTDOWN
        late = await bench.client(greeted=False)
        assert await bench.read(late, 100) == SHUTDOWN
        bench.store.keep_all()
        bench.store.held = False
        assert (await bench.ask(keeping, b''))[-1][:4] == b'250 '
        assert await bench.read(keeping, 100) == SHUTDOWN
        assert not stop.done and len(bench.server) == 1
        assert await bench.talk(sending, b'sent\r\n.') == b'250'
        assert await bench.read(sending, 100) == SHUTDOWN
        await stop
        assert len(bench.server) == 0

    with Bench() as bench:
        bench.run(client())
        assert len(bench.documents()) == 2


@pytest.mark.parametrize('held', [False, True])
def test_stop_has_a_bound(held: bool) -> None:
    """After it, who is still sending gets 421, and so does who waits for the store: it may come twice, never not."""
    async def client() -> None:
        stream = await bench.client()
        await bench.talk(stream, *ENVELOPE)
        stream.write(b'line\r\n' + (b'.\r\n' if held else b''))
        stream.flush()
        await bench.quiet()
        begin = bench.clock.elapsed
        await bench.server.stop(30.0)
        assert 29 <= bench.clock.elapsed - begin <= 31
        assert await bench.read(stream, 100) == SHUTDOWN

    with Bench() as bench:
        bench.store.held = held
        bench.run(client())


def test_stop_in_the_turn_of_an_accept() -> None:
    """A session that has not begun when it is told to end must end nevertheless."""
    async def client() -> None:
        stops = []
        serve = bench.server.accept

        def stop_and_accept(stream: Stream) -> None:
            stops.append(bench.reactor.spawn(bench.server.stop(60.0)))  # runs before the session does
            serve(stream)

        bench.listener._on_accept = stop_and_accept
        stream = await bench.client(greeted=False)
        assert await bench.read(stream, 200) == GREETING + SHUTDOWN
        await stops[0]
        assert bench.clock.elapsed < 10

    with Bench() as bench:
        bench.run(client())


def test_stop_with_nobody_there() -> None:
    with Bench() as bench:
        bench.run(bench.server.stop(60.0))
        assert bench.clock.elapsed < 1


def test_a_mistake_of_ours_is_a_421_and_is_reported() -> None:
    async def receive(session: Session, data: bytes) -> bytes:
        raise ZeroDivisionError

    async def client() -> None:
        stream = await bench.client()
        await bench.talk(stream, *ENVELOPE)
        stream.write(b'.\r\n')
        assert await bench.read(stream, 200) == INTERNAL
        assert await bench.talk(await bench.client(), b'NOOP') == b'250'

    with Bench(receive) as bench:
        bench.reactor.run(client())
        assert [type(error) for error in bench.errors] == [ZeroDivisionError]
        bench.errors.clear()


def test_who_closes_half_still_gets_the_replies() -> None:
    """`printf ... | nc`: all is sent, and the sending side closed, before we have answered anything."""
    async def client() -> None:
        stream = await bench.client()
        stream.write(b'\r\n'.join([*ENVELOPE, b'text', b'.', b'NOOP', b'']))
        stream.flush()
        stream._sock.shutdown(1)
        said = await bench.read(stream, 1 << 20)
        assert [line[:4] for line in said.splitlines()] == [b'250 ', b'250 ', b'250 ', b'354 ', b'250-', b'250 ',
                                                            b'250 ']

    with Bench() as bench:
        bench.run(client())
        assert len(bench.documents()) == 1
