"""What plugins act on: contexts, connections, messages, timers and watchers. No ctypes: C sees numbers for these.

    Context      a worker: its loop, and a slot of data per plugin
    Connection   an SMTP connection, in or out, and a slot of data per plugin
    Message      one message for one recipient
    Address      a sender or a recipient (of smtp/session.py)

Both a context and a connection can be held by a plugin. What is written from another thread than the loop's is
recorded and done in the loop.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Callable, Protocol

from mqlite.log import Log
from mqlite.loop.reactor import READ, WRITE, Reactor
from mqlite.loop.stream import Stream
from mqlite.plugin.hold import Hold
from mqlite.plugin.json_object import REMOVED
from mqlite.recorder import NO_DIGEST, Seat, digest, mark
from mqlite.smtp.framing import normalise
from mqlite.smtp.grammar import printable
from mqlite.smtp.reply import BadReply, Reply, ReplyReader, format_reply
from mqlite.smtp.session import Address, Objection, Session

SENT_LIMIT = 4096  # octets of what a plugin sends in a step that are looked at: a refusal is shorter


class Plugin(Protocol):
    """One file of the plugin directory."""

    name: str
    steps: frozenset[str]  # the mq_* functions that it has

    def call(self, hold: Hold, owner: Owner, subject: tuple[Any, ...]) -> bool:
        """Call the function of the hold's step; True when the plugin has taken control."""

    def run(self, name: str) -> None:
        """Call mq_initialize or mq_cleanup."""

    def forget(self, thing: object) -> None:
        """The thing has ended: what stands for it in the plugin is good no more."""


class Context:
    """A worker as plugins see it."""

    def __init__(self, reactor: Reactor, log: Log, seat: Seat) -> None:
        self.reactor = reactor
        self.log = log
        self.seat = seat  # where calls of plugins are noted
        self.slots: dict[Plugin, Any] = {}
        self.holds: list[Hold] = []  # oldest first
        self.hold: Hold | None = None
        self.objection: Objection | None = None
        self.libev: Any = None  # the LibevClock, once a plugin has asked for it

    @property
    def context(self) -> Context:
        return self

    def enter(self, plugin: Plugin, marked: bytes) -> None:
        """A plugin is called back: on account of the message that it is in control of, if that is the only one."""
        holds = self.holds
        only = len(holds) == 1 and holds[0].plugin is plugin
        self.seat.enter(marked, holds[0].message if only else NO_DIGEST)


class Connection:
    """An SMTP connection as plugins see it. `session` is that of the server; None for an outgoing one."""

    def __init__(self, context: Context, stream: Stream, session: Session | None) -> None:
        self.context = context
        self.stream = stream
        self.session = session
        self.slots: dict[Plugin, Any] = {}
        self.hold: Hold | None = None
        self.objection: Objection | None = None
        self.spoiled = False  # a hold has expired: the plugin may still be at work
        self.sent = b''  # by the plugin, in this step

    @property
    def authenticated(self) -> bool:
        return self.session is not None and self.session.authenticated

    @authenticated.setter
    def authenticated(self, value: bool) -> None:
        if self.session is not None:
            self.session.authenticated = value

    @property
    def secure(self) -> bool:
        return self.stream.cipher is not None

    def send(self, data: bytes) -> int:
        """Send in order with our own output; the bytes taken, 0 when the connection has ended."""
        if self.stream.closed or self.stream.lost:
            return 0
        self.context.reactor.run_inside(self._send, data)
        return len(data)

    def _send(self, data: bytes) -> None:
        self.sent = (self.sent + data)[:SENT_LIMIT]
        self.stream.write(data)
        self.context.reactor.call_soon(self.stream.flush)

    def said_refusal(self) -> Objection | None:
        """The objection, when what the plugin has sent in this step is one complete refusal."""
        reply = read_reply(self.sent)
        return Objection(self.sent, said=True) if reply is not None and reply.code >= 400 else None


Owner = Any  # a Context or a Connection: both have context, hold, objection and slots


def refusal(code: int, status: str, text: str) -> Objection:
    """ValueError when the code is not that of a refusal."""
    if not 400 <= code <= 599:
        raise ValueError(f'{code} is no code for a refusal: 400 to 599')
    return Objection(format_reply(code, printable(status, 16), printable(text, 400)))


def read_reply(data: bytes) -> Reply | None:
    """The reply, when the data is exactly one complete reply."""
    reader, reply = ReplyReader(), None
    try:
        for line in data.splitlines(keepends=True):
            if reply is not None or not line.endswith(b'\n'):
                return None
            reply = reader.feed(line)
    except BadReply:
        return None
    return reply


