"""Every function and every callback of the C interface, in both generations, in a running daemon.

tests/data/plugins/table.c calls all of them where their effect can be seen, and a second plugin says what it is asked
after that one. One daemon for each generation talks to Python's SMTP client, curl and swaks, and sends to Postfix's
smtp-sink. Each test looks for one thing: in the log, in what a client was answered, in a queue, at the sink.
"""

from __future__ import annotations

import json
import re
import smtplib
import subprocess
from pathlib import Path
from typing import Callable, TypeVar

import pytest

from mqlite.plugin import abi
from tests.support.c_plugin import build_plugin
from tests.support.daemon import ALERT, Daemon
from tests.support.peers import Certificate, SmtpSink
from tests.support.plugins import OLD, VERSION
from tests.support.process import HOST, ROOT, find_program

SOURCE = ROOT / 'tests' / 'data' / 'plugins' / 'table.c'
SECOND = """
#include <stdio.h>
static bool asked(const char *step, const char *what) {
    char line[256]; snprintf(line, sizeof line, "second %s %s", step, what ? what : "NULL"); MQ_log(MQ_INFO, line);
    return false; }
#if MQ_API_GENERATION == 3
bool mq_smtp_in_rcptto(MQ_Context *x, MQ_Connection *c, const char *a, size_t n) { (void)x; (void)c; (void)n;
    return asked("rcptto", a); }
#else
bool mq_smtp_in_rcptto(MQ_Context *x, MQ_Connection *c, MQ_Address *a) { (void)x; (void)c;
    return asked("rcptto", MQ_email(a)); }
#endif
bool mq_smtp_in_message(MQ_Context *x, MQ_Connection *c, MQ_Message *m) { (void)x; (void)c;
    return asked(MQ_connectionData(c) ? "not its own" : "message", MQ_Recipient(m)); }
"""
RECIPIENTS = ('new-continue', 'new-complete', 'new-retry', 'old-continue', 'old-complete', 'old-retry', 'reject',
              'watch', 'timer', 'local', 'change')
MIME = 'Subject: first\r\n\r\nbody\r\n'


