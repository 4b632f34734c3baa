"""The shim: a small shared object, written here, that makes every name of the ABI table an ordinary symbol. Pure.

A plugin's MQ_* calls are undefined symbols, which the dynamic linker resolves among the objects that are loaded
globally. The shim is such an object: per name a few bytes of code that jump through a table of pointers, and the table,
which has a symbol of its own (TABLE), so that the host can fill it in. No compiler is needed on the host, and a plugin
needs nothing to link with. `image()` gives the bytes of the file; loading them is the loader's business.

    0      ELF header, program headers, .hash, .dynsym, .dynstr          R
    +page  jump stubs, 16 bytes each                                     R X
    +page  .dynamic, the table: 8 bytes a name                           R W

In the file the parts follow each other without the gaps: a segment's address and its place in the file agree modulo
the page size, as mmap wants it. There are no section headers, which only a link editor would miss. Pages are taken as
64 KiB, the largest that aarch64 has. A stub begins with the landing pad that CET and BTI ask of the target of an
indirect jump, and touches only the registers that the calling conventions leave to such code.

Sources: System V ABI (gabi), chapters 4 and 5; its supplements for AMD64 and AArch64.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Callable, NamedTuple

from mqlite.errors import ConfigError

TABLE = 'mqlite_table'  # the symbol of the table of pointers
SONAME = 'mqlite-shim.so'
STUB = 16  # bytes of a stub, on both machines
POINTER = 8

_PAGE = 0x10000
_EHDR, _PHDR, _SYM, _DYN = 64, 56, 24, 16  # sizes in the file, 64 bits
_DT_NULL, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_SYMENT, _DT_SONAME = 0, 4, 5, 6, 10, 11, 14
_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK = 1, 2, 0x6474e551
_R, _RX, _RW = 4, 5, 6
_FUNC, _OBJECT = 0x12, 0x11  # STB_GLOBAL with STT_FUNC, STT_OBJECT
_DEFINED = 1  # any section index but SHN_UNDEF says that the symbol is here


def _x86_64(at: int, pointer: int) -> bytes:
    """endbr64; jmp *pointer(%rip); the displacement counts from the end of the instruction."""
    return b'\xf3\x0f\x1e\xfa\xff\x25' + struct.pack('<i', pointer - (at + 10)) + b'\x90' * 6


def _aarch64(at: int, pointer: int) -> bytes:
    """bti c; adrp x16, pointer's page; ldr x16, [x16, offset in it]; br x16."""
    pages = (pointer >> 12) - (at + 4 >> 12)
    adrp = 0x90000010 | (pages & 3) << 29 | (pages >> 2 & 0x7ffff) << 5
    ldr = 0xf9400210 | (pointer & 0xfff) // POINTER << 10
    return struct.pack('<4I', 0xd503245f, adrp, ldr, 0xd61f0200)


class Machine(NamedTuple):
    """What differs between processors: e_machine, and the stub at an address for the pointer at another."""

    number: int
    stub: Callable[[int, int], bytes]


#   os.uname().machine
MACHINES = {
    'x86_64':  Machine(62, _x86_64),
    'aarch64': Machine(183, _aarch64),
}


class _Layout(NamedTuple):
    """Places in the file; addresses are a page further for the stubs, and two for what is written to."""

    hash: int
    symbols: int
    strings: int
    code: int
    dynamic: int
    table: int
    end: int