@dataclass(eq=False)
class Message:
    """A message as plugins see it. `mime` of an outgoing one is None until a plugin sets it; what is to be sent
    otherwise is the `original`, which stands in the JSON.
    """

    fields: dict[str, Any]  # the properties; of an incoming message with envelope and recipient kept in step
    sender: Address
    recipient: Address
    mime: bytes | None
    incoming: bool
    original: bytes | None = None
    body: bytes = b''  # the document of an outgoing one, as it came from its queue
    objects: dict[str, Any] = field(default_factory=dict)  # JSON objects of C libraries that were handed out

    @property
    def local(self) -> bool:
        return self.recipient.local

    @cached_property
    def digest(self) -> bytes:
        """What it is known by after a crash; one that comes in is on no queue yet."""
        return digest(self.body) if self.body else NO_DIGEST

    def set_sender(self, email: str) -> None:
        self.sender.email = email
        if self.incoming:
            self.fields['envelope'] = email

    def set_recipient(self, email: str) -> None:
        self.recipient.email = email
        if self.incoming:
            self.fields['recipient'] = email

    def set_mime(self, mime: bytes) -> None:
        self.mime = normalise(mime)

    def all_fields(self) -> dict[str, Any]:
        """The JSON with the MIME, as it is published."""
        mime = self.original if self.mime is None else self.mime
        return {**self.fields, 'mime': mime.decode('utf-8', 'surrogateescape')} if mime is not None else self.fields

    def take_changes(self) -> None:
        """A plugin is done: what it changed in the JSON counts. JsonFault when that is no JSON; then nothing does."""
        try:
            for handed_out in self.objects.values():
                self._change(handed_out.changes())
        finally:
            self.free()

    def free(self) -> None:
        for handed_out in self.objects.values():
            handed_out.free()
        self.objects.clear()

    def _change(self, changed: dict[str, Any]) -> None:
        mime = changed.pop('mime', None)
        if isinstance(mime, str):
            self.set_mime(mime.encode('utf-8', 'surrogateescape'))
        for name, value in changed.items():
            if value is REMOVED:
                self.fields.pop(name, None)
            else:
                self.fields[name] = value
        if self.incoming:
            self.sender.email = str(self.fields.get('envelope') or '')
            self.recipient.email = str(self.fields.get('recipient') or '')


class Timer:
    """One shot; `fn()` is called in the loop."""

    def __init__(self, context: Context, plugin: Plugin, seconds: float, fn: Callable[[], object]) -> None:
        self._context, self._plugin, self._fn = context, plugin, fn
        self._mark = mark(f'{plugin.name}: a timer')
        self.over = False
        self._timer: Any = None
        context.reactor.run_inside(self._start, seconds)

    def _start(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.over:
            self._timer = self._context.reactor.call_later(max(0.0, seconds), self._fire)

    def _fire(self) -> None:
        self.over = True
        self._context.enter(self._plugin, self._mark)
        try:
            self._fn()
        finally:
            self._context.seat.leave()
        self._plugin.forget(self)

    def reset(self, seconds: float) -> None:
        self._context.reactor.run_inside(self._start, seconds)

    def stop(self) -> None:
        self.over = True
        self._context.reactor.run_inside(self._stop)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._plugin.forget(self)


class Watcher:
    """`fn(events)` is called in the loop whenever the descriptor is ready. We watch a duplicate: the plugin's own may
    be watched twice, or closed before it is unwatched.
    """

    def __init__(self, context: Context, plugin: Plugin, fd: int, events: int, fn: Callable[[int], object]) -> None:
        """OSError when the descriptor is not open, or is one that cannot be waited for."""
        self.fd = fd
        self._context, self._plugin, self._fn = context, plugin, fn
        self._mark = mark(f'{plugin.name}: a watcher')
        self._own = os.dup(fd)
        self._events = (READ if events & 1 else 0) | (WRITE if events & 2 else 0)
        context.reactor.run_inside(self._start)

    def _start(self) -> None:
        try:
            self._context.reactor.watch(self._own, self._events, self._ready)
        except (OSError, ValueError) as error:
            self._context.log.warning(f'{self._plugin.name}: descriptor {self.fd} cannot be watched: {error}')
            self.stop()

    def _ready(self, events: int) -> None:
        self._context.enter(self._plugin, self._mark)
        try:
            self._fn((1 if events & READ else 0) | (2 if events & WRITE else 0))
        finally:
            self._context.seat.leave()

    def stop(self) -> None:
        self._context.reactor.run_inside(self._stop)

    def _stop(self) -> None:
        own, self._own = self._own, -1
        if own >= 0:
            self._context.reactor.unwatch(own)
            os.close(own)
        self._plugin.forget(self)
