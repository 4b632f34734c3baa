"""Making a signature with a private key: by libcrypto where the host has it, otherwise in Python, to the same octets.

The one file of the folder that is not pure: the blinding of RSA in Python takes random numbers.
"""

from __future__ import annotations

import secrets
from hashlib import sha256

from mqlite.dkim import ed25519, libcrypto, rsa
from mqlite.dkim.keys import PrivateKey, RsaKey


def make_signature(key: PrivateKey, data: bytes) -> bytes:
    """RFC 6376 section 3.3.1 for RSA; for Ed25519 the signature of the SHA-256 of the data (RFC 8463 section 3)."""
    library = libcrypto.find()
    if isinstance(key, RsaKey):
        made = library.sign(key.der, data, True, key.size) if library else None
        return made or rsa.sign(key, data, secrets.randbelow(key.modulus))
    digest = sha256(data).digest()
    made = library.sign(key.der, digest, False, 64) if library else None
    return made or ed25519.sign(key.seed, digest)
