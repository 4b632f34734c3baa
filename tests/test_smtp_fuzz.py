"""A short run of the fuzz program, so that it stays able to run; the long one is `python3 -m tests.peers.fuzz_smtp`."""

from __future__ import annotations

import pytest

from mqlite.smtp import commands, reply
from mqlite.smtp.session import Session
from tests.peers.fuzz_smtp import check_replies, run

OUTCOMES = {    # each must be met, or the mutations no longer reach what they should
    f'{target} {code}' for target in ('commands', 'server') for code in (220, 221, 250, 354, 421, 500, 501, 503, 554)}


def test_a_thousand_dialogues() -> None:
    assert set(run(1200, 2)) >= OUTCOMES


@pytest.mark.parametrize('said', [
    b'220 x', b'220 x\n', b'220-x\r\n', b'220-x\r\n221 x\r\n', b'120 x\r\n', b'260 x\r\n', b'620 x\r\n', b'22 x\r\n',
    b'220x\r\n', b'220 \xc3\xa9\r\n', b'220 a\rb\r\n', b'220 a\0\r\n', b'\r\n', b'250 ok\r\n\r\n', b'2500\r\n',
    b'250 ' + b'x' * 507 + b'\r\n', b'250-a\r\nb\r\n250 c\r\n'])
def test_what_is_no_reply_is_found(said: bytes) -> None:
    with pytest.raises(AssertionError, match='not a reply|too long'):
        check_replies(b'220 x\r\n' + said)


def test_replies() -> None:
    assert check_replies(b'220 x\r\n250-a\r\n250-\r\n250 b\r\n354\r\n250 ' + b'x' * 506 + b'\r\n') == '250'


def test_it_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reply._READY, 'reset', b'250 Fl\xfcshed\r\n')
    with pytest.raises(AssertionError, match='not a reply'):
        run(2000, 1)


def test_it_finds_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    def proceed(session: Session, parsed: object) -> bytes:
        raise IndexError

    monkeypatch.setitem(commands.COMMANDS, 'RSET', commands.Command('', commands.COMMANDS['RSET'].check, proceed))
    with pytest.raises(AssertionError, match='IndexError'):
        run(2000, 1)
