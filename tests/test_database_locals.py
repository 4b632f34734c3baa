"""Local addresses: patterns of every type, what is found in the table, and the command that fills it."""

from __future__ import annotations

import os
import pwd
import smtplib
import tempfile
from pathlib import Path
from typing import Callable

import pytest

from mqlite.database.live import Database
from mqlite.database.locals import LocalAddresses, Locals
from mqlite.database.patterns import make_match
from mqlite.database.tables import TABLES, Row, places_of
from mqlite.loop.reactor import Reactor
from tests.support.command import Ended, in_process
from tests.support.daemon import Daemon, run_cli
from tests.support.database import Notes, execute, make_database
from tests.support.process import HOST, wait_until

PLACES = places_of(TABLES['locals'])


@pytest.mark.parametrize(('kind', 'pattern', 'text', 'matches'), [
    ('exact',   'Flood detected',  'flood DETECTED',                True),
    ('',        'Flood detected',  'flood detected',                True),
    ('exact',   'flood',           'flood detected',                False),
    ('substr',  'Flood',           'a flood detected',              True),
    ('substr',  'fl.od',           'a flood detected',              False),
    ('fnmatch', '*@example.???',   'Joe@Example.org',               True),
    ('fnmatch', '*@example.???',   'joe@example.info',              False),
    ('fnmatch', 'joe.*',           'xjoe.y',                        False),
    ('fnmatch', '[!a]oe',          'JOE',                           True),
    ('fnmatch', 'line*',           'line one\nline two',            True),
    ('regex',   r'^joe\+\d+@',     'Joe+17@example.org',            True),
    ('regex',   r'^joe\+\d+@',     'joe+x@example.org',             False),
    ('regex',   r'\bflood\b',      'a flood from you',              True),
])
def test_patterns(kind: str, pattern: str, text: str, matches: bool) -> None:
    assert make_match(kind, pattern)(text) is matches