def image(names: Sequence[str], machine: str) -> bytes:
    """The file for these names; pointer n of the table belongs to names[n]. ConfigError for an unknown machine."""
    if machine not in MACHINES:
        raise ConfigError(f'plugins in C are possible on {" and ".join(MACHINES)}, and this machine is {machine}; '
                          f'plugins in Python are possible everywhere')
    number, stub = MACHINES[machine]
    strings, offsets = _strings([*names, TABLE, SONAME])
    hashes = _hash_table([*names, TABLE])
    at = _layout(len(names), len(hashes), len(strings))
    code_at, table_at = at.code + _PAGE, at.table + 2 * _PAGE
    code = b''.join(stub(code_at + STUB * n, table_at + POINTER * n) for n in range(len(names)))
    symbols = bytes(_SYM) + b''.join(
        struct.pack('<IBBHQQ', offsets[n], _FUNC, 0, _DEFINED, code_at + STUB * n, STUB) for n in range(len(names)))
    symbols += struct.pack('<IBBHQQ', offsets[len(names)], _OBJECT, 0, _DEFINED, table_at, POINTER * len(names))
    dynamic = b''.join(struct.pack('<QQ', tag, value) for tag, value in (
        (_DT_SONAME, offsets[-1]), (_DT_HASH, at.hash), (_DT_SYMTAB, at.symbols), (_DT_SYMENT, _SYM),
        (_DT_STRTAB, at.strings), (_DT_STRSZ, len(strings)), (_DT_NULL, 0)))
    parts = {0: _header(number) + _segments(at), at.hash: hashes, at.symbols: symbols, at.strings: strings,
             at.code: code, at.dynamic: dynamic}
    file = bytearray(at.end)
    for place, part in parts.items():
        file[place:place + len(part)] = part
    return bytes(file)


def _layout(count: int, hash_size: int, strings_size: int) -> _Layout:
    hash_at = _EHDR + 5 * _PHDR
    symbols = _aligned(hash_at + hash_size)
    strings = symbols + _SYM * (count + 2)
    code = _aligned(strings + strings_size)
    dynamic = code + STUB * count
    table = dynamic + 7 * _DYN
    return _Layout(hash_at, symbols, strings, code, dynamic, table, table + POINTER * count)


def _aligned(size: int) -> int:
    return -(-size // STUB) * STUB


def _header(machine: int) -> bytes:
    ident = b'\x7fELF\x02\x01\x01'.ljust(16, b'\0')  # 64 bits, little-endian, version 1
    return ident + struct.pack('<HHIQQQIHHHHHH', 3, machine, 1, 0, _EHDR, 0, 0, _EHDR, _PHDR, 5, 0, 0, 0)


def _segments(at: _Layout) -> bytes:
    rows = (
        (_PT_LOAD,      _R,  0,          0,                        at.code),
        (_PT_LOAD,      _RX, at.code,    at.code + _PAGE,          at.dynamic - at.code),
        (_PT_LOAD,      _RW, at.dynamic, at.dynamic + 2 * _PAGE,   at.end - at.dynamic),
        (_PT_DYNAMIC,   _RW, at.dynamic, at.dynamic + 2 * _PAGE,   at.table - at.dynamic),
        (_PT_GNU_STACK, _RW, 0,          0,                        0),
    )
    return b''.join(struct.pack('<IIQQQQQQ', kind, flags, place, address, address, size, size,
                                _PAGE if kind == _PT_LOAD else 16) for kind, flags, place, address, size in rows)


def _strings(names: Sequence[str]) -> tuple[bytes, list[int]]:
    """The string table, and where each name begins in it."""
    table, offsets = bytearray(b'\0'), []
    for name in names:
        offsets.append(len(table))
        table += name.encode('ascii') + b'\0'
    return bytes(table), offsets


def _hash_table(names: Sequence[str]) -> bytes:
    """DT_HASH of these symbols, numbered from 1: as many buckets as names, each the head of a chain."""
    count = len(names)
    buckets, chain = [0] * count, [0] * (count + 1)
    for number, name in enumerate(names, 1):
        bucket = _hash(name) % count
        chain[number], buckets[bucket] = buckets[bucket], number
    return struct.pack(f'<{3 + 2 * count}I', count, count + 1, *buckets, *chain)


def _hash(name: str) -> int:
    """The System V hash (gabi, chapter 5)."""
    value = 0
    for byte in name.encode('ascii'):
        value = (value << 4) + byte
        high = value & 0xf0000000
        value = (value ^ high >> 24) & ~high
    return value
