"""Signing what goes out: DKIM (RFC 6376, RFC 8463) and ARC (RFC 8617).

    canonical   what of a message is signed: header fields and body in their canonical forms
    signature   the DKIM-Signature field, and the fields of an ARC set
    chain       the ARC sets that a message carries already: found, and judged
    keys        private keys from PEM
    rsa         RSASSA-PKCS1-v1_5 in Python     \\  what libcrypto of the host does faster, with the same result
    ed25519     Ed25519 in Python               /
    libcrypto   the host's library, by ctypes
"""
