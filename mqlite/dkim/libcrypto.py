"""Signatures by libcrypto of the host, through ctypes: some forty times faster than in Python, and in constant time.

    DER ─► d2i_AutoPrivateKey ─► EVP_PKEY, kept per key ─► EVP_DigestSign ─► signature

The library is looked for once, by the names that OpenSSL 3 and 1.1.1 have. Python's own `ssl` has usually loaded it
already, and the loader gives us the same copy. Where it is not there, or will not have the key (FIPS), the answer is
None and Python does the work: the octets are the same, as neither RSASSA-PKCS1-v1_5 nor Ed25519 has a random part.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

NAMES = ('libcrypto.so.3', 'libcrypto.so.1.1', 'libcrypto.so', 'libcrypto.dylib')
_KEYS_KEPT = 1024
_pointer, _octets, _size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t

#   function                result           arguments
_FUNCTIONS = {
    'EVP_MD_CTX_new':      (_pointer,        ()),
    'EVP_MD_CTX_free':     (None,            (_pointer,)),
    'EVP_sha256':          (_pointer,        ()),
    'EVP_DigestSignInit':  (ctypes.c_int,    (_pointer, _pointer, _pointer, _pointer, _pointer)),
    'EVP_DigestSign':      (ctypes.c_int,    (_pointer, _octets, ctypes.POINTER(_size), _octets, _size)),
    'EVP_PKEY_free':       (None,            (_pointer,)),
    'd2i_AutoPrivateKey':  (_pointer,        (_pointer, ctypes.POINTER(_octets), ctypes.c_long)),
    'ERR_clear_error':     (None,            ()),
}


class Libcrypto:
    """The library. OSError or AttributeError when the host has none that would do."""

    def __init__(self, name: str) -> None:
        library = ctypes.CDLL(name)
        self._call: dict[str, Any] = {}
        for function, (result, arguments) in _FUNCTIONS.items():
            entry = getattr(library, function)
            entry.restype, entry.argtypes = result, arguments
            self._call[function] = entry
        self._keys: dict[bytes, int] = {}  # DER -> EVP_PKEY *

    def sign(self, der: bytes, data: bytes, hashed: bool, size: int) -> bytes | None:
        """The signature of the data, at most `size` bytes; with `hashed`, of its SHA-256. None: it will not do it."""
        key = self._keys.get(der) or self._load(der)
        if not key:
            return None
        try:
            return self._sign(key, data, hashed, size)
        finally:
            if der not in self._keys:
                self._call['EVP_PKEY_free'](key)

    def _load(self, der: bytes) -> int | None:
        """The key, which is kept while there is room: one that another thread uses must not be freed for it."""
        start = ctypes.c_char_p(der)
        key: int | None = self._call['d2i_AutoPrivateKey'](None, ctypes.byref(start), len(der))
        if not key:
            self._call['ERR_clear_error']()
        elif len(self._keys) < _KEYS_KEPT:
            key = self._keys.setdefault(der, key)
        return key

    def _sign(self, key: int, data: bytes, hashed: bool, size: int) -> bytes | None:
        call, result, length = self._call, ctypes.create_string_buffer(size), _size(size)
        context = call['EVP_MD_CTX_new']()
        try:
            digest = call['EVP_sha256']() if hashed else None
            done = (call['EVP_DigestSignInit'](context, None, digest, None, key) == 1
                    and call['EVP_DigestSign'](context, result, ctypes.byref(length), data, len(data)) == 1)
        finally:
            call['EVP_MD_CTX_free'](context)
        if not done:
            call['ERR_clear_error']()  # the queue of errors is the thread's, and Python's ssl looks there too
        return result.raw[:length.value] if done else None


@lru_cache(maxsize=None)
def find() -> Libcrypto | None:
    """The host's library, or None."""
    for name in NAMES:
        try:
            return Libcrypto(name)
        except (OSError, AttributeError):
            continue
    return None
