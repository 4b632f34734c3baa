"""Pauses, suppressions and messages that are to go now, as an operator commands them; and a daemon that obeys."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Callable

import pytest

from mqlite.database.live import LOOK_SECONDS
from mqlite.delivery import pauses
from mqlite.message.identifier import format_moment
from mqlite.operate_command import OBEYED_SECONDS
from tests.support.command import Ended, in_process
from tests.support.daemon import ALERT, Daemon
from tests.support.database import execute, make_database
from tests.support.process import HOST, wait_until
from tests.support.sink import CapturingSink

Run = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """run('pause', 'domain', 'b.example'): on a database and an embedded queue in the test's folder."""
    (tmp_path / 'mqlite.conf').write_text(f'database-address: sqlite://{tmp_path}/config.db\n'
                                          f'queue-address: sqlite://{tmp_path}/queue.db\n')
    make_database(str(tmp_path / 'config.db')).close()
    monkeypatch.setattr('mqlite.operate_command.OBEYED_SECONDS', 0.0)
    return in_process(tmp_path)


def test_pausing_listing_resuming(run: Run, tmp_path: Path) -> None:
    assert run('pause', 'domain', 'B.Example.', 'tag', 'News').status == 0
    assert run('pause', 'mta', '2001:DB8::1').status == 0
    assert run('pause', 'ip', '192.0.2.1', 'for', '3600').status == 0
    assert run('pause').status == 0
    listed = run('pause', 'list').output.splitlines()
    assert listed[:2] == ['domain b.example tag News', 'mta 2001:db8::1'] and listed[3] == 'everything'
    until = format_moment(time.time() + 3600)
    assert listed[2].startswith(f'ip 192.0.2.1, until {until[:13]}') or until[14:16] in ('00', '59')
    assert run('pause', 'ip', '192.0.2.1').status == 0
    assert run('pause', 'list').output.splitlines()[3] == 'ip 192.0.2.1', 'it is changed, not added'
    assert run('resume', 'domain', 'b.example') == (
        1, '', 'there is no such pause; on pause: domain b.example tag News; mta 2001:db8::1; everything; '
               'ip 192.0.2.1\n')
    assert run('resume', 'tag', 'News', 'domain', 'b.example').status == 0
    assert run('resume').status == 0
    assert run('pause', 'list').output.splitlines() == ['mta 2001:db8::1', 'ip 192.0.2.1']
    execute(f'{tmp_path}/config.db', "INSERT INTO paused (target, localip) VALUES ('A.Example. ', '')")
    assert run('resume', 'domain', 'a.example').status == 0, 'however another program has spelled it'
    assert run('resume', 'all') == (0, '', '0 go now\n')
    assert run('pause', 'list').output == '' and run('resume', 'all').status == 1


def test_suppressing(run: Run) -> None:
    assert run('suppress', 'add', 'You@B.example', '551', '5.1.1', 'Spam', 'trap').status == 0
    assert run('suppress', 'add', 'c.example').status == 0
    assert run('suppress', 'list').output == 'you@b.example 551 5.1.1 Spam trap\nc.example 550\n'
    assert run('suppress', 'add', 'you@b.example', '550').status == 0
    assert run('suppress', 'list').output == 'c.example 550\nyou@b.example 550\n'
    assert run('suppress', 'remove', 'C.example').status == 0
    assert run('suppress', 'remove', 'c.example') == (1, '', 'c.example is not there\n')


@pytest.mark.parametrize(('words', 'complaint'), [
    ('pause domain',                          'usage: pause'),
    ('pause sender a',                        'usage: pause'),
    ('pause domain a ip 192.0.2.1',           'usage: pause'),
    ('pause domain a for ever',               'ever is no number'),
    ('pause mta localhost',                   'mta localhost: that is no address'),
    ('pause domain 192.0.2.1',                'ip is for servers, mta for our own'),
    ('resume all domain',                     'usage: resume'),
    ('suppress',                              'usage: suppress'),
    ('suppress add',                          'usage: suppress'),
    ('suppress remove a b',                   'usage: suppress'),
    ('suppress add a 250',                    '250 is no code for a failure'),
    ('suppress add a 550 no',                 'no is no enhanced status code'),
    ('requeue',                               'usage: requeue'),
    ('requeue a b',                           'usage: requeue'),
])
def test_wrong_usage(run: Run, words: str, complaint: str) -> None:
    ended = run(*words.split())
    assert ended.status == 2 and complaint in ended.errors


def later(recipient: str, **fields: object) -> bytes:
    return json.dumps({'recipient': recipient, 'mime': 'x', **fields,
                       'nextattempt': {'time': '2099-01-01 00:00:00'}}).encode()


