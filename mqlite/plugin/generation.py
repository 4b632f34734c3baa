"""Which generation of the interface a plugin was compiled for. Pure: takes the bytes of the object.

    mq_version() says 3 or 5         that
    it says something else           the vendor's own numbers are not published, so the names decide: names of MQ_*
                                     functions that only one generation has (MQ_SetMime: 3, MQ_setMime: 5)
    neither decides                  ConfigError, with the file and the setting that decides it by hand

The names are the undefined symbols of .dynsym (System V ABI, chapter 4). Limits: 64-bit little-endian objects, which is
all that the shim serves; whatever is malformed counts as an object that imports nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from mqlite.errors import ConfigError
from mqlite.plugin import abi

GENERATIONS = (3, 5)

_SHT_DYNSYM = 11
_SECTION = struct.Struct('<IIQQQQIIQQ')  # name type flags address offset size link info alignment entry
_SYMBOL = struct.Struct('<IBBHQQ')  # name info other section value size


def imported_names(content: bytes) -> set[str]:
    """The symbols that the object wants from others; empty when it is no ELF object, or a broken one."""
    if content[:6] != b'\x7fELF\x02\x01':
        return set()
    try:
        place, = struct.unpack_from('<Q', content, 40)
        size, count = struct.unpack_from('<HH', content, 58)
        if size != _SECTION.size:
            return set()
        sections = [_SECTION.unpack_from(content, place + size * n) for n in range(count)]
        return {name for section in sections if section[1] == _SHT_DYNSYM
                for name in _undefined(_part(content, section), _part(content, sections[section[6]]))}
    except (struct.error, IndexError, OverflowError):
        return set()


def _part(content: bytes, section: tuple[int, ...]) -> bytes:
    return content[section[4]:section[4] + section[5]]


def _undefined(symbols: bytes, strings: bytes) -> Iterable[str]:
    whole = len(symbols) // _SYMBOL.size * _SYMBOL.size
    for name, _info, _other, section, _value, _size in _SYMBOL.iter_unpack(symbols[:whole]):
        if name and not section:
            yield strings[name:strings.find(b'\0', name)].decode('latin-1')


def find_generation(file: str, version: int, imported: Iterable[str]) -> int:
    """3 or 5. `version` is what mq_version() returned, `imported` what `imported_names` found in the file."""
    if version in GENERATIONS:
        return version
    wanted = {name for name in imported if name in abi.EXPORTED}
    found = {3 if is_old(name) else 5 for name in wanted if name not in abi.BOTH}
    if len(found) != 1:
        raise ConfigError(f'{file}: mq_version() returned {version}, and the functions that it calls do not tell which '
                          f'generation of the interface it was compiled for; say which with plugin-generation')
    return found.pop()


def is_old(name: str) -> bool:
    """Whether it is spelled as in generation 3: MQ_CamelCase."""
    return name[3:4].isupper()
