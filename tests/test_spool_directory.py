"""The spool directory on disk: what is ready, what is not ours to touch, taking, claiming, clearing away."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from mqlite.errors import ConfigError
from mqlite.spool.directory import (
    PATIENCE_SECONDS,
    QUIET_SECONDS,
    Candidate,
    SpoolConfig,
    SpoolDirectory,
    Taken,
    Unusable,
)
from tests.support.loop import open_descriptors

TEXT = b'From: me@example.org\nTo: you@example.org\n\nhello\n'
WALL = 2_000_000_000.0  # the clock of these tests, far from the time of the files
OLD = WALL - 3600


class Place:
    """A spool directory and its fail directory, looked at when the test says so."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.path, self.fail = folder / 'spool', folder / 'fail'
        self.path.mkdir(exist_ok=True)
        self.fail.mkdir(exist_ok=True)
        self.directory = SpoolDirectory(SpoolConfig(str(self.path), **{'fail_path': str(self.fail), **config}))
        self.complaints: list[str] = []
        self._taken: list[Taken] = []

    def drop(self, name: str, content: bytes = TEXT, changed: float = OLD) -> Path:
        """As if it had been moved in, unless it changed just now."""
        path = self.path / name
        path.write_bytes(content)
        os.utime(path, (changed, changed))
        return path

    def scan(self, now: float = 0.0, *in_hand: str) -> list[str]:
        """The entries that are ready at this moment of the monotonic clock."""
        return [candidate.entry for candidate in self.candidates(now, *in_hand)]

    def candidates(self, now: float = 0.0, *in_hand: str) -> list[Candidate]:
        ready, complaints = self.directory.scan(now, WALL + now, frozenset(in_hand))
        self.complaints += complaints
        return ready

    def take(self) -> Taken:
        """The only file that is ready."""
        [candidate] = self.candidates()
        taken = self.take_of(candidate)
        assert taken is not None
        return taken

    def take_of(self, candidate: Candidate) -> Taken | None:
        taken = self.directory.take(candidate)
        if taken is not None:
            self._taken.append(taken)
        return taken

    def close(self) -> None:
        for taken in self._taken:
            taken.file.close()
        self.directory.close()

    def there(self) -> list[str]:
        return sorted(os.listdir(self.path))

    def failed(self) -> dict[str, str]:
        """The files of the fail directory and their reasons."""
        return {path.name: (self.fail / f'{path.name}.reason').read_text() for path in sorted(self.fail.iterdir())
                if path.suffix != '.reason'}


Make = Callable[..., Place]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    places: list[Place] = []

    def make_place(**config: Any) -> Place:
        places.append(Place(tmp_path, **config))
        return places[-1]
    yield make_place
    for place in places:
        place.close()


@pytest.fixture
def place(make: Make) -> Place:
    return make()


# what is ready

def test_what_was_moved_in_is_ready_at_once_the_oldest_first(place: Place) -> None:
    place.drop('b', changed=OLD)
    place.drop('a', changed=OLD + 1)
    assert place.scan() == ['b', 'a']
    assert place.scan(0.0, 'b') == ['a']


def test_a_file_that_grows_waits_until_it_is_quiet(place: Place) -> None:
    place.drop('a', b'From: me', changed=WALL)
    assert place.scan(0.0) == []
    place.drop('a', TEXT, changed=WALL + 1)
    assert place.scan(1.0) == place.scan(2.0) == []
    assert place.scan(1.0 + QUIET_SECONDS) == ['a']


def test_a_file_whose_time_is_in_the_future_is_taken_when_it_does_not_change(place: Place) -> None:
    place.drop('a', changed=WALL + 10 ** 6)
    assert place.scan(0.0) == place.scan(QUIET_SECONDS - 0.1) == []
    assert place.scan(QUIET_SECONDS) == ['a']


def test_the_delay_counts_from_when_we_have_seen_it_as_it_is(make: Make) -> None:
    place = make(delay=10.0)
    place.drop('a')
    assert place.scan(0.0) == place.scan(9.9) == []
    assert place.scan(10.0) == ['a']
    place.drop('a', TEXT + b'more\n')
    assert place.scan(10.1) == []


def test_what_is_not_ours(place: Place) -> None:
    place.drop('.hidden')
    place.drop('.mqlite-')
    (place.path / 'folder').mkdir()
    place.drop('folder/a')
    assert place.scan() == [] and place.complaints == []
    assert place.there() == ['.hidden', '.mqlite-', 'folder']


def test_a_thousand_files(place: Place) -> None:
    for number in range(1000):
        place.drop(f'{number:04}')
    assert place.scan() == [f'{number:04}' for number in range(1000)]


# what cannot be sent

def make_link(path: Path) -> None:
    (path.parent.parent / 'secret').write_bytes(TEXT)
    path.symlink_to(path.parent.parent / 'secret')


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))


MAKERS: dict[str, Callable[[Path], object]] = {
    'link':         make_link,
    'broken link':  lambda path: path.symlink_to('nowhere'),
    'link to here': lambda path: path.symlink_to('.'),
    'fifo':         os.mkfifo,
    'socket':       make_socket,
}
if os.geteuid() == 0:
    MAKERS['device'] = lambda path: os.mknod(path, 0o20666, os.makedev(1, 3))       # others cannot make one


@pytest.mark.parametrize('kind', MAKERS)
def test_what_is_no_regular_file_is_set_aside_unread(place: Place, kind: str) -> None:
    MAKERS[kind](place.path / 'a')
    assert place.scan() == [] and place.there() == []
    assert place.failed() == {'a': 'a: it is not a regular file\n'}
    assert place.complaints == [
        f'spool file a cannot be sent: it is not a regular file; it is in {place.fail} as a']