class Run:
    """What came of a daemon with the plugins of one generation."""

    def __init__(self, folder: Path, generation: int, certificate: Certificate) -> None:
        self.generation = generation
        self.sink = SmtpSink(folder)
        plugins = folder / 'plugins'
        plugins.mkdir()
        old = generation == 3
        build_plugin(plugins, SOURCE.read_text(), f'-DMQ_API_GENERATION={generation}', '-lev', '-lfastjson', '-ljson-c',
                     name='10-table')
        build_plugin(plugins, (OLD if old else VERSION) + SECOND, name='20-second')
        self.daemon = Daemon(folder, ALERT, plugin_directory=plugins, smtp_sink_address=HOST,
                             smtp_sink_port=self.sink.port, smtp_range='192.0.2.0/24', rabbitmq_inbox='inbox',
                             rabbitmq_local='local', smtp_certificate=certificate.certificate,
                             smtp_key=certificate.key)
        try:
            self.daemon.start()
            self.replies = self.talk()
            self.curl()
            self.swaks()
            self.logins = self.log_in()
            self.inbox = {one['recipient']: one for one in self.daemon.take('inbox', 11)}
            self.local = self.daemon.take('local', 1)
            self.deliver()
            self.daemon.stop()
            self.lines = self.daemon.output().splitlines()
        finally:
            self.daemon.close()
            self.sink.close()

    def talk(self) -> dict[str, tuple[int, bytes]]:
        """One message to all that are accepted; the replies, by the verb or the recipient."""
        replies: dict[str, tuple[int, bytes]] = {}
        with smtplib.SMTP(HOST, self.daemon.port, timeout=30) as client:
            self.port = client.sock.getsockname()[1]    # type: ignore[union-attr]
            client.ehlo()
            replies['stranger'] = client.mail('stranger@example.org')
            replies['refused'] = client.rcpt('nobody@example.org')
            client.rset()
            replies['mail'] = client.mail('login@example.org')
            replies.update((name, client.rcpt(f'{name}@example.org')) for name in RECIPIENTS)
            replies['data'] = client.data(MIME)
        return replies

    def curl(self) -> None:
        self.client('curl', '-sS', f'smtp://{HOST}:{self.daemon.port}', '--mail-from', 'login@curl.example',
                    '--mail-rcpt', 'b@curl.example', '-T', '-', input=MIME.encode())

    def swaks(self) -> None:
        self.client('swaks', '--server', f'{HOST}:{self.daemon.port}', '--from', 'login@swaks.example', '--to',
                    'b@swaks.example', '--suppress-data', '--tls')

    def log_in(self) -> list[int]:
        """The verdicts on a wrong password and on the right one."""
        with smtplib.SMTP(HOST, self.daemon.port, timeout=30) as client:
            client.ehlo()
            wrong = client.docmd('AUTH', 'PLAIN AHRpbQB3cm9uZw==')[0]
            return [wrong, client.docmd('AUTH', 'PLAIN AHRpbQByaWdodA==')[0]]

    def client(self, name: str, *arguments: str, input: bytes = b'') -> None:
        done = subprocess.run([find_program(name), *arguments], input=input, capture_output=True, timeout=30)
        assert done.returncode == 0, done.stdout + done.stderr

    def deliver(self) -> None:
        """Two documents through the outbox; their results."""
        documents = [{'envelope': 'a@example.org', 'recipient': f'{name}@example.com', 'mime': MIME, 'mark': name}
                     for name in ('plain', 'change')]
        self.daemon.cli('queue', 'publish', 'outbox', input='\n'.join(map(json.dumps, documents)).encode())
        self.results = {one['mark']: one for one in self.daemon.take('results', 2)}
        self.arrived = b'\n'.join(sorted(self.sink.transactions())).decode()

    def said(self, name: str) -> list[str]:
        """What was logged of a function, by its first name in the table; or of a callback, or of the second plugin."""
        row = next((row for row in abi.FUNCTIONS if row.names[0] == name), None)
        spelled = row.names[-1] if row is not None and self.generation == 3 else name
        found = (re.search(rf'\[plugin\] {re.escape(spelled)}(?: (.*)|)$', line) for line in self.lines)
        return [match[1] or '' for match in found if match]

    def asked_second(self, recipient: str) -> int:
        """How often the second plugin was asked about it."""
        return self.said('second rcptto').count(f'{recipient}@example.org')

    def asked(self, recipient: str) -> int:
        return self.said('mq_smtp_in_rcptto').count(f'{recipient}@example.org')


@pytest.fixture(scope='module', params=[5, 3], ids=['generation-5', 'generation-3'])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Run:
    return Run(tmp_path_factory.mktemp('table'), request.param, certificate)


Test = TypeVar('Test', bound=Callable[..., None])
shown: set[str] = set()


def shows(*names: str) -> Callable[[Test], Test]:
    """Marks the test of these functions or callbacks."""
    def mark(test: Test) -> Test:
        shown.update(names)
        return test
    return mark


def test_nothing_is_left_out() -> None:
    assert shown == {row.names[0] for row in abi.FUNCTIONS} | {row.name for row in abi.CALLBACKS}


# control

@shows('MQ_continue')
def test_continue(run: Run) -> None:
    assert run.replies['new-continue'][0] == 250 and run.asked_second('new-continue') == 1


@shows('MQ_Continue')
def test_Continue(run: Run) -> None:
    assert run.replies['old-continue'][0] == 250 and run.asked_second('old-continue') == 1


@shows('MQ_complete')
def test_complete(run: Run) -> None:
    assert run.replies['new-complete'][0] == 250 and run.asked_second('new-complete') == 0


@shows('MQ_Complete')
def test_Complete(run: Run) -> None:
    assert run.replies['old-complete'][0] == 250 and run.asked_second('old-complete') == 0


@shows('MQ_retry')
def test_retry(run: Run) -> None:
    assert (run.asked('new-retry'), run.asked_second('new-retry')) == (2, 1)


@shows('MQ_Retry')
def test_Retry(run: Run) -> None:
    assert (run.asked('old-retry'), run.asked_second('old-retry')) == (2, 1)


@shows('MQ_reject')
def test_reject(run: Run) -> None:
    assert run.replies['reject'] == (550, b'5.7.1 Not here') and run.asked_second('reject') == 0


# connections

@shows('MQ_fileDescriptor', 'mq_smtp_in_connect')
def test_descriptor(run: Run) -> None:
    assert str(run.port) in run.said('MQ_fileDescriptor'), 'the port that our client has'
    assert len(run.said('mq_smtp_in_connect')) > 3, 'and whoever looked whether it listens'


