"""The chain: the plugins that have a step are called one after the other, in the order of their file names.

    call ─► false            ─► the next plugin
         ─► true, or coroutine ─► held ─► continue ─► the next plugin
                                      ─► complete ─► the step goes on without the others
                                      ─► retry    ─► the first plugin again, at most RETRIES times
                                      ─► expired  ─► 451; the connection's later steps get it too

A plugin may object (MQ_reject), or send a refusal itself and complete: then the step is refused, and the other plugins
are not asked. A plugin that fails, or never hands back, defers: what was not judged is never accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mqlite.log import Log
from mqlite.loop.stream import ConnectionLost
from mqlite.plugin.hold import ABANDONED, COMPLETE, EXPIRED, RETRY, Hold
from mqlite.plugin.json_object import JsonFault
from mqlite.plugin.objects import Connection, Context, Message, Owner, Plugin
from mqlite.recorder import NO_DIGEST, mark
from mqlite.smtp.reply import reply
from mqlite.smtp.session import Objection

RETRIES = 100  # of one step; a loop would otherwise never end
SLOW_SECONDS = 0.1  # a callback that takes longer has kept everybody else waiting, and is named in the log
LAST_STEPS = ('mq_smtp_in_close', 'mq_context_cleanup')  # called whatever has happened
DEFERRED = Objection(reply('plugin-trouble'))


class Chain:
    """All plugins, by step."""

    def __init__(self, plugins: Sequence[Plugin], patience: float) -> None:
        """`patience`: seconds for which a plugin may be in control of a step."""
        self.steps = frozenset(step for plugin in plugins for step in plugin.steps)
        self._patience = patience
        self._plugins = {step: [(plugin, mark(f'{plugin.name}: {step}')) for plugin in plugins if step in plugin.steps]
                         for step in self.steps}

    async def ask(self, owner: Owner, step: str, *subject: Any) -> Objection | None:
        """Call all that have the step; what they object, None to go on. ConnectionLost when the peer left meanwhile."""
        plugins, at, retries = self._plugins.get(step, []), 0, 0
        owner.objection = None
        if isinstance(owner, Connection) and owner.spoiled and step not in LAST_STEPS:
            return DEFERRED
        while at < len(plugins) and owner.objection is None:
            outcome = await self._hold(owner, *plugins[at], step, subject)
            at += 1
            if outcome == COMPLETE:
                if isinstance(owner, Connection) and owner.objection is None:
                    owner.objection = owner.said_refusal()
                break
            if outcome == RETRY:
                at, retries = 0, retries + 1
                if retries > RETRIES:
                    owner.context.log.warning(f'{plugins[0][0].name}: {step} was begun anew {RETRIES} times: deferred')
                    owner.objection = DEFERRED
        objection: Objection | None = owner.objection
        return objection

    async def _hold(self, owner: Owner, plugin: Plugin, marked: bytes, step: str,
                    subject: tuple[Any, ...]) -> str | None:
        """Call one plugin, and wait as long as it is in control; the outcome, None when it did not take control."""
        context: Context = owner.context
        message = subject[0].digest if subject and isinstance(subject[0], Message) else NO_DIGEST
        hold = owner.hold = Hold(context, plugin, step, message)
        context.holds.append(hold)
        if isinstance(owner, Connection):
            owner.sent = b''
        try:
            if self._call(hold, marked, owner, subject) and hold.outcome is None:
                await self._wait(hold, owner)
            outcome = hold.outcome
        finally:
            owner.hold = None
            context.holds.remove(hold)
            hold.finish(ABANDONED)
            self._take_changes(hold, owner, subject)
        if outcome == EXPIRED:
            context.log.warning(f'{plugin.name} did not hand back {step} within {self._patience:g} s: deferred')
            owner.objection = DEFERRED
            if isinstance(owner, Connection):
                owner.spoiled = True
        elif outcome == ABANDONED:
            raise ConnectionLost(f'the peer left while {plugin.name} was in control')
        return outcome

    def _call(self, hold: Hold, marked: bytes, owner: Owner, subject: tuple[Any, ...]) -> bool:
        clock, log, seat = owner.context.reactor.clock, owner.context.log, owner.context.seat
        seat.enter(marked, hold.message)
        start = clock.monotonic()
        try:
            taken = hold.plugin.call(hold, owner, subject)
        except Exception as error:
            log.warning(f'{hold.plugin.name} failed in {hold.step}: {error!r}')
            owner.objection = DEFERRED
            taken = False
        seat.leave()
        tell_slow(log, hold.plugin.name, hold.step, clock.monotonic() - start)
        return taken

    def _take_changes(self, hold: Hold, owner: Owner, subject: tuple[Any, ...]) -> None:
        """The next plugin sees what this one has made of the message."""
        for message in subject:
            if isinstance(message, Message):
                try:
                    message.take_changes()
                except JsonFault as error:
                    owner.context.log.warning(f'{hold.plugin.name} left a message in {hold.step} as it cannot be: '
                                              f'{error}')
                    owner.objection = DEFERRED

    async def _wait(self, hold: Hold, owner: Owner) -> None:
        if not isinstance(owner, Connection) or hold.step in LAST_STEPS:
            await hold.wait(self._patience)
            return
        stream = owner.stream

        def on_lost() -> None:
            if not stream.buffered:  # else it may have said all it wants to say, and listens still
                hold.finish(ABANDONED)

        stream.flush()
        if stream.lost:
            on_lost()
        stream.on_lost = on_lost
        try:
            await hold.wait(self._patience)
        finally:
            stream.on_lost = None


def tell_slow(log: Log, plugin: str, step: str, seconds: float) -> None:
    """A call has taken so long."""
    if seconds > SLOW_SECONDS:
        log.warning(f'{plugin} blocked everything for {seconds * 1000:.0f} ms in {step}')
