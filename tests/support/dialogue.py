r"""Golden dialogues: SMTP conversations as text, to be held against a server or, from the other side, a client.

A file has settings (`name: value`, small letters), an empty line, and steps; `#` begins a comment line.

    C: text       a line of the client, CRLF behind it
    C+ text       the same without CRLF
    S: text       a line of the server
    T: 300        so many seconds in which the client says nothing
    C/            the client closes the connection
    S/            the server has closed it
    K: sender > recipient | mime       a message of the dialogue: kept by the server, or given to the client to send

Consecutive lines of one side are one write: that is how pipelining is written down. In client lines and in `mime`,
`\r \n \t \\` and `\xNN` stand for these octets. Nothing here knows mqlite.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

STEPS = ('C: ', 'C+ ', 'S: ', 'T: ', 'C/', 'S/')


@dataclass
class Turn:
    """What the client does, and the server's answer to it. `client` is empty for the greeting and for silence."""

    client: bytes = b''
    seconds: float = 0.0
    client_closes: bool = False
    server: bytes = b''
    server_closes: bool = False


@dataclass
class Dialogue:
    """A conversation; `kept` are (sender, recipient, MIME)."""

    settings: dict[str, str] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=lambda: [Turn()])
    kept: list[tuple[str, str, bytes]] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        return any(turn.seconds for turn in self.turns)


def read_dialogue(path: Path) -> Dialogue:
    """ValueError, with the line, for what is not in the format."""
    head, _, body = path.read_text('utf-8').partition('\n\n')
    dialogue = Dialogue()
    for line in head.splitlines():
        if not line.startswith('#'):
            name, separator, value = line.partition(': ')
            if not separator:
                raise ValueError(f'{path.name}: not a setting: {line}')
            dialogue.settings[name] = value
    for line in body.splitlines():
        if line and not line.startswith('#'):
            add_step(dialogue, line, path.name)
    return dialogue


def add_step(dialogue: Dialogue, line: str, name: str) -> None:
    kind, text, turn = line[:3], line[3:], dialogue.turns[-1]
    if kind == 'K: ':
        addresses, _, mime = text.partition(' | ')
        sender, _, recipient = addresses.partition(' > ')
        dialogue.kept.append((sender.strip(), recipient, unescape(mime)))
        return
    if kind.strip() not in [step.strip() for step in STEPS]:
        raise ValueError(f'{name}: not a step: {line}')
    if kind[0] in 'CT' and (turn.server or turn.server_closes):
        turn = Turn()
        dialogue.turns.append(turn)
    if kind[0] == 'T':
        turn.seconds = float(text)
    elif kind == 'C/':
        turn.client_closes = True
    elif kind == 'S/':
        turn.server_closes = True
    elif kind[0] == 'C':
        turn.client += unescape(text) + (b'\r\n' if kind == 'C: ' else b'')
    else:
        turn.server += text.encode('utf-8') + b'\r\n'


def unescape(text: str) -> bytes:
    return text.encode('latin-1', 'backslashreplace').decode('unicode-escape').encode('latin-1')
