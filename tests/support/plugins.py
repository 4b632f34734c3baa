"""Plugins under test: compiled, loaded once per process behind one shim, and asked by a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mqlite.log import Log
from mqlite.loop.reactor import Reactor
from mqlite.plugin.hooks import Hooks
from mqlite.plugin.host import Companion, PluginHost, run_in_all
from mqlite.plugin.loader import load_plugins
from mqlite.recorder import Recorder
from tests.support.c_plugin import build_plugin
from tests.support.exchanger import ClientBench
from tests.support.smtp import Bench

VERSION = '#include <mailerq.h>\n#include <string.h>\nint mq_version(void) { return MQ_API_VERSION; }\n'
OLD = '#define MQ_API_GENERATION 3\n' + VERSION
PATIENCE = 60.0
MIME = b'Subject: x\r\n\r\nbody\r\n'
SEAT = Recorder(1).seats[0]


class Lines(Log):
    """A log that is kept. One for all, as the functions behind the shim are one for the process."""

    def __init__(self) -> None:
        super().__init__([])
        self.lines: list[str] = []

    def _write(self, level: str, text: str) -> None:
        self.lines.append(text)

    def said(self) -> list[str]:
        """What plugins have said with MQ_log since the last time."""
        said = [line[len('[plugin] '):] for line in self.lines if line.startswith('[plugin] ')]
        self.lines = [line for line in self.lines if not line.startswith('[plugin] ')]
        return said


LOG = Lines()


class PluginBench(Bench):
    """A server with the plugins of a folder."""

    def __init__(self, folder: Path, **options: Any) -> None:
        LOG.lines.clear()
        self.host: PluginHost

        def host(reactor: Reactor) -> PluginHost:
            self.host = make_host(folder, reactor)
            return self.host

        super().__init__(plugins=host, **options)
        self.run(self.host.start())

    async def send(self, *recipients: str, data: bytes = b'Subject: x\r\n\r\nbody\r\n') -> bytes:
        """One message on a connection of its own; the codes of the replies, the greeting's first."""
        stream = await self.client(greeted=False)
        codes = [(await self.read_line(stream))[:3]]
        commands = [b'EHLO c.example', b'MAIL FROM:<a@example.org>',
                    *(f'RCPT TO:<{recipient}>'.encode() for recipient in recipients or ['b@example.org']), b'DATA']
        codes.append(await self.talk(stream, *commands))
        if codes[-1].endswith(b'354'):
            codes.append(await self.talk(stream, data + b'.'))
        if codes[-1][:3] != b'':
            codes.append(await self.talk(stream, b'QUIT'))
        await self.quiet()
        return b' '.join(codes)


def make_host(folder: Path, reactor: Reactor, hooks: Hooks | None = None) -> PluginHost:
    """The plugins of a folder, loaded and initialised; they have no context yet."""
    plugins = load_plugins(str(folder), LOG, 0, '', SEAT, hooks)
    run_in_all(plugins, 'mq_initialize', SEAT)
    return PluginHost(plugins, reactor, LOG, PATIENCE, SEAT, hooks)


def stop_host(host: PluginHost, reactor: Reactor) -> None:
    """What a process does when its only worker has ended."""
    reactor.run(host.stop())
    run_in_all(host._plugins, 'mq_cleanup', SEAT)


class OutBench(ClientBench):
    """A client with the plugins of a folder, and a peer that keeps what it gets."""

    def __init__(self, folder: Path) -> None:
        super().__init__(b'PIPELINING', b'SIZE 1000000', b'8BITMIME')
        LOG.lines.clear()
        self.host = make_host(folder, self.reactor)
        self.companion: Companion
        self.fields: dict[str, Any] = {'recipient': 'r@b.example', 'tags': ['t']}

    def deliver(self, mime: bytes | None = MIME) -> Any:
        self.start()
        self.companion = self.host.companion(self.session.stream)
        self.session.companion = self.companion
        self.companion.begin(self.fields, 's@a.example', 'r@b.example', b'{}')
        result = self.send(mime=mime)  # type: ignore[arg-type]
        self.companion.finish()
        return result

    @property
    def arrived(self) -> list[bytes]:
        return [message for _, _, message in self.exchanger.messages]


def build(folder: Path, source: str, *options: str, name: str = '10-test', old: bool = False) -> Path:
    """A plugin in C: `source` behind the header and mq_version."""
    work = folder.parent / f'{folder.name}-c'
    work.mkdir(exist_ok=True)
    made = build_plugin(work, (OLD if old else VERSION) + source, *options, name=name)
    folder.mkdir(exist_ok=True)
    return made.rename(folder / made.name)
