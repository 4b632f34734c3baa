"""Who waits, and who is next."""

from __future__ import annotations

import pytest

from mqlite.delivery.job import Job
from mqlite.delivery.line import Line
from mqlite.delivery.route import Route
from mqlite.message.document import Document
from mqlite.queues.contract import Delivery


def job(name: str) -> Job:
    """`a1`: the first of tag a; `9a1` with priority 9; ` 1` without a tag."""
    priority = int(name[0]) if name[0].isdigit() else 0
    tag = name[-2].strip()
    document = Document({'recipient': f'{name.strip()}@b.example', 'mime': 'x', 'tags': [tag] if tag else None})
    return Job(Delivery('outbox', 1, b'x' * 10, priority, 0), document, Route('b.example', 25, False))


def names(jobs: list[Job]) -> list[str]:
    return [job.envelope.recipient.partition('@')[0] for job in jobs]


def emptied(line: Line) -> list[str]:
    return names([line.next() for _ in range(len(line))])


@pytest.mark.parametrize(('added', 'order'), [
    ('',                        ''),
    ('a1',                      'a1'),
    ('a1 a2 a3 a4',             'a1 a2 a3 a4'),
    ('a1 a2 a3 b1',             'a1 b1 a2 a3'),
    ('a1 a2 b1 b2 c1 c2',       'a1 b1 c1 a2 b2 c2'),
    ('a1 1a1 a2 1b1 9a1',       '9a1 1a1 1b1 a1 a2'),
])
def test_the_order(added: str, order: str) -> None:
    line = Line()
    for name in added.split():
        line.add(job(name))
    assert (len(line), line.size) == (len(added.split()), 10 * len(added.split()))
    assert len(list(line)) == len(line)
    assert emptied(line) == order.split()
    assert (len(line), line.size, list(line)) == (0, 0, [])


def test_without_tags() -> None:
    line = Line()
    for name in (' 1', ' 2', 'a1'):
        line.add(job(name))
    assert emptied(line) == ['1', 'a1', '2']


def test_who_comes_later_takes_turns_too() -> None:
    line = Line()
    for name in ('a1', 'a2', 'a3'):
        line.add(job(name))
    assert names([line.next()]) == ['a1']
    line.add(job('b1'))
    line.add(job('b2'))
    assert emptied(line) == ['a2', 'b1', 'a3', 'b2']


def test_who_did_not_go_is_the_next_of_its_priority() -> None:
    line = Line()
    for name in ('a1', 'b1', 'b2', '1c1'):
        line.add(job(name))
    urgent, first = line.next(), line.next()
    line.put_first(first)
    assert (len(line), line.size) == (3, 30)
    line.put_first(urgent)
    assert emptied(line) == ['1c1', 'a1', 'b1', 'b2']


def test_some_are_kept() -> None:
    line = Line()
    for name in ('a1', 'a2', 'a3', 'b1', '1b9'):
        line.add(job(name))
    assert names(line.keep(lambda one: names([one]) not in (['a3'], ['a2']))) == ['a2', 'a3']
    assert names(line.keep(lambda one: one.tag == 'b')) == ['a1']
    assert emptied(line) == ['1b9', 'b1']


def test_the_tags_of_a_document() -> None:
    for tags, found in ((['a', 'b'], ['a', 'b']), ([], []), (None, []), ('a', []), ([5, 'b'], ['b']), ({'a': 1}, [])):
        assert Document({'tags': tags}).tags == found
