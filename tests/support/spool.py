"""A spool directory and its fail directory, looked at when the test says so; for the tests of test_spool_*.

A test file takes the fixtures `make` and `place` by assigning them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from mqlite.spool.directory import Candidate, SpoolConfig, SpoolDirectory, Taken

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
