"""Loading the plugin directory: shared objects and Python files, in the alphabetical order of their names.

Before the first shared object the shim is loaded, once per process: the dynamic linker resolves MQ_* against it. Its
bytes go into an executable memory file, or into the file that `plugin-shim` names, on hosts that forbid the former.
Whatever cannot be loaded is a ConfigError that names the file: an MTA without its filters must not start.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

from mqlite.errors import ConfigError
from mqlite.log import Log
from mqlite.plugin import abi, shim
from mqlite.plugin.exports import NAMES, Exports
from mqlite.plugin.generation import find_generation, imported_names
from mqlite.plugin.hold import Hold
from mqlite.plugin.hooks import Hooks
from mqlite.plugin.momentum import find_module
from mqlite.plugin.objects import Connection, Owner, Plugin
from mqlite.plugin.python_plugin import PythonPlugin
from mqlite.recorder import Seat, mark


class CPlugin:
    """One shared object."""

    def __init__(self, path: str, name: str, library: ctypes.CDLL, exports: Exports, generation: int) -> None:
        """`generation`: for a plugin that does not tell its own; 0 when nobody has decided. ConfigError."""
        self.name = name
        self._handles = exports.handles
        self._library = library
        self.generation = self._find_generation(path, generation)
        self._functions: dict[str, tuple[Any, tuple[str, ...]]] = {}
        for row in abi.CALLBACKS:
            function = getattr(self._library, row.name, None)
            if function is not None:
                result, *words = row.old if self.generation == 3 else row.new
                function.restype = abi.TYPES[result][1]
                function.argtypes = [abi.TYPES[word][1] for word in words]
                self._functions[row.name] = function, tuple(words)
        self.steps = frozenset(self._functions)

    def _find_generation(self, path: str, decided: int) -> int:
        version = self._library.mq_version()
        with open(path, 'rb') as file:
            imported = imported_names(file.read())
        try:
            return find_generation(path, version, imported)
        except ConfigError:
            if decided:
                return decided
            raise

    def call(self, hold: Hold, owner: Owner, subject: tuple[Any, ...]) -> bool:
        function, words = self._functions[hold.step]
        number = self._handles.number
        values: list[Any] = [number(self, owner.context)]
        if isinstance(owner, Connection):
            values.append(number(self, owner))
        for item in subject:
            if not isinstance(item, (bytes, str)):
                if 'text' not in words:
                    values.append(number(self, item))
                    continue
                item = item.email  # an address, for generation 3
            data = item.encode('utf-8', 'surrogateescape') if isinstance(item, str) else item
            values += [data, len(data)]
        return bool(function(*values))

    def run(self, name: str) -> None:
        """mq_initialize or mq_cleanup."""
        self._functions[name][0]()

    def forget(self, thing: object) -> None:
        self._handles.drop(self, thing)


def load_plugins(directory: str, log: Log, generation: int, shim_path: str, seat: Seat,
                 hooks: Hooks | None = None) -> list[Plugin]:
    """All plugins of the directory. `generation` 3, 5, or 0 for undecided; `shim_path` may be ''. ConfigError.

    `seat`: where it is noted that they are called. `hooks`: where they register for Momentum's hooks.
    """
    hooks = hooks or Hooks(log)
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(('.so', '.py')) and name[0] != '.')
    except OSError as error:
        raise ConfigError(f'cannot read plugins in {directory}: {error.strerror}; check plugin-directory') from error
    plugins: list[Plugin] = []
    for name in names:
        path = os.path.abspath(os.path.join(directory, name))
        seat.enter(mark(f'{name}, which was being loaded'))
        if name.endswith('.py'):
            plugins.append(PythonPlugin(path, name, hooks))
            continue
        if not _loaded:
            exports = Exports(log)
            _loaded.append((_load_shim(exports, shim_path), exports))
        exports = _loaded[0][1]
        exports.use_hooks(hooks)
        plugins.append(_load_object(path, name, exports, generation))
    seat.leave()
    return plugins


def _load_object(path: str, name: str, exports: Exports, generation: int) -> Plugin:
    try:
        library = ctypes.CDLL(path, mode=os.RTLD_NOW)
    except OSError as error:
        raise ConfigError(f'the plugin {path} cannot be loaded: {error}') from error
    if hasattr(library, 'mq_version'):
        return CPlugin(path, name, library, exports, generation)
    module = find_module(library, name)
    if module is None:
        raise ConfigError(f'{path} has no mq_version(), and is no module of Momentum (include/module.h): it is no '
                          f'plugin, take it out of plugin-directory')
    return module


# The shim of this process and what stands behind it. What is loaded globally stays: C may call to the very end.
_loaded: list[tuple[ctypes.CDLL, Exports]] = []


def _load_shim(exports: Exports, path: str) -> ctypes.CDLL:
    """Make the MQ_* functions symbols of this process. ConfigError."""
    content = shim.image(NAMES, os.uname().machine)
    try:
        if path:
            library = _load_file(path, content)
        else:
            with os.fdopen(os.memfd_create('mqlite-shim', 0), 'wb') as file:
                file.write(content)
                file.flush()
                library = ctypes.CDLL(f'/proc/self/fd/{file.fileno()}', mode=ctypes.RTLD_GLOBAL | os.RTLD_NOW)
    except OSError as error:
        raise ConfigError(f'plugins in C need a shared object of ours, which cannot be loaded: {error}; '
                          f'plugin-shim names a file for it') from error
    table = (ctypes.c_void_p * len(NAMES)).in_dll(library, shim.TABLE)
    for name, address in exports.addresses().items():
        table[NAMES.index(name)] = address
    return library


def _load_file(path: str, content: bytes) -> ctypes.CDLL:
    """Written anew each time, beside and then moved: another process may have the old one mapped."""
    fresh = f'{path}.{os.getpid()}'
    with open(fresh, 'wb') as file:
        file.write(content)
    os.replace(fresh, path)
    return ctypes.CDLL(os.path.abspath(path), mode=ctypes.RTLD_GLOBAL | os.RTLD_NOW)
