"""Files of the spool directory are taken, claimed and cleared away, by one process, whatever happens meanwhile."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Any

import pytest

from mqlite.spool.directory import Unusable
from tests.support import spool
from tests.support.loop import open_descriptors
from tests.support.spool import TEXT, Make, Place

make, place = spool.make, spool.place  # fixtures


def test_from_the_first_look_to_the_last(place: Place) -> None:
    before = open_descriptors()
    path = place.drop('a')
    inode = path.stat().st_ino
    taken = place.take()
    assert taken.content == TEXT and taken.owner == path.owner() and not taken.candidate.again
    assert place.there() == ['a']
    assert place.directory.claim(taken)
    assert place.there() == [f'.mqlite-{inode}-a']
    assert place.directory.finish(taken) == '' and place.there() == []
    taken.file.close()
    assert open_descriptors() == before + 2         # the two directories


def test_what_somebody_has_locked_is_left_to_him(place: Place) -> None:
    path = place.drop('a')
    [candidate] = place.candidates()
    with path.open('rb') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert place.take_of(candidate) is None
    assert place.take_of(candidate) is not None


def test_of_two_processes_one_gets_it(make: Make) -> None:
    first, second = make(), make()
    first.drop('a')
    [mine], [other] = first.candidates(), second.candidates()
    taken = first.take_of(mine)
    assert taken is not None and second.take_of(other) is None
    assert first.directory.claim(taken)
    [claimed] = second.candidates()                     # it sees the claim, and the lock
    assert claimed.again and second.take_of(claimed) is None
    first.directory.finish(taken)
    assert second.take_of(claimed) is None and second.take_of(other) is None


def test_a_claim_whose_owner_has_died_is_taken_again_and_marked(make: Make) -> None:
    first, second = make(), make()
    first.drop('a')
    taken = first.take()
    first.directory.claim(taken)
    taken.file.close()                                  # what the kernel does when a process dies
    again = second.take()
    assert again.candidate.again and again.candidate.name == 'a' and again.content == TEXT
    assert second.directory.claim(again) and second.directory.finish(again) == '' and second.there() == []


def test_a_claim_does_not_get_into_the_way_of_a_new_file_of_that_name(place: Place) -> None:
    place.drop('a', TEXT + b'first\n')
    taken = place.take()
    place.directory.claim(taken)
    taken.file.close()
    place.drop('a', TEXT + b'second\n')
    both = {candidate.entry: candidate for candidate in place.candidates()}
    assert len(both) == 2
    second = place.take_of(both['a'])
    assert second is not None and place.directory.claim(second)
    assert len(place.there()) == 2


def test_a_claim_that_cannot_be_sent_is_set_aside_under_its_own_name(place: Place) -> None:
    place.drop('a')
    taken = place.take()
    place.directory.claim(taken)
    [candidate] = place.candidates()
    place.directory.set_aside(candidate, 'because')
    assert place.failed() == {'a': 'a: because\n'} and place.there() == []


@pytest.mark.parametrize('moment', ['before taking', 'before claiming'])
def test_a_file_that_is_replaced_meanwhile_is_not_lost(place: Place, moment: str) -> None:
    place.drop('a', b'old')
    [candidate] = place.candidates()
    taken = place.take_of(candidate) if moment == 'before claiming' else None
    place.drop('.new', TEXT)
    os.rename(place.path / '.new', place.path / 'a')
    if taken is None:
        assert place.take_of(candidate) is None
    else:
        assert not place.directory.claim(taken)
        taken.file.close()
    assert place.take().content == TEXT


def test_a_file_that_changes_while_it_is_read_waits(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place.drop('a')
    [candidate] = place.candidates()
    lock = fcntl.flock

    def lock_and_write(file: Any, how: int) -> None:
        lock(file, how)
        path.write_bytes(TEXT + b'more')
    monkeypatch.setattr(fcntl, 'flock', lock_and_write)
    assert place.take_of(candidate) is None


def test_a_file_that_is_written_to_after_it_was_taken_is_set_aside(place: Place) -> None:
    path = place.drop('a')
    with path.open('ab') as writer:
        taken = place.take()
        place.directory.claim(taken)
        writer.write(b'more\n')
    assert 'a part of it was sent; it is in' in place.directory.finish(taken)
    assert place.there() == [] and (place.fail / 'a').read_bytes() == TEXT + b'more\n'


def test_of_two_that_set_aside_one_does(make: Make) -> None:
    first, second = make(), make()
    second.scan()
    os.mkfifo(first.path / 'a')
    entries = list(second.directory._entries())
    first.scan()
    second.directory._entries = lambda: iter(entries)  # type: ignore[method-assign]  # what it had seen before
    assert second.scan() == [] and second.complaints == []
    assert sorted(os.listdir(first.fail)) == ['a', 'a.reason']


def test_files_that_stay_are_taken_once(make: Make) -> None:
    place = make(remove=False)
    place.drop('a')
    taken = place.take()
    assert place.directory.claim(taken) and place.directory.finish(taken) == ''
    assert place.there() == ['a'] and place.scan() == place.scan() == []
    place.drop('a', TEXT + b'changed\n')
    assert place.scan() == ['a']


def test_what_cannot_be_removed_is_never_sent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.drop('a')
    taken = place.take()

    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(errno.EPERM, 'Operation not permitted')
    monkeypatch.setattr(os, 'rename', refuse)
    with pytest.raises(Unusable, match='could not be removed after it is sent'):
        place.directory.claim(taken)


def test_what_could_not_be_removed_after_all_is_not_sent_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.drop('a')
    taken = place.take()
    place.directory.claim(taken)

    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(errno.EPERM, 'Operation not permitted')
    monkeypatch.setattr(os, 'unlink', refuse)
    assert 'was sent and cannot be removed' in place.directory.finish(taken)
    assert place.scan() == place.scan() == []


@pytest.mark.parametrize(('number', 'of_the_file'), [(errno.EACCES, True), (errno.ELOOP, True), (errno.EMFILE, False),
                                                     (errno.EIO, False)])
def test_whose_fault_it_is(place: Place, monkeypatch: pytest.MonkeyPatch, number: int, of_the_file: bool) -> None:
    place.drop('a')
    [candidate] = place.candidates()

    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(number, 'no')
    monkeypatch.setattr(os, 'open', refuse)
    with pytest.raises(Unusable if of_the_file else OSError):
        place.take_of(candidate)
