"""What is behind the functions that C calls: one operation per word in the column `does` of THE ABI TABLE.

Each looks up its handle, and does nothing when that is not good any more, or stands for something else: it answers the
default of its row, and the log says so once per function. They read, record and wake; what follows happens in the loop.
They may be called by any thread at any moment, since ctypes gives up the interpreter's lock around C.
"""

from __future__ import annotations

import ctypes
from typing import Any, Callable

from mqlite.log import Log
from mqlite.plugin import abi
from mqlite.plugin.handles import Handle, Handles
from mqlite.plugin.hold import COMPLETE, CONTINUE, RETRY, Hold
from mqlite.plugin.hooks import FUNCTIONS as HOOK_FUNCTIONS
from mqlite.plugin.hooks import Hooks
from mqlite.plugin.host_library import HostLibraryError
from mqlite.plugin.json_object import JsonFault, JsonLibrary, JsonObject
from mqlite.plugin.libev import LibevClock
from mqlite.plugin.objects import Connection, Context, Message, Timer, Watcher, refusal
from mqlite.smtp.reply import reply
from mqlite.smtp.session import Address, Objection

FUNCTIONS = (*abi.FUNCTIONS, *HOOK_FUNCTIONS)
NAMES = tuple(name for row in FUNCTIONS for name in row.names)
_LEVELS = {1: 'critical', 2: 'warning', 3: 'info'}  # MQ_log
_ON_IO = abi.prototype(abi.ON_IO)
_ON_TIMER = abi.prototype(abi.ON_TIMER)
Kind = Any  # a class, or several


