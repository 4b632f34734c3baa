"""Where incoming mail goes on RabbitMQ: inbox, local, reports, refused, and files of the spool directory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from tests.support.amqp_clients import CLIENTS
from tests.support.broker import Broker
from tests.support.daemon import ALERT, Daemon
from tests.support.database import make_database
from tests.support.load import connect
from tests.support.process import ROOT, wait_until

REPORT = (ROOT / 'tests/data/reports/dsn-postfix.eml').read_bytes().replace(b'\n', b'\r\n')
LETTER = b'Subject: hello\r\n\r\nhello\r\n'


def test_each_has_its_queue(start_daemon: Callable[..., Daemon], broker: Broker, tmp_path: Path) -> None:
    broker.delete_queues()
    database, spool = tmp_path / 'config.db', tmp_path / 'spool'
    spool.mkdir()
    file = make_database(str(database))
    file.add('locals', {'address': '*@local.example', 'type': 'fnmatch'})
    file.close()
    daemon = start_daemon(program=ALERT, queue_address=broker.url, database_address=f'sqlite://{database}',
                          spool_directory=spool,
                          rabbitmq_inbox='inbox', rabbitmq_local='local', rabbitmq_reports='reports',
                          rabbitmq_refused='refused')
    with connect(daemon.port) as client:
        client.sendmail('', ['reports@local.example', 'you@example.org'], REPORT)
        client.sendmail('me@example.org', ['you@local.example'], LETTER)
        client.ehlo('client.example')
        client.mail('me@example.org')
        client.rcpt('you@local.example')
        client.putcmd('data')
        client.getreply()
        client.send(b'bare\n\r\n.\r\n')
        assert client.getreply()[0] == 550
    (spool / '.new').write_bytes(b'From: me@example.org\nTo: file@example.org\n\nhello\n')
    os.utime(spool / '.new', (0, 0))                    # nobody has written to it for a while
    os.rename(spool / '.new', spool / 'new')
    expected = {'inbox': ['file@example.org', 'you@example.org'], 'local': ['you@local.example'],
                'reports': ['reports@local.example'], 'refused': ['you@local.example']}
    found: dict[str, list[str]] = {queue: [] for queue in expected}

    def all_there() -> bool:
        for queue, recipients in found.items():
            messages = CLIENTS['pika'].read(broker.url, queue)
            recipients += [json.loads(message.body)['recipient'] for message in messages]
            recipients.sort()
        return sum(map(len, found.values())) >= sum(map(len, expected.values()))
    wait_until(all_there, 'all messages')
    assert found == expected