@pytest.mark.parametrize(('kind', 'pattern', 'complaint'), [
    ('regex',  '(',      'is no regular expression'),
    ('regex',  'a{99999999999}', 'is no regular expression'),
    ('glob',   '*',      "'glob' is no type of pattern; there are exact, fnmatch, substr, regex"),
])
def test_a_pattern_that_is_none_is_said(kind: str, pattern: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make_match(kind, pattern)


def addresses(*rows: tuple[str, str]) -> LocalAddresses:
    """Rows of (type, address)."""
    return LocalAddresses(Row(PLACES, (number, address, kind)) for number, (kind, address) in enumerate(rows, 1))


@pytest.mark.parametrize(('kind', 'stored', 'address', 'found'), [
    ('exact',   'You@Example.org',     'you@example.ORG',              True),
    ('',        'you@example.org',     'you@example.org',              True),
    ('exact',   ' you@example.org ',   'you@example.org',              True),
    ('exact',   'you@example.org',     'you@example.org.evil.example', False),
    ('exact',   'you@example.org',     'x.you@example.org',            False),
    ('exact',   '*@example.org',       'you@example.org',              False),
    ('exact',   'you@bücher.example',   'you@xn--bcher-kva.example',    True),
    ('exact',   'you@bücher.example',   'You@bücher.example',            True),
    ('fnmatch', '*@bücher.example',     'x@xn--bcher-kva.example',      True),
    ('fnmatch', '*@example.org',       'anybody@EXAMPLE.org',          True),
    ('fnmatch', '*@example.org',       '"a@b"@example.org',            True),
    ('fnmatch', '*@example.org',       'anybody@sub.example.org',      False),
    ('fnmatch', '*@example.org',       'a@b@example.org.evil.example', False),
    ('fnmatch', '*@*.example.org',     'anybody@sub.example.org',      True),
    ('fnmatch', '',                    '',                             False),
    ('substr',  '@example.',           'me@example.net',               True),
    ('substr',  '',                    'me@example.net',               False),
    ('regex',   r'^bounce-\d+@example\.org$', 'bounce-17@example.org', True),
    ('regex',   r'^bounce-\d+@example\.org$', 'bounce-x@example.org',  False),
])
def test_what_is_local(kind: str, stored: str, address: str, found: bool) -> None:
    assert (address in addresses((kind, stored))) is found


def test_one_bad_row_does_not_hide_the_others() -> None:
    made = addresses(('regex', '('), ('exact', 'you@example.org'), ('soundex', 'you'))
    assert 'you@example.org' in made
    assert [fault.split(':')[0] for fault in made.faults] == [
        'row 1 of table locals is left out', 'row 3 of table locals is left out']


def test_bad_rows_are_logged(tmp_path: Path) -> None:
    path, log, reactor = str(tmp_path / 'config.db'), Notes(), Reactor()
    file = make_database(path)
    execute(path, "INSERT INTO locals (address, type) VALUES ('you@example.org', NULL), ('(', 'regex')")
    is_local = Locals(Database(reactor, file, 600.0, log))
    assert is_local('you@example.org') and not is_local('me@example.org')
    assert len(log.lines) == 1 and 'row 2 of table locals' in log.lines[0]
    file.close()
    reactor.close()


# the command

Run = Callable[..., Ended]


@pytest.fixture
def run_local(tmp_path: Path) -> Run:
    """run_local('add', 'you@example.org')"""
    run = in_process(tmp_path)
    return lambda *arguments: run('local', *arguments, f'--database-address=sqlite://{tmp_path}/config.db')


def test_adding_listing_removing(run_local: Run) -> None:
    assert run_local('list') == (0, '', '')
    for arguments in (['you@example.org'], ['*@example.net'], [r'^x\d@', 'regex']):
        assert run_local('add', *arguments) == (0, '', '')
    assert run_local('add', 'you@example.org') == (0, '', 'you@example.org is there already\n')
    assert run_local('list').output == 'exact    you@example.org\nfnmatch  *@example.net\nregex    ^x\\d@\n'
    assert run_local('remove', 'you@example.org') == (0, '', '')
    assert run_local('remove', r'^x\d@', 'substr').status == 1
    assert run_local('remove', r'^x\d@', 'regex').status == 0
    assert run_local('remove', 'me@example.net') == (1, '', 'me@example.net is not there; a pattern matches it\n')
    assert run_local('remove', 'me@example.org') == (1, '', 'me@example.org is not there\n')


@pytest.mark.parametrize(('arguments', 'status', 'complaint'), [
    (['add'],                          2, 'usage: local list | add'),
    (['list', 'x'],                    2, 'usage: local list | add'),
    ([],                               2, 'usage: local list | add'),
    (['add', 'a', 'exact', 'c'],       2, 'usage: local list | add'),
    (['add', 'example.org'],           1, 'write *@example.org'),
    (['add', '@example.org'],          1, 'write *@example.org'),
    (['add', 'you@example.org', 'glob'], 1, 'is no type of pattern'),
    (['add', '(', 'regex'],            1, 'is no regular expression'),
])
def test_wrong_usage(run_local: Run, arguments: list[str], status: int, complaint: str) -> None:
    ended = run_local(*arguments)
    assert (ended.status, ended.output) == (status, '') and complaint in ended.errors


def test_without_a_database_the_command_says_what_to_set(tmp_path: Path) -> None:
    ended = in_process(tmp_path)('local', 'list')
    assert ended.status == 1 and 'set database-address' in ended.errors


def test_the_command_acts_as_the_user_of_the_daemon() -> None:
    """Root becomes that user; anybody else stays who he is, and creates the file as himself."""
    with tempfile.TemporaryDirectory() as name:     # pytest's folders are closed to others
        Path(name).chmod(0o777)
        done = run_cli('local', 'add', 'you@example.org', '--user=nobody',
                       f'--database-address=sqlite://{name}/config.db')
        assert done.returncode == 0, done.stderr
        owner = (Path(name) / 'config.db').owner()
    assert owner == ('nobody' if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name)


def test_a_running_daemon_obeys_within_seconds(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = start_daemon(database_address=f'sqlite://{tmp_path}/config.db', smtp_range='192.0.2.0/24',
                          rabbitmq_inbox='', rabbitmq_local='local')

    def accepts() -> bool:
        with smtplib.SMTP(HOST, daemon.port, timeout=10) as client:
            client.ehlo('client.example')
            client.mail('sender@example.net')
            if client.rcpt('you@example.org')[0] != 250:
                return False
            client.data(b'Subject: hello\r\n\r\nhello\r\n')
            return True

    assert not accepts()
    assert daemon.cli('local', 'add', 'you@example.org').returncode == 0
    wait_until(accepts, 'the address to be local')
    [document] = daemon.take('local', 1)
    assert (document['envelope'], document['recipient']) == ('sender@example.net', 'you@example.org')
    assert daemon.cli('local', 'remove', 'you@example.org').returncode == 0
    wait_until(lambda: not accepts(), 'the address to be local no more')
