"""The watch over the spool directory: from files to documents, failures of the queue and the disk, crashes, daemons."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from mqlite.errors import PermanentError
from mqlite.loop.task import sleep
from mqlite.message.identifier import Identifiers
from mqlite.queues.contract import QueueError
from mqlite.receive import Receiver, ReceiverConfig
from mqlite.spool.directory import SpoolConfig, SpoolDirectory
from mqlite.spool.watch import LOOK_SECONDS, PAUSE_SECONDS, SpoolWatch, WatchConfig
from tests.support.daemon import Daemon, run_cli
from tests.support.database import Notes
from tests.support.loop import LoopBench
from tests.support.process import wait_until
from tests.support.smtp import NAME, MemoryStore

TEXT = 'From: me@example.org\nTo: {}\nX-MQ-Tag: news\n\nhello\n'


class Bench(LoopBench):
    """Watches over one directory, in one loop, with a store in memory and a clock that jumps."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path, self.fail = folder / 'spool', folder / 'fail'
        self.path.mkdir()
        self.fail.mkdir()
        self.store = MemoryStore(self.reactor)
        self.log = Notes()

    def watch(self, extract: bool = True, open_files: int = 10, threads: int = 1, remove: bool = True,
              inbox: str = 'inbox') -> SpoolWatch:
        directory = SpoolDirectory(SpoolConfig(str(self.path), str(self.fail), remove=remove, largest=10 ** 6))
        receiver = Receiver(self.reactor.clock, self.store, Identifiers('id', 0, 0),
                            ReceiverConfig(NAME, inbox, True, 'local'))
        return SpoolWatch(self.reactor, directory, receiver, self.store, WatchConfig(extract, open_files, threads),
                          lambda address: address.endswith('@local.example'), self.log)

    def drop(self, name: str, content: str | bytes = '') -> Path:
        path = self.path / name
        text = content or TEXT.format(f'{name}@example.org')
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        os.utime(path, (0, 0))      # as if it had been moved in
        return path

    def during(self, *steps: Callable[[], object], seconds: float = 3 * LOOK_SECONDS, **options: Any) -> None:
        """Start a watch, do each step and let time pass, stop the watch."""
        async def main() -> None:
            watch = self.watch(**options)
            watch.start()
            for step in steps or (lambda: None,):
                step()
                await sleep(self.reactor, seconds)
            await watch.stop(10.0)
        self.run(main())

    def documents(self, queue: str = 'inbox') -> list[dict[str, Any]]:
        return [json.loads(message.body) for message in self.store.queues.get(queue, [])]

    def recipients(self, queue: str = 'inbox') -> list[str]:
        return sorted(document['recipient'] for document in self.documents(queue))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_the_document(bench: Bench) -> None:
    path = bench.drop('a')
    owner, size = path.owner(), path.stat().st_size
    bench.during()
    [document] = bench.documents()
    mime = document.pop('mime')
    assert mime.startswith('Received: by mx.example (mqlite) with local id id00-1\r\n\tfor <a@example.org>;')
    assert mime.endswith('+0000\r\nFrom: me@example.org\r\nTo: a@example.org\r\n\r\nhello\r\n')
    assert document.pop('received') and document == {
        'envelope': 'me@example.org', 'recipient': 'a@example.org', 'message-id': 'id00-1', 'hostname': NAME,
        'tags': ['news'], 'spool': {'directory': str(bench.path), 'file': 'a', 'user': owner, 'size': size}}
    assert os.listdir(bench.path) == [] and bench.log.lines == []


def test_a_message_for_each_recipient_in_the_queue_that_is_theirs(bench: Bench) -> None:
    bench.drop('a', 'Return-Path: <>\nFrom: me@example.org\nTo: a@example.org, b@local.example\nBcc: c@e.f\n\nhello\n')
    bench.during()
    assert bench.recipients() == ['a@example.org', 'c@e.f'] and bench.recipients('local') == ['b@local.example']
    assert all('c@e.f' not in document['mime'] and document['envelope'] == '' for document in bench.documents())


def test_x_mq_headers_stay_where_they_do_not_count(bench: Bench) -> None:
    bench.drop('a')
    bench.during(extract=False)
    [document] = bench.documents()
    assert 'X-MQ-Tag: news' in document['mime'] and 'tags' not in document


def test_without_an_inbox_it_is_discarded(bench: Bench) -> None:
    bench.drop('a')
    bench.during(inbox='')
    assert bench.store.queues == {} and os.listdir(bench.path) == []


