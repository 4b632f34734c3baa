"""Plugins while mail goes out, and the examples in plugins/, which must do what they say."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mqlite.message.document import NoMime
from mqlite.plugin.host import Companion
from mqlite.smtp.reply import ClientFailure, Reply
from tests.support.c_plugin import build_plugin
from tests.support.exchanger import ClientBench
from tests.support.plugins import LOG, PluginBench, build, make_host
from tests.support.process import ROOT

MIME = b'Subject: x\r\n\r\nbody\r\n'


def step(name: str) -> str:
    return (f'bool mq_smtp_out_{name}(MQ_Context *x, MQ_Connection *c, MQ_Message *m) '
            '{ (void)x; (void)c; (void)m; ')


class Bench(ClientBench):
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / 'plugins'
    made.mkdir()
    return made


@pytest.fixture
def bench(folder: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """`indirect`: the source of the plugin."""
    build(folder, request.param, name=f'10-{folder.parent.name}')
    made = Bench(folder)
    yield made
    made.close()


SET = step('data') + """
    if (MQ_mime(m)) MQ_log(MQ_CRIT, "there before it was set");
    MQ_setEnvelope(m, "z@z", 3); MQ_setRecipient(m, "z@z", 3);
    MQ_setMime(m, "Subject: y\\n\\n.new\\xff", 17); MQ_log(MQ_INFO, MQ_mime(m)); return false; }
""" + step('sent') + 'MQ_log(MQ_INFO, MQ_email(MQ_recipient(m))); return false; }'


@pytest.mark.parametrize('bench', [SET], indirect=True)
def test_another_mime_is_sent_and_the_document_stays(bench: Bench) -> None:
    result = bench.deliver()
    assert isinstance(result, Reply) and result.code == 250
    assert bench.arrived == [b'Subject: y\r\n\r\n..new\xff\r\n']
    assert bench.exchanger.messages[0][:2] == (b'MAIL FROM:<s@a.example> BODY=8BITMIME', [b'RCPT TO:<r@b.example>'])
    assert bench.fields == {'recipient': 'r@b.example', 'tags': ['t']}
    assert [line.encode('utf-8', 'replace') for line in LOG.said()][1:] == [b'z@z'] and LOG.lines == []


@pytest.mark.parametrize('bench', [SET], indirect=True)
def test_a_plugin_may_bring_the_mime(bench: Bench) -> None:
    assert bench.deliver(None).code == 250 and len(bench.arrived) == 1


@pytest.mark.parametrize('bench', [step('data') + 'return false; }'], indirect=True)
def test_nobody_brings_a_mime(bench: Bench) -> None:
    with pytest.raises(NoMime):
        bench.deliver(None)
    assert bench.arrived == [] and not bench.session.usable


@pytest.mark.parametrize('bench', [
    step('data') + 'MQ_reject(c, 554, "5.7.1", "not this one"); return false; }'], indirect=True)
def test_a_plugin_refuses_to_send(bench: Bench) -> None:
    failure = bench.deliver()
    assert isinstance(failure, ClientFailure) and failure.state == 'data' and failure.reply is not None
    assert failure.reply.code == 554 and failure.text == 'not this one'
    assert bench.arrived == [] and not bench.session.usable


@pytest.mark.parametrize('bench', [step('data') + 'return true; }'], indirect=True)
def test_a_plugin_that_keeps_a_message_defers_it(bench: Bench) -> None:
    failure = bench.deliver()
    assert isinstance(failure, ClientFailure) and failure.reply is not None and failure.reply.code == 451
    assert bench.arrived == [] and 'mq_smtp_out_data' in LOG.lines[0]


@pytest.mark.parametrize('bench', [
    'static MQ_Connection *held; static void go(void *d) { (void)d; MQ_continue(held); }\n'
    + step('data') + 'held = c; MQ_startTimer(x, 7, go, NULL); return true; }'
    + step('sent') + 'held = c; MQ_startTimer(x, 7, go, NULL); return true; }'], indirect=True)
def test_a_plugin_takes_its_time(bench: Bench) -> None:
    before = bench.reactor.clock.monotonic()
    assert bench.deliver().code == 250 and bench.arrived == [MIME]
    assert 14 <= bench.reactor.clock.monotonic() - before < 15


# the examples

def example(folder: Path, name: str, *options: str) -> None:
    if name.endswith('.py'):
        shutil.copy(ROOT / 'plugins' / name, folder)
    else:
        build_plugin(folder, (ROOT / 'plugins' / name).read_text(), '-Wpedantic', *options, name=f'10-{name[:-2]}')


def test_footer(folder: Path) -> None:
    example(folder, 'footer.c', '-lfastjson')
    bench = Bench(folder)
    assert bench.deliver(b'Subject: \xff\r\n\r\nbody\r\n').code == 250
    assert bench.arrived == [b'Subject: \xff\r\n\r\nbody\r\n\r\n-- \r\nSent with mqlite\r\n']
    assert 'mime' not in bench.fields and LOG.lines == []
    bench.close()


def test_trace(folder: Path) -> None:
    example(folder, 'trace.c')
    bench = PluginBench(folder)
    bench.run(bench.send())
    words = [line.split(' ', 2) for line in LOG.said()]
    assert [rest for _, _, rest in words] == ['connect ', 'mailfrom a@example.org', 'rcptto b@example.org', 'data 20',
                                              'message b@example.org', 'close ']
    bench.close()


def test_greylist(folder: Path) -> None:
    example(folder, 'greylist.c')
    bench = PluginBench(folder)
    assert bench.run(bench.send()) == b'220 250 250 450 554 221'
    bench.close()


def test_quarantine(folder: Path) -> None:
    example(folder, 'quarantine.py')
    bench = PluginBench(folder)
    bench.run(bench.send())

    async def suspect() -> bytes:
        stream = await bench.client()
        return await bench.talk(stream, b'EHLO c', b'MAIL FROM:<x@example.net>', b'RCPT TO:<b@example.org>', b'DATA',
                                b'.')

    assert bench.run(suspect()) == b'250 250 250 354 250'
    assert len(bench.documents()) == 1 and bench.documents('local')[0]['tags'] == ['quarantine']
    bench.close()


def test_tarpit(folder: Path) -> None:
    example(folder, 'tarpit.py')
    bench = PluginBench(folder)
    before = bench.clock.monotonic()
    assert bench.run(bench.send('1@b.example', '2@b.example', 'b@b.example')) == b'220 250 250 550 550 250 354 250 221'
    assert 15 <= bench.clock.monotonic() - before < 16
    bench.close()
