"""The spool directory on disk: what is ready, what cannot be sent, and the directory itself.

Taking files and clearing them away is in test_spool_claim.py.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
from pathlib import Path
from typing import Any, Callable

import pytest

from mqlite.errors import ConfigError
from mqlite.spool.directory import PATIENCE_SECONDS, QUIET_SECONDS, SpoolConfig, SpoolDirectory, Unusable
from tests.support import spool
from tests.support.loop import open_descriptors
from tests.support.spool import OLD, TEXT, WALL, Make, Place

make, place = spool.make, spool.place  # fixtures


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
