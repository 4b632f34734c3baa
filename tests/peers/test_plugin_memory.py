"""C plugins and what they are given, under valgrind: nobody reads or writes what is not there.

Python's own memory management is put aside (PYTHONMALLOC=malloc), so that each object is a block of its own that
valgrind knows. What the interpreter does with memory that was never written is its own affair; an invalid access
anywhere, and whatever has a plugin or our shim among the callers, is ours. A plugin that is wrong on purpose shows that
it would be seen.
"""

from __future__ import annotations

import smtplib
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support import misbehaviour
from tests.support.c_plugin import build_plugin
from tests.support.daemon import Daemon
from tests.support.plugins import VERSION
from tests.support.process import HOST, ROOT, find_program

PATIENCE = 300.0        # seconds; valgrind is thirty times slower, and the machine may be busy
OURS = ('/plugins/', 'mqlite-shim')
INVALID = ('Invalid', 'Mismatched', 'Overlap')
LEAK = 'Leak'           # a report in XML looks for leaks in spite of --leak-check=no; Python frees little at its end

WRONG = VERSION + """
#include <stdio.h>
#include <stdlib.h>
static const char *kept;
bool mq_smtp_in_rcptto(MQ_Context *x, MQ_Connection *c, MQ_Address *a) { (void)x; (void)c; kept = MQ_email(a);
    return false; }
bool mq_smtp_in_close(MQ_Context *x, MQ_Connection *c) { (void)x; (void)c; char line[64];
    snprintf(line, sizeof line, "%c", kept ? kept[0] : '-'); MQ_log(MQ_INFO, line); return false; }
"""


class Watched(Daemon):
    """A daemon under valgrind, for the end of which `errors` waits."""

    def __init__(self, folder: Path, plugins: Path, **settings: object) -> None:
        self.reports = folder / 'valgrind'
        self.reports.mkdir()
        valgrind = (find_program('env'), 'PYTHONMALLOC=malloc', find_program('valgrind'), '--leak-check=no',
                    '--num-callers=200', '--xml=yes', f'--xml-file={self.reports}/%p', sys.executable, '-m', 'mqlite')
        super().__init__(folder, valgrind, plugin_directory=plugins, rabbitmq_inbox='inbox', **settings)
        self.patience = PATIENCE

    def errors(self) -> list[str]:
        """What valgrind says of us."""
        self.stop()
        found = []
        for report in self.reports.iterdir():
            for error in ElementTree.parse(report).iter('error'):
                objects = [frame.findtext('obj') or '' for frame in error.iter('frame')]
                kind = error.findtext('kind') or ''
                ours = any(mark in name for name in objects for mark in OURS) and not kind.startswith(LEAK)
                if ours or kind.startswith(INVALID):
                    found.append(f'{kind}: {described(error)}')
        return found


def described(error: ElementTree.Element) -> str:
    frames = [f'{frame.findtext("fn")} ({Path(frame.findtext("obj") or "").name})' for frame in error.iter('frame')]
    return f'{error.findtext("what")} in {" < ".join(frames[:8])}'


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    made = tmp_path / 'plugins'
    made.mkdir()
    return made


def send(port: int, recipients: Sequence[str]) -> None:
    with smtplib.SMTP(HOST, port, timeout=PATIENCE) as client:
        client.sendmail('login@example.org', [f'{name}@example.org' for name in recipients], 'Subject: x\n\nbody\n')


@pytest.mark.parametrize('generation', [5, 3])
def test_nobody_touches_what_is_not_there(generation: int, tmp_path: Path, plugins: Path) -> None:
    """Every function of the table, then every misbehaviour."""
    build_plugin(plugins, (ROOT / 'tests' / 'data' / 'plugins' / 'table.c').read_text(), '-g',
                 f'-DMQ_API_GENERATION={generation}', '-lev', '-lfastjson', '-ljson-c', name='20-table')
    misbehaviour.build_all(plugins, generation, 3.0)
    daemon = Watched(tmp_path, plugins, plugin_timeout='3')
    daemon.start()
    try:
        send(daemon.port, ('new-continue', 'new-complete', 'new-retry', 'old-continue', 'old-complete', 'old-retry',
                           'watch', 'timer', 'local', 'change'))
        assert misbehaviour.provoke(daemon.port, PATIENCE) == misbehaviour.EXPECTED
        assert daemon.errors() == []
    finally:
        daemon.close()


def test_it_would_be_seen(tmp_path: Path, plugins: Path) -> None:
    """A text is kept beyond the step that it belongs to."""
    build_plugin(plugins, WRONG, '-g', name='10-wrong')
    daemon = Watched(tmp_path, plugins)
    daemon.start()
    try:
        send(daemon.port, ('somebody',))
        errors = daemon.errors()
    finally:
        daemon.close()
    assert any(text.startswith('InvalidRead') and 'mq_smtp_in_close (10-wrong.so)' in text for text in errors), errors
