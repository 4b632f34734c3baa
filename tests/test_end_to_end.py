"""A message goes in over SMTP, is kept, goes out over SMTP, and its result can be read; the peers are those of others.

Every test runs the daemon as a user would, in a process of its own. STARTTLS is outgoing only, as long as the server
does not offer it: `openssl s_client` therefore has nothing to talk to, and the peer is a server on Python's `ssl`.
"""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mqlite.queues.contract import Message
from mqlite.queues.sqlite import Batch, Database
from tests.support.c_plugin import build_plugin
from tests.support.daemon import ALERT, Daemon
from tests.support.load import connect, send
from tests.support.peers import SmtpSink, smtp_source
from tests.support.process import HOST, ROOT, find_program
from tests.support.sink import CapturingSink

Start = Callable[..., Daemon]

MESSAGES = {
    'plain':             b'Subject: plain\r\n\r\nHello.\r\n',
    'UTF-8':             'Subject: 8 bit\r\n\r\nGrüße, 你好\r\n'.encode(),
    'not UTF-8':         b'Subject: bytes\r\n\r\n' + bytes(range(128, 256)) + b'\xed\xb0\x80\xff\r\n',
    'NUL':               b'Subject: nul\r\n\r\na\x00b\r\n',
    'leading dots':      b'Subject: dots\r\n\r\n..\r\n.b\r\n...\r\n.a\r\n',
    'single dots':       b'Subject: dot\r\n\r\n.\r\n.\r\n\r\n.\r\n',
    'a dot to begin':    b'..\r\nno header\r\n',
    'no final newline':  b'Subject: cut\r\n\r\nthe end',
    'header only':       b'Subject: header\r\n',
    'a long line':       b'Subject: long\r\n\r\n' + b'x' * 100_000 + b'\r\n',
    'odd header':        b'Subject : odd\r\nnot a header\r\n\tfolded\r\n\r\n\r\n\r\n',
}
RECEIVED = re.compile(rb'Received: from \S+ \(\[127\.0\.0\.1\]\)\r\n\tby localhost \(mqlite\) with E?SMTP id \S+\r\n'
                      rb'\tfor <recipient@example\.com>;\r\n\t[^\r\n]+\r\n')


def by_smtplib(port: int, message: bytes, _file: Path) -> None:
    send(port, message)


def by_curl(port: int, message: bytes, file: Path) -> None:
    file.write_bytes(message)
    run('curl', '--silent', '--show-error', f'smtp://{HOST}:{port}', '--mail-from', 'sender@example.org',
        '--mail-rcpt', 'recipient@example.com', '--upload-file', str(file))


def by_swaks(port: int, message: bytes, file: Path) -> None:
    file.write_bytes(message[:-2])                      # it ends the last line itself, even where it has an end
    run('swaks', '--server', HOST, '--port', str(port), '--from', 'sender@example.org', '--to',
        'recipient@example.com', '--data', f'@{file}')


