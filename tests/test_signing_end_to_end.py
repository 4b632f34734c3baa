"""Signatures on what a daemon sends: by keys of its database and of the document, as the last thing before it goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import dkim
import pytest

from tests.support.daemon import ALERT, Daemon
from tests.support.database import execute, insert, make_database
from tests.support.process import HOST, wait_until
from tests.support.signing import answer, key_pair
from tests.support.sink import CapturingSink

DOCUMENT = {'envelope': 'joe@example.org', 'recipient': 'a@example.com',
            'mime': 'From: joe@example.org\nSubject: hi\n\nbody\n.\n'}


@pytest.fixture
def deliver(tmp_path: Path, start_daemon: Callable[..., Daemon],
            sink: CapturingSink) -> Callable[..., tuple[bytes, dict[str, Any]]]:
    """deliver(setting=..., document={...}): what arrives (b'' for nothing), and the document with its result."""
    def run(document: dict[str, Any], **settings: object) -> tuple[bytes, dict[str, Any]]:
        daemon = start_daemon(program=ALERT, smtp_sink_address=HOST, smtp_sink_port=sink.port, **settings)
        line = json.dumps({**DOCUMENT, **document}).encode()
        assert daemon.cli('queue', 'publish', 'outbox', input=line).returncode == 0
        [result] = daemon.take('results', 1)
        wait_until(lambda: len(sink.transactions) == (result['results'][-1]['result'] == 'accepted'), 'the sink')
        return (sink.transactions[0].message if sink.transactions else b''), result
    return run


def test_keys_of_the_database_and_of_the_document(tmp_path: Path, deliver: Callable[..., Any]) -> None:
    """A plugin has its say before: what it adds is signed too."""
    path = tmp_path / 'database.db'
    make_database(str(path)).close()
    execute(str(path), insert('dkim_keys', id=1, domain='example.org', selector='rsa', privatekey=key_pair('rsa').pem),
            insert('dkim_patterns', sign='example.org', type='exact', dkim_key=1))
    plugins = tmp_path / 'plugins'
    plugins.mkdir()
    (plugins / 'footer.py').write_text('def mq_smtp_out_data(context, connection, message):\n'
                                       '    message.mime = b"From: joe@example.org\\r\\n\\r\\nfooter\\r\\n"\n')
    arrived, _ = deliver({'dkim': key_pair('ed25519').entry()}, database_address=f'sqlite://{path}',
                         plugin_directory=plugins)
    assert arrived.endswith(b'\r\n\r\nfooter\r\n') and arrived.count(b'DKIM-Signature:') == 2
    assert all(dkim.DKIM(arrived).verify(number, dnsfunc=answer) for number in (0, 1))


def test_a_document_is_signed_and_sealed(deliver: Callable[..., Any]) -> None:
    arrived, result = deliver({'dkim': key_pair('rsa').entry(protocols=['dkim', 'arc'])})
    assert dkim.verify(arrived, dnsfunc=answer) and dkim.arc_verify(arrived, dnsfunc=answer)[0] == b'pass'
    assert arrived.endswith(b'body\r\n.\r\n')
    assert result['results'][-1]['sent']['data'] > len(arrived)


def test_a_message_is_converted_before_it_is_signed(deliver: Callable[..., Any], sink: CapturingSink) -> None:
    sink.extensions.remove(b'8BITMIME')
    arrived, _ = deliver({'dkim': key_pair('rsa').entry(), 'mime': DOCUMENT['mime'].replace('body', 'bödy')})
    assert arrived.isascii() and b'\r\nContent-Transfer-Encoding: base64\r\n' in arrived
    assert dkim.verify(arrived, dnsfunc=answer)


@pytest.mark.parametrize('force', [False, True])
def test_a_key_that_cannot_sign(deliver: Callable[..., Any], force: bool) -> None:
    arrived, result = deliver({'dkim': key_pair('rsa').entry(key='nothing'), 'force': force})
    last = result['results'][-1]
    if force:
        assert arrived and b'DKIM' not in arrived
    else:
        assert (last['state'], last['result']) == ('process', 'invalid') and 'not in PEM form' in last['description']
