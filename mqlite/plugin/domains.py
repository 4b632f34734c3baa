"""Domains as hooks see them: what came of the messages for each, and what the name system said last.

Counted from the first registration of a hook on. Limits: CAPACITY domains; the one that was not asked for the longest
is forgotten, and begins anew at 0 when it comes up again.
"""

from __future__ import annotations

from collections import OrderedDict

CAPACITY = 10_000  # domains; about 5 MB


class Domain:
    """A domain, or the server that takes its place where a setting or a message names one."""

    __slots__ = ('attempts', 'deliveries', 'dns_failures', 'exchangers', 'expires', 'failures', 'last_delivery', 'name',
                 'transients')

    def __init__(self, name: str) -> None:
        self.name = name
        self.expires = 0.0  # seconds since 1970 until which `exchangers` holds; 0 when that is not known
        self.exchangers: list[tuple[int, str]] = []  # (preference, host) of the MX records
        self.last_delivery = 0.0  # seconds since 1970
        self.deliveries = 0  # messages that were accepted
        self.attempts = 0  # messages that were tried: the sum of the three others
        self.transients = 0  # messages that may be tried again
        self.failures = 0  # messages that were given up
        self.dns_failures = 0  # lookups that failed since the last that did not

    def count(self, accepted: bool, permanent: bool, now: float) -> None:
        """What came of one message."""
        self.attempts += 1
        if accepted:
            self.deliveries += 1
            self.last_delivery = now
        elif permanent:
            self.failures += 1
        else:
            self.transients += 1


class Domains:
    """All that are remembered."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._domains: OrderedDict[str, Domain] = OrderedDict()

    def __getitem__(self, name: str) -> Domain:
        domain = self._domains.get(name)
        if domain is None:
            domain = self._domains[name] = Domain(name)
            if len(self._domains) > self._capacity:
                self._domains.popitem(last=False)
        else:
            self._domains.move_to_end(name)
        return domain
