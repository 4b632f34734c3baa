"""What results say of TLS: `cipher` and `certificate`.

A certificate counts as verified when this attempt depended on it; with opportunistic TLS nobody has looked (RFC 7435).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from mqlite.der import BadDer
from mqlite.loop.tls import TlsDetails
from mqlite.loop.x509 import describe
from mqlite.message.identifier import format_moment

_NAMES_SHOWN = 100  # of one certificate; some have a thousand


@lru_cache(maxsize=1024)  # the servers of large providers show the same few certificates
def tls_fields(details: TlsDetails) -> dict[str, Any]:
    """The two properties of a result. To be read only: it is shared."""
    cipher = {'name': details.cipher, 'bits': details.bits, 'algbits': details.algorithm_bits,
              'version': details.version, 'id': details.id}
    certificate = _certificate(details)
    return {'cipher': cipher, 'certificate': certificate} if certificate else {'cipher': cipher}


def _certificate(details: TlsDetails) -> dict[str, Any]:
    try:
        found = describe(details.certificate) if details.certificate else None
    except BadDer:
        found = None
    if found is None:
        return {}
    return {'notbefore': format_moment(found.not_before), 'notafter': format_moment(found.not_after),
            'version': found.version, 'verified': details.verified,
            'result': 'ok' if details.verified else 'not checked', 'self-signed': found.self_issued,
            'subject': found.subject, 'issuer': found.issuer, 'altnames': list(found.names[:_NAMES_SHOWN])}
