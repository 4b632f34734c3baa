"""The misbehaving plugins of tests/data/plugins: one C file each, all loaded at once, each provoked by its name."""

from __future__ import annotations

import smtplib
from pathlib import Path

from tests.support.c_plugin import build_plugin
from tests.support.process import HOST, ROOT

SOURCES = ROOT / 'tests' / 'data' / 'plugins'
NAMES = ('blocks', 'endless', 'late', 'left', 'never', 'null', 'stale', 'threads', 'twice', 'uncontrolled', 'watchers')


def build_all(folder: Path, generation: int, seconds: float) -> None:
    """`seconds`: what plugin-timeout is."""
    for name in NAMES:
        build_plugin(folder, (SOURCES / f'{name}.c').read_text(), f'-DMQ_API_GENERATION={generation}',
                     f'-DSECONDS={seconds}', '-I', str(SOURCES), '-pthread', '-g', name=f'10-{name}')


def provoke(port: int, seconds: float) -> dict[str, int]:
    """Have each misbehave in a daemon, `left` last, and then send a message; the replies to RCPT by name."""
    replies = {}
    for name in NAMES:
        with smtplib.SMTP(HOST, port, timeout=seconds) as client:
            client.ehlo()
            client.mail('a@example.org')
            if name == 'left':
                client.send(b'RCPT TO:<left@example.org>\r\n')
                client.close()
            else:
                replies[name] = client.rcpt(f'{name}@example.org')[0]
    for _ in range(2):      # the second one meets what is left of the first
        with smtplib.SMTP(HOST, port, timeout=seconds) as client:
            client.sendmail('a@example.org', 'stale@example.org', 'Subject: x\n\nbody\n')
    return replies


# What RCPT is answered.
EXPECTED = {name: 451 if name in ('endless', 'late', 'never', 'uncontrolled') else 250
            for name in NAMES if name != 'left'}