@pytest.mark.parametrize('kind', MAKERS)
def test_what_is_put_in_the_place_of_a_file_that_was_ready(place: Place, kind: str) -> None:
    place.drop('a')
    [candidate] = place.candidates()
    (place.path / 'a').unlink()
    MAKERS[kind](place.path / 'a')
    before = open_descriptors()
    try:
        assert place.take_of(candidate) is None
    except Unusable as fault:
        assert str(fault).startswith('it cannot be read: ')
    assert open_descriptors() == before


def test_too_large(make: Make) -> None:
    place = make(largest=100)
    place.drop('a', b'x' * 100)
    place.drop('b', b'x' * 101)
    assert place.scan() == ['a']
    assert place.failed() == {'b': 'b: it is larger than 100 bytes, the limit of smtp-maxsize\n'}


def test_an_empty_file_gets_patience(place: Place) -> None:
    place.drop('a', b'')
    assert place.scan(0.0) == place.scan(PATIENCE_SECONDS) == [] and place.failed() == {}
    assert place.scan(PATIENCE_SECONDS + 1) == [] and place.failed() == {'a': 'a: it is empty\n'}


def test_a_file_with_two_names_gets_patience(place: Place, tmp_path: Path) -> None:
    (tmp_path / 'shadow').write_bytes(TEXT)
    os.link(tmp_path / 'shadow', place.path / 'a')
    assert place.scan(0.0) == place.scan(PATIENCE_SECONDS) == []
    assert place.scan(PATIENCE_SECONDS + 1) == []
    assert place.failed() == {'a': 'a: it has several names (hard links)\n'}


def test_a_file_that_was_linked_in_is_ready_when_its_first_name_has_gone(place: Place, tmp_path: Path) -> None:
    (tmp_path / 'tmp').write_bytes(TEXT)
    os.utime(tmp_path / 'tmp', (OLD, OLD))
    os.link(tmp_path / 'tmp', place.path / 'a')
    assert place.scan() == []
    (tmp_path / 'tmp').unlink()
    assert place.scan() == ['a']


def test_a_name_that_is_too_long(place: Place) -> None:
    place.drop('ä' * 101)
    place.drop('b' * 200)
    assert place.scan() == ['b' * 200]
    assert list(place.failed()) == ['ä' * 50]


def test_several_of_one_name(place: Place) -> None:
    for _ in range(3):
        place.drop('a')
        [candidate] = place.candidates()
        place.directory.set_aside(candidate, 'no recipients')
    assert list(place.failed()) == ['a', 'a.2', 'a.3']
    (place.fail / 'a').unlink()         # looked at by somebody, who has left the reason
    place.drop('a')
    [candidate] = place.candidates()
    assert place.directory.set_aside(candidate, 'again').endswith('as a.4')


def test_without_a_fail_directory_it_stays_and_is_said_once(make: Make) -> None:
    place = make(fail_path='')
    os.mkfifo(place.path / 'a')
    assert place.scan() == place.scan() == [] and place.there() == ['a']
    assert place.complaints == ['spool file a cannot be sent: it is not a regular file; it stays where it is']
    (place.path / 'a').unlink()
    place.drop('a')
    assert place.scan() == ['a']


def test_a_fail_directory_that_takes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(place.path / 'a')

    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(errno.EXDEV, 'Invalid cross-device link')
    monkeypatch.setattr(os, 'rename', refuse)
    assert place.scan() == place.scan() == [] and place.there() == ['a']
    assert len(place.complaints) == 1 and 'it stays, since it cannot be moved' in place.complaints[0]
    assert os.listdir(place.fail) == []


# taking and clearing away

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


# the directory itself

def test_a_directory_put_in_its_place_is_noticed(place: Place, tmp_path: Path) -> None:
    place.scan()
    shutil.move(place.path, tmp_path / 'old')
    with pytest.raises(FileNotFoundError):
        place.scan()
    place.path.mkdir()
    place.drop('a')
    before = open_descriptors()
    assert place.take().content == TEXT and open_descriptors() == before + 1     # the file


@pytest.mark.parametrize(('config', 'complaint'), [
    ({'path': 'no'},                          'no: there is no such directory'),
    ({'path': 'file'},                        'file: there is no such directory'),
    ({'path': 'here', 'fail_path': 'no'},     'no: there is no such directory'),
    ({'path': 'here', 'fail_path': './here'}, 'it cannot be the spool directory itself'),
])
def test_a_directory_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any],
                                         complaint: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'here').mkdir()
    (tmp_path / 'file').touch()
    with pytest.raises(ConfigError, match=complaint):
        SpoolDirectory(SpoolConfig(**config))


@pytest.mark.parametrize(('allowed', 'remove', 'fine'), [
    (os.R_OK | os.X_OK | os.W_OK, True, True), (os.R_OK | os.X_OK, True, False), (os.R_OK | os.X_OK, False, True),
    (os.X_OK | os.W_OK, False, False)])
def test_rights_are_looked_at_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int,
                                               remove: bool, fine: bool) -> None:
    monkeypatch.setattr(os, 'access', lambda _path, mode: not mode & ~allowed)
    if fine:
        SpoolDirectory(SpoolConfig(str(tmp_path), remove=remove))
        return
    with pytest.raises(ConfigError, match='may not read and change this directory'):
        SpoolDirectory(SpoolConfig(str(tmp_path), remove=remove))