class Exports:
    """One per process: the shim's table leads here."""

    def __init__(self, log: Log) -> None:
        self.handles = Handles()
        self._log = log
        self._told: set[str] = set()
        self._libraries: dict[str, JsonLibrary] = {}
        self.use_hooks(Hooks(log))
        operations = {**self._operations(), **{row.does: self._hook_operation(row.does) for row in HOOK_FUNCTIONS}}
        self.functions = {name: abi.prototype((row.result, *row.arguments))(self._guarded(row, operations[row.does]))
                          for row in FUNCTIONS for name in row.names[:1]}

    def use_hooks(self, hooks: Hooks) -> None:
        """Those of the plugins that are being loaded."""
        self._hook_operations = hooks.operations()

    def _hook_operation(self, does: str) -> Callable[..., Any]:
        return lambda *arguments: self._hook_operations[does](*arguments)

    def addresses(self) -> dict[str, int]:
        """The address of the code behind every name of the table."""
        return {name: ctypes.cast(self.functions[row.names[0]], ctypes.c_void_p).value or 0
                for row in FUNCTIONS for name in row.names}

    def _guarded(self, row: abi.Function, operation: Callable[..., Any]) -> Callable[..., Any]:
        """An exception must not get into C."""
        default = row.default

        def call(*arguments: Any) -> Any:
            try:
                return operation(*arguments)
            except Exception as error:
                self._tell(row.names[0], f'{row.names[0]} failed: {error!r}')
                return default
        return call

    def _tell(self, key: str, text: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self._log.warning(f'plugin: {text}; not said again')

    def _find(self, name: str, number: int | None, kind: Kind) -> Handle | None:
        handle = self.handles.find(number or 0)
        if handle is not None and isinstance(handle.thing, kind):
            return handle
        self._tell(name, f'{name} was called with a handle that is {"of another kind" if handle else "not good"}: '
                         f'{number or 0:#x}')
        return None

    def _operations(self) -> dict[str, Callable[..., Any]]:
        reader = self._reader
        return {
            'continue':      lambda number: self._hand_back(CONTINUE, number),
            'complete':      lambda number: self._hand_back(COMPLETE, number),
            'retry':         lambda number: self._hand_back(RETRY, number),
            'reject':        self._reject,
            'descriptor':    reader('MQ_fileDescriptor', Connection, lambda thing: thing.stream.fileno(), -1),
            'send':          self._send,
            'is-login':      reader('MQ_authenticated', Connection, lambda thing: thing.authenticated, False),
            'set-login':     self._set_login,
            'secure':        reader('MQ_secure', Connection, lambda thing: thing.secure, False),
            'data':          self._data,
            'set-data':      self._set_data,
            'libev':         self._libev,
            'watch':         self._watch,
            'unwatch':       reader('MQ_ioUnwatch', Watcher, lambda thing: thing.stop(), None),
            'start':         self._start,
            'stop':          reader('MQ_stopTimer', Timer, lambda thing: thing.stop(), None),
            'reset':         self._reset,
            'envelope':      self._address('MQ_envelope', lambda message: message.sender),
            'recipient':     self._address('MQ_recipient', lambda message: message.recipient),
            'old-envelope':  self._text('MQ_Envelope', Message, lambda message: _encoded(message.sender.email)),
            'old-recipient': self._text('MQ_Recipient', Message, lambda message: _encoded(message.recipient.email)),
            'set-envelope':  self._setter('MQ_setEnvelope', lambda message, data: message.set_sender(_decoded(data))),
            'set-recipient': self._setter('MQ_setRecipient',
                                          lambda message, data: message.set_recipient(_decoded(data))),
            'mime':          self._text('MQ_mime', Message, lambda message: message.mime),
            'set-mime':      self._setter('MQ_setMime', lambda message, data: message.set_mime(data)),
            'email':         self._text('MQ_email', Address, lambda address: _encoded(address.email)),
            'local':         reader('MQ_local', (Message, Address), lambda thing: thing.local, False),
            'set-local':     self._set_local,
            'libfastjson':   lambda number: self._json('libfastjson', number),
            'json-c':        lambda number: self._json('json-c', number),
            'log':           self._write_log,
        }

    # the shapes that many operations share

    def _reader(self, name: str, kind: Kind, get: Callable[[Any], Any], default: Any) -> Callable[[int], Any]:
        find = self.handles.find

        def read(number: int) -> Any:
            handle = find(number)
            if handle is None or not isinstance(handle.thing, kind):
                self._find(name, number, kind)
                return default
            return get(handle.thing)
        return read

    def _text(self, name: str, kind: Kind, get: Callable[[Any], bytes | None]) -> Callable[[int], Any]:
        """Text for C: a copy that lives as long as the handle, or until it is asked for again and differs."""
        def read(number: int) -> Any:
            handle = self._find(name, number, kind)
            value = get(handle.thing) if handle else None
            if handle is None or value is None:
                return None
            kept = handle.texts.get(name)
            if kept is None or kept[0] != value:
                kept = handle.texts[name] = value, ctypes.create_string_buffer(value)
            return ctypes.addressof(kept[1])
        return read

    def _address(self, name: str, get: Callable[[Message], Address]) -> Callable[[int], Any]:
        def read(number: int) -> Any:
            handle = self._find(name, number, Message)
            return self.handles.number(handle.plugin, get(handle.thing)) if handle else None
        return read

    def _setter(self, name: str, change: Callable[[Message, bytes], None]) -> Callable[[int, int, int], None]:
        def write(number: int, data: int, size: int) -> None:
            handle = self._find(name, number, Message)
            if handle:
                change(handle.thing, ctypes.string_at(data, size) if data else b'')
        return write

    # control

    def _hand_back(self, how: str, number: int) -> None:
        handle = self._find(f'MQ_{how}', number, (Connection, Context))
        hold = _held(handle) if handle else None
        if hold is not None:
            hold.hand_back(how)
        elif handle is not None:
            self._log.warning(f'{handle.plugin.name} called MQ_{how} without being in control: ignored')

    def _reject(self, number: int, code: int, status: int, text: int) -> None:
        handle = self._find('MQ_reject', number, Connection)
        if handle is None:
            return
        if _held(handle) is None:
            self._log.warning(f'{handle.plugin.name} called MQ_reject without being in control: ignored')
        elif handle.thing.objection is None:
            try:
                handle.thing.objection = refusal(code, _decoded(_string(status)), _decoded(_string(text)))
            except ValueError as error:
                self._log.warning(f'{handle.plugin.name} called MQ_reject wrongly: {error}; deferred')
                handle.thing.objection = Objection(reply('plugin-trouble'))

    def _send(self, number: int, data: int, size: int) -> int:
        handle = self._find('MQ_send', number, Connection)
        taken: int = handle.thing.send(ctypes.string_at(data, size)) if handle and data else 0
        return taken

    def _set_login(self, number: int, value: bool) -> None:
        handle = self._find('MQ_setAuthenticated', number, Connection)
        if handle:
            handle.thing.authenticated = value

    def _set_local(self, number: int, value: bool) -> None:
        handle = self._find('MQ_setLocal', number, (Message, Address))
        if handle:
            (handle.thing.recipient if isinstance(handle.thing, Message) else handle.thing).local = value

    def _data(self, number: int) -> Any:
        handle = self._find('MQ_connectionData', number, (Connection, Context))
        return handle.thing.slots.get(handle.plugin) if handle else None

    def _set_data(self, number: int, data: int) -> None:
        handle = self._find('MQ_setConnectionData', number, (Connection, Context))
        if handle:
            handle.thing.slots[handle.plugin] = data

    # the event loop

    def _libev(self, number: int) -> Any:
        handle = self._find('MQ_ev', number, Context)
        if handle is None:
            return None
        context: Context = handle.thing
        if not context.reactor.is_inside():
            self._tell('MQ_ev', 'MQ_ev was called in another thread than that of the context: it gives NULL')
            return None
        if context.libev is None:
            try:
                context.libev = LibevClock(context.reactor, context.seat)
            except HostLibraryError as error:
                self._tell('MQ_ev', str(error))
                return None
        return context.libev.pointer

    def _watch(self, number: int, fd: int, events: int, callback: int, data: int) -> Any:
        handle = self._find('MQ_ioWatch', number, Context)
        if handle is None or not callback:
            return None
        call = _ON_IO(callback)
        try:
            watcher = Watcher(handle.thing, handle.plugin, fd, events, lambda ready: call(own, fd, ready, data))
        except OSError as error:
            self._log.warning(f'{handle.plugin.name}: descriptor {fd} cannot be watched: {error.strerror}')
            return None
        own = self.handles.number(handle.plugin, watcher)
        return own

    def _start(self, number: int, seconds: float, callback: int, data: int) -> Any:
        handle = self._find('MQ_startTimer', number, Context)
        if handle is None or not callback:
            return None
        call = _ON_TIMER(callback)
        timer = Timer(handle.thing, handle.plugin, seconds, lambda: call(data))
        return self.handles.number(handle.plugin, timer)

    def _reset(self, number: int, seconds: float) -> None:
        handle = self._find('MQ_resetTimer', number, Timer)
        if handle:
            handle.thing.reset(seconds)

    # messages

    def _json(self, word: str, number: int) -> Any:
        handle = self._find(f'MQ_json ({word})', number, Message)
        if handle is None:
            return None
        message: Message = handle.thing
        try:
            if word not in message.objects:
                library = self._libraries.get(word)
                if library is None:
                    library = self._libraries[word] = JsonLibrary(word)
                message.objects[word] = JsonObject(library, message.all_fields())
        except (HostLibraryError, JsonFault) as error:
            self._tell(word, str(error))
            return None
        return message.objects[word].pointer

    def _write_log(self, priority: int, text: int) -> None:
        level = _LEVELS.get(priority)
        prefix = '[plugin] ' if level else '[plugin] (invalid priority) '
        getattr(self._log, level or 'info')(prefix + _string(text).decode('utf-8', 'replace'))


def _held(handle: Handle) -> Hold | None:
    """What the plugin is in control of there; for a context, the oldest (generation 3)."""
    if isinstance(handle.thing, Context):
        return next((hold for hold in handle.thing.holds if hold.plugin is handle.plugin), None)
    hold: Hold | None = handle.thing.hold
    return hold if hold is not None and hold.plugin is handle.plugin else None


def _string(pointer: int | None) -> bytes:
    return ctypes.string_at(pointer) if pointer else b''


def _encoded(email: str) -> bytes | None:
    return email.encode('utf-8', 'surrogateescape') if email else None


def _decoded(data: bytes) -> str:
    return data.decode('utf-8', 'surrogateescape')
