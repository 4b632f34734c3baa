"""The shim: what readelf sees for each machine, what the stubs say, and plugins that resolve against it for real."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from mqlite.errors import ConfigError
from mqlite.plugin import abi, shim
from tests.support.c_plugin import build_plugin
from tests.support.process import ROOT, find_program

# A plugin that was compiled without our header: bare prototypes, in K&R's manner where the compiler allows it.
FOREIGN = """
extern int MQ_fileDescriptor(void *); extern unsigned long MQ_SmtpSend(void *, const void *, unsigned long);
extern const char *MQ_Envelope(void *); extern void *MQ_startTimer(void *, float, void (*)(void *), void *);
static int fired; static void on_timer(void *data) { fired = *(int *)data; }
int seven = 7;
int descriptor(void *c) { return MQ_fileDescriptor(c); }
unsigned long send_it(void *c) { return MQ_SmtpSend(c, "hello", 5); }
const char *envelope(void *m) { return MQ_Envelope(m); }
int timer(void *c) { MQ_startTimer(c, 1.5f, on_timer, &seven); return fired; }
"""

# Runs in a process of its own: what is loaded globally stays for good. argv: the shim (a path, or - for a memfd), the
# plugin. Handles are 40 bits wide: cut to an int, they would not come back.
HOST = """
import ctypes, os, sys
from mqlite.plugin import abi, shim
HANDLE = 0x12_3456_7890
seen, text = [], ctypes.create_string_buffer(b'a@example.org')
def descriptor(handle): seen.append(handle); return 42
def send(handle, data, size): seen.append(ctypes.string_at(data, size)); return size
def envelope(handle): seen.append(handle); return ctypes.addressof(text)
def start(handle, seconds, callback, data):
    seen.append(seconds); abi.prototype(abi.ON_TIMER)(callback)(data); return HANDLE
own = {'MQ_SmtpFileDescriptor': descriptor, 'MQ_send': send, 'MQ_Envelope': envelope, 'MQ_startTimer': start}
content = shim.image(abi.EXPORTED, os.uname().machine)
path = sys.argv[1]
if path == '-':
    fd = os.memfd_create('mqlite-shim', 0)
    path = f'/proc/self/fd/{fd}'
with open(path, 'wb') as file:
    file.write(content)
library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL | os.RTLD_NOW)
table = (ctypes.c_void_p * len(abi.EXPORTED)).in_dll(library, shim.TABLE)
keep = []
for row in abi.FUNCTIONS:
    call = next((own[name] for name in row.names if name in own), lambda *_arguments, row=row: row.default)
    keep.append(abi.prototype((row.result, *row.arguments))(call))
    for name in row.names:
        table[abi.EXPORTED.index(name)] = ctypes.cast(keep[-1], ctypes.c_void_p).value
plugin = ctypes.CDLL(sys.argv[2], mode=os.RTLD_NOW)
plugin.send_it.restype, plugin.envelope.restype = ctypes.c_size_t, ctypes.c_char_p
handle = ctypes.c_void_p(HANDLE)
assert plugin.descriptor(handle) == 42 and plugin.send_it(handle) == 5
assert plugin.envelope(handle) == b'a@example.org' and plugin.timer(handle) == 7
assert seen == [HANDLE, b'hello', HANDLE, 1.5], seen
print('resolved')
"""


def readelf(folder: Path, machine: str, *options: str) -> str:
    (folder / 'shim.so').write_bytes(shim.image(abi.EXPORTED, machine))
    done = subprocess.run([find_program('readelf'), '-W', '--use-dynamic', *options, folder / 'shim.so'],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and 'Warning' not in done.stderr and 'Error' not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize('machine', shim.MACHINES)
def test_readelf_sees_every_name(machine: str, tmp_path: Path) -> None:
    listed = re.findall(r'(\d+) (FUNC|OBJECT) +GLOBAL +DEFAULT +\d+ (\w+)',
                        readelf(tmp_path, machine, '--syms'))
    assert listed == [*(('16', 'FUNC', name) for name in abi.EXPORTED),
                      (str(8 * len(abi.EXPORTED)), 'OBJECT', shim.TABLE)]


@pytest.mark.parametrize(('machine', 'name'), [('x86_64', 'X86-64'), ('aarch64', 'AArch64')])
def test_nothing_is_writable_and_executable(machine: str, name: str, tmp_path: Path) -> None:
    text = readelf(tmp_path, machine, '--file-header', '--segments')
    assert name in text and 'DYN (Shared object file)' in text
    flags = re.findall(r'^  (LOAD|DYNAMIC|GNU_STACK) .* 0x\w+ ([RWE ]{3}) 0x\w+$', text, re.MULTILINE)
    assert flags == [('LOAD', 'R  '), ('LOAD', 'R E'), ('LOAD', 'RW '), ('DYNAMIC', 'RW '), ('GNU_STACK', 'RW ')]


@pytest.mark.parametrize(('at', 'pointer'), [(0x10f00, 0x21008), (0x10ffc, 0x21ff8), (0x12000, 0x20000)])
def test_an_aarch64_stub_finds_its_pointer(at: int, pointer: int) -> None:
    """Decoded as the architecture manual says (C6.2: ADRP, LDR immediate)."""
    bti, adrp, ldr, jump = struct.unpack('<4I', shim.MACHINES['aarch64'].stub(at, pointer))
    assert (bti, jump) == (0xd503245f, 0xd61f0200)                              # bti c; br x16
    assert adrp & 0x9f00001f == 0x90000010 and ldr & 0xffc003ff == 0xf9400210   # adrp x16; ldr x16, [x16, ...]
    pages = (adrp >> 5 & 0x7ffff) << 2 | adrp >> 29 & 3
    assert (at + 4 & ~0xfff) + (pages << 12) + (ldr >> 10 & 0xfff) * 8 == pointer


def test_the_shim_is_small() -> None:
    assert len(shim.image(abi.EXPORTED, 'x86_64')) < 8192


def test_an_unknown_machine_is_said() -> None:
    with pytest.raises(ConfigError, match='this machine is riscv64'):
        shim.image(abi.EXPORTED, 'riscv64')


@pytest.mark.skipif(os.uname().machine not in shim.MACHINES, reason='the shim has no stubs for this machine')
@pytest.mark.parametrize('place', ['memfd', 'file'])
@pytest.mark.parametrize('binding', ['-Wl,-z,now', '-Wl,-z,lazy'])
def test_a_foreign_plugin_resolves(place: str, binding: str, tmp_path: Path) -> None:
    plugin = build_plugin(tmp_path, FOREIGN, binding)
    path = '-' if place == 'memfd' else str(tmp_path / 'shim.so')
    done = subprocess.run([sys.executable, '-c', HOST, path, plugin], capture_output=True, text=True, timeout=60,
                          cwd=ROOT)
    assert done.stdout == 'resolved\n', done.stderr
