"""The certificates that a server shows: loaded, chosen by name, and loaded again when their files have changed.

Of several certificates, the one that has the name that the client asks for is shown (SNI); `*` stands for one label.
The first one is for everybody else. Names are compared without case; of two that have the same name the first counts.

The files are looked at when a handshake begins, at most once in LOOK_SECONDS. New ones are taken together, when all of
them can be; until then the old ones stay in use, and the log says once for each change why. So a renewal may write its
files one after the other, at any speed. Handshakes that are under way, and sessions, keep what they have.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from mqlite.der import BadDer
from mqlite.errors import ConfigError
from mqlite.log import Log
from mqlite.loop.clock import Clock
from mqlite.loop.tls import TlsContext, TlsError, add_certificate, choose_by_name, first_certificate, server_context
from mqlite.loop.x509 import dns_names

LOOK_SECONDS = 5.0

_Stamp = tuple[tuple[int, int, int], ...]


class Certificates:
    """Certificates of `smtp-certificate` with the keys of `smtp-key`."""

    def __init__(self, certificates: Sequence[str], keys: Sequence[str], ciphers: str, clock: Clock, log: Log) -> None:
        """At least one certificate; a key for each, or none where each file holds its key. ConfigError."""
        if keys and len(keys) != len(certificates):
            raise ConfigError(f'smtp-key: {len(keys)} keys for {len(certificates)} certificates; each needs its own, '
                              f'in the same order, or all have it in their own file')
        self._pairs = list(zip(certificates, keys or certificates))
        self._ciphers = ciphers
        self._clock = clock
        self._log = log
        self._stamp = self._look()
        self._looked = clock.monotonic()
        self._context = self._load()

    def context(self) -> TlsContext:
        """For a handshake that begins now."""
        now = self._clock.monotonic()
        if now >= self._looked + LOOK_SECONDS:
            self._looked = now
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                self._reload()
        return self._context

    def _reload(self) -> None:
        try:
            self._context = self._load()
        except ConfigError as error:
            self._log.warning(f'{error}; the certificates of before stay in use')
        else:
            self._log.info('smtp-certificate: the files have changed, and are in use')

    def _look(self) -> _Stamp:
        """What tells one state of the files from another; taken before they are read."""
        return tuple(_stamp(path) for pair in self._pairs for path in pair)

    def _load(self) -> TlsContext:
        """The context of the first certificate, which leads to the others. ConfigError."""
        contexts: list[TlsContext] = []
        by_name: dict[str, TlsContext] = {}
        for certificate, key in self._pairs:
            names = _names(certificate)
            contexts.append(_context(certificate, key, self._ciphers))
            for name in names:
                by_name.setdefault(name, contexts[-1])

        def choose(name: str) -> TlsContext | None:
            name = name.lower()
            return by_name.get(name) or by_name.get('*.' + name.partition('.')[2])

        if len(contexts) > 1:
            choose_by_name(contexts[0], choose)
        return contexts[0]


def _stamp(path: str) -> tuple[int, int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0, 0
    return status.st_mtime_ns, status.st_size, status.st_ino


def _names(certificate: str) -> tuple[str, ...]:
    """ConfigError when the file begins with no certificate."""
    try:
        return dns_names(first_certificate(_read('smtp-certificate', certificate)))
    except BadDer as error:
        raise ConfigError(f'smtp-certificate: {certificate} holds no certificate in PEM: {error}') from None


def _context(certificate: str, key: str, ciphers: str) -> TlsContext:
    """ConfigError that names the setting."""
    _read('smtp-key', key)
    try:
        context = server_context(ciphers)
    except TlsError as error:
        raise ConfigError(f'smtp-ciphers: {error}') from None
    try:
        add_certificate(context, certificate, key)
    except (TlsError, OSError) as error:
        raise ConfigError(f'smtp-key: {key} is no key in PEM for {certificate}: {error}') from None
    return context


def _read(setting: str, path: str) -> str:
    """The file, as the system's words on it are better than OpenSSL's."""
    try:
        with open(path, encoding='ascii', errors='replace') as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f'{setting}: {path} cannot be read: {error.strerror}') from None