@shows('MQ_send')
def test_send(run: Run) -> None:
    assert run.replies['mail'] == (250, b'sent by a plugin\n2.1.0 Sender ok') and set(run.said('MQ_send')) == {'22'}


@shows('MQ_authenticated', 'MQ_setAuthenticated')
def test_authenticated(run: Run) -> None:
    """A client that may not relay may when a plugin says that it has logged in, and no more when it takes that back."""
    assert set(run.said('MQ_authenticated')) == {'0'}
    assert run.said('MQ_setAuthenticated') == ['0', '1', '1', '1']
    assert run.replies['stranger'][0] == 250 and run.replies['refused'][0] == 550


@shows('mq_smtp_in_authenticate')
def test_logins(run: Run) -> None:
    """The plugin is the only judge: there is no smtp-auth."""
    assert run.logins == [535, 235]
    assert run.said('mq_smtp_in_authenticate') == ['tim 3 wrong 5 0', 'tim 3 right 5 0']


@shows('MQ_secure', 'mq_smtp_in_secure')
def test_secure(run: Run) -> None:
    """swaks says STARTTLS."""
    assert run.said('MQ_secure').count('1') == 1 and set(run.said('MQ_secure')) == {'0', '1'}
    assert run.said('mq_smtp_in_secure') == ['allocated']


@shows('MQ_connectionData', 'MQ_setConnectionData', 'mq_smtp_in_close')
def test_data_of_a_connection(run: Run) -> None:
    """Set at connect, there at MAIL and at the end, and the other plugin has a slot of its own."""
    assert set(run.said('MQ_connectionData')) == {'0', 'allocated'}
    assert run.said('mq_smtp_in_close') == ['allocated'] * len(run.said('mq_smtp_in_connect'))
    assert run.said('second not its own') == []


# contexts

@shows('MQ_contextData', 'MQ_setContextData', 'mq_context_initialize', 'mq_context_cleanup')
def test_data_of_a_context(run: Run) -> None:
    assert run.said('MQ_contextData') == ['0', *['kept'] * len(run.said('mq_smtp_in_connect'))]
    assert run.said('mq_context_initialize') == [''] and run.said('mq_context_cleanup') == ['kept']


@shows('MQ_ev')
def test_ev(run: Run) -> None:
    """A timer and a watcher that were given to libev itself."""
    assert run.said('MQ_ev') == ['timer 1', 'watcher x 1']


@shows('MQ_ioWatch', 'MQ_ioUnwatch')
def test_watch(run: Run) -> None:
    """Called once: what was written after that was not looked at any more."""
    assert run.said('MQ_ioWatch') == ['4 ping 1'] and run.asked_second('watch') == 1


@shows('MQ_startTimer', 'MQ_stopTimer', 'MQ_resetTimer')
def test_timers(run: Run) -> None:
    """One is stopped before its time; one of an hour is set anew, and fires; a third while a message goes out."""
    assert run.said('MQ_startTimer') == ['1', '1'] and run.said('MQ_stopTimer') == [] and run.asked_second('timer') == 1


# messages

@shows('MQ_envelope', 'MQ_recipient', 'MQ_email')
def test_addresses(run: Run) -> None:
    assert set(run.said('MQ_envelope')) == set(run.said('MQ_recipient')) == {'1'}
    assert 'login@example.org new-continue@example.org' in run.said('MQ_email')
    assert 'new-sender@example.org new-recipient@example.org' in run.said('MQ_email')


@shows('MQ_Envelope', 'MQ_Recipient')
def test_addresses_as_text(run: Run) -> None:
    assert 'login@curl.example' in run.said('MQ_Envelope') and 'b@swaks.example' in run.said('MQ_Recipient')


@shows('MQ_setEnvelope', 'MQ_setRecipient')
def test_other_addresses(run: Run) -> None:
    """Of a message that comes in they are published; one that goes out keeps those that it has."""
    changed = run.inbox['new-recipient@example.org']
    assert changed['envelope'] == 'new-sender@example.org' and 'change@example.org' not in run.inbox
    result = run.results['change']
    assert (result['envelope'], result['recipient']) == ('a@example.org', 'change@example.com')
    assert 'new-' not in run.arrived, 'the server had the addresses already'


