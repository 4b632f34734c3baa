"""Private keys from PEM, and signatures in Python and by libcrypto, which are the same octets."""

from __future__ import annotations

import random
import time
from base64 import b64decode, b64encode
from hashlib import sha256

import pytest

from mqlite.dkim import ed25519, libcrypto, rsa
from mqlite.dkim.canonical import canonical_field, split_message
from mqlite.dkim.chain import _read_public
from mqlite.dkim.keys import PEM_LIMIT, Ed25519Key, KeyFault, RsaKey, read_key
from mqlite.dkim.signature import Signable
from tests.support.signing import _openssl, key_pair, traditional

# RFC 8463 appendix A: the key, the message and the signature by it.
SEED = b64decode('nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=')
PUBLIC = '11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo='
MESSAGE = b'''From: Joe SixPack <joe@football.example.com>\r
To: Suzie Q <suzie@shopping.example.net>\r
Subject: Is dinner ready?\r
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r
Message-ID: <20030712040037.46341.5F8J@football.example.com>\r
\r
Hi.\r
\r
We lost the game.  Are you hungry yet?\r
\r
Joe.\r
'''
DRAFT = b'''DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r
 d=football.example.com; i=@football.example.com;\r
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r
 subject : date : message-id : from : subject : date;\r
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r
 b=\r
'''
NAMES = 'from to subject date message-id from subject date'.split()
SIGNATURE = '/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw=='


def test_the_vector_of_rfc_8463() -> None:
    message = Signable(*split_message(MESSAGE))
    octets = message.signed_octets(NAMES, 'relaxed') + canonical_field(DRAFT, 'relaxed')[:-2]
    assert message.body_hash('relaxed') == '2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8='
    assert b64encode(ed25519.public_key(SEED)).decode() == PUBLIC
    assert b64encode(ed25519.sign(SEED, sha256(octets).digest())).decode() == SIGNATURE


@pytest.mark.parametrize('data', [b'', b'a', b'x' * 5000])
def test_libcrypto_and_python_give_the_same_octets(data: bytes) -> None:
    library = libcrypto.find()
    assert library is not None, 'the tests want the libcrypto that Debian has'
    for pem in (key_pair('rsa').pem, traditional(key_pair('rsa').pem)):
        key = read_key(pem)
        assert isinstance(key, RsaKey)
        made = rsa.sign(key, data, random.Random(1).randrange(key.modulus))
        assert made == library.sign(key.der, data, True, key.size) == rsa.sign(key, data, 0)
        assert rsa.verify(key.modulus, key.exponent, data, made)
    other = read_key(key_pair('ed25519').pem)
    assert isinstance(other, Ed25519Key)
    assert ed25519.sign(other.seed, data) == library.sign(other.der, data, False, 64)


def test_libcrypto_says_no_to_what_is_no_key() -> None:
    library = libcrypto.find()
    assert library is not None
    assert library.sign(b'no key', b'', True, 256) is None
    assert library.sign(read_key(key_pair('ed25519').pem).der, b'', True, 64) is None  # Ed25519 does its own hashing


def test_keys_beyond_those_kept_sign_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libcrypto, '_KEYS_KEPT', 0)
    key = read_key(key_pair('ed25519').pem)
    library = libcrypto.Libcrypto(libcrypto.NAMES[0])
    assert library.sign(key.der, b'a', False, 64) == library.sign(key.der, b'a', False, 64) != None  # noqa: E711


@pytest.mark.parametrize('change', [
    lambda data, signature: (data + b'.', signature),
    lambda data, signature: (data, bytes([signature[0] ^ 1]) + signature[1:]),
    lambda data, signature: (data, signature[:-1]),
    lambda data, signature: (data, signature + b'\0'),
    lambda data, signature: (data, b'\xff' * len(signature)),
    lambda data, signature: (data, b''),
])
def test_a_wrong_signature_does_not_hold(change) -> None:  # type: ignore[no-untyped-def]  # of six lambdas
    seed_key, key = read_key(key_pair('ed25519').pem), read_key(key_pair('rsa').pem)
    assert isinstance(key, RsaKey) and isinstance(seed_key, Ed25519Key)
    assert not rsa.verify(key.modulus, key.exponent, *change(b'data', rsa.sign(key, b'data', 3)))
    public = ed25519.public_key(seed_key.seed)
    assert ed25519.verify(public, b'data', ed25519.sign(seed_key.seed, b'data'))
    assert not ed25519.verify(public, *change(b'data', ed25519.sign(seed_key.seed, b'data')))
    assert not ed25519.verify(b'\xff' * 32, b'data', ed25519.sign(seed_key.seed, b'data'))


def test_the_public_key_of_a_record_is_read() -> None:
    key = read_key(key_pair('rsa').pem)
    assert isinstance(key, RsaKey)
    der = b64decode(key_pair('rsa').record.rpartition('p=')[2])
    assert _read_public(der) == (key.modulus, key.exponent)
    bare = _openssl('rsa', '-pubin', '-inform', 'DER', '-RSAPublicKey_out', '-outform', 'DER', given=der)
    assert _read_public(bare) == (key.modulus, key.exponent)


@pytest.mark.parametrize(('pem', 'why'), [
    ('',                                                                   'not in PEM form'),
    ('-----BEGIN RSA PRIVATE KEY-----\nAAAA\n',                            'not in PEM form'),
    ('-----BEGIN RSA PRIVATE KEY-----\n\n-----END RSA PRIVATE KEY-----',   'damaged'),
    ('-----BEGIN RSA PRIVATE KEY-----\n!\n-----END RSA PRIVATE KEY-----',  'damaged'),
    ('-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----',       'damaged'),
    ('-----BEGIN EC PRIVATE KEY-----\nMAA=\n-----END EC PRIVATE KEY-----', 'EC PRIVATE KEY is not'),
    ('-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----', 'pass phrase'),
    ('-----BEGIN PRIVATE KEY-----' + '\n' * (PEM_LIMIT - 27),               'not in PEM form'),
    ('-----BEGIN PRIVATE KEY-----' + '\n' * 100000,                         'longer than 16384'),
])
def test_what_is_no_key_is_named(pem: str, why: str) -> None:
    begin = time.process_time()
    with pytest.raises(KeyFault, match=why):
        read_key(pem)
    assert time.process_time() - begin < 0.5


@pytest.mark.parametrize(('options', 'why'), [
    (('-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:512'), '512 bits'),
    (('-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'), 'neither'),
])
def test_keys_that_no_verifier_takes(options: tuple[str, ...], why: str) -> None:
    with pytest.raises(KeyFault, match=why):
        read_key(_openssl('genpkey', *options).decode())


def test_a_key_cut_anywhere_is_a_fault_and_nothing_else() -> None:
    for kind in ('rsa', 'ed25519'):
        der = read_key(key_pair(kind).pem).der
        for size in range(0, len(der), 7):
            text = b64encode(der[:size]).decode()
            with pytest.raises(KeyFault):
                read_key(f'-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----')
