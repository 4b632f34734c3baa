"""THE HOOKS TABLE: Momentum's hooks that we call; and who has registered for them, or for hooks of the plugins' own.

A further hook is a row here, a header in include/hooks/core, and the place where it is called (outgoing.py). The
headers make has_, register_ and call_ from three functions of ours: module_add_hook_first, module_add_hook_last and
mqlite_hook_at. For objects that were compiled without the headers, has_core_NAME_hook and so on are symbols as well.

    names in the table      core_NAME, as C and Python know them; a function of that name in a Python plugin registers
    prototypes              two that have the same hook in mind must agree on its types: text, compared without blanks

Any thread may register or ask. Who registers while a hook is called is called the next time.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Callable, NamedTuple

from mqlite.log import Log
from mqlite.plugin import abi
from mqlite.plugin.chain import tell_slow
from mqlite.plugin.domains import Domains, Slots
from mqlite.plugin.hook_values import SHAPES
from mqlite.plugin.objects import Context
from mqlite.recorder import mark


class Hook(NamedTuple):
    """A hook; the types are words of abi.TYPES, without the closure."""

    name: str
    result: str
    arguments: tuple[str, ...]


HOOKS = (
    #    name                              result  arguments
    Hook('post_initiate_connection_smtp', 'void', ('domain', 'int', 'time', 'int')),
    Hook('connection_post_bind',          'int',  ('domain', 'int', 'int', 'socket-address', 'int')),
    Hook('log_client_connection_success', 'void', ('socket-address', 'domain', 'int', 'time')),
    Hook('log_client_connection_failure', 'void', ('socket-address', 'int', 'domain', 'int', 'time')),
)
SCOPE = 'core_'
BY_NAME = {SCOPE + row.name: row for row in HOOKS}

_ADD = ('text', 'text', 'data', 'data', 'int')
FUNCTIONS = (
    #            names                      result   arguments                                 does           default
    abi.Function(('module_add_hook_first',), 'count', _ADD,                                    'hook-first',  None),
    abi.Function(('module_add_hook_last',),  'count', _ADD,                                    'hook-last',   None),
    abi.Function(('mqlite_hook_at',),        'int',   ('text', 'text', 'int', 'place', 'place'), 'hook-at',   0),
    *(function for name, row in BY_NAME.items() for function in (
        abi.Function((f'has_{name}_hook',),            'int',      (),               f'has {name}',   0),
        abi.Function((f'register_{name}_hook_first',), 'void',     ('data', 'data'), f'first {name}', None),
        abi.Function((f'register_{name}_hook_last',),  'void',     ('data', 'data'), f'last {name}',  None),
        abi.Function((f'call_{name}_hook',),           row.result, row.arguments,    f'call {name}',
                     None if row.result == 'void' else 0))),
)


class Registered(NamedTuple):
    """A function that is to be called. Of one in C the address and the closure are known; else they are 0."""

    call: Callable[..., Any] | None  # None: C, for a hook that is not ours to call
    plugin: str
    marked: bytes  # for the recorder
    address: int = 0
    closure: int = 0


class Hooks:
    """Who has registered for what. One for all plugins that were loaded together."""

    def __init__(self, log: Log) -> None:
        self.used = False  # whether anybody has registered
        self.domains = Domains()
        self.slots = Slots()
        self._log = log
        self._registered: dict[str, list[Registered]] = {name: [] for name in BY_NAME}
        self._prototypes = {name: prototype(row) for name, row in BY_NAME.items()}
        self._counts: dict[str, ctypes.c_int] = {}

    def add(self, name: str, call: Callable[..., Any] | None, plugin: str, address: int = 0, closure: int = 0,
            first: bool = False) -> None:
        """Register a function; see Registered."""
        registered = Registered(call, plugin, mark(f'{plugin}: {name}'), address, closure)
        functions = self._registered.get(name, [])
        self._registered[name] = [registered, *functions] if first else [*functions, registered]
        self.used = True

    def call(self, context: Context, name: str, *values: Any) -> int:
        """Call all, until one has another result than 0; that result."""
        shaped: list[Any] = []
        for registered in self._registered[name]:
            if registered.address and not shaped:
                shaped = [_shape(word, value) for word, value in zip(BY_NAME[name].arguments, values)]
            given = (registered.closure, *shaped) if registered.address else values
            result = self._call(context, registered, name, given)
            if result:
                return int(result)
        return 0

    def _call(self, context: Context, registered: Registered, name: str, values: tuple[Any, ...]) -> Any:
        assert registered.call is not None
        clock, seat = context.reactor.clock, context.seat
        start = clock.monotonic()
        seat.enter(registered.marked)
        try:
            return registered.call(*values)
        except Exception as error:
            self._log.warning(f'{registered.plugin} failed in {name}: {error!r}')
            return 0
        finally:
            seat.leave()
            tell_slow(self._log, registered.plugin, name, clock.monotonic() - start)

    # what C calls

    def operations(self) -> dict[str, Callable[..., Any]]:
        """What is behind FUNCTIONS, by the column `does`."""
        found: dict[str, Callable[..., Any]] = {
            'hook-first': lambda *arguments: self._add(True, *arguments),
            'hook-last': lambda *arguments: self._add(False, *arguments),
            'hook-at': self._at,
        }
        for name in BY_NAME:
            found[f'has {name}'] = lambda name=name: int(bool(self._in_c(name)))
            found[f'first {name}'] = lambda function, closure, name=name: self._register(name, function, closure, True)
            found[f'last {name}'] = lambda function, closure, name=name: self._register(name, function, closure, False)
            found[f'call {name}'] = lambda *values, name=name: self._call_c(name, values)
        return found

    def _add(self, first: bool, name: int, proto: int, function: int, closure: int, _flags: int) -> int | None:
        hook = _text(name)
        if not self._agrees(hook, _text(proto), function):
            return None
        self._register(hook, function, closure, first)
        count = self._counts.setdefault(hook, ctypes.c_int(0))
        count.value = len(self._registered[hook])
        return ctypes.addressof(count)

    def _register(self, hook: str, function: int, closure: int, first: bool) -> None:
        row = BY_NAME.get(hook)
        call = abi.prototype((row.result, 'data', *row.arguments))(function) if row else None
        self.add(hook, call, _plugin_of(function), function, closure or 0, first)

    def _at(self, name: int, proto: int, place: int, function: int, closure: int) -> int:
        """Those in C, one after the other: the caller is C."""
        hook = _text(name)
        found = self._in_c(hook)
        if place >= len(found) or not self._agrees(hook, _text(proto), 0):
            return 0
        ctypes.c_void_p.from_address(function).value = found[place].address
        ctypes.c_void_p.from_address(closure).value = found[place].closure
        return 1

    def _call_c(self, name: str, values: tuple[Any, ...]) -> int | None:
        result = None if BY_NAME[name].result == 'void' else 0
        for registered in self._in_c(name):
            result = registered.call(registered.closure, *values) if registered.call is not None else None
            if result:
                break
        return result

    def _in_c(self, hook: str) -> list[Registered]:
        return [registered for registered in self._registered.get(hook, []) if registered.address]

    def _agrees(self, hook: str, proto: str, function: int) -> bool:
        known = self._prototypes.setdefault(hook, proto)
        if _bare(known) == _bare(proto):
            return True
        who = _plugin_of(function) if function else 'a plugin'
        self._log.warning(f'{who} has another idea of the hook {hook}: it takes {known}, and not {proto}; '
                          f'compile it with the header that the others were compiled with')
        return False


def prototype(row: Hook) -> str:
    """The types of a registered function, as the header has them."""
    return f'({", ".join(abi.TYPES[word][0] for word in ("data", *row.arguments))})'


def _bare(proto: str) -> str:
    return ''.join(proto.split())


def _text(pointer: int | None) -> str:
    return ctypes.string_at(pointer).decode('utf-8', 'replace') if pointer else ''


def _shape(word: str, value: Any) -> Any:
    return SHAPES[word](value) if word in SHAPES else value


class _Found(ctypes.Structure):
    """Dl_info of dladdr(3)."""

    _fields_ = [('file', ctypes.c_char_p), ('base', ctypes.c_void_p), ('symbol', ctypes.c_char_p),
                ('address', ctypes.c_void_p)]


def _plugin_of(address: int) -> str:
    """The file that a function in C is in."""
    found = _Found()
    known = ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), ctypes.byref(found))
    return os.path.basename(os.fsdecode(found.file)) if known and found.file else 'a plugin'
