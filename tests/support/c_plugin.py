"""C plugins that a test brings along: compiled with every warning on, into a shared object."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.process import ROOT, find_program


def build_plugin(folder: Path, source: str, *options: str, name: str = 'plugin') -> Path:
    """The shared object. `options` of gcc come after the source, where libraries belong."""
    code, target = folder / f'{name}.c', folder / f'{name}.so'
    code.write_text(source)
    subprocess.run([find_program('gcc'), '-shared', '-fPIC', '-Wall', '-Wextra', '-Werror', '-I', ROOT / 'include',
                    '-o', target, code, *options], check=True, timeout=60)
    return target
