"""The command line in the test's own process, which takes a tenth of the time of another one.

Not in conftest.py: a mistake anywhere in mqlite would then keep every test from running.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple
from unittest import mock

from mqlite.cli import main
from tests.support.process import environment_with


class Ended(NamedTuple):
    """How a command ended: its exit status, and what it printed."""
    status: int
    output: str
    errors: str


def in_process(folder: Path) -> Callable[..., Ended]:
    """run('queue', 'list', input=b''): in the folder, and without settings from the environment."""
    return partial(run_here, folder)


def run_here(folder: Path, *arguments: str, input: bytes = b'') -> Ended:
    """Nothing may use the standard files, the folder or the environment of this process meanwhile."""
    streams = [io.BytesIO(input), io.BytesIO(), io.BytesIO()]
    with standard_files(*streams), working_folder(folder), \
            mock.patch.dict(os.environ, environment_with({}), clear=True):
        status = main(arguments)
    return Ended(status, *(stream.getvalue().decode() for stream in streams[1:]))


@contextlib.contextmanager
def standard_files(*streams: io.BytesIO) -> Iterator[None]:
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin, sys.stdout, sys.stderr = texts = [io.TextIOWrapper(stream, 'utf-8') for stream in streams]
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
        for text in texts:
            text.detach()


@contextlib.contextmanager
def working_folder(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
