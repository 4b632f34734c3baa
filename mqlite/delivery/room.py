"""How much is in hand, and how it is shared when it is scarce. Pure.

The consumer of the outbox gives us so many messages and so many bytes, for all destinations together. A destination
that takes less than it is given (it is slow, or its limits are) would have all of it in the end, and others none. So
while more than half is in use, who has more waiting than goes within a second keeps no more than an equal share of a
quarter of the room, and no more than goes in HORIZON; what is beyond goes back to the outbox, with a time before which
it does not come again. While there is room, nobody is put back.

    0 .............. half ................. most
      all may wait        `pressed`: what waits for slow destinations beyond their share is put back
"""

from __future__ import annotations

HORIZON = 5.0  # seconds: what goes in this time may wait here
SOON = 1.0  # seconds: what goes in this time is not touched
SLOW_PART = 4  # all that are slow together keep one part in so many


class Room:
    """What is in hand of one engine. `share` and `size_share`: of a slow destination, in messages and bytes."""

    __slots__ = ('count', 'most', 'most_size', 'share', 'size', 'size_share')

    def __init__(self, most: int, most_size: int) -> None:
        self.most = most
        self.most_size = most_size
        self.count = self.size = 0
        self.divide(1)

    def took(self, size: int) -> None:
        self.count += 1
        self.size += size

    def gave(self, size: int) -> None:
        self.count -= 1
        self.size -= size

    @property
    def pressed(self) -> bool:
        return 2 * self.count > self.most or 2 * self.size > self.most_size

    def divide(self, slow: int) -> None:
        """So many destinations are slow."""
        self.share = self.most // SLOW_PART // max(1, slow)
        self.size_share = self.most_size // SLOW_PART // max(1, slow)
