"""Modules of Momentum: shared objects without mq_version() that register for hooks (include/module.h).

    generic_module_infrastructure under the module's name    its module_config_setup and module_ext_init
    otherwise functions conf_setup and ext_init              these, with a structure of ours
    neither                                                  no plugin

They are called where other plugins have mq_initialize, in the order of file names among them.
"""

from __future__ import annotations

import ctypes
import os
import re
from contextlib import suppress
from typing import Any

from mqlite.plugin.hold import Hold
from mqlite.plugin.objects import Owner

API_VERSION = 0x6d710008
SINGLETON = 1
INIT, DESTROY = 1, 3

_CONF_SETUP = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_EXT_INIT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)


class Infrastructure(ctypes.Structure):
    """generic_module_infrastructure."""

    _fields_ = [('module_api_version', ctypes.c_uint32), ('module_type', ctypes.c_uint32),
                *((name, ctypes.c_void_p) for name in (
                    'module_private', 'module_name', 'module_description', 'module_control', 'module_conf',
                    'module_ext_conf', 'module_init', 'module_post_init', 'module_config_setup', 'module_enable',
                    'module_can_unload', 'module_ext_init'))]


class MomentumModule:
    """One shared object."""

    steps = frozenset(('mq_initialize', 'mq_cleanup'))

    def __init__(self, name: str, infrastructure: Infrastructure) -> None:
        self.name = name
        self._itself = infrastructure

    def run(self, name: str) -> None:
        """OSError when the module says that it cannot."""
        itself = self._itself
        if name == 'mq_initialize':
            if itself.module_config_setup:
                _check('conf_setup', _CONF_SETUP(itself.module_config_setup)(ctypes.addressof(itself), 0))
            if itself.module_ext_init:
                _check('ext_init', self._ext_init(INIT))
        elif itself.module_ext_init and not itself.module_type & SINGLETON:
            self._ext_init(DESTROY)

    def _ext_init(self, mode: int) -> int:
        itself = self._itself
        result: int = _EXT_INIT(itself.module_ext_init)(ctypes.addressof(itself), None, None, mode)
        return result

    def call(self, hold: Hold, owner: Owner, subject: tuple[Any, ...]) -> bool:
        """It has no steps."""
        return False

    def forget(self, thing: object) -> None:
        """It knows of nothing."""


def find_module(library: ctypes.CDLL, name: str) -> MomentumModule | None:
    """The module that the shared object is; `name` is that of its file."""
    symbol = re.sub(r'^\d+-', '', os.path.splitext(name)[0]).replace('-', '_')
    with suppress(ValueError):
        found = Infrastructure.in_dll(library, symbol)
        if found.module_api_version == API_VERSION:
            return MomentumModule(name, found)
    functions = (_address(library, 'conf_setup'), _address(library, 'ext_init'))
    own = Infrastructure(module_type=SINGLETON, module_config_setup=functions[0], module_ext_init=functions[1])
    return MomentumModule(name, own) if any(functions) else None


def _address(library: ctypes.CDLL, name: str) -> int | None:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value if hasattr(library, name) else None


def _check(name: str, result: int) -> None:
    if result:
        raise OSError(f'{name} returned {result}')
