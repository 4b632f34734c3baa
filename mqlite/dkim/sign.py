"""Which keys sign a message, and the message signed. Pure.

    the document's `dkim`          each of its keys
    the database's dkim_patterns   those that match the sender in From name keys of dkim_keys

One pair of domain and selector signs once. A key whose `expire` has passed does not sign: a signature that is no longer
valid is worth less than none. An ARC set is added to what is there when the sets before it were judged (`chain.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mqlite.dkim.canonical import RELAXED, SIMPLE, split_message
from mqlite.dkim.chain import FAIL, MOST_SETS, Chain, find_chain
from mqlite.dkim.crypto import make_signature
from mqlite.dkim.keys import KeyFault, read_key
from mqlite.dkim.signature import Signable, Signer, arc_set, dkim_field
from mqlite.message.document import DocumentError
from mqlite.message.identifier import parse_moment

MOST_KEYS = 10  # of one document
DKIM, ARC = 'dkim', 'arc'
RSA = 'rsa-sha256'


@dataclass(frozen=True)
class KeyUse:
    """A key, and which signatures it is for."""

    signer: Signer
    protocols: frozenset[str] = frozenset([DKIM])


def read_property(value: object) -> list[KeyUse]:
    """The `dkim` of a document: an object, or an array of them. DocumentError."""
    if not value:
        return []
    entries = value if isinstance(value, list) else [value]
    if len(entries) > MOST_KEYS:
        raise DocumentError(f'"dkim" has more than {MOST_KEYS} keys')
    return [_read_entry(entry) for entry in entries]


def make_signer(domain: str, selector: str, pem: str, **options: Any) -> Signer:
    """A signer. KeyFault."""
    for name in (domain, selector):
        if not name or not name.isascii() or not all(c.isalnum() or c in '-_.' for c in name):
            raise KeyFault('domain and selector must be names as DNS has them, in ASCII')
    key = read_key(pem)
    return Signer(domain.lower(), selector.lower(), key.algorithm, partial(make_signature, key), **options)


class Message:
    """A message on its way to being signed."""

    def __init__(self, mime: bytes) -> None:
        self._mime = mime
        self._signable = Signable(*split_message(mime))
        self.chain: Chain | None = find_chain(self._signable)

    def judge(self, answers: dict[str, str]) -> str:
        """What is to be said of the sets that are there: none, pass or fail."""
        return 'none' if self.chain is None else self.chain.judge(self._signable, answers)

    def signed(self, uses: Sequence[KeyUse], verdict: str, host: str, now: float) -> bytes:
        """The message with a signature by each key on top. `verdict`: of `judge`, '' when it could not be had: then
        nothing is sealed. `host`: our name, in the results of ARC."""
        alive = [use for use in uses if use.signer.lifetime_end is None or use.signer.lifetime_end > now]
        once = {(use.signer.domain, use.signer.selector): use for use in reversed(alive) if DKIM in use.protocols}
        added = b''.join(dkim_field(self._signable, use.signer, int(now)) for use in reversed(list(once.values())))
        sealers = [use.signer for use in alive if ARC in use.protocols]
        if verdict and sealers and not (self.chain and (self.chain.failed or self.chain.count >= MOST_SETS)):
            added = self._seal(added, sealers, verdict, host, int(now))
        return added + self._mime

    def _seal(self, added: bytes, sealers: Sequence[Signer], verdict: str, host: str, now: int) -> bytes:
        count, sealed = (self.chain.count, self.chain.sealed) if self.chain else (0, [])
        for signer in sealers:
            fields, body = split_message(added + self._mime)
            ours = arc_set(self._signable.with_fields(fields), signer, count + 1, verdict, f'{host}; none', sealed, now)
            added = ours + added
            if verdict == FAIL:
                break  # nobody adds to a chain that has failed
            seal, signature, witness = (field.raw for field in split_message(ours)[0])
            count, sealed, verdict = count + 1, [*sealed, witness, signature, seal], 'pass'
        return added


def _read_entry(entry: object) -> KeyUse:
    if not isinstance(entry, dict):
        raise DocumentError('"dkim" must be an object with domain, selector and key, or an array of them')
    texts = {name: entry.get(name) for name in ('domain', 'selector', 'key')}
    for name, text in texts.items():
        if not isinstance(text, str) or not text:
            raise DocumentError(f'"dkim.{name}" is missing')
    header_form, body_form = _read_forms(entry.get('canonicalization'))
    try:
        signer = make_signer(str(texts['domain']), str(texts['selector']), str(texts['key']), header_form=header_form,
                             body_form=body_form, headers=_read_names(entry.get('headers')),
                             lifetime_end=_read_expire(entry.get('expire')), report=bool(entry.get('report')))
    except KeyFault as fault:
        raise DocumentError(f'"dkim" of {texts["domain"]}: {fault}') from None
    protocols = _read_protocols(entry.get('protocols'))
    if ARC in protocols and signer.algorithm != RSA:
        raise DocumentError(f'"dkim" of {texts["domain"]}: ARC needs an RSA key, verifiers know no other')
    return KeyUse(signer, protocols)


def _read_forms(value: object) -> tuple[str, str]:
    if value is None or value == '':
        return RELAXED, SIMPLE
    header_form, _, body_form = value.lower().partition('/') if isinstance(value, str) else ('', '', '')
    body_form = body_form or SIMPLE  # RFC 6376 section 3.5, the c tag
    if header_form not in (SIMPLE, RELAXED) or body_form not in (SIMPLE, RELAXED):
        raise DocumentError('"dkim.canonicalization" must be one of simple and relaxed, a slash, and one of them again')
    return header_form, body_form


def _read_names(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) and name.isascii() and name.replace('-', '').isalnum() for name in names):
        raise DocumentError('"dkim.headers" must be an array of names of headers')
    return tuple(name.lower() for name in names)


def _read_expire(value: object) -> int | None:
    if value is None or value == '':
        return None
    try:
        return int(parse_moment(value))
    except ValueError as error:
        raise DocumentError(f'"dkim.expire": {error}') from None


def _read_protocols(value: object) -> frozenset[str]:
    if value is None:
        return frozenset([DKIM])
    names = [name.lower() for name in value if isinstance(name, str)] if isinstance(value, list) else []
    if not names or not {DKIM, ARC}.issuperset(names):
        raise DocumentError('"dkim.protocols" must be an array of "dkim" and "arc"')
    return frozenset(names)
