"""Handles: the numbers that stand for our objects in C. They are looked up, never followed.

One number per plugin and object, so a number also says which plugin holds it. Numbers are never used again: a late call
finds nothing, and does nothing. They look like small aligned addresses that no process maps.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from mqlite.plugin.objects import Plugin

_FIRST, _STEP = 0x100, 0x10


@dataclass
class Handle:
    """What a number stands for. `texts`: what C was given of it as text, by name; kept as long as the handle."""

    plugin: Plugin
    thing: Any
    texts: dict[str, Any] = field(default_factory=dict)


class Handles:
    """All handles of the process, for any thread."""

    def __init__(self) -> None:
        self._handles: dict[int, Handle] = {}
        self._numbers: dict[tuple[int, int], int] = {}  # (id of the plugin, id of the object), which the handle keeps
        self._fresh = itertools.count(_FIRST, _STEP)
        self.find = self._handles.get

    def __len__(self) -> int:
        return len(self._handles)

    def number(self, plugin: Plugin, thing: object) -> int:
        """The number for the object, new or known."""
        key = id(plugin), id(thing)
        number = self._numbers.get(key)
        if number is None:
            fresh = next(self._fresh)
            self._handles[fresh] = Handle(plugin, thing)  # before anybody can know the number
            number = self._numbers.setdefault(key, fresh)
            if number != fresh:
                del self._handles[fresh]  # another thread was faster
        return number

    def drop(self, plugin: Plugin, thing: object) -> None:
        """The object has ended, or is out of the plugin's hands."""
        number = self._numbers.pop((id(plugin), id(thing)), None)
        if number is not None:
            del self._handles[number]
