"""TLS as a filter between a stream and its socket: bytes in, bytes out, no descriptor.

The `ssl` module's memory BIOs keep the record layer apart from the socket, so that a stream has one path for reading
and one for writing, with or without TLS.
"""

from __future__ import annotations

import ssl
from typing import Any, Callable, NamedTuple

from mqlite.errors import MqliteError

TlsContext = ssl.SSLContext


class TlsError(MqliteError):
    """The handshake or a record failed; the text is OpenSSL's reason in readable form."""


class TlsDetails(NamedTuple):
    """What protects a connection."""

    cipher: str
    version: str  # of the protocol
    bits: int  # secret
    algorithm_bits: int
    id: int  # of the cipher suite, in the registry of TLS
    certificate: bytes  # the peer's, in DER; b'' when it has shown none
    verified: bool  # the certificate was checked, and is for the name that was asked for


class TlsLayer:
    """One TLS connection. Ciphertext goes in by `receive`, comes out by `pending_output`."""

    def __init__(self, context: ssl.SSLContext, server_side: bool, hostname: str | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        try:
            self._object = context.wrap_bio(self._incoming, self._outgoing, server_side, hostname)
        except ValueError as error:  # also what cannot be written as a name (UnicodeError)
            raise TlsError(f'{hostname!r} cannot be the name of a TLS server: {error}') from error
        self.closed = False  # the peer said close_notify: what follows is not ours
        self.failed: TlsError | None = None  # the peer sent an alert or a bad record
        self._details: TlsDetails | None = None

    def handshake(self, data: bytes) -> bool:
        """Feed ciphertext to the handshake; True when it is complete."""
        self._incoming.write(data)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise TlsError(_reason(error)) from error
        return True

    def receive(self, data: bytes) -> bytes:
        """The plaintext that this ciphertext completes; may be empty. Then look at `closed`, `failed`."""
        self._incoming.write(data)
        plain: list[bytes] = []
        try:
            while True:
                part = self._object.read(65536)
                if not part:
                    self.closed = True
                    break
                plain.append(part)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.closed = True
        except ssl.SSLError as error:
            self.failed = TlsError(_reason(error))
        return b''.join(plain)

    def send(self, data: bytes) -> bytes:
        """The ciphertext for this plaintext."""
        try:
            self._object.write(data)
        except ssl.SSLError as error:
            raise TlsError(_reason(error)) from error
        return self._outgoing.read()

    def pending_output(self) -> bytes:
        """Ciphertext that the protocol itself wants to send (handshake, key update, alert)."""
        return self._outgoing.read() if self._outgoing.pending else b''

    def close_notify(self) -> bytes:
        """The farewell that tells the peer that nothing was cut off."""
        try:
            self._object.unwrap()
        except ssl.SSLError:
            pass  # the peer has not answered yet, and need not
        return self._outgoing.read()

    def cipher(self) -> tuple[str, str, int]:
        """(cipher name, protocol version, secret bits) of a connection whose handshake is complete."""
        name, version, bits = self._object.cipher() or ('', '', 0)
        return name, self._object.version() or version, bits

    def details(self) -> TlsDetails:
        """Of a connection whose handshake is complete."""
        if self._details is None:
            name, version, bits = self.cipher()
            context = self._object.context
            suite: Any = next((suite for suite in context.get_ciphers() if suite['name'] == name), {})
            self._details = TlsDetails(name, version, bits, suite.get('alg_bits', bits), suite.get('id', 0) & 0xffff,
                                       self._object.getpeercert(binary_form=True) or b'',
                                       context.verify_mode == ssl.CERT_REQUIRED)
        return self._details


def client_context(verify: bool = False) -> ssl.SSLContext:
    """A context for outgoing connections. Without `verify` any certificate will do: opportunistic TLS (RFC 7435)."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def verified_context(verify: bool, ca_file: str | None, certificate: str | None, key: str | None) -> TlsContext:
    """A context for a server that we know: its certificate is checked, ours is shown. OSError for a missing file,
    TlsError for one that is no certificate or key."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if certificate:
            context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise TlsError(f'certificate or key: {_reason(error)}') from error
    return context


def server_context(ciphers: str = '') -> TlsContext:
    """A context for incoming connections, without a certificate yet. `ciphers`: of TLS 1.2, in OpenSSL's notation; ''
    for its own choice. TlsError when none of them is known. A renegotiation is refused, and nothing is compressed.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    if ciphers:
        try:
            context.set_ciphers(ciphers)
        except ssl.SSLError as error:
            raise TlsError(_reason(error)) from error
    return context


def add_certificate(context: TlsContext, certificate: str, key: str) -> None:
    """Show this chain of certificates, and sign with this key. OSError; TlsError when they are not what they should be,
    or do not belong together."""
    def no_password() -> str:
        raise TlsError('the key is encrypted, and there is nobody to ask for its password')

    try:
        context.load_cert_chain(certificate, key, no_password)
    except ssl.SSLError as error:
        raise TlsError(_reason(error)) from error


def choose_by_name(context: TlsContext, choose: Callable[[str], TlsContext | None]) -> None:
    """Let the name that a client asks for (RFC 6066 section 3) choose another context than this one.

    A name that is not ASCII ends the handshake before we are asked; Python reports that to sys.unraisablehook.
    """
    def on_name(connection: ssl.SSLObject, name: str | None, _context: TlsContext) -> None:
        chosen = choose(name) if name else None
        if chosen is not None:
            connection.context = chosen

    context.sni_callback = on_name


def first_certificate(pem: str) -> bytes:
    """The first certificate of a PEM file, in DER; b'' when there is none."""
    begin = pem.find(ssl.PEM_HEADER)
    end = pem.find(ssl.PEM_FOOTER, begin)
    if begin < 0 or end < 0:
        return b''
    try:
        return ssl.PEM_cert_to_DER_cert(pem[begin:end + len(ssl.PEM_FOOTER)])
    except ValueError:
        return b''


def _reason(error: ssl.SSLError) -> str:
    reason = str(getattr(error, 'reason', None) or error.args[-1]).replace('_', ' ').lower()
    detail = getattr(error, 'verify_message', '')
    return f'{reason}: {detail}' if detail else reason
