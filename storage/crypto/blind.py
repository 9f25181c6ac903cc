"""Blind indexes: a sealed value is found again by equality, without being readable."""

import hmac

BLIND_BYTES = 16


def blind_index(secret: bytes, kind: str, value: str) -> bytes:
    """The first 16 bytes of HMAC-SHA256 over kind and value: equal values of a kind have equal ones, and nobody
    can try values out without the tenant's index key.

    Args:
        secret: the tenant's index key.
        kind: what it is, such as ``email``; the same value as another kind gives another index.
        value: normalised by the caller (e-mail in lower case, phone number in E.164).

    Raises:
        ValueError: the kind holds a zero byte, with which two messages could be the same.
    """
    if "\0" in kind:
        raise ValueError("a zero byte in the kind of a blind index")
    return hmac.digest(secret, f"{kind}\0{value}".encode(), "sha256")[:BLIND_BYTES]
