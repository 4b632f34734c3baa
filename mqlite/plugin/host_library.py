"""The libraries of the host that some MQ_* functions hand out pieces of. Each is looked for when it is first needed.

A plugin that uses such a piece is linked with the library itself. The dynamic linker knows libraries by their sonames,
so what is opened here under that name is what the plugin has: one copy, one set of globals, whoever came first.

They are opened for ourselves alone (RTLD_LOCAL). Open to all, json-c would lend its json_object_get to a plugin that is
linked with jansson, which has a function of that name too, and libev its event_* functions to one that is linked with
libevent. The price: a plugin that uses a library without being linked with it does not load.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from mqlite.errors import MqliteError
from mqlite.plugin import abi


class HostLibraryError(MqliteError):
    """The host has no library that would do, or this process cannot use it. The text is for the log: whoever asked for
    the function gets NULL."""


class HostLibrary(NamedTuple):
    """A row of LIBRARIES. `prefix`: what the names of all its functions begin with."""

    soname: str
    prefix: str
    wanted_by: str
    package: str


# By the words of the ABI table.
LIBRARIES = {
    #                            soname              prefix    wanted by  Debian package
    'libev':       HostLibrary('libev.so.4',       'ev_',    'MQ_ev',   'libev4'),
    'libfastjson': HostLibrary('libfastjson.so.4', 'fjson_', 'MQ_json', 'libfastjson4'),
    'json-c':      HostLibrary('libjson-c.so.5',   'json_',  'MQ_Json', 'libjson-c5'),
}

# A function: its name without the prefix, its result, its arguments; types are words of abi.TYPES.
Signature = tuple[str, str, str]


def open_library(word: str, signatures: Sequence[Signature]) -> SimpleNamespace:
    """The functions by their names without the prefix. Calls give up the interpreter's lock. HostLibraryError."""
    row = LIBRARIES[word]
    try:
        library = ctypes.CDLL(row.soname)
        return SimpleNamespace(**{name: _function(library, row.prefix + name, result, arguments)
                                  for name, result, arguments in signatures})
    except (OSError, AttributeError) as error:
        raise HostLibraryError(f'{row.wanted_by} gives NULL: {error}; install {row.soname} (Debian: {row.package}) and '
                               f'start again') from None


def _function(library: ctypes.CDLL, name: str, result: str, arguments: str) -> Any:
    function = getattr(library, name)
    function.restype = abi.TYPES[result][1]
    function.argtypes = [abi.TYPES[argument][1] for argument in arguments.split()]
    return function
