"""The command line in the test's own process. A module of tests names this one in `pytest_plugins` to have its fixture.

Not in conftest.py: a mistake anywhere in mqlite would then keep every test from running.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Callable, NamedTuple

import pytest

from mqlite.cli import main


class Ended(NamedTuple):
    """How a command ended: its exit status, and what it printed."""
    status: int
    output: str
    errors: str


@pytest.fixture
def run_main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
             capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """run_main('queue', 'list', input=b''): the command line in this process, in an empty folder: quick."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(('MQLITE_', 'MAILERQ_'))]:
        monkeypatch.delenv(name)

    def run_main(*arguments: str, input: bytes = b'') -> Ended:
        monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(input)))
        status = main(arguments)
        return Ended(status, *capsys.readouterr())
    return run_main
