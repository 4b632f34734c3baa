r"""Golden dialogues: SMTP conversations as text, to be held against a server or, from the other side, a client.

A file has settings (`name: value`, small letters), an empty line, and steps; `#` begins a comment line.

    C: text       a line of the client, CRLF behind it
    C+ text       the same without CRLF
    S: text       a line of the server
    S- text       the same, if the dialogue is not played over TLS from its beginning
    S* text       the same, if it is
    T: 300        so many seconds in which the client says nothing
    C/            the client closes the connection
    S/            the server has closed it
    H/            both go over to TLS
    K: sender > recipient | mime       a message of the dialogue: kept by the server, or given to the client to send
    P: name = JSON                     a property of the document of that message
    R: state result [code [status]]    what came of it for the client: a result's words, in the order of the messages

Consecutive lines of one side are one write: that is how pipelining is written down. In client lines and in `mime`,
`\r \n \t \\` and `\xNN` stand for these octets, `\xNN*3` for three of them; other characters are UTF-8. Nothing here
knows mqlite.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STEPS = ('C:', 'C+', 'S:', 'S-', 'S*', 'T:', 'C/', 'S/', 'H/')


@dataclass
class Turn:
    """What the client does, and the server's answer to it. `client` is empty for the greeting and for silence."""

    client: bytes = b''
    seconds: float = 0.0
    client_closes: bool = False
    server: bytes = b''
    server_closes: bool = False
    handshake: bool = False  # after that answer


@dataclass
class Kept:
    """A message of the dialogue, and the properties of its document that are named."""

    sender: str
    recipient: str
    mime: bytes
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass
class Dialogue:
    """A conversation, its messages, and what the client makes of it."""

    settings: dict[str, str] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=lambda: [Turn()])
    kept: list[Kept] = field(default_factory=list)
    results: list[str] = field(default_factory=list)

    @property
    def shakes_hands(self) -> bool:
        return any(turn.handshake for turn in self.turns)

    @property
    def waits(self) -> bool:
        return any(turn.seconds for turn in self.turns)


def read_dialogue(path: Path, over_tls: bool = False) -> Dialogue:
    """ValueError, with the line, for what is not in the format. `over_tls`: it is to be played so."""
    head, _, body = path.read_text('utf-8').partition('\n\n')
    dialogue = Dialogue()
    for line in head.splitlines():
        if not line.startswith('#'):
            name, separator, value = line.partition(': ')
            if not separator:
                raise ValueError(f'{path.name}: not a setting: {line}')
            dialogue.settings[name] = value
    for line in body.splitlines():
        if line and not line.startswith(('#', 'S-' if over_tls else 'S*')):
            add_step(dialogue, line, path.name)
    return dialogue


def add_step(dialogue: Dialogue, line: str, name: str) -> None:
    kind, text = line[:2], line[3:]
    if kind == 'K:':
        addresses, _, mime = text.partition(' | ')
        sender, _, recipient = addresses.partition(' > ')
        dialogue.kept.append(Kept(sender.strip(), recipient, unescape(mime)))
    elif kind == 'P:':
        key, _, value = text.partition(' = ')
        dialogue.kept[-1].properties[key] = json.loads(value)
    elif kind == 'R:':
        dialogue.results.append(text)
    elif kind in STEPS:
        add_turn(dialogue, kind, text)
    else:
        raise ValueError(f'{name}: not a step: {line}')


def add_turn(dialogue: Dialogue, kind: str, text: str) -> None:
    turn = dialogue.turns[-1]
    if kind[0] in 'CT' and (turn.server or turn.server_closes):
        turn = Turn()
        dialogue.turns.append(turn)
    if kind == 'T:':
        turn.seconds = float(text)
    elif kind == 'C/':
        turn.client_closes = True
    elif kind == 'S/':
        turn.server_closes = True
    elif kind == 'H/':
        turn.handshake = True
    elif kind[0] == 'C':
        turn.client += unescape(text) + (b'\r\n' if kind == 'C:' else b'')
    else:
        turn.server += text.encode('utf-8') + b'\r\n'


def unescape(text: str) -> bytes:
    """The octets; text that stands for none of them is UTF-8."""
    return re.sub(rb'\\(x[0-9a-f]{2}|[rnt\\])(?:\*([0-9]+))?', lambda match: _octet(match[1]) * int(match[2] or 1),
                  text.encode('utf-8'))


def _octet(name: bytes) -> bytes:
    if name[:1] == b'x':
        return bytes.fromhex(name[1:].decode())
    return {b'r': b'\r', b'n': b'\n', b't': b'\t'}.get(name, name)