@shows('MQ_mime', 'MQ_setMime')
def test_mime(run: Run) -> None:
    assert run.said('MQ_setMime') == ['Subject: new'] and set(run.said('MQ_mime')) == {'Received', 'Subject:'}
    assert run.inbox['new-recipient@example.org']['mime'] == 'Subject: new\r\n\r\nnew\r\n'
    assert run.said('out MQ_Mime' if run.generation == 3 else 'out MQ_mime') == ['NULL', 'NULL']
    assert 'Subject: first\n\nbody\n' in run.arrived and 'Subject: new\n\nnew\n' in run.arrived


@shows('MQ_local', 'MQ_setLocal')
def test_local(run: Run) -> None:
    """A message, and in generation 5 the address that RCPT has: anybody may send to it."""
    assert [one['recipient'] for one in run.local] == ['local@example.org'] and 'local@example.org' not in run.inbox
    assert run.said('MQ_local') == ['1']
    assert run.said('MQ_setLocal') == ([] if run.generation == 3 else ['1 of an address'])


@shows('MQ_json', 'MQ_Json')
@pytest.mark.parametrize(('name', 'mark', 'value'), [('MQ_json', 'by-libfastjson', 1), ('MQ_Json', 'by-json-c', 2)])
def test_json(run: Run, name: str, mark: str, value: int) -> None:
    """What a plugin sees is the document, and what it adds arrives in the queue."""
    [document] = (json.loads(text) for text in run.said(name))
    assert (document['envelope'], document['recipient']) == ('login@example.org', 'change@example.org')
    assert document['mime'].endswith('\r\nSubject: first\r\n\r\nbody\r\n')
    assert run.inbox['new-recipient@example.org'][mark] == value
    assert all(mark not in one for name, one in run.inbox.items() if not name.startswith('new-recipient'))


# the log

@shows('MQ_log')
def test_log(run: Run) -> None:
    found = [line for line in run.lines if 'MQ_log' in line]
    words = [re.sub(r'\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\]', '[time]', line) for line in found]
    assert words == ['[Critical] [time] [plugin] MQ_log critical', '[Warning] [time] [plugin] MQ_log warning',
                     '[Info] [time] [plugin] MQ_log info', '[Info] [time] [plugin] (invalid priority) MQ_log invalid']


# callbacks

@shows('mq_version', 'mq_initialize', 'mq_cleanup')
def test_the_life_of_a_plugin(run: Run) -> None:
    said = [line.split('[plugin] ')[1] for line in run.lines if '[plugin] ' in line]
    words = [text.split()[0] for text in said]
    assert words[:2] == ['mq_version', 'mq_initialize'] and words[-2:] == ['mq_context_cleanup', 'mq_cleanup']
    assert words.index('mq_context_initialize') < words.index('mq_smtp_in_connect')


@shows('mq_smtp_in_mailfrom', 'mq_smtp_in_rcptto', 'mq_smtp_in_data', 'mq_smtp_in_message')
def test_steps_of_a_message(run: Run) -> None:
    assert run.said('mq_smtp_in_mailfrom') == ['stranger@example.org', 'login@example.org', 'login@curl.example',
                                               'login@swaks.example']
    assert run.said('mq_smtp_in_rcptto')[-2:] == ['b@curl.example', 'b@swaks.example']
    assert run.said('mq_smtp_in_data')[:2] == [f'{len(MIME)} Subject:'] * 2
    accepted = [f'{name}@example.org' for name in RECIPIENTS if name != 'reject']
    assert run.said('mq_smtp_in_message') == [*accepted, 'b@curl.example', 'b@swaks.example']
    assert len(run.said('second message')) == len(accepted) + 2


@shows('mq_smtp_out_data', 'mq_smtp_out_sent')
def test_steps_of_sending(run: Run) -> None:
    assert sorted(run.said('mq_smtp_out_data')) == ['a@example.org change@example.com',
                                                    'a@example.org plain@example.com']
    assert sorted(run.said('mq_smtp_out_sent')) == ['new-recipient@example.org', 'plain@example.com']


def test_nothing_was_wrong(run: Run) -> None:
    assert [line for line in run.lines if '[Warning]' in line and 'MQ_log' not in line
            and 'login refused' not in line] == []
