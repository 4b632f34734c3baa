"""The table `dns`: what its rows say, and mail that goes where they say."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

from mqlite.database.overrides import read_overrides
from mqlite.database.tables import TABLES, Row, places_of
from tests.support.daemon import Daemon
from tests.support.database import execute, make_database
from tests.support.load import send
from tests.support.process import HOST
from tests.support.sink import CapturingSink

PLACES = places_of(TABLES['dns'])


def test_what_the_rows_say() -> None:
    rows = [('Example.ORG.', '192.0.2.1'), ('bücher.example', ' 2001:DB8::1 '), ('example.org', '192.0.2.2'),
            ('', '192.0.2.1'), ('example.org', ''), ('example.org', 'mx.example.org'), ('a..b', '192.0.2.3')]
    found = read_overrides(Row(PLACES, (number, *row)) for number, row in enumerate(rows, 1))
    assert found.items == {'example.org': ('192.0.2.1', '192.0.2.2'), 'xn--bcher-kva.example': ('2001:db8::1',)}
    assert [fault.partition(' of')[0] for fault in found.faults] == ['row 4', 'row 5', 'row 6', 'row 7']


def test_mail_goes_there(start_daemon: Callable[..., Daemon], sink: CapturingSink, tmp_path: Path) -> None:
    path = str(tmp_path / 'config.db')
    make_database(path).close()
    execute(path, f"INSERT INTO dns (domain, ip) VALUES ('test.invalid', '{HOST}')")
    daemon = start_daemon(database_address=f'sqlite://{path}', smarthost='test.invalid', smarthost_port=sink.port)
    send(daemon.port, b'Subject: x\r\n\r\nx\r\n', 'you@elsewhere.invalid')
    sink.wait_for(1)
