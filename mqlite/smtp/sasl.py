"""SMTP AUTH, the server's side: from the lines of an exchange to the credentials in them. Pure.

    AUTH PLAIN base64            ─────────────────────────────────────────► Password
    AUTH PLAIN                   334          base64 ─────────────────────► Password
    AUTH LOGIN [base64 login]    334 Username base64, 334 Password base64 ► Password
    AUTH CRAM-MD5                334 challenge, base64 ───────────────────► ChallengeResponse

Whether the credentials are right is not known here. An exchange ends with credentials or with `AuthRefused`, which
names a row of the table of replies; nothing of it is kept for the next one. A line must be canonical base64: what two
decoders read differently is refused (RFC 4648 section 3.5 and 12).

A login is UTF-8 without control characters, because it travels on into JSON and logs. A password is octets without
NUL, compared as it came: there is no SASLprep (RFC 4013), as stores differ in what they have applied to theirs.
CRAM-MD5 can only be checked against a password in clear; that is why few stores offer it.

Sources: RFC 4954 (SMTP AUTH), RFC 4616 (PLAIN), RFC 2195 (CRAM-MD5), draft-murchison-sasl-login (LOGIN).
Limits: LINE_LIMIT octets of a line, FIELD_LIMIT octets of a login, password or authorization identity.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import md5
from typing import Callable, Union

from mqlite.errors import MqliteError

LINE_LIMIT = 12288  # octets with CRLF, of AUTH itself as well: RFC 4954 section 4.
FIELD_LIMIT = 1024  # octets; RFC 4616 section 2 wants 255 to be accepted
MECHANISMS = ('PLAIN', 'LOGIN', 'CRAM-MD5')  # in the order in which they are offered

CANCEL = b'*'
EMPTY = '='  # stands for an initial response without octets, which could not be told from none
_BASE64 = re.compile(rb'(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?')
_CONTROL = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029]')
_DIGEST = re.compile('[0-9a-f]{32}')
_md5 = partial(md5, usedforsecurity=False)  # hosts in FIPS mode have no other MD5; the operator chose the mechanism


class AuthRefused(MqliteError):
    """The exchange is over without credentials; `name` is the row of REPLIES to answer with."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class Password:
    """What PLAIN and LOGIN give. Neither is empty."""

    mechanism: str
    login: str
    password: bytes = field(repr=False)

    def matches(self, secret: bytes) -> bool:
        """Whether this is the password, in a time that does not depend on where they differ."""
        return hmac.compare_digest(_equal_size(self.password), _equal_size(secret))


@dataclass(frozen=True)
class ChallengeResponse:
    """What CRAM-MD5 gives: the digest shows that the client knows the password."""

    mechanism: str
    login: str
    challenge: bytes = field(repr=False)
    digest: str = field(repr=False)  # 32 hexadecimal digits in lower case

    def matches(self, secret: bytes) -> bool:
        """Whether the digest was made with this password, in a time that does not depend on where they differ."""
        return hmac.compare_digest(cram_md5(secret, self.challenge), self.digest)


Credentials = Union[Password, ChallengeResponse]
Step = Union[bytes, Credentials]  # a 334 reply to send, and then the next line is for us; or the end


def cram_md5(secret: bytes, challenge: bytes) -> str:
    """The keyed digest of RFC 2195, in hexadecimal."""
    return hmac.new(secret, challenge, _md5).hexdigest()


