"""Which store an address names."""

from __future__ import annotations

from typing import Callable

from mqlite.errors import ConfigError
from mqlite.loop.reactor import Reactor
from mqlite.queues.contract import Store
from mqlite.queues.embedded import EmbeddedStore

_SQLITE = 'sqlite://'


def open_store(reactor: Reactor, addresses: tuple[str, ...], on_note: Callable[[str], object]) -> Store:
    """The store for `queue-address`, not opened yet. ConfigError when there is none for it."""
    address = addresses[0] if addresses else ''
    if len(addresses) == 1 and address.startswith(_SQLITE) and len(address) > len(_SQLITE):
        return EmbeddedStore(reactor, address[len(_SQLITE):], on_note)
    raise ConfigError('queue-address must be sqlite:// and the path of a file')
