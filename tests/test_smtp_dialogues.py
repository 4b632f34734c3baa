"""Golden dialogues (tests/data/dialogues/*.txt, see tests/support/dialogue.py) against the real server, over loopback.

Each is played in every delivery shape: turn by turn, the same one octet at a time, the same over TLS unless it comes to
TLS by itself, and all that the client has to say in one write without waiting for a reply, unless it must wait: for the
clock, for a handshake, or as a stranger; but for a file with `together: yes`, where what leaves together matters. The
server must answer the same in all of them.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from mqlite.smtp.commands import COMMANDS
from mqlite.smtp.extensions import EXTENSIONS
from mqlite.smtp.reply import REPLIES
from mqlite.smtp.session import Limits
from tests.support.dialogue import Dialogue, Kept, Turn, read_dialogue
from tests.support.peers import Certificate
from tests.support.process import ROOT
from tests.support.smtp import Bench, any_client_context, logins, without_received

# Replies that no client can bring about by what it says to a server like this one, and where they are shown.
ELSEWHERE = {
    'shutdown':           'test_smtp_server', 'internal-error': 'test_smtp_server', 'too-busy': 'test_smtp_server',
    'session-over':       'test_smtp_limits', 'early-talker': 'test_smtp_limits', 'client-rate': 'test_smtp_limits',
    'client-connections': 'test_smtp_limits', 'client-messages': 'test_smtp_limits',
    'client-recipients':  'test_smtp_limits', 'not-proxied': 'test_smtp_proxy', 'queue-trouble': 'test_receive',
    'plugin-trouble':     'test_plugin_logins', 'auth-needs-tls': 'test_smtp_auth',
    'auth-unavailable':   'test_smtp_auth', 'too-many-logins': 'test_smtp_auth',
}


def shapes_of(dialogue: Dialogue) -> list[str]:
    if 'together' in dialogue.settings:
        return ['turns']
    shapes = ['turns', 'octets']
    if not dialogue.shakes_hands:
        shapes.append('TLS')
        if not dialogue.waits and dialogue.settings.get('relay') != 'no':
            shapes.append('at once')
    return shapes


FILES = sorted((ROOT / 'tests/data/dialogues').glob('*.txt'))
CASES = [(path, shape) for path in FILES for shape in shapes_of(read_dialogue(path))]
LIMITS = tuple(field.name for field in fields(Limits))
PROPERTIES = ('dsn', 'smtputf8', 'requiretls', 'security')  # of a document, that come from what the client said


def bench_for(dialogue: Dialogue, certificate: Certificate | None = None, over_tls: bool = False) -> Bench:
    settings = dict(dialogue.settings)
    limits = {name: int(settings.pop(name)) for name in LIMITS if name in settings}
    relay = settings.pop('relay', 'yes') == 'yes'
    login, _, password = settings.pop('login', '').partition(':')
    desk = logins({login: password}) if login else None
    uses_tls = settings.pop('tls', '') == 'offered' or over_tls or dialogue.shakes_hands
    assert settings.keys() <= {'together'}, f'unknown settings {settings}'
    return Bench(relay=relay, certificate=certificate if uses_tls else None, over_tls=over_tls, desk=desk,
                 **limits)  # type: ignore[arg-type]  # mypy takes the limits for any keyword


async def play_turn(bench: Bench, turn: Turn, one_by_one: bool) -> bytes:
    """What the server says to it; when it is to close, up to that."""
    stream = bench.clients[-1]
    if turn.seconds:
        await bench.quiet(turn.seconds)
    for piece in [turn.client[n:n + 1] for n in range(len(turn.client))] if one_by_one else [turn.client]:
        stream.write(piece)
        stream.flush()
        if one_by_one:
            await bench.quiet(0)
    if turn.client_closes:
        stream.close()
        return b''
    said = await bench.read(stream, len(turn.server) + (1 if turn.server_closes else 0))
    if turn.handshake:
        await stream.start_tls(any_client_context(), server_side=False, hostname='localhost')
    return said


async def play(bench: Bench, dialogue: Dialogue, one_by_one: bool) -> None:
    stream = await bench.client(greeted=False)
    for turn in dialogue.turns:
        said = await play_turn(bench, turn, one_by_one)
        assert said.decode() == turn.server.decode(), f'in answer to {turn.client!r}'
        assert stream.lost or not turn.server_closes
    if not stream.lost:
        await bench.quiet()
        assert stream.take() == b'', 'the server says more than the dialogue'
    stream.close()
    await bench.quiet()


async def play_at_once(bench: Bench, dialogue: Dialogue) -> None:
    turns = dialogue.turns
    whole = Turn(b''.join(turn.client for turn in turns), 0.0, False, b''.join(turn.server for turn in turns),
                 turns[-1].server_closes)
    stream = await bench.client(greeted=False)
    said = await play_turn(bench, whole, False)
    assert said.decode() == whole.server.decode()
    stream.close()
    await bench.quiet()


def kept_of(document: dict[str, Any]) -> Kept:
    return Kept(document['envelope'], document['recipient'], without_received(document['mime']),
                {name: document[name] for name in PROPERTIES if name in document})


@pytest.mark.parametrize(('path', 'shape'), CASES, ids=lambda value: getattr(value, 'stem', value))
def test_dialogue(path: Path, shape: str, certificate: Certificate) -> None:
    dialogue = read_dialogue(path, over_tls=shape == 'TLS')
    with bench_for(dialogue, certificate, over_tls=shape == 'TLS') as bench:
        if shape == 'at once':
            bench.run(play_at_once(bench, dialogue))
        else:
            bench.run(play(bench, dialogue, shape == 'octets'))
        assert [kept_of(document) for document in bench.documents()] == dialogue.kept
        assert len(bench.server) == 0


@pytest.mark.parametrize('method', ['GET', 'HEAD', 'PUT', 'OPTIONS', 'CONNECT', 'post'])
def test_no_method_of_http_is_obeyed(tmp_path: Path, method: str) -> None:
    path = tmp_path / 'browser.txt'
    path.write_text((ROOT / 'tests/data/dialogues/browser.txt').read_text().replace('POST', method))
    dialogue = read_dialogue(path)
    with bench_for(dialogue) as bench:
        bench.run(play(bench, dialogue, False))


def said(side: str) -> list[str]:
    """What one side says in all dialogues."""
    return [line[3:] for path in FILES for line in path.read_text('utf-8').splitlines() if line.startswith(side)]


def test_every_reply_stands_in_a_dialogue() -> None:
    lines = said('S')
    for name, (code, status, text) in REPLIES.items():
        pattern = re.escape(f'{code} {status} {text}'.replace('  ', ' ')).replace(r'\{\}', '.*')
        assert any(re.fullmatch(pattern, line) for line in lines) != (name in ELSEWHERE), name


def test_every_verb_and_parameter_stands_in_a_dialogue() -> None:
    lines = [line.upper().split() for line in said('C')]
    methods = {'GET', 'HEAD', 'PUT', 'OPTIONS', 'CONNECT'}
    assert set(COMMANDS) - methods <= {words[0] for words in lines if words}
    for extension in EXTENSIONS:
        for verb, parameters in (('MAIL', extension.mail), ('RCPT', extension.rcpt)):
            for name in parameters:
                assert any(words[:1] == [verb] and word.partition('=')[0] == name
                           for words in lines for word in words[2:]), f'{verb} {name}'


@pytest.mark.parametrize(('text', 'complaint'), [
    ('no setting\n\nC: NOOP\n', 'not a setting'),
    ('size: 1\n\nX: NOOP\n', 'not a step'),
])
def test_a_bad_file_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / 'bad.txt'
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        read_dialogue(path)


def test_a_wrong_dialogue_fails(tmp_path: Path) -> None:
    path = tmp_path / 'wrong.txt'
    path.write_text('# nothing set\n\nS: 220 mx.example ESMTP mqlite\nC: NOOP\nS: 251 2.0.0 Ok\n')
    dialogue = read_dialogue(path)
    with bench_for(dialogue) as bench, pytest.raises(AssertionError, match='NOOP'):
        bench.run(play(bench, dialogue, False))