def test_files_that_come_while_it_runs(bench: Bench) -> None:
    bench.during(lambda: bench.drop('a'), lambda: bench.drop('b'), lambda: bench.drop('a'))
    assert bench.recipients() == ['a@example.org', 'a@example.org', 'b@example.org']


@pytest.mark.parametrize(('open_files', 'threads'), [(1, 1), (7, 3)])
def test_a_thousand_files(bench: Bench, open_files: int, threads: int) -> None:
    for number in range(1000):
        bench.drop(f'{number:04}')
    bench.during(open_files=open_files, threads=threads)
    assert bench.recipients() == [f'{number:04}@example.org' for number in range(1000)]
    assert os.listdir(bench.path) == []


def test_two_watches_take_each_file_once(bench: Bench) -> None:
    for number in range(300):
        bench.drop(f'{number:03}')

    async def main() -> None:
        watches = [bench.watch(threads=2), bench.watch()]
        for watch in watches:
            watch.start()
        await sleep(bench.reactor, 3 * LOOK_SECONDS)
        for watch in watches:
            await watch.stop(10.0)
    bench.run(main())
    assert bench.recipients() == [f'{number:03}@example.org' for number in range(300)]
    assert bench.log.lines == [] and not any('again' in document['spool'] for document in bench.documents())


def test_files_that_stay_are_sent_once(bench: Bench) -> None:
    bench.drop('a')
    bench.during(lambda: None, lambda: None, lambda: bench.drop('b'), remove=False)
    assert bench.recipients() == ['a@example.org', 'b@example.org']
    assert sorted(os.listdir(bench.path)) == ['a', 'b']


# failures

def test_what_cannot_be_sent_is_set_aside_with_its_reason(bench: Bench) -> None:
    bench.drop('no message', b'\0\1\2')
    bench.drop('no recipients', b'From: me@example.org\n\nhello\n')
    bench.drop('bad property', b'x-mq-delayed: soon\nFrom: me@example.org\nTo: you@example.org\n\n')
    bench.drop('too large', b'x' * 10 ** 6 + b'x')
    bench.drop('fine')
    bench.during()
    assert bench.recipients() == ['fine@example.org'] and os.listdir(bench.path) == []
    assert {path.name: path.read_text().partition(': ')[2] for path in bench.fail.glob('*.reason')} == {
        'no message.reason': 'it is no message: it does not begin with a header field\n',
        'no recipients.reason': 'there are no recipients: To, Cc and Bcc are empty\n',
        'bad property.reason': '"nextattempt.time": a time must be "YYYY-MM-DD HH:MM:SS" (UTC)\n',
        'too large.reason': 'it is larger than 1000000 bytes, the limit of smtp-maxsize\n'}
    assert len(bench.log.lines) == 4 and all(line.startswith('warning: spool file ') for line in bench.log.lines)


def test_what_the_queue_can_never_take_is_set_aside(bench: Bench) -> None:
    bench.store.error = PermanentError('a message of more than 9 bytes cannot be kept')
    bench.drop('a')
    bench.during()
    assert (bench.fail / 'a.reason').read_text() == 'a: a message of more than 9 bytes cannot be kept\n'
    assert (bench.fail / 'a').exists() and os.listdir(bench.path) == []


def test_what_the_queue_cannot_take_now_is_tried_again_and_marked(bench: Bench) -> None:
    def mend() -> None:
        bench.store.error = None
    bench.store.error = QueueError('disk full')
    bench.drop('a')
    bench.during(lambda: None, lambda: None, mend, seconds=PAUSE_SECONDS)
    [document] = bench.documents()
    assert document['spool']['file'] == 'a' and document['spool']['again'] is True
    assert bench.log.lines == ['warning: the queue does not take spool files: disk full; tried again every 5 seconds',
                               'info: spool files are taken again']


def test_while_the_store_is_in_trouble_nothing_is_taken(bench: Bench) -> None:
    def mend() -> None:
        assert os.listdir(bench.path) == ['a']
        bench.store.trouble = None
    bench.store.trouble = 'disk full'
    bench.drop('a')
    bench.during(lambda: None, mend)
    [document] = bench.documents()
    assert 'again' not in document['spool'] and bench.log.lines == []


