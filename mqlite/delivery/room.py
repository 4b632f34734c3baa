"""How much is in hand, and how it is shared when it is scarce. Pure.

The consumer of the outbox gives us so many messages and so many bytes, for all destinations together. A destination
that takes less than it is given (it is slow, or its limits are) would have all of it in the end, and others none. So
while more than half is in use, who has more waiting than goes within a second keeps no more than an equal share of a
quarter of the room, and no more than goes in HORIZON; what is beyond goes back to the outbox, with a time before which
it does not come again. While there is room, nobody is put back.

How long is a guess: a server may be fast again the next moment. So who was put back is looked at again soon, as long as
not more than AGAIN_PER_SECOND come back together; only a pace that the operator has set is known for longer.

    0 .............. half ................. most
      all may wait        `pressed`: what waits for slow destinations beyond their share is put back
"""

from __future__ import annotations

HORIZON = 5.0  # seconds: what goes in this time may wait here
SOON = 1.0  # seconds: what goes in this time is not touched
SLOW_PART = 4  # all that are slow together keep one part in so many
AGAIN_PER_SECOND = 50  # messages that were put back and come back for a look; 100,000 of them: the longest wait
LEAST_WAIT, LONGEST_WAIT = 2.0, 1200.0  # seconds that a message spends on the outbox when there is no room for it


class Outside:
    """How many were put back and have not come again: counted by the second in which they come, not one by one."""

    __slots__ = ('_count', '_due', '_until')

    def __init__(self) -> None:
        self._due: dict[int, int] = {}  # how many in each second
        self._count = 0
        self._until = 0  # the first second that is not over

    def add(self, due: float) -> None:
        second = max(int(due), self._until)
        self._due[second] = self._due.get(second, 0) + 1
        self._count += 1

    def count(self, now: float) -> int:
        this = int(now)
        if this - self._until > len(self._due):
            for second in [second for second in self._due if second < this]:
                self._count -= self._due.pop(second)
        else:
            for second in range(self._until, this):
                self._count -= self._due.pop(second, 0)
        self._until = max(this, self._until)
        return self._count


class Room:
    """What is in hand of one engine. `share` and `size_share`: of a slow destination, in messages and bytes."""

    __slots__ = ('count', 'most', 'most_size', 'outside', 'share', 'size', 'size_share')

    def __init__(self, most: int, most_size: int) -> None:
        self.most = most
        self.most_size = most_size
        self.count = self.size = 0
        self.outside = Outside()
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

    def longest_wait(self, now: float) -> float:
        """Seconds for which one more may be put back on a guess."""
        return min(max(LEAST_WAIT, self.outside.count(now) / AGAIN_PER_SECOND), LONGEST_WAIT)
