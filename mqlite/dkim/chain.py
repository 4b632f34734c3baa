"""The ARC sets that a message carries already: found, and judged (RFC 8617 section 5.2). Pure.

    find_chain ─► None: there is none, or a Chain ─► its `questions` are asked of DNS ─► judge ─► pass or fail

Judging asks for less than a receiver does: the newest signature of the message, and all seals. Limits: MOST_SETS sets,
answers of RSA keys up to keys.MOST_BITS.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping
from hashlib import sha256

from mqlite.der import BITS, INTEGER, SEQUENCE, BadDer, Reader, first
from mqlite.dkim import ed25519, rsa
from mqlite.dkim.canonical import RELAXED, SIMPLE, canonical_field
from mqlite.dkim.keys import MOST_BITS
from mqlite.dkim.signature import Signable

MOST_SETS = 50  # section 4.2.1
PASS, FAIL = 'pass', 'fail'
RESULTS, SIGNATURE, SEAL = 'arc-authentication-results', 'arc-message-signature', 'arc-seal'
_KINDS = (RESULTS, SIGNATURE, SEAL)  # in the order in which they are sealed
_TAG = re.compile(r'([a-zA-Z][a-zA-Z0-9_]*)\s*=\s*(.*)', re.DOTALL)
_INSTANCE = re.compile(rb'[^:]*:\s*i\s*=\s*([0-9]{1,2})\s*;')
_B_VALUE = re.compile(rb'(;\s*b\s*=)[^;]*')
_NAME = re.compile(r'(?=.{1,200}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})+')


class Chain:
    """Sets 1 to `count`, each whole, or broken beyond judging."""

    def __init__(self, sets: list[dict[str, bytes]], whole: bool) -> None:
        self._sets = sets
        self._tags = [{kind: parse_tags(fields[kind]) for kind in (SIGNATURE, SEAL) if kind in fields}
                      for fields in sets]
        self._whole = whole and all(self._is_fit(number, tags) for number, tags in enumerate(self._tags, 1))

    @property
    def count(self) -> int:
        return len(self._sets)

    @property
    def sealed(self) -> list[bytes]:
        """Their fields, as the next seal takes them in."""
        return [fields[kind] for fields in self._sets for kind in _KINDS if kind in fields]

    @property
    def failed(self) -> bool:
        """An earlier seal says that the chain is broken: nobody adds to it (section 5.1.2)."""
        return bool(self._tags) and self._tags[-1].get(SEAL, {}).get('cv') == FAIL

    @property
    def questions(self) -> list[str]:
        """The names whose TXT records hold the keys."""
        if not self._whole:
            return []
        needed = [tags[SEAL] for tags in self._tags] + [self._tags[-1][SIGNATURE]]
        return list(dict.fromkeys(_key_name(tags) for tags in needed))

    def judge(self, message: Signable, answers: Mapping[str, str]) -> str:
        """PASS or FAIL. `answers`: the TXT record of each question that has one."""
        if not self._whole or not self._newest_holds(message, answers):
            return FAIL
        return PASS if all(self._seal_holds(number, answers) for number in range(self.count, 0, -1)) else FAIL

    @staticmethod
    def _is_fit(number: int, tags: Mapping[str, Mapping[str, str]]) -> bool:
        seal, signature = tags.get(SEAL, {}), tags.get(SIGNATURE, {})
        return (all(seal.get(tag) for tag in 'adsb') and all(map(signature.get, ('a', 'd', 's', 'b', 'bh', 'h')))
                and seal.get('cv') == ('none' if number == 1 else PASS) and 'h' not in seal
                and bool(_NAME.fullmatch(_key_name(seal)) and _NAME.fullmatch(_key_name(signature))))

    def _newest_holds(self, message: Signable, answers: Mapping[str, str]) -> bool:
        tags, raw = self._tags[-1][SIGNATURE], self._sets[-1][SIGNATURE]
        header_form, _, body_form = tags.get('c', 'simple/simple').partition('/')
        forms = (header_form, body_form or SIMPLE)
        if not set(forms) <= {SIMPLE, RELAXED} or 'l' in tags:
            return False
        names = [name.strip().lower() for name in tags['h'].split(':')]
        if SEAL in names or 'from' not in names:
            return False
        octets = message.signed_octets(names, forms[0]) + canonical_field(_without_b(raw), forms[0])[:-2]
        return message.body_hash(forms[1]) == ''.join(tags['bh'].split()) and _holds(tags, octets, answers)

    def _seal_holds(self, number: int, answers: Mapping[str, str]) -> bool:
        sealed = [fields[kind] for fields in self._sets[:number] for kind in _KINDS]
        sealed[-1] = _without_b(sealed[-1])
        octets = b''.join(canonical_field(raw, RELAXED) for raw in sealed)[:-2]
        return _holds(self._tags[number - 1][SEAL], octets, answers)


def find_chain(message: Signable) -> Chain | None:
    """The sets of a message; None when it has none."""
    found: dict[int, dict[str, bytes]] = {}
    whole = True
    for field in message.fields:
        if field.name in _KINDS:
            match = _INSTANCE.match(field.raw) if field.name == RESULTS else None
            text = match[1].decode('ascii') if match else parse_tags(field.raw).get('i', '')
            number = int(text) if text.isdigit() and len(text) < 3 else 0
            fields = found.setdefault(number, {})
            whole = whole and field.name not in fields
            fields[field.name] = field.raw
    if not found:
        return None
    numbers = sorted(found)
    whole = whole and numbers == list(range(1, len(found) + 1)) and len(found) <= MOST_SETS
    return Chain([found[number] for number in numbers],
                 whole and all(len(fields) == len(_KINDS) for fields in found.values()))


def parse_tags(raw: bytes) -> dict[str, str]:
    """`name=value; ...` of a field (RFC 6376 section 3.2); {} for what is not of that form."""
    return parse_tag_list(raw.partition(b':')[2].decode('utf-8', 'replace'))


def parse_tag_list(text: str) -> dict[str, str]:
    tags: dict[str, str] = {}
    for part in text.strip().rstrip(';').split(';'):
        match = _TAG.fullmatch(part.strip())
        if match is None or match[1] in tags:
            return {}
        tags[match[1]] = match[2]
    return tags


def _key_name(tags: Mapping[str, str]) -> str:
    return f'{tags.get("s", "")}._domainkey.{tags.get("d", "")}'.lower()


def _without_b(raw: bytes) -> bytes:
    """The field as it was signed: what stands behind `b=` taken out, and nothing else."""
    name, colon, value = raw.partition(b':')
    ended = raw.endswith(b'\r\n')
    value = _B_VALUE.sub(rb'\1', b';' + value[:len(value) - 2 * ended], count=1)[1:]
    return name + colon + value + b'\r\n'


def _holds(tags: Mapping[str, str], data: bytes, answers: Mapping[str, str]) -> bool:
    """Whether the signature in `b` is one of the data by the published key."""
    record = parse_tag_list(answers.get(_key_name(tags), ''))
    if record.get('v', 'DKIM1') != 'DKIM1' or tags['a'] not in ('rsa-sha256', 'ed25519-sha256'):
        return False
    kind = tags['a'].partition('-')[0]
    if record.get('k', 'rsa') != kind:
        return False
    try:
        public, signature = _base64(record.get('p', '')), _base64(tags['b'])
        if kind == 'ed25519':
            return ed25519.verify(public, sha256(data).digest(), signature)
        modulus, exponent = _read_public(public)
    except (ValueError, BadDer):
        return False
    fits = 1024 <= modulus.bit_length() <= MOST_BITS and exponent.bit_length() <= 64
    return fits and rsa.verify(modulus, exponent, data, signature)


def _base64(text: str) -> bytes:
    try:
        return b64decode(''.join(text.split()), validate=True)
    except binascii.Error:
        raise ValueError from None


def _read_public(der: bytes) -> tuple[int, int]:
    """SubjectPublicKeyInfo, or PKCS #1 alone, which some publish (RFC 6376 section 3.6.1 and its erratum)."""
    outer = Reader(first(der, SEQUENCE))
    try:
        outer.take(SEQUENCE)  # the algorithm
    except BadDer:
        inner = Reader(first(der, SEQUENCE))
    else:
        inner = Reader(first(outer.take(BITS)[1:], SEQUENCE))
    return int.from_bytes(inner.take(INTEGER), 'big'), int.from_bytes(inner.take(INTEGER), 'big')
