"""A plugin in control of a step is an await. Everything here happens in the loop's thread, but for `hand_back`.

    state         means                                        the step then
    held          the plugin has been called                   waits
    continue      handed back: the next plugin                 goes on
    complete      handed back: skip the other plugins          goes on
    retry         handed back: all plugins again               begins anew
    expired       never handed back in the time allowed        is refused with 451
    abandoned     the peer left, or we stop                    ends with the session

The hold exists before the plugin is called, so that it may hand back from within the call. It has exactly one outcome:
a second hand-back, or a late one, is logged and changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from mqlite.loop.task import Waiter

if TYPE_CHECKING:
    from mqlite.plugin.objects import Context, Plugin

CONTINUE, COMPLETE, RETRY = 'continue', 'complete', 'retry'
EXPIRED, ABANDONED = 'expired', 'abandoned'


class Hold:
    """One call of one plugin for one step."""

    def __init__(self, context: Context, plugin: Plugin, step: str, message: bytes) -> None:
        """`message`: the digest of the one that it is about, if that is on a queue."""
        self.plugin = plugin
        self.step = step
        self.message = message
        self.outcome: str | None = None
        self.on_abandon: Callable[[], object] | None = None  # ends what the plugin does for this step, if we can
        self._context = context
        self._waiter: Waiter[None] | None = None

    def hand_back(self, how: str) -> None:
        """CONTINUE, COMPLETE or RETRY; from any thread."""
        self._context.reactor.run_inside(self._hand_back, how)

    def _hand_back(self, how: str) -> None:
        if self.outcome is None:
            self.finish(how)
        else:
            self._context.log.warning(f'{self.plugin.name} handed back {self.step} once more than it had it: ignored')

    def finish(self, outcome: str) -> None:
        """End it, unless it has ended."""
        if self.outcome is None:
            self.outcome = outcome
            if self._waiter is not None:
                self._waiter.set()
            if outcome in (EXPIRED, ABANDONED) and self.on_abandon is not None:
                self.on_abandon()

    async def wait(self, seconds: float) -> None:
        """Until there is an outcome; after so many seconds it is EXPIRED."""
        if self.outcome is not None:
            return
        reactor = self._context.reactor
        self._waiter = Waiter(reactor)
        timer = reactor.call_later(seconds, self.finish, EXPIRED)
        try:
            await self._waiter
        finally:
            timer.cancel()
