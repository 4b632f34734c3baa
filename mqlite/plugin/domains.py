"""Domains and local addresses as hooks see them: what came of the messages for a domain, and what the name system said
last; an index for an address.

Counted from the first registration of a hook on, for all loops of a process together. A Domain never changes, so a hook
is told numbers that belong together. Limits: CAPACITY domains, of which the one that was not asked for the longest is
forgotten, and begins anew at 0 when it comes up again; SLOTS addresses, and all others share an index.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from mqlite.loop.thread import Lock

CAPACITY = 10_000  # domains; about 5 MB
SLOTS = 1000  # local addresses that are told apart


class Domain(NamedTuple):
    """A domain, or the server that takes its place where a setting or a message names one."""

    name: str
    expires: float = 0.0  # seconds since 1970 until which `exchangers` holds; 0 when that is not known
    exchangers: tuple[tuple[int, str], ...] = ()  # (preference, host) of the MX records
    last_delivery: float = 0.0  # seconds since 1970
    deliveries: int = 0  # messages that were accepted
    attempts: int = 0  # messages that were tried: the sum of the three others
    transients: int = 0  # messages that may be tried again
    failures: int = 0  # messages that were given up
    dns_failures: int = 0  # lookups that failed since the last that did not


class Domains:
    """All that are remembered. For every thread."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._domains: OrderedDict[str, Domain] = OrderedDict()
        self._lock = Lock()

    def __getitem__(self, name: str) -> Domain:
        with self._lock:
            return self._find(name)

    def count(self, name: str, accepted: bool, permanent: bool, now: float) -> None:
        """What came of one message."""
        with self._lock:
            domain = self._find(name)
            self._domains[name] = domain._replace(
                attempts=domain.attempts + 1, deliveries=domain.deliveries + accepted,
                failures=domain.failures + (permanent and not accepted),
                transients=domain.transients + (not permanent and not accepted),
                last_delivery=now if accepted else domain.last_delivery)

    def resolved(self, name: str, known: tuple[tuple[tuple[int, str], ...], float] | None) -> Domain:
        """There are servers to connect to. `known`: the mail exchangers and until when, where they are known anew."""
        with self._lock:
            domain = self._find(name)._replace(dns_failures=0)
            if known is not None:
                domain = domain._replace(exchangers=known[0], expires=known[1])
            self._domains[name] = domain
            return domain

    def unresolved(self, name: str) -> Domain:
        """The name system did not say which servers there are."""
        with self._lock:
            domain = self._find(name)
            domain = self._domains[name] = domain._replace(dns_failures=domain.dns_failures + 1)
            return domain

    def _find(self, name: str) -> Domain:
        domain = self._domains.get(name)
        if domain is None:
            domain = self._domains[name] = Domain(name)
            if len(self._domains) > self._capacity:
                self._domains.popitem(last=False)
        else:
            self._domains.move_to_end(name)
        return domain


class Slots:
    """The local addresses by index, as they come up. None: the kernel chooses. For every thread."""

    def __init__(self) -> None:
        self._slots: dict[str | None, int] = {}
        self._lock = Lock()

    def __getitem__(self, source: str | None) -> int:
        with self._lock:
            slot = self._slots.get(source, len(self._slots))
            if slot < SLOTS:
                self._slots[source] = slot
            return slot