def run(name: str, *arguments: str) -> None:
    done = subprocess.run([find_program(name), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60)
    assert done.returncode == 0, done.stdout.decode(errors='replace')


def without_trace(message: bytes) -> bytes:
    """The message as it was handed in; AssertionError unless exactly one Received line was added, in front."""
    found = RECEIVED.match(message)
    assert found, message[:300]
    return message[found.end():]


def ended(message: bytes) -> bytes:
    """What SMTP can carry: the last line is ended (RFC 5321 4.1.1.4)."""
    return message if message.endswith(b'\r\n') else message + b'\r\n'


@pytest.fixture
def daemon(start_daemon: Start, sink: CapturingSink) -> Daemon:
    """It delivers everything to `sink`."""
    return start_daemon(smtp_sink_address=HOST, smtp_sink_port=sink.port)


# messages

@pytest.mark.parametrize(('client', 'names'), [
    (by_smtplib, list(MESSAGES)),
    (by_curl,    list(MESSAGES)),
    # swaks takes %…%, backslashes and a single dot for itself, and reads no lines of any length
    (by_swaks,   ['plain', 'UTF-8', 'not UTF-8', 'leading dots']),
])
def test_messages_arrive_byte_for_byte(daemon: Daemon, sink: CapturingSink, tmp_path: Path, names: list[str],
                                       client: Callable[[int, bytes, Path], None]) -> None:
    for name in names:
        client(daemon.port, MESSAGES[name], tmp_path / 'message')
    arrived = sink.wait_for(len(names))
    assert sorted(without_trace(one.message) for one in arrived) == sorted(ended(MESSAGES[name]) for name in names)
    assert {tuple(one.recipients) for one in arrived} == {(b'RCPT TO:<recipient@example.com>',)}
    assert all(one.mail.startswith(b'MAIL FROM:<sender@example.org>') for one in arrived)
    assert {(one['results'][-1]['state'], one['results'][-1]['result'])
            for one in daemon.take('results', len(names))} == {('message', 'accepted')}


def test_ten_megabytes_of_any_bytes(daemon: Daemon, sink: CapturingSink) -> None:
    noise = random.Random(1).randbytes(10 << 20).replace(b'\r', b'.').replace(b'\n', b'\r\n')
    message = b'Subject: large\r\n\r\n' + noise.replace(b'\x80', b'\r\n.') + b'\r\n'
    send(daemon.port, message)
    [arrived] = sink.wait_for(1)
    assert without_trace(arrived.message) == message        # not parametrized: pytest would print 10 MB
    [result] = daemon.take('results', 1)
    assert result['results'][0]['sent']['data'] > 10 << 20 and 'mime' not in result


def test_every_recipient_has_a_message_and_a_result_of_its_own(daemon: Daemon, sink: CapturingSink) -> None:
    with connect(daemon.port) as client:
        client.ehlo()
        client.mail('sender@example.org')
        for name in 'abc':
            assert client.rcpt(f'{name}@example.com')[0] == 250
        code, text = client.data(b'Subject: three\r\n\r\nx\r\n')
    lines = [line.partition(b' for ') for line in text.splitlines()[1:]]
    promised = {recipient: identifier for identifier, _, recipient in lines}
    assert code == 250 and set(promised) == {b'a@example.com', b'b@example.com', b'c@example.com'}
    assert sorted(rcpt for one in sink.wait_for(3) for rcpt in one.recipients) == [
        b'RCPT TO:<%s@example.com>' % name for name in (b'a', b'b', b'c')]
    assert {one['recipient'].encode(): one['message-id'].encode() for one in daemon.take('results', 3)} == promised


# the load

@pytest.mark.parametrize('options', [(), ('-d',)], ids=['a connection per message', 'connections kept'])
def test_a_thousand_messages_arrive_once_each(start_daemon: Start, smtp_sink: Callable[..., SmtpSink],
                                              options: tuple[str, ...]) -> None:
    sink = smtp_sink()
    daemon = start_daemon(smtp_sink_address=HOST, smtp_sink_port=sink.port)
    smtp_source(daemon.port, '-s', '20', '-m', '1000', '-l', '5120', *options)
    results = daemon.take('results', 1000)
    delivered = [re.findall(rb'with E?SMTP id (\S+)', kept)[-1].decode() for kept in sink.transactions()]
    assert {one['results'][0]['result'] for one in results} == {'accepted'}
    assert len(set(delivered)) == len(delivered) == 1000
    assert sorted(one['message-id'] for one in results) == sorted(delivered)


def test_a_connection_is_used_again(daemon: Daemon, sink: CapturingSink) -> None:
    for count in range(1, 6):
        send(daemon.port)
        sink.wait_for(count)
    assert sink.connections == 1
    last = max(daemon.take('results', 5), key=lambda one: int(one['results'][0]['messages']))
    assert last['results'][0]['messages'] == 5


def test_a_connection_that_the_server_has_closed_costs_no_message(daemon: Daemon, sink: CapturingSink) -> None:
    sink.script['MAIL'] = [b'250 ok', b'421 4.3.2 I close connections now and then']
    send(daemon.port)
    sink.wait_for(1)
    send(daemon.port)
    assert len(sink.wait_for(2)) == 2 and sink.connections == 2
    assert [len(one['results']) for one in daemon.take('results', 2)] == [1, 1]


def test_when_nobody_listens_it_says_so_and_waits(start_daemon: Start) -> None:
    with socket.socket() as holder:
        holder.bind((HOST, 0))                          # bound, not listening: refused, and nobody else gets the port
        daemon = start_daemon(smtp_sink_address=HOST, smtp_sink_port=holder.getsockname()[1], rabbitmq_retry='retry')
        send(daemon.port)
        [attempt] = daemon.take('retry', 1)
    assert (attempt['results'][0]['state'], attempt['results'][0]['result']) == ('connect', 'error')
    assert 'refused' in attempt['results'][0]['description'] and attempt['nextattempt']['time']
    listed = daemon.cli('queue', 'list').stdout.decode().split()
    assert listed[-5:-2] == ['outbox', '0', '1']        # none ready, one waits for its time


# TLS

def one_result(daemon: Daemon) -> dict[str, Any]:
    send(daemon.port)
    [document] = daemon.take('results', 1)
    result: dict[str, Any] = document['results'][-1]
    assert (result['state'], result['result']) == ('message', 'accepted')
    return result


def test_starttls_is_used_and_reported(start_daemon: Start, tls_sink: CapturingSink) -> None:
    result = one_result(start_daemon(smtp_sink_address=HOST, smtp_sink_port=tls_sink.port))
    assert tls_sink.wait_for(1)[0].tls
    assert result['cipher']['version'] == 'TLSv1.3' and result['cipher']['bits'] >= 128 and result['cipher']['name']


@pytest.mark.parametrize('trouble', ['no cipher in common', 'refused', 'dropped'])
def test_a_server_with_broken_tls_gets_it_in_clear(start_daemon: Start, tls_sink: CapturingSink, trouble: str) -> None:
    assert tls_sink.tls
    if trouble == 'refused':
        tls_sink.script['STARTTLS'] = b'454 4.7.0 not now'
    elif trouble == 'dropped':
        tls_sink.script['STARTTLS'] = b'<drop>'
    else:
        tls_sink.tls.maximum_version = tls_sink.tls.minimum_version
        tls_sink.tls.set_ciphers('AES128-SHA256')       # needs an RSA key; the certificate's is not
    result = one_result(start_daemon(smtp_sink_address=HOST, smtp_sink_port=tls_sink.port))
    assert not tls_sink.wait_for(1)[0].tls and 'cipher' not in result


def test_what_a_client_asks_for_goes_on_to_the_next_server(start_daemon: Start, sink: CapturingSink) -> None:
    """DSN, SMTPUTF8 and local parts that RFC 5321 does not know, all the way."""
    sink.extensions += [b'DSN', b'SMTPUTF8']
    daemon = start_daemon(program=ALERT, smtp_sink_address=HOST, smtp_sink_port=sink.port, dsn_advertise='1',
                          dsn_ret='FULL', smtp_validate_address='loose', validate_recipient='loose')
    with connect(daemon.port) as client:
        client.sendmail('ä@bücher.example', ['c..d.@example.com'], 'Subject: ü\r\n\r\nx\r\n'.encode(),
                        ['SMTPUTF8', 'BODY=8BITMIME', 'ENVID=a+2Bb'], ['NOTIFY=SUCCESS,DELAY', 'ORCPT=rfc822;a@b'])
    [mail] = sink.wait_for(1)
    assert mail.mail.decode().split(' SIZE=')[0] == 'MAIL FROM:<ä@bücher.example>'
    assert mail.mail.endswith(b' BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=a+2Bb')
    assert mail.recipients == [b'RCPT TO:<c..d.@example.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@b']
    assert b'(mqlite) with UTF8SMTP id ' in mail.message and mail.message.endswith('Subject: ü\r\n\r\nx\r\n'.encode())
    [result] = daemon.take('results', 1)
    assert (result['envelope'], result['smtputf8'], result['results'][0]['dsn']) == ('ä@bücher.example', True, True)
    publish(daemon, {'envelope': 'a..b@example.org', 'recipient': 'b@example.com', 'mime': 'x'})
    [result] = daemon.take('results', 1)
    assert result['results'][0]['description'] == '"envelope": the address is not valid'


# documents

def publish(daemon: Daemon, *documents: dict[str, object]) -> None:
    lines = b''.join(json.dumps(document).encode() + b'\n' for document in documents)
    done = daemon.cli('queue', 'publish', 'outbox', input=lines)
    assert done.returncode == 0, done.stderr


def test_a_published_document_keeps_what_it_asks_for(start_daemon: Start, sink: CapturingSink) -> None:
    daemon = start_daemon(program=ALERT, smtp_sink_address=HOST, smtp_sink_port=sink.port, rabbitmq_retry='retry')
    sink.script = {'RCPT': [b'450 4.2.1 later'], 'DATA': [b'503 5.5.1 no recipients']}
    tomorrow = time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(time.time() + 86400))
    document = {'envelope': 'a@example.org', 'recipient': 'b@example.com', 'mime': 'Subject: x\n\ny', 'keepmime': True,
                'retries': ['1'], 'maxdelivertime': tomorrow, 'campaign': {'name': 'spring', 'n': [1, 2.5, None]},
                'queues': {'results': None, 'success': 'mine'}}
    waits = {**document, 'recipient': 'later@example.com', 'nextattempt': {'time': tomorrow}}
    publish(daemon, document, waits)
    [result] = daemon.take('mine', 1)
    assert [(one['state'], one['result']) for one in result['results']] == [
        ('rcptto', 'error'), ('message', 'accepted')]
    assert {key: result[key] for key in document} == document
    assert sink.wait_for(1)[0].message == b'Subject: x\r\n\r\ny\r\n'
    assert len(daemon.take('retry', 1)[0]['results']) == 1
    assert daemon.cli('queue', 'list').stdout.split()[5:9] == [b'outbox', b'0', b'1', b'0']


