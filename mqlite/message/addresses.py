"""Reading the addresses in fields of a header, whatever stands there. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import getaddresses


def read_addresses(values: Iterable[str]) -> list[tuple[str, str]]:
    """(name, address) of each, in the order of the unfolded values; either may be ''.

    Nothing where comments or groups are within each other by the hundred: the parser gives up on them, and nobody's
    address looks so.
    """
    try:
        return getaddresses(list(values))
    except RecursionError:
        return []