class Exchange:
    """One AUTH command: `start` with its argument, then `feed` with each line, until neither gives a 334."""

    def __init__(self, mechanisms: Sequence[str], make_challenge: Callable[[], bytes]) -> None:
        """`mechanisms`: those on offer. `make_challenge`: ASCII that nobody can foretell, new each time (CRAM-MD5)."""
        self._mechanisms = mechanisms
        self._make_challenge = make_challenge
        self._next: Callable[[bytes], Step] | None = None  # what to do with the next response
        self._login = ''
        self._challenge = b''

    def start(self, argument: str) -> Step:
        """`mechanism [initial-response]`, as it stands behind the verb. AuthRefused."""
        name, _, initial = argument.strip(' ').partition(' ')
        mechanism = name.upper()
        if not name or ' ' in initial:
            raise AuthRefused('auth-syntax')
        if mechanism not in self._mechanisms:
            raise AuthRefused('auth-mechanism')
        if mechanism == 'CRAM-MD5':
            return self._challenge_first(initial)
        first, prompt = _FIRST[mechanism]
        if not initial:
            return self._ask(prompt, partial(first, self))
        return first(self, b'' if initial == EMPTY else _decode(initial.encode('ascii', 'replace')))

    def feed(self, line: bytes) -> Step:
        """The next line, with its line end. AuthRefused, also when the client gives up."""
        assert self._next is not None, 'the exchange is over'
        respond, self._next = self._next, None
        if line[-2:] != b'\r\n':
            raise AuthRefused('bad-line-end')
        if len(line) > LINE_LIMIT:
            raise AuthRefused('auth-too-long')
        if line[:-2] == CANCEL:
            raise AuthRefused('auth-cancelled')
        return respond(_decode(line[:-2]))

    def _ask(self, prompt: bytes, respond: Callable[[bytes], Step]) -> bytes:
        self._next = respond
        return b'334 ' + b64encode(prompt) + b'\r\n'

    def _plain(self, response: bytes) -> Step:
        """`[authorization identity] NUL login NUL password`. To act as somebody else is nobody's right here."""
        parts = response.split(b'\0')
        if len(parts) != 3:
            raise AuthRefused('auth-malformed')
        identity, login, password = parts
        if identity not in (b'', login):
            raise AuthRefused('auth-identity')
        return Password('PLAIN', _login(login), _password(password))

    def _login_name(self, response: bytes) -> Step:
        self._login = _login(response)
        return self._ask(b'Password:', self._login_password)

    def _login_password(self, response: bytes) -> Step:
        return Password('LOGIN', self._login, _password(response))

    def _challenge_first(self, initial: str) -> bytes:
        """The server speaks first: an initial response can only be a mistake (RFC 4954 section 4)."""
        if initial:
            raise AuthRefused('auth-initial')
        self._challenge = self._make_challenge()
        return self._ask(self._challenge, self._cram_md5)

    def _cram_md5(self, response: bytes) -> Step:
        """`login SP digest`; a login may hold spaces."""
        login, _, digest = response.rpartition(b' ')
        text = digest.decode('latin-1')
        if not _DIGEST.fullmatch(text):
            raise AuthRefused('auth-malformed')
        return ChallengeResponse('CRAM-MD5', _login(login), self._challenge, text)


#  mechanism        takes the first response, asked for with
_FIRST: dict[str, tuple[Callable[[Exchange, bytes], Step], bytes]] = {
    'PLAIN':        (Exchange._plain,         b''),
    'LOGIN':        (Exchange._login_name,    b'Username:'),
}


def _decode(text: bytes) -> bytes:
    if _BASE64.fullmatch(text):
        data = b64decode(text)
        if b64encode(data) == text:  # else there are bits behind the last octet
            return data
    raise AuthRefused('auth-base64')


def _login(octets: bytes) -> str:
    try:
        login = octets.decode('utf-8')
    except UnicodeDecodeError:
        raise AuthRefused('auth-malformed') from None
    if not 0 < len(octets) <= FIELD_LIMIT or _CONTROL.search(login):
        raise AuthRefused('auth-malformed')
    return login


def _password(octets: bytes) -> bytes:
    if not 0 < len(octets) <= FIELD_LIMIT or b'\0' in octets:
        raise AuthRefused('auth-malformed')
    return octets


def _equal_size(octets: bytes) -> bytes:
    """compare_digest tells by its time whether the sizes are the same: digests are."""
    return hmac.digest(b'compare', octets, 'sha256')
