"""Which limits a destination has."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqlite.database.live import LOOK_SECONDS, Database
from mqlite.database.tables import Row
from mqlite.delivery.capacity import DEFAULT, LONGEST_IDLE, Capacity, Limits, make_capacity
from mqlite.delivery.controls import Controls
from mqlite.loop.task import sleep
from tests.support.database import Notes, execute, make_database, row
from tests.support.loop import LoopBench

NAMES = ['one.example', 'two.example', 'mx.one.example']


def limits(*rows: tuple[str, str, int]) -> list[Row]:
    """(localip, domain, connections)."""
    return [row('capacity', id=number, localip=address, domain=domain, domain_maxconnections=count)
            for number, (address, domain, count) in enumerate(rows, 1)]


@pytest.mark.parametrize(('rows', 'source', 'connections'), [
    ([],                                                                            '192.0.2.1', 20),
    ([('', '', 1)],                                                                 '192.0.2.1', 1),
    ([('', '', 1)],                                                                 None,        1),
    ([('', '', 1), ('192.0.2.1', '', 2)],                                           '192.0.2.1', 2),
    ([('', '', 1), ('192.0.2.1', '', 2)],                                           '192.0.2.9', 1),
    ([('', '', 1), ('192.0.2.1', '', 2)],                                           None,        1),
    ([('192.0.2.1', '', 2), ('', 'one.example', 3)],                                '192.0.2.1', 3),
    ([('192.0.2.1', '', 2), ('', 'one.example', 3), ('192.0.2.1', 'one.example', 4)], '192.0.2.1', 4),
    ([('192.0.2.1', '', 2), ('', 'one.example', 3), ('192.0.2.1', 'one.example', 4)], '192.0.2.2', 3),
    ([('', 'other.example', 5)],                                                    '192.0.2.1', 20),
    ([('', 'Two.Example.', 5)],                                                     '192.0.2.1', 5),
    ([('', 'mx.one.example', 6)],                                                   '192.0.2.1', 6),
    ([('', 'mx.one.example', 6), ('', 'one.example', 7)],                           '192.0.2.1', 7),
    ([('', 'one.example', 7), ('', 'one.example', 8)],                              '192.0.2.1', 7),
    ([('2001:DB8::1', '', 9)],                                                      '2001:db8::1', 9),
    ([('', 'one.example', -1), ('', '', 5)],                                        '192.0.2.1', 20),
])
def test_the_most_specific_row_wins(rows: list[tuple[str, str, int]], source: str | None, connections: int) -> None:
    assert Limits(limits(*rows)).find(source, NAMES).connections == connections


def rule(capacity: int, **values: str) -> Row:
    return row('capacity_rules', capacity=capacity, **values)


@pytest.mark.parametrize(('rules', 'source', 'connections'), [
    ([],                                                                           '192.0.2.1', 1),
    ([rule(2, domain='one.example')],                                              '192.0.2.1', 2),
    ([rule(2, localip='192.0.2.1')],                                               '192.0.2.1', 2),
    ([rule(2, localip='192.0.2.1')],                                               '192.0.2.5', 1),
    ([rule(2, pool='news', domain='one.example')],                                 '192.0.2.1', 2),
    ([rule(2, pool='news', domain='one.example')],                                 '192.0.2.5', 1),
    ([rule(2, pool='none')],                                                       '192.0.2.1', 1),
    ([rule(2, pool='news'), rule(3, localip='192.0.2.1')],                         '192.0.2.1', 3),
    ([rule(2, pool='news'), rule(3, localip='192.0.2.1')],                         '192.0.2.2', 2),
    ([rule(9, domain='one.example')],                                              '192.0.2.1', 1),
    ([rule(1, domain='other.example')],                                            '192.0.2.1', 20),
])
def test_rules(rules: list[Row], source: str, connections: int) -> None:
    """A row without address and domain holds everywhere, unless it has rules."""
    rows = limits(('', '', 1), ('', 'unknown.example', 2), ('', 'unknown.example', 3))
    found = Limits(rows, rules, {'news': ('192.0.2.1', '192.0.2.2')})
    assert found.find(source, NAMES).connections == connections


@pytest.mark.parametrize(('columns', 'capacity'), [
    ({}, DEFAULT),
    (dict.fromkeys(('domain_maxmessages', 'domain_maxconnects', 'domain_maxconnections', 'connection_maxmessages',
                    'connection_maxidletime'), 0), Capacity(0, 0, 0.0, 0.0, LONGEST_IDLE)),
    ({'domain_maxmessages': 600, 'domain_maxconnects': 30, 'domain_maxconnections': 4, 'connection_maxmessages': 100,
      'connection_maxidletime': 1500}, Capacity(4, 100, 600, 30, 1.5)),
    ({'ip_maxmessages': 60, 'ip_maxconnects': 5, 'ip_maxconnections': 2}, DEFAULT._replace(
        address_connections=2, address_messages=60, address_connects=5)),
    ({'domain_maxmessages': -7, 'connection_maxidletime': 10 ** 9}, DEFAULT._replace(idle_seconds=LONGEST_IDLE)),
])
def test_the_columns(columns: dict[str, int], capacity: Capacity) -> None:
    assert make_capacity(row('capacity', **columns)) == capacity


def test_the_part_of_a_worker() -> None:
    whole = Capacity(5, 100, 600.0, 30.0, 1.5)
    assert whole.part(1) == whole
    assert whole.part(2) == Capacity(2, 100, 300.0, 15.0, 1.5)
    assert Capacity(address_connections=5, address_messages=600.0, address_connects=30.0).part(4) == Capacity(
        5, address_connections=1, address_messages=150.0, address_connects=7.5)
    assert whole.part(10).connections == 1 and Capacity(0).part(10).connections == 0


def test_the_database_is_followed(tmp_path: Path) -> None:
    bench = LoopBench()
    path = str(tmp_path / 'config.db')
    make_database(path).close()
    execute(path, "INSERT INTO capacity (domain, domain_maxconnections) VALUES ('one.example', 3)",
            "INSERT INTO poolips (name, ip) VALUES ('news', '192.0.2.2'), ('news', '192.0.2.1')")
    database = Database(bench.reactor, make_database(path), 600.0, Notes())
    controls, told = Controls(database), []
    controls.on_limits = lambda: told.append(controls.limits.find(None, ['one.example']).connections)
    assert controls.limits.find(None, ['one.example']).connections == 3
    assert controls.pools == {'news': ('192.0.2.2', '192.0.2.1')}
    database.start()

    async def change() -> None:
        execute(path, 'UPDATE capacity SET domain_maxconnections = 4')
        while not told:
            await sleep(bench.reactor, LOOK_SECONDS)
        await database.stop()

    bench.run(change())
    assert told == [4]
    bench.close()
