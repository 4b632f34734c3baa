"""The sendmail mode: what becomes of standard input, who gets it, and the exit status (sysexits.h)."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.support.command import Ended, in_process
from tests.support.daemon import ALERT, Daemon
from tests.support.process import HOST
from tests.support.sink import CapturingSink

OK, USAGE, DATAERR, TEMPFAIL, CONFIG = 0, 64, 65, 75, 78

Run = Callable[..., Ended]


@pytest.fixture
def run_main(tmp_path: Path) -> Run:
    """run_main('queue', 'list', input=b'') in an empty folder."""
    return in_process(tmp_path)


@pytest.fixture
def submit(run_main: Run) -> Run:
    """submit('a@example.com', input=…): with a queue file of its own."""
    def submit(*arguments: str, input: bytes = b'') -> Ended:
        return run_main('--queue-address=sqlite://queue.db', '--hostname=host.example', *arguments, input=input)
    return submit


@pytest.fixture
def documents(run_main: Run) -> Callable[[], list[dict[str, Any]]]:
    """What is on the outbox; it is taken off."""
    def documents() -> list[dict[str, Any]]:
        got = run_main('queue', 'get', 'outbox', '--queue-address=sqlite://queue.db')
        return [json.loads(line) for line in got.output.splitlines()]
    return documents


Documents = Callable[[], 'list[dict[str, Any]]']


def body_of(document: dict[str, Any]) -> str:
    """The message behind our Received line."""
    lines: list[str] = document['mime'].split('\r\n')
    assert lines[0].startswith('Received: by host.example (mqlite) with local id ')
    first = next(number for number, line in enumerate(lines) if number and not line.startswith('\t'))
    return '\r\n'.join(lines[first:])


@pytest.mark.parametrize(('options', 'input', 'body'), [
    ([],                b'Subject: x\n\nhello\n',           'Subject: x\r\n\r\nhello\r\n'),
    ([],                b'Subject: x\r\n\r\nno end',        'Subject: x\r\n\r\nno end\r\n'),
    ([],                b'Subject: x\n\na\n.\nb\n',         'Subject: x\r\n\r\na\r\n'),
    ([],                b'Subject: x\n\na\n..\n.b\n. \n',   'Subject: x\r\n\r\na\r\n..\r\n.b\r\n. \r\n'),
    ([],                b'.\nSubject: x\n',                 ''),
    ([],                b'a\n.',                            'a\r\n'),
    (['--ignore-dot'],  b'Subject: x\n\na\n.\nb\n',         'Subject: x\r\n\r\na\r\n.\r\nb\r\n'),
    (['--ignore-dot'],  b'.\n',                             '.\r\n'),
    ([],                b'\xff\xc3\xa4\n',                  '\udcff\xe4\r\n'),
    ([],                b'',                                ''),
])
def test_the_message(submit: Run, documents: Documents, options: list[str], input: bytes, body: str) -> None:
    done = submit(*options, 'a@example.com', input=input)
    assert done == (OK, '', '')
    [document] = documents()
    assert body_of(document) == body and document['recipient'] == 'a@example.com'


@pytest.mark.parametrize(('options', 'envelope'), [
    ([],                                None),
    (['--envelope', 'b@example.org'],   'b@example.org'),
    (['--envelope=<b@example.org>'],    'b@example.org'),
    (['--envelope', '<>'],              ''),
    (['--envelope='],                   ''),
])
def test_the_sender(submit: Run, documents: Documents, options: list[str], envelope: str | None) -> None:
    assert submit('a@example.com', *options, input=b'x').status == OK
    user = f'{getpass.getuser()}@host.example'
    assert documents()[0]['envelope'] == (user if envelope is None else envelope)


def test_recipients_are_taken_from_the_header_and_bcc_is_taken_out(submit: Run, documents: Documents) -> None:
    message = (b'To: a@example.com, "B, C" <b@example.com>\nBCC: secret@example.com,\n\tfolded@example.com\n'
               b'Subject: x\nCc: a@example.com\nbcc : third@example.com\nBcc-Not: y\n\nBcc: body\n')
    assert submit('--extract-recipients', 'named@example.com', input=message).status == OK
    kept = documents()
    assert [one['recipient'] for one in kept] == [f'{name}@example.com' for name in (
        'named', 'a', 'b', 'secret', 'folded', 'third')]
    assert {body_of(one) for one in kept} == {'To: a@example.com, "B, C" <b@example.com>\r\nSubject: x\r\n'
                                              'Cc: a@example.com\r\nBcc-Not: y\r\n\r\nBcc: body\r\n'}
    assert len({one['message-id'] for one in kept}) == 6


def test_what_the_document_says(submit: Run, documents: Documents) -> None:
    done = submit('--envelope=b@example.org', '--smarthost-password', 'xyzzy', 'a@example.com', '--', 'c@example.com',
                  input=b'X-MQ-Tag: spring\nX-MQ-MaxAttempts: 3\nSubject: x\n\ny\n')
    assert done.status == OK
    one, other = documents()
    assert (one['tags'], one['maxattempts'], one['hostname']) == (['spring'], 3, 'host.example')
    assert one['cli']['user'] == getpass.getuser() and one['cli']['command']
    assert one['cli']['arguments'] == ['--envelope=b@example.org', 'a@example.com', 'c@example.com']
    assert 'xyzzy' not in json.dumps(one) and body_of(one) == 'Subject: x\r\n\r\ny\r\n'
    assert other['recipient'] == 'c@example.com'


@pytest.mark.parametrize(('arguments', 'status', 'says'), [
    (['--ignore-dot'],                              USAGE,   'name the recipients'),
    (['--envelope=a@example.com'],                  USAGE,   'name the recipients'),
    (['a@example.com', '--envelope'],               USAGE,   '--envelope needs a value'),
    (['a@example.com', '--ignore-dots'],            USAGE,   'did you mean ignore-dot?'),
    (['a@example.com', '-t'],                       USAGE,   '-t: there is no such option'),
    (['a@example.com', '--keep'],                   USAGE,   '--keep belongs to queue get'),
    (['nobody'],                                    DATAERR, 'nobody: the address has no domain'),
    (['a@example.com', 'b@exa mple.com'],           DATAERR, 'b@exa mple.com: '),
    (['a@example.com\r\nDATA'],                     DATAERR, 'not valid'),
    (['a..b@example.com', '--validate-envelope=loose'], DATAERR, 'a..b@example.com: the address is not valid'),
    (['a@example.com', '--envelope=me'],            DATAERR, 'me: the address has no domain'),
    (['--extract-recipients'],                      DATAERR, 'there are no recipients'),
    (['a@example.com', '--smtp-maxsize=10'],        DATAERR, 'larger than 10 bytes'),
    (['a@example.com', '--config=no.conf'],         CONFIG,  'no.conf: there is no such file'),
    (['a@example.com', '--smtp-timeout=soon'],      CONFIG,  'smtp-timeout'),
    (['a@example.com', '--hostname=-'],             CONFIG,  'hostname'),
    (['a@example.com', '--queue-address=sqlite:///no/folder/x'],          CONFIG,   'check queue-address'),
    (['a@example.com', '--queue-address=amqp://127.0.0.1:1'],             TEMPFAIL, 'refused'),
])
def test_what_goes_wrong(submit: Run, documents: Documents, arguments: list[str], status: int, says: str) -> None:
    done = submit(*arguments, input=b'Subject: x\n\nhello\n')
    assert done.status == status and says in done.errors and done.output == ''
    assert all(line.startswith(('mqlite: ', '  ')) for line in done.errors.splitlines())
    assert documents() == []


def test_a_running_daemon_delivers_it(start_daemon: Callable[..., Daemon], sink: CapturingSink) -> None:
    daemon = start_daemon(program=ALERT, smtp_sink_address=HOST, smtp_sink_port=sink.port)
    assert daemon.cli('a@example.com', '--envelope=b@example.org', input=b'Subject: x\n\n.y\n').returncode == OK
    [arrived] = sink.wait_for(1)
    assert arrived.mail.startswith(b'MAIL FROM:<b@example.org>') and arrived.recipients == [b'RCPT TO:<a@example.com>']
    assert arrived.message.endswith(b'\r\nSubject: x\r\n\r\n.y\r\n')


def test_local_recipients_have_their_queue_here_too(submit: Run, run_main: Run, documents: Documents) -> None:
    database, queue = '--database-address=sqlite://config.db', '--rabbitmq-local=local'
    assert run_main('local', 'add', '*@local.example', database).status == OK
    assert submit('you@local.example', 'you@example.org', database, queue, input=b'x: y\n').status == OK
    assert submit('me@local.example', database, input=b'x: y\n').status == OK          # no queue of its own: the inbox
    assert [document['recipient'] for document in documents()] == ['you@example.org', 'me@local.example']
    got = run_main('queue', 'get', 'local', '--queue-address=sqlite://queue.db').output
    assert json.loads(got)['recipient'] == 'you@local.example'


def test_a_database_that_cannot_be_read_is_said(submit: Run, tmp_path: Path) -> None:
    (tmp_path / 'config.db').write_bytes(b'this is no database' * 100)
    done = submit('you@example.org', '--database-address=sqlite://config.db', '--rabbitmq-local=local', input=b'x: y\n')
    assert done.status == CONFIG and 'the database config.db cannot be used' in done.errors