def test_attempts_end(start_daemon: Start, sink: CapturingSink) -> None:
    daemon = start_daemon(program=ALERT, smtp_sink_address=HOST, smtp_sink_port=sink.port, rabbitmq_failure='failure')
    sink.script = {'RCPT': b'450 4.2.1 later', 'DATA': b'503 5.5.1 no recipients'}
    base = {'recipient': 'b@example.com', 'mime': 'x'}
    publish(daemon, {**base, 'maxattempts': 1}, {**base, 'maxdelivertime': '2020-01-01 00:00:00'})
    reasons = sorted((one['results'][0]['state'], one['results'][0]['result']) for one in daemon.take('failure', 2))
    assert reasons == [('process', 'timeout'), ('rcptto', 'error')]


def test_poison_is_given_up_once_with_the_reason(start_daemon: Start, sink: CapturingSink) -> None:
    daemon = start_daemon(program=ALERT, smtp_sink_address=HOST, smtp_sink_port=sink.port, rabbitmq_failure='failure')
    poison = [b'', b'{"recipient": ', b'[]', b'{"mime": "x"}', b'{"recipient": "nobody", "mime": "x"}',
              b'{"recipient": "a@example.com"}', b'{"recipient": "a@example.com", "mime": "x", "retries": "soon"}',
              b'[' * 100_000, b'\xff\xfe', b'{"recipient": "a@example.com", "mime": "\\ud800"}']
    database = Database(str(daemon.folder / 'queue.db'))
    database.open()
    database.apply(Batch(publish=[Message('outbox', body) for body in poison]), 0)
    database.close()
    given_up = daemon.take('failure', len(poison))
    reasons = [(one['results'][0]['state'], one['results'][0]['result']) for one in given_up]
    assert reasons.count(('storage', 'error')) == 1 and reasons.count(('process', 'invalid')) == len(poison) - 1
    assert all(one['results'][0]['description'] for one in given_up)
    send(daemon.port)                                   # it still works
    sink.wait_for(1)


