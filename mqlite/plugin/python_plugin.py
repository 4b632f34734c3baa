"""Plugins in Python: the same functions, with objects in place of pointers.

    def mq_smtp_in_rcptto(context, connection, address):
        if address.email.endswith('@nowhere.example'):
            connection.reject(550, '5.1.2', 'There is no mail for that domain')

A function that returns a true value has taken control, and hands back with connection.continue_(), complete() or
retry(). An `async def` is in control until it returns; COMPLETE or RETRY as its value says so, anything else continues.
It may await the methods of the context, and nothing else. A generation 5 plugin in every other respect.

A function that is named as one of Momentum's hooks, core_post_initiate_connection_smtp and so on, is registered for it,
and called without a closure: (domain, binding_slot, now, conn_fd). It cannot be an `async def`.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Coroutine
from typing import Any, Callable

from mqlite.errors import ConfigError
from mqlite.loop.task import Waiter, sleep
from mqlite.plugin import abi
from mqlite.plugin.hold import COMPLETE, CONTINUE, RETRY, Hold
from mqlite.plugin.hooks import BY_NAME, Hooks
from mqlite.plugin.objects import Connection, Context, Owner, Plugin, Timer, Watcher, refusal
from mqlite.smtp.reply import reply
from mqlite.smtp.session import Objection


class ContextView:
    """A worker, for one plugin."""

    def __init__(self, plugin: Plugin, context: Context) -> None:
        self._plugin = plugin
        self._context = context

    @property
    def data(self) -> Any:
        """This plugin's own; None at first."""
        return self._context.slots.get(self._plugin)

    @data.setter
    def data(self, value: Any) -> None:
        self._context.slots[self._plugin] = value

    def start_timer(self, seconds: float, fn: Callable[[], object]) -> Timer:
        return Timer(self._context, self._plugin, seconds, fn)

    def watch(self, fd: int, events: int, fn: Callable[[int], object]) -> Watcher:
        """`events`: 1 to read, 2 to write, 3 for both; `fn(events)`."""
        return Watcher(self._context, self._plugin, fd, events, fn)

    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        return sleep(self._context.reactor, seconds)

    async def wait(self, fd: int, events: int) -> int:
        """Until the descriptor is ready; the events."""
        waiter: Waiter[int] = Waiter(self._context.reactor)
        watcher = self.watch(fd, events, lambda ready: None if waiter.done else waiter.set(ready))
        try:
            return await waiter
        finally:
            watcher.stop()

    def log(self, text: str) -> None:
        self._context.log.info(f'[plugin] {text}')


class ConnectionView:
    """A connection, for one plugin."""

    def __init__(self, plugin: Plugin, connection: Connection) -> None:
        self._plugin = plugin
        self._connection = connection

    @property
    def data(self) -> Any:
        """This plugin's own; None at first."""
        return self._connection.slots.get(self._plugin)

    @data.setter
    def data(self, value: Any) -> None:
        self._connection.slots[self._plugin] = value

    @property
    def authenticated(self) -> bool:
        return self._connection.authenticated

    @authenticated.setter
    def authenticated(self, value: bool) -> None:
        self._connection.authenticated = value

    @property
    def secure(self) -> bool:
        return self._connection.secure

    @property
    def peer(self) -> tuple[str, int]:
        return self._connection.stream.peer

    def fileno(self) -> int:
        return self._connection.stream.fileno()

    def send(self, data: bytes) -> int:
        return self._connection.send(data)

    def reject(self, code: int, status: str, text: str) -> None:
        """Refuse the present step; takes effect when control is handed back. ValueError for a code that refuses not."""
        self._own_hold()
        if self._connection.objection is None:
            self._connection.objection = refusal(code, status, text)

    def continue_(self) -> None:
        self._own_hold().hand_back(CONTINUE)

    def complete(self) -> None:
        self._own_hold().hand_back(COMPLETE)

    def retry(self) -> None:
        self._own_hold().hand_back(RETRY)

    def _own_hold(self) -> Hold:
        hold = self._connection.hold
        if hold is None or hold.plugin is not self._plugin:
            raise RuntimeError(f'{self._plugin.name} is not in control of this connection')
        return hold


class PythonPlugin:
    """One .py file."""

    def __init__(self, path: str, name: str, hooks: Hooks) -> None:
        """ConfigError when it cannot be imported."""
        self.name = name
        specification = importlib.util.spec_from_file_location(f'mqlite_plugin_{abs(hash(path))}', path)
        assert specification is not None and specification.loader is not None
        self._module = importlib.util.module_from_spec(specification)
        try:
            specification.loader.exec_module(self._module)
        except Exception as error:
            raise ConfigError(f'the plugin {path} cannot be imported: {error!r}') from error
        self.steps = frozenset(row.name for row in abi.CALLBACKS if callable(getattr(self._module, row.name, None)))
        self._views: dict[int, Any] = {}
        for hook in BY_NAME:
            function = getattr(self._module, hook, None)
            if callable(function):
                hooks.add(hook, function, name)

    def call(self, hold: Hold, owner: Owner, subject: tuple[Any, ...]) -> bool:
        arguments = [self._view(owner.context)]
        if isinstance(owner, Connection):
            arguments += [self._view(owner), *subject]
        result = getattr(self._module, hold.step)(*arguments)
        if not inspect.iscoroutine(result):
            return bool(result)
        task = owner.context.reactor.spawn(self._run(hold, owner, result), f'{self.name} {hold.step}')
        hold.on_abandon = task.cancel
        return True

    async def _run(self, hold: Hold, owner: Owner, coroutine: Coroutine[Any, Any, Any]) -> None:
        how = CONTINUE
        try:
            value = await coroutine
            how = value if value in (COMPLETE, RETRY) else CONTINUE
        except Exception as error:
            owner.context.log.warning(f'{self.name} failed in {hold.step}: {error!r}')
            if hold.outcome is None:
                owner.objection = Objection(reply('plugin-trouble'))
        hold.finish(how)

    def run(self, name: str) -> None:
        """mq_initialize or mq_cleanup."""
        getattr(self._module, name)()

    def forget(self, thing: object) -> None:
        self._views.pop(id(thing), None)

    def _view(self, thing: Any) -> Any:
        view = self._views.get(id(thing))
        if view is None:
            kind = ContextView if isinstance(thing, Context) else ConnectionView
            view = self._views[id(thing)] = kind(self, thing)
        return view
