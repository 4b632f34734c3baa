"""C plugins that a test brings along: compiled with every warning on, into a shared object."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path

from tests.support.process import ROOT, find_program


def build_plugin(folder: Path, source: str, *options: str, name: str = 'plugin') -> Path:
    """The shared object. `options` of gcc come after the source, where libraries belong."""
    target = folder / f'{name}.so'
    target.write_bytes(_compile(source, options))
    return target


@functools.lru_cache(maxsize=None)
def _compile(source: str, options: tuple[str, ...]) -> bytes:
    """Each source once: many tests load the same plugin."""
    with tempfile.TemporaryDirectory() as name:
        code, target = Path(name, 'plugin.c'), Path(name, 'plugin.so')
        code.write_text(source)
        subprocess.run([find_program('gcc'), '-shared', '-fPIC', '-Wall', '-Wextra', '-Werror', '-I', ROOT / 'include',
                        '-o', target, code, *options], check=True, timeout=60)
        return target.read_bytes()
