"""The header fields that sign: DKIM-Signature (RFC 6376 section 3.5), and the three of an ARC set (RFC 8617 4.1).

    DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/simple; d=example.com; s=x; t=…; h=from:to:…; bh=…; b=…
    ARC-Seal: i=2; a=rsa-sha256; t=…; cv=pass; d=example.com; s=x; b=…
    ARC-Message-Signature: i=2; a=…; c=…; d=…; s=…; t=…; h=…; bh=…; b=…
    ARC-Authentication-Results: i=2; mx.example.com; …

Pure: the time is an argument, and whoever calls makes the signature of given octets. What is signed is the message as
it goes out, so nothing may change it afterwards. A field that stands in `h` once more than in the message cannot be
added on the way: that is done for From, which is what people see.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Callable

from mqlite.dkim.canonical import RELAXED, SIMPLE, Field, canonical_body, canonical_field

# What is signed when it is there: RFC 6376 section 5.4.1, what RFC 2369 and RFC 2919 say of lists, RFC 8058.
SIGNED = ('from', 'reply-to', 'subject', 'date', 'to', 'cc', 'sender', 'message-id', 'in-reply-to', 'references',
          'mime-version', 'content-type', 'content-transfer-encoding', 'content-id', 'content-description',
          'resent-date', 'resent-from', 'resent-sender', 'resent-to', 'resent-cc', 'resent-message-id',
          'list-id', 'list-help', 'list-unsubscribe', 'list-unsubscribe-post', 'list-subscribe', 'list-post',
          'list-owner', 'list-archive')
# What changes on the way, or is written by those who follow: signing it would only break the signature.
NEVER_SIGNED = frozenset(['return-path', 'received', 'dkim-signature', 'authentication-results', 'arc-seal',
                          'arc-message-signature', 'arc-authentication-results', 'bcc', 'resent-bcc'])
_WIDTH = 76  # octets of a line, where it can be broken


@dataclass(frozen=True)
class Signer:
    """One key and how it is to be used. `algorithm`: rsa-sha256 or ed25519-sha256; `sign` makes it of given octets."""

    domain: str
    selector: str
    algorithm: str
    sign: Callable[[bytes], bytes]
    header_form: str = RELAXED
    body_form: str = SIMPLE
    headers: tuple[str, ...] = ()  # to be signed beyond SIGNED, in lower case
    lifetime_end: int | None = None  # seconds since 1970
    report: bool = False  # ask for reports of failures, RFC 6651


class Signable:
    """A message whose parts are hashed once, however many keys sign it."""

    def __init__(self, fields: Sequence[Field], body: bytes) -> None:
        self.fields = fields
        self._body = body
        self._hashes: dict[str, str] = {}

    def with_fields(self, fields: Sequence[Field]) -> Signable:
        """The same body below another header."""
        other = Signable(fields, self._body)
        other._hashes = self._hashes
        return other

    def body_hash(self, form: str) -> str:
        """The bh tag."""
        if form not in self._hashes:
            self._hashes[form] = b64encode(sha256(canonical_body(self._body, form)).digest()).decode('ascii')
        return self._hashes[form]

    def chosen(self, extra: Iterable[str]) -> list[str]:
        """The names for the h tag: each as often as it is there, From once more."""
        count: dict[str, int] = {}
        for field in self.fields:
            count[field.name] = count.get(field.name, 0) + 1
        wanted = [name for name in dict.fromkeys((*SIGNED, *extra)) if name not in NEVER_SIGNED]
        return [name for name in wanted for _ in range(count.get(name, 0) + (name == 'from'))]

    def signed_octets(self, names: Sequence[str], form: str) -> bytes:
        """The fields of these names, in canonical form; of several with one name the last is first (section 5.4.2)."""
        left: dict[str, list[bytes]] = {}
        for field in self.fields:
            left.setdefault(field.name, []).append(field.raw)
        raws = [left[name].pop() for name in names if left.get(name)]
        return b''.join(canonical_field(raw, form) for raw in raws)


def dkim_field(message: Signable, signer: Signer, now: int) -> bytes:
    """The DKIM-Signature field, with its CRLF."""
    tags = [('v', '1'), ('a', signer.algorithm), ('c', f'{signer.header_form}/{signer.body_form}'),
            ('d', signer.domain), ('s', signer.selector), ('t', str(now))]
    if signer.lifetime_end is not None:
        tags.append(('x', str(signer.lifetime_end)))
    if signer.report:
        tags.append(('r', 'y'))
    return _signed('DKIM-Signature', message, signer, tags, signer.headers)


def arc_set(message: Signable, signer: Signer, instance: int, verdict: str, results: str, earlier: Sequence[bytes],
            now: int) -> bytes:
    """The three fields of a set, the newest on top.

    `verdict`: none, pass or fail, what is to be said of the sets before; `earlier`: their fields in the order of
    sealing (RFC 8617 section 5.1.1). `results`: what follows `i=N;` in ARC-Authentication-Results.
    """
    number = str(instance)
    witness = f'ARC-Authentication-Results: i={number}; {results}\r\n'.encode('utf-8', 'surrogateescape')
    # a signature that this host has just made is worth telling of, too
    dkim = tuple('dkim-signature' for field in message.fields if field.name == 'dkim-signature')
    tags = [('i', number), ('a', signer.algorithm), ('c', f'{signer.header_form}/{signer.body_form}'),
            ('d', signer.domain), ('s', signer.selector), ('t', str(now))]
    signature = _signed('ARC-Message-Signature', message, signer, tags, signer.headers, dkim)
    seal = _open('ARC-Seal', [('i', number), ('a', signer.algorithm), ('t', str(now)), ('cv', verdict),
                              ('d', signer.domain), ('s', signer.selector)])
    before = () if verdict == 'fail' else earlier  # section 5.1.2
    octets = b''.join(canonical_field(raw, RELAXED) for raw in (*before, witness, signature, seal))
    return _close(seal, signer.sign(octets[:-2])) + signature + witness


def _signed(name: str, message: Signable, signer: Signer, tags: list[tuple[str, str]], extra: Sequence[str],
            more: Sequence[str] = ()) -> bytes:
    names = [*message.chosen(extra), *more]
    draft = _open(name, [*tags, ('h', ':'.join(names)), ('bh', message.body_hash(signer.body_form))])
    octets = message.signed_octets(names, signer.header_form) + canonical_field(draft, signer.header_form)[:-2]
    return _close(draft, signer.sign(octets))


def _open(name: str, tags: Sequence[tuple[str, str]]) -> bytes:
    """The field with an empty b tag, as it is signed (section 3.7). A list in h may be broken after a colon."""
    line, lines = name + ':', []
    for word in [f'{tag}={value};' for tag, value in tags] + ['b=']:
        pieces = [piece + ':' for piece in word.split(':')[:-1]] + [word.split(':')[-1]]
        separator = ' '
        for piece in pieces:
            if len(line) + len(separator) + len(piece) > _WIDTH:
                lines.append(line)
                line, separator = '\t', ''
            line += separator + piece
            separator = ''
    return '\r\n'.join([*lines, line]).encode('ascii') + b'\r\n'


def _close(draft: bytes, signature: bytes) -> bytes:
    """The field with its signature: white space in base64 is ignored."""
    text = b64encode(signature)
    lines = b''.join(b'\r\n\t' + text[at:at + _WIDTH] for at in range(0, len(text), _WIDTH))
    return draft[:-2] + lines + b'\r\n'
