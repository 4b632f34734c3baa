"""The plugin host: what the rest of mqlite knows of plugins. It is asked at marked points, and calls nobody upward.

    load ─► mq_initialize ─► mq_context_initialize, per worker ─► sessions ─► mq_context_cleanup ─► mq_cleanup
            once a process   in the worker's own thread, before any worker listens                  once a process

    SessionAsker   has a say in a session of the server (smtp/session.py, Asker)
    Companion      has a say in what goes out on one connection (smtp/client.py, Companion)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mqlite.errors import ConfigError
from mqlite.log import Log
from mqlite.loop.reactor import Reactor
from mqlite.loop.stream import Stream
from mqlite.message.document import NoMime, Received
from mqlite.plugin.chain import Chain
from mqlite.plugin.hooks import Hooks
from mqlite.plugin.objects import Connection, Context, Message, Plugin, read_reply
from mqlite.recorder import Seat, mark
from mqlite.smtp.reply import ClientFailure
from mqlite.smtp.session import Address, Objection, Session

INCOMING = 'mq_smtp_in_'
OUT_DATA, OUT_SENT = 'mq_smtp_out_data', 'mq_smtp_out_sent'


def run_in_all(plugins: Sequence[Plugin], name: str, seat: Seat) -> None:
    """Call mq_initialize or mq_cleanup of all plugins, once a process. ConfigError when one fails."""
    for plugin in plugins:
        if name in plugin.steps:
            seat.enter(mark(f'{plugin.name}: {name}'))
            try:
                plugin.run(name)
            except Exception as error:
                raise ConfigError(f'{plugin.name} failed in {name}: {error!r}') from error
            finally:
                seat.leave()


class PluginHost:
    """All plugins of a process, for one worker."""

    def __init__(self, plugins: Sequence[Plugin], reactor: Reactor, log: Log, patience: float, seat: Seat,
                 hooks: Hooks | None = None) -> None:
        """`patience`: seconds for which a plugin may be in control of a step. `seat`: where calls are noted. `hooks`:
        what the plugins have registered."""
        self.hooks = hooks or Hooks(log)
        self.context = Context(reactor, log, seat)
        self.chain = Chain(plugins, patience)
        self._plugins = plugins

    async def start(self) -> None:
        """The plugins are initialised. ConfigError when one cannot begin."""
        if await self.chain.ask(self.context, 'mq_context_initialize') is not None:
            raise ConfigError('a plugin has not finished mq_context_initialize; see the log')

    async def stop(self) -> None:
        """Nothing calls a plugin any more."""
        await self.chain.ask(self.context, 'mq_context_cleanup')
        if self.context.libev is not None:
            self.context.libev.close()

    @property
    def asks_incoming(self) -> bool:
        return any(step.startswith(INCOMING) for step in self.chain.steps)

    @property
    def judges_logins(self) -> bool:
        return 'mq_smtp_in_authenticate' in self.chain.steps

    @property
    def asks_outgoing(self) -> bool:
        return not self.chain.steps.isdisjoint((OUT_DATA, OUT_SENT))

    @property
    def loads_mime(self) -> bool:
        """A document may come without its MIME: a plugin may bring it."""
        return OUT_DATA in self.chain.steps

    def ask_for(self, session: Session, stream: Stream) -> SessionAsker:
        return SessionAsker(self, Connection(self.context, stream, session))

    def companion(self, stream: Stream) -> Companion:
        return Companion(self, Connection(self.context, stream, None))

    def forget(self, *things: object) -> None:
        """They have ended: no plugin can reach them any more."""
        for plugin in self._plugins:
            for thing in things:
                plugin.forget(thing)


class SessionAsker:
    """Asks the plugins on behalf of one session of the server."""

    def __init__(self, host: PluginHost, connection: Connection) -> None:
        self.steps = host.chain.steps
        self._host = host
        self._connection = connection

    async def ask(self, step: str, *subject: Any) -> Objection | None:
        if subject and isinstance(subject[0], Received):
            return await self._ask_message(step, subject[0])
        try:
            return await self._host.chain.ask(self._connection, step, *subject)
        finally:
            self._host.forget(*(item for item in subject if isinstance(item, Address)))

    async def _ask_message(self, step: str, received: Received) -> Objection | None:
        fields = received.fields
        message = Message(fields, Address(fields['envelope']), Address(fields['recipient'], received.local),
                          received.trace + received.mime, True)
        try:
            objection = await self._host.chain.ask(self._connection, step, message)
        finally:
            message.free()
            self._host.forget(message, message.sender, message.recipient)
        received.trace, received.mime, received.local = b'', message.mime or b'', message.local
        return objection

    async def end(self) -> None:
        try:
            await self._host.chain.ask(self._connection, 'mq_smtp_in_close')
        finally:
            self._host.forget(self._connection)


class Companion:
    """Asks the plugins on behalf of one connection that goes out."""

    def __init__(self, host: PluginHost, connection: Connection) -> None:
        self._host = host
        self._connection = connection
        self._message: Message | None = None

    def begin(self, fields: dict[str, Any], sender: str, recipient: str, body: bytes) -> None:
        """The next message."""
        self.finish()
        self._message = Message(fields, Address(sender), Address(recipient), None, False, body=body)

    async def before_data(self, mime: bytes | None) -> bytes:
        """What to send in place of the MIME. ClientFailure when a plugin objects; NoMime when nobody has one."""
        assert self._message is not None
        self._message.original = mime
        objection = await self._host.chain.ask(self._connection, OUT_DATA, self._message)
        if objection is not None:
            reply = read_reply(objection.answer)
            raise ClientFailure('data', 'error', reply.text if reply else 'refused by a plugin', reply)
        if self._message.mime is not None:
            return self._message.mime
        if mime is None:
            raise NoMime('"mime" is missing, and no plugin has brought one')
        return mime

    async def after_dot(self) -> None:
        """The message is out: nobody can object any more."""
        assert self._message is not None
        await self._host.chain.ask(self._connection, OUT_SENT, self._message)

    def finish(self) -> None:
        """The message is settled."""
        message, self._message = self._message, None
        if message is not None:
            message.free()
            self._host.forget(message, message.sender, message.recipient)

    def end(self) -> None:
        """The connection has ended."""
        self.finish()
        self._host.forget(self._connection)
