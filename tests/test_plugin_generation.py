"""Which generation a plugin is of: by its version, by the names that it imports, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mqlite.errors import ConfigError
from mqlite.plugin.generation import find_generation, imported_names
from tests.support.c_plugin import build_plugin

USES_MIME = """#include <stdio.h>
extern void {name}(void *, const char *, unsigned long);
void f(void *m) {{ {name}(m, "x", 1); puts("x"); }}
"""


@pytest.fixture(scope='module')
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    def compiled(name: str) -> bytes:
        folder: Path = tmp_path_factory.mktemp('plugin')
        return build_plugin(folder, USES_MIME.format(name=name)).read_bytes()
    return compiled


@pytest.mark.parametrize(('name', 'generation'), [('MQ_SetMime', 3), ('MQ_setMime', 5)])
def test_a_real_object_tells_by_its_names(compiled: Callable[[str], bytes], name: str, generation: int) -> None:
    imported = imported_names(compiled(name))
    assert {name, 'puts'} <= imported and 'f' not in imported
    assert find_generation('x.so', 17, imported) == generation


@pytest.mark.parametrize(('version', 'imported', 'generation'), [
    (3,  {'MQ_setMime'},               3),     # the version counts more than the names
    (5,  {'MQ_SetMime'},               5),
    (17, {'MQ_Continue', 'MQ_log'},    3),
    (17, {'MQ_continue', 'MQ_ev'},     5),
    (0,  {'MQ_email', 'MQ_Unknown'},   5),
    (17, {'MQ_Continue', 'MQ_email'},  None),  # early 4.x mixes them
    (17, {'MQ_ev', 'MQ_log', 'puts'},  None),
    (17, set(),                        None),
])
def test_what_decides(version: int, imported: set[str], generation: int | None) -> None:
    if generation is None:
        with pytest.raises(ConfigError, match='x.so: .* returned 17, .* plugin-generation'):
            find_generation('x.so', version, imported)
    else:
        assert find_generation('x.so', version, imported) == generation


def test_what_is_broken_imports_nothing(compiled: Callable[[str], bytes]) -> None:
    whole = compiled('MQ_setMime')
    for content in (b'', b'\x7fELF', b'#!/bin/sh\n', *(whole[:n] for n in range(64, len(whole), 997))):
        assert imported_names(content) == set()
    wild = bytearray(whole)
    wild[40:48] = b'\xff' * 8
    assert imported_names(bytes(wild)) == set()
