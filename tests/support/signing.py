"""Keys made by openssl, the DNS records that go with them, and messages of every shape, for tests of what we sign."""

from __future__ import annotations

import random
import subprocess
from base64 import b64encode
from dataclasses import dataclass
from functools import lru_cache

from tests.support.process import find_program

_KINDS = {'rsa': ('-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'), 'ed25519': ('-algorithm', 'ed25519')}


@dataclass(frozen=True)
class KeyPair:
    """A private key, its record in DNS, and the `dkim` property that uses it: domain example.org, selector `kind`."""

    kind: str
    pem: str
    record: str

    def entry(self, **options: object) -> dict[str, object]:
        return {'domain': 'example.org', 'selector': self.kind, 'key': self.pem, **options}


@lru_cache(maxsize=None)
def key_pair(kind: str) -> KeyPair:
    """`rsa` (2048 bits) or `ed25519`; made once for all tests."""
    pem = _openssl('genpkey', *_KINDS[kind])
    der = _openssl('pkey', '-pubout', '-outform', 'DER', given=pem)
    public = der[-32:] if kind == 'ed25519' else der  # RFC 8463 section 4: the key alone
    return KeyPair(kind, pem.decode(), f'v=DKIM1; k={kind}; p={b64encode(public).decode()}')


def traditional(pem: str) -> str:
    """An RSA key in the older form, PKCS #1."""
    return _openssl('rsa', '-traditional', given=pem.encode()).decode()


def records() -> dict[str, str]:
    """The TXT records of both keys, by name."""
    return {f'{kind}._domainkey.example.org': key_pair(kind).record for kind in _KINDS}


def answer(name: bytes | str, timeout: int = 5) -> bytes | None:
    """DNS, as dkimpy asks for it."""
    text = name.decode() if isinstance(name, bytes) else name
    record = records().get(text.rstrip('.'))
    return record.encode() if record else None


def message(dice: random.Random) -> bytes:
    """A message with CRLF line ends: folded and repeated fields, odd spaces, 8 bits, empty lines, no body."""
    fields = [b'From: Joe <joe@example.org>', b'Subject: ' + _words(dice), b'To: a@example.net,\r\n\tb@example.net',
              b'Date: Tue, 24 Nov 2026 10:00:00 +0000', b'Message-ID: <1@example.org>', b'X-Own:  ' + _words(dice),
              b'Received: from here\r\n by there;\r\n\tnow', b'List-Unsubscribe: <mailto:x@example.org>',
              b'SUBJECT:   twice \t', b'Cc:\r\n c@example.net', b'Content-Type: text/plain;\r\n  charset=utf-8',
              b'Comments:', b'Reply-To: \xc3\xa9@example.org']
    chosen = [fields[0], *dice.sample(fields[1:], dice.randrange(len(fields)))]
    dice.shuffle(chosen)
    lines = [dice.choice([_words(dice), _words(dice), b'', b' ', b'\t', b'..', b'a  b \t c ', b'\xff\x00', b'x' * 990])
             for _ in range(dice.choice([0, 0, 1, 3, 30]))]
    body = b''.join(line + b'\r\n' for line in lines) + b'\r\n' * dice.choice([0, 0, 1, 4])
    return b''.join(field + b'\r\n' for field in chosen) + b'\r\n' + body


def _words(dice: random.Random) -> bytes:
    return b' '.join(dice.choice([b'some', b'words ', b' in', b'a\tline', b'=?utf-8?q?=C3=A9?=', b'caf\xc3\xa9'])
                     for _ in range(dice.randrange(1, 12)))


def _openssl(*arguments: str, given: bytes = b'') -> bytes:
    done = subprocess.run([find_program('openssl'), *arguments], input=given, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
