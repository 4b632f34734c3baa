"""The command line in the test's own process, which takes a tenth of the time of another one.

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


def in_process(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
               ) -> Callable[..., Ended]:
    """run_main('queue', 'list', input=b''): in the folder, and without settings from the environment."""
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith(('MQLITE_', 'MAILERQ_'))]:
        monkeypatch.delenv(name)

    def run_main(*arguments: str, input: bytes = b'') -> Ended:
        monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(input)))
        status = main(arguments)
        return Ended(status, *capsys.readouterr())
    return run_main
