"""Plugins while mail goes out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mqlite.message.document import NoMime
from mqlite.smtp.reply import ClientFailure, Reply
from tests.support.plugins import LOG, MIME, OutBench, build


def step(name: str) -> str:
    return (f'bool mq_smtp_out_{name}(MQ_Context *x, MQ_Connection *c, MQ_Message *m) '
            '{ (void)x; (void)c; (void)m; ')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / 'plugins'
    made.mkdir()
    return made


@pytest.fixture
def bench(folder: Path, request: pytest.FixtureRequest) -> Iterator[OutBench]:
    """`indirect`: the source of the plugin."""
    build(folder, request.param, name=f'10-{folder.parent.name}')
    made = OutBench(folder)
    yield made
    made.close()


SET = step('data') + """
    if (MQ_mime(m)) MQ_log(MQ_CRIT, "there before it was set");
    MQ_setEnvelope(m, "z@z", 3); MQ_setRecipient(m, "z@z", 3);
    MQ_setMime(m, "Subject: y\\n\\n.new\\xff", 17); MQ_log(MQ_INFO, MQ_mime(m)); return false; }
""" + step('sent') + 'MQ_log(MQ_INFO, MQ_email(MQ_recipient(m))); return false; }'


@pytest.mark.parametrize('bench', [SET], indirect=True)
def test_another_mime_is_sent_and_the_document_stays(bench: OutBench) -> None:
    result = bench.deliver()
    assert isinstance(result, Reply) and result.code == 250
    assert bench.arrived == [b'Subject: y\r\n\r\n..new\xff\r\n']
    assert bench.exchanger.messages[0][:2] == (b'MAIL FROM:<s@a.example> BODY=8BITMIME', [b'RCPT TO:<r@b.example>'])
    assert bench.fields == {'recipient': 'r@b.example', 'tags': ['t']}
    assert [line.encode('utf-8', 'replace') for line in LOG.said()][1:] == [b'z@z'] and LOG.lines == []


@pytest.mark.parametrize('bench', [SET], indirect=True)
def test_a_plugin_may_bring_the_mime(bench: OutBench) -> None:
    assert bench.deliver(None).code == 250 and len(bench.arrived) == 1


@pytest.mark.parametrize('bench', [step('data') + 'return false; }'], indirect=True)
def test_nobody_brings_a_mime(bench: OutBench) -> None:
    with pytest.raises(NoMime):
        bench.deliver(None)
    assert bench.arrived == [] and not bench.session.usable


@pytest.mark.parametrize('bench', [
    step('data') + 'MQ_reject(c, 554, "5.7.1", "not this one"); return false; }'], indirect=True)
def test_a_plugin_refuses_to_send(bench: OutBench) -> None:
    failure = bench.deliver()
    assert isinstance(failure, ClientFailure) and failure.state == 'data' and failure.reply is not None
    assert failure.reply.code == 554 and failure.text == 'not this one'
    assert bench.arrived == [] and not bench.session.usable


@pytest.mark.parametrize('bench', [step('data') + 'return true; }'], indirect=True)
def test_a_plugin_that_keeps_a_message_defers_it(bench: OutBench) -> None:
    failure = bench.deliver()
    assert isinstance(failure, ClientFailure) and failure.reply is not None and failure.reply.code == 451
    assert bench.arrived == [] and 'mq_smtp_out_data' in LOG.lines[0]


@pytest.mark.parametrize('bench', [
    'static MQ_Connection *held; static void go(void *d) { (void)d; MQ_continue(held); }\n'
    + step('data') + 'held = c; MQ_startTimer(x, 7, go, NULL); return true; }'
    + step('sent') + 'held = c; MQ_startTimer(x, 7, go, NULL); return true; }'], indirect=True)
def test_a_plugin_takes_its_time(bench: OutBench) -> None:
    before = bench.reactor.clock.monotonic()
    assert bench.deliver().code == 250 and bench.arrived == [MIME]
    assert 14 <= bench.reactor.clock.monotonic() - before < 15
