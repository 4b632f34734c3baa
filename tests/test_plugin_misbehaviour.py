"""Misbehaviour is contained: the session gets an answer, the log names the plugin, and everybody else goes on.

One C file for each in tests/data/plugins, all loaded at once, in both generations. The clock jumps; what needs real
time is in test_plugin_daemon.py, and what needs a second pair of eyes on the memory in tests/peers, under valgrind.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mqlite.plugin import loader
from mqlite.plugin.chain import RETRIES
from tests.support import misbehaviour
from tests.support.plugins import LOG, PATIENCE, PluginBench

OK = b'220 250 250 250 354 250 221'
DEFERRED = b'220 250 250 451 554 221'


@pytest.fixture(scope='module', params=[5, 3], ids=['generation-5', 'generation-3'])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp('misbehaviour') / 'plugins'
    made.mkdir()
    misbehaviour.build_all(made, request.param, PATIENCE)
    return made


@pytest.fixture
def bench(folder: Path) -> Iterator[PluginBench]:
    made = PluginBench(folder)
    loader._loaded[0][1]._told.clear()      # what is said once is said once a process
    yield made
    made.run(made.quiet(PATIENCE + 1))
    assert made.run(made.send()) == OK and made.host.context.holds == []
    made.close()


def told(name: str) -> list[str]:
    """What the log says of the plugin, but for what it says itself."""
    return [line for line in LOG.lines if line.startswith((f'10-{name}.so', 'plugin: '))]


def test_a_plugin_that_never_hands_back(bench: PluginBench) -> None:
    """451 when its time is over, also for what follows on this connection."""
    async def talk() -> bytes:
        stream = await bench.client()
        return await bench.talk(stream, b'EHLO c', b'MAIL FROM:<a@example.org>', b'RCPT TO:<never@example.org>',
                                b'RCPT TO:<b@example.org>', b'NOOP')
    before = bench.clock.monotonic()
    assert bench.run(talk()) == b'250 250 451 451 250'
    assert PATIENCE <= bench.clock.monotonic() - before < PATIENCE + 1
    assert told('never') == ['10-never.so did not hand back mq_smtp_in_rcptto within 60 s: deferred']


def test_handed_back_twice(bench: PluginBench) -> None:
    async def talk() -> bytes:
        stream = await bench.client()
        first = await bench.talk(stream, b'EHLO c', b'MAIL FROM:<a@example.org>', b'RCPT TO:<twice@example.org>')
        await bench.quiet(1)
        return first + b' ' + await bench.talk(stream, b'DATA', b'.')
    assert bench.run(talk()) == b'250 250 250 354 250'
    assert told('twice') == ['10-twice.so handed back mq_smtp_in_rcptto once more than it had it: ignored',
                             '10-twice.so called MQ_retry without being in control: ignored']


def test_handed_back_late(bench: PluginBench) -> None:
    async def talk() -> bytes:
        stream = await bench.client()
        first = await bench.talk(stream, b'EHLO c', b'MAIL FROM:<a@example.org>', b'RCPT TO:<late@example.org>')
        await bench.quiet(1)
        assert LOG.said() == ['late: now']
        return first + b' ' + await bench.talk(stream, b'NOOP')
    assert bench.run(talk()) == b'250 250 451 250'
    assert told('late') == ['10-late.so did not hand back mq_smtp_in_rcptto within 60 s: deferred',
                            '10-late.so called MQ_continue without being in control: ignored']


def test_handed_back_after_the_peer_has_left(bench: PluginBench) -> None:
    """The session ends at once and close is called; what comes later finds nothing."""
    async def leave() -> None:
        stream = await bench.client()
        await bench.talk(stream, b'EHLO c', b'MAIL FROM:<a@example.org>')
        stream.write(b'RCPT TO:<left@example.org>\r\n')
        stream.flush()
        await bench.quiet()
        stream.close()
        await bench.quiet(1)
        assert LOG.said() == ['left: in control', 'left: close'] and len(bench.server) == 0
        await bench.quiet(PATIENCE)
        assert LOG.said() == ['left: -1 0 1']
    bench.run(leave())
    assert all('handle that is not good' in line for line in told('left'))


def test_eight_threads_hand_back(bench: PluginBench) -> None:
    """What all have sent arrives whole, one hand-back counts, and the clock waits for the threads."""
    async def talk() -> list[bytes]:
        stream = await bench.client()
        await bench.talk(stream, b'EHLO c', b'MAIL FROM:<a@example.org>')
        bench.reactor.threads_busy += 1
        stream.write(b'RCPT TO:<threads@example.org>\r\n')
        stream.flush()
        lines: list[bytes] = []
        while len(lines) < 9:
            lines.append(await bench.read_line(stream))
        bench.reactor.threads_busy -= 1
        return lines
    lines = bench.run(talk())
    assert sorted(lines) == [b'250 2.1.5 Recipient ok\r\n', *[b'250-from a thread\r\n'] * 8]
    said = LOG.said()
    assert said == ['threads: sent'] * len(said) and len(told('threads')) <= 7
    assert all('once more' in line or 'without being in control' in line for line in told('threads'))


def test_null_and_foreign_handles(bench: PluginBench) -> None:
    """Nothing is answered but nothing, and each function is named once."""
    assert bench.run(bench.send('null@example.org')) == OK
    assert LOG.said() == ['', 'null: 0 answers']
    functions = [line.split(' was called')[0] for line in LOG.lines if line.startswith('plugin: ')]
    assert len(functions) == len(set(functions)) >= 20
    assert all('handle that is' in line for line in LOG.lines if line.startswith('plugin: '))
    assert [line.split(':')[1] for line in told('null') if 'descriptor' in line] == [
        ' descriptor -1 cannot be watched', ' descriptor 9999 cannot be watched']


def test_stale_handles(bench: PluginBench) -> None:
    for _ in range(3):
        assert bench.run(bench.send('stale@example.org')) == OK
    assert LOG.said() == ['stale: 0 answers'] * 2


def test_a_retry_without_end(bench: PluginBench) -> None:
    assert bench.run(bench.send('endless@example.org')) == DEFERRED
    assert [line for line in LOG.lines if f'{RETRIES} times' in line] != []


def test_a_plugin_that_is_not_in_control(bench: PluginBench) -> None:
    async def talk() -> bytes:
        stream = await bench.client()
        first = await bench.talk(stream, b'EHLO c', b'MAIL FROM:<a@example.org>', b'RCPT TO:<uncontrolled@example.org>')
        await bench.quiet(1)
        return first + b' ' + await bench.talk(stream, b'DATA')
    assert bench.run(talk()) == b'250 250 451 554'
    assert told('uncontrolled') == [
        '10-uncontrolled.so called MQ_reject wrongly: 250 is no code for a refusal: 400 to 599; deferred',
        '10-uncontrolled.so called MQ_complete without being in control: ignored',
        '10-uncontrolled.so called MQ_reject without being in control: ignored']


def test_watchers_of_what_is_closed(bench: PluginBench) -> None:
    """We watch a duplicate of the descriptor: the end of the pipe is told to each, once."""
    assert bench.run(bench.send('watchers@example.org')) == OK
    assert sorted(LOG.said()) == ['watchers: 1', 'watchers: 3']
    before = len(bench.reactor._watched)
    bench.run(bench.send('watchers@example.org'))
    bench.run(bench.quiet(1))
    assert len(bench.reactor._watched) <= before
