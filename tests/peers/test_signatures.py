"""Our signatures and seals in the hands of others: 500 messages of every shape, by opendkim and by dkimpy."""

from __future__ import annotations

import random
import re
import subprocess
from pathlib import Path

import dkim
import pytest

from mqlite.dkim.sign import Message, read_property
from tests.support.process import find_program
from tests.support.signing import answer, key_pair, message, records

NOW = 1_700_000_000.0
MESSAGES = 500
FORMS = [f'{header}/{body}' for header in ('simple', 'relaxed') for body in ('simple', 'relaxed')]


def signed(kind: str, number: int, mime: bytes, *protocols: str) -> bytes:
    entry = key_pair(kind).entry(canonicalization=FORMS[number % 4], protocols=list(protocols), headers=['x-own'])
    return Message(mime).signed(read_property(entry), 'none', 'mx.example.org', NOW)


def plain(mime: bytes) -> bytes:
    header, separator, body = mime.partition(b'\r\n\r\n')
    header = re.sub(rb'(?m)^([A-Za-z-]+):(?:\r\n(?=[ \t]))?[ \t]*', rb'\1: ', header)
    return header + separator + body.replace(b'\0', b'0')


@pytest.mark.parametrize('kind', ['rsa', 'ed25519'])
def test_opendkim_verifies(kind: str, tmp_path: Path) -> None:
    """It reads test files in its own way: NUL ends a line, and white space behind the colon of a field is one space."""
    (tmp_path / 'records').write_text(''.join(f'{name} {record}\n' for name, record in records().items()))
    (tmp_path / 'opendkim.conf').write_text(f'Mode v\nTestDNSData file:{tmp_path}/records\n')
    dice, names = random.Random(kind), [f'{number}.eml' for number in range(MESSAGES)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(signed(kind, number, plain(message(dice)), 'dkim'))
    spoiled = tmp_path / 'spoiled.eml'
    spoiled.write_bytes((tmp_path / names[0]).read_bytes().replace(b'From: Joe', b'From: Jim'))
    command = [find_program('opendkim'), '-x', 'opendkim.conf', '-t', ','.join([*names, spoiled.name])]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, timeout=300)
    lines = done.stdout.decode().splitlines()
    assert [line for line in lines[:-1] if 'succeeded' not in line] == [] and len(lines) == MESSAGES + 1
    assert 'failed' in lines[-1]


@pytest.mark.parametrize('kind', ['rsa', 'ed25519'])
def test_dkimpy_verifies(kind: str) -> None:
    dice = random.Random(kind)
    for number in range(MESSAGES):
        mime = signed(kind, number, message(dice), 'dkim')
        assert dkim.verify(mime, dnsfunc=answer), mime


def test_dkimpy_verifies_seals() -> None:
    dice = random.Random('arc')
    for number in range(MESSAGES):
        mime = signed('rsa', number, message(dice), 'dkim', 'arc')
        verdict, _sets, reason = dkim.arc_verify(mime, dnsfunc=answer)
        assert verdict == b'pass', (reason, mime)