@pytest.mark.parametrize(('what', 'gone'), [
    ('all',           ['1@b.example', '2@b.example', '1@c.example']),
    ('B.example',     ['1@b.example', '2@b.example']),
    ('2@b.example',   ['2@b.example']),
    ('d.example',     []),
])
def test_what_waits_goes_now(run: Run, what: str, gone: list[str]) -> None:
    waiting = [later(recipient) for recipient in ('1@b.example', '2@b.example', '1@c.example')]
    run('queue', 'publish', 'outbox', input=b'\n'.join(waiting))
    assert run('requeue', what) == (0, '', f'{len(gone)} go now\n')
    ready = [json.loads(line) for line in run('queue', 'get', 'outbox').output.splitlines()]
    assert [document['recipient'] for document in ready] == gone
    assert not any('nextattempt' in document for document in ready)
    assert run('requeue', 'all').errors == f'{3 - len(gone)} go now\n', 'the others still wait'


@pytest.fixture
def resume_waits_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[Daemon], None]:
    """`resume` waits no longer than until the daemon says, in the log since its start, that it has seen a change."""
    def set_up(daemon: Daemon) -> None:
        assert 'table paused has changed' not in daemon.output()
        monkeypatch.setattr('mqlite.operate_command._wait', lambda _seconds: wait_until(
            lambda: 'table paused has changed' in daemon.output(), 'the daemon to see it'))
    return set_up


def test_a_daemon_obeys_and_remembers(start_daemon: Callable[..., Daemon], sink: CapturingSink, tmp_path: Path,
                                      resume_waits_for: Callable[[Daemon], None]) -> None:
    """A pause holds what comes, also over a restart; at its end everything goes, and what is suppressed does not."""
    daemon = start_daemon(program=ALERT, smtp_sink_address=HOST, smtp_sink_port=sink.port, rabbitmq_failure='failure',
                          database_address=f'sqlite://{tmp_path}/config.db')

    def command(*words: str) -> None:
        ended = daemon.cli(*words)
        assert ended.returncode == 0, ended.stderr

    command('pause', 'domain', 'b.example')
    command('suppress', 'add', 'spamtrap@c.example', '551', '5.1.1', 'Spamtrap')
    wait_until(lambda: 'table paused has changed' in daemon.output()
               and 'table suppressions has changed' in daemon.output(), 'the daemon to see it')
    lines = [json.dumps({'recipient': recipient, 'mime': 'x'}).encode()
             for recipient in ('1@b.example', 'spamtrap@c.example', '2@c.example')]
    assert daemon.cli('queue', 'publish', 'outbox', input=b'\n'.join(lines)).returncode == 0
    sink.wait_for(1)
    [failed] = daemon.take('failure', 1)
    assert failed['recipient'] == 'spamtrap@c.example'
    last = failed['results'][-1]
    assert (last['state'], last['result'], last['code'], last['status'], last['description']) == (
        'suppression', 'error', 551, '5.1.1', 'Spamtrap')
    daemon.stop()
    daemon.start()
    assert pauses.SHORTEST_HOLD > 2 * OBEYED_SECONDS >= 4 * LOOK_SECONDS
    resume_waits_for(daemon)
    command('resume', 'domain', 'b.example')
    recipients = sorted(taken.recipients[0] for taken in sink.wait_for(2))
    assert recipients == [b'RCPT TO:<1@b.example>', b'RCPT TO:<2@c.example>']


@pytest.mark.parametrize('database', [True, False])
def test_a_daemon_that_starts_without_sending(start_daemon: Callable[..., Daemon], sink: CapturingSink, tmp_path: Path,
                                              resume_waits_for: Callable[[Daemon], None], database: bool) -> None:
    """Until it is told to, or started without the setting where there is no database to tell it through."""
    settings = {'database_address': f'sqlite://{tmp_path}/config.db'} if database else {}
    daemon = start_daemon(program=ALERT, smtp_sink_address=HOST, smtp_sink_port=sink.port, paused='true', **settings)
    assert daemon.cli('queue', 'publish', 'outbox', input=b'{"recipient": "1@b.example", "mime": "x"}').returncode == 0
    wait_until(lambda: b'outbox                           0         1' in daemon.cli('queue', 'list').stdout,
               'the message to be put back')
    assert sink.connections == 0
    if database:
        resume_waits_for(daemon)
        assert daemon.cli('resume').returncode == 0
    else:
        daemon.stop()
        del daemon.settings['paused']
        daemon.start()
        assert daemon.cli('requeue', 'all').returncode == 0
    assert len(sink.wait_for(1)) == 1
