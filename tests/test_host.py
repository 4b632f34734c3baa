"""The limit on open files, against a kernel that is played."""

from __future__ import annotations

import resource

import pytest

from mqlite.host import allow_open_files

NO_LIMIT = resource.RLIM_INFINITY


@pytest.mark.parametrize(('soft', 'hard', 'count', 'set_to', 'enough'), [
    (1024, 4096, 900, None, True),
    (1024, 4096, 1024, None, True),
    (1024, 4096, 2000, 2000, True),
    (1024, 4096, 5000, 4096, False),
    (1024, 1024, 5000, 1024, False),
    (1024, NO_LIMIT, 5000, 5000, True),
    (NO_LIMIT, NO_LIMIT, 5000, None, True),
])
def test_open_files(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, count: int, set_to: int | None,
                    enough: bool) -> None:
    done: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, 'getrlimit', lambda what: (soft, hard))
    monkeypatch.setattr(resource, 'setrlimit', lambda what, limits: done.append(limits))
    assert allow_open_files(count) is enough
    assert done == ([] if set_to is None else [(set_to, hard)])