def test_a_directory_that_goes_and_comes_back(bench: Bench, tmp_path: Path) -> None:
    bench.during(lambda: bench.path.rename(tmp_path / 'aside'), lambda: None,
                 lambda: (tmp_path / 'aside').rename(bench.path), lambda: bench.drop('a'), seconds=2 * PAUSE_SECONDS)
    assert bench.recipients() == ['a@example.org']
    assert bench.log.lines == ['warning: the spool directory cannot be used: No such file or directory; '
                               'tried again every 5 seconds', 'info: spool files are taken again']


# the end

def test_stopping_waits_for_what_is_in_hand(bench: Bench) -> None:
    async def main() -> None:
        watch = bench.watch()
        watch.start()
        bench.store.held = True
        bench.drop('a')
        await sleep(bench.reactor, 3 * LOOK_SECONDS)
        stopping = bench.reactor.spawn(watch.stop(10.0))
        await sleep(bench.reactor, 5.0)
        assert not stopping.done
        bench.store.keep_all()
        await stopping
    bench.run(main())
    assert bench.recipients() == ['a@example.org'] and os.listdir(bench.path) == []


def test_what_was_not_confirmed_is_sent_again_and_marked(bench: Bench) -> None:
    bench.store.held = True
    bench.drop('a')
    bench.during()                              # the stop gives up after ten seconds
    bench.store.keep_all()
    bench.store.held = False
    assert os.listdir(bench.path)[0].endswith('-a')
    bench.during()
    assert ['again' in document['spool'] for document in bench.documents()] == [False, True]
    assert os.listdir(bench.path) == []


# daemons

def test_killed_between_publishing_and_removing(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """Killed again and again while it takes a thousand files: none is lost, and what is doubled says that it may be."""
    spool = tmp_path / 'spool'
    spool.mkdir()
    for number in range(1000):
        (spool / f'{number:04}').write_text(TEXT.format(f'{number:04}@example.org'))
        os.utime(spool / f'{number:04}', (0, 0))
    daemon = start_daemon(spool_directory=spool, rabbitmq_inbox='inbox')
    for left in (950, 500, 50):
        wait_until(lambda left=left: len(os.listdir(spool)) <= left, 'files to be taken')   # type: ignore[misc]
        daemon.kill()
        daemon.start()
    wait_until(lambda: os.listdir(spool) == [], 'all files to be taken')
    daemon.stop()
    got = daemon.cli('queue', 'get', 'inbox')
    documents = [json.loads(line) for line in got.stdout.splitlines()]
    assert {document['spool']['file'] for document in documents} == {f'{number:04}' for number in range(1000)}
    first = [document['spool']['file'] for document in documents if 'again' not in document['spool']]
    assert len(first) == len(set(first))


def test_as_the_user_that_it_becomes(start_daemon: Callable[..., Daemon]) -> None:
    """What that user may not read is set aside, the others are sent. Where we are not root, nobody is changed to."""
    user = pwd.getpwnam('nobody') if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    with tempfile.TemporaryDirectory() as name:     # pytest's folders are closed to others
        folder = Path(name)
        for path in (folder, folder / 'spool', folder / 'fail'):
            path.mkdir(exist_ok=True)
            os.chown(path, user.pw_uid, user.pw_gid)
        for file in ('secret', 'ours'):
            (folder / 'spool' / file).write_text(TEXT.format(f'{file}@example.org'))
            os.utime(folder / 'spool' / file, (0, 0))
        (folder / 'spool/secret').chmod(0)
        daemon = Daemon(folder, user=user.pw_name, spool_directory=folder / 'spool',
                        spool_fail_directory=folder / 'fail', rabbitmq_inbox='inbox')
        with contextlib.closing(daemon):
            daemon.start()
            [document] = daemon.take('inbox', 1)
            wait_until(lambda: (folder / 'fail/secret').exists(), 'the unreadable file to be set aside')
        assert (document['recipient'], document['spool']['user']) == (
            'ours@example.org', pwd.getpwuid(os.geteuid()).pw_name)
        assert (folder / 'fail/secret.reason').read_text() == 'secret: it cannot be read: Permission denied\n'


def test_a_directory_that_cannot_be_used_keeps_the_daemon_from_starting(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, spool_directory=tmp_path / 'no')
    daemon.config.write_text(''.join(f'{key}: {value}\n' for key, value in daemon.settings.items()))
    done = run_cli('--config', str(daemon.config))
    assert done.returncode == 1 and b'there is no such directory; make it' in done.stdout + done.stderr
