"""What a store tells the operator: each thing once, not at every attempt, and again when something has changed."""

from __future__ import annotations

from typing import Callable

from mqlite.loop.reactor import Reactor

AGAIN_SECONDS = 600.0  # the same thing is not said again within this time
_MOST = 100  # texts remembered: some name queues that documents ask for


class Notes:
    """In front of an `on_note`."""

    def __init__(self, reactor: Reactor, on_note: Callable[[str], object]) -> None:
        self._reactor = reactor
        self._on_note = on_note
        self._said: dict[str, float] = {}  # text -> when

    def say(self, text: str) -> None:
        """Unless it was said lately."""
        if self._reactor.now() - self._said.get(text, -AGAIN_SECONDS) >= AGAIN_SECONDS:
            self.spoken(text)
            self._on_note(text)

    def spoken(self, text: str) -> None:
        """Somebody else says it."""
        if len(self._said) >= _MOST:
            self._said.clear()
        self._said[text] = self._reactor.now()

    def change(self, text: str) -> None:
        """Something is different now: everything may be said again."""
        self._said.clear()
        self.say(text)