def test_plugins_take_part_on_both_ways(start_daemon: Start, sink: CapturingSink, tmp_path: Path) -> None:
    """The daemon loads the examples; one marks what comes in, the other changes what goes out."""
    plugins = tmp_path / 'plugins'
    plugins.mkdir()
    build_plugin(plugins, (ROOT / 'plugins' / 'footer.c').read_text(), '-lfastjson', name='10-footer')
    build_plugin(plugins, (ROOT / 'plugins' / 'trace.c').read_text(), name='20-trace')
    daemon = start_daemon(plugin_directory=plugins, smtp_sink_address=HOST, smtp_sink_port=sink.port)
    send(daemon.port, b'Subject: x\r\n\r\nbody\r\n')
    [kept] = sink.wait_for(1)
    assert kept.message.endswith(b'\r\n\r\nbody\r\n\r\n-- \r\nSent with mqlite\r\n')
    daemon.stop()
    assert 'plugins in' in daemon.output() and '10-footer.so, 20-trace.so' in daemon.output()
    for step in ('connect', 'rcptto recipient@example.com', 'close', 'out data', 'out sent'):
        assert f' {step}' in daemon.output(), step


def test_a_smarthost_that_is_ourselves(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(program=ALERT, processes=2)
    line = json.dumps({'recipient': 'r@b.example', 'mime': 'x',
                       'smarthost': {'hostname': HOST, 'port': daemon.port}}).encode()
    assert daemon.cli('queue', 'publish', 'outbox', input=line).returncode == 0
    [document] = daemon.take('results', 1)
    assert document['results'][-1]['status'] == '5.4.6' and len(document['results']) == 1
