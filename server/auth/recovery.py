"""Recovery codes: the way in for somebody who lost the second factor. Each works once."""

import hashlib
import secrets
from typing import NamedTuple

COUNT = 10
_GROUPS, _GROUP = 6, 4
# Crockford's base32: no I, L, O, U, which are misread or make words. 24 characters are 120 bit, so that a fast
# hash is enough to store them (ASVS 6.5.2 asks for 112).
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_MISREAD = str.maketrans({"I": "1", "L": "1", "O": "0"})


class RecoveryCode(NamedTuple):
    """``clear`` is shown once; ``digest`` (32 bytes) is stored."""

    clear: str
    digest: bytes


def new_codes(count: int = COUNT) -> list[RecoveryCode]:
    codes = []
    for _ in range(count):
        characters = "".join(secrets.choice(_ALPHABET) for _ in range(_GROUPS * _GROUP))
        clear = "-".join(characters[at : at + _GROUP] for at in range(0, len(characters), _GROUP))
        codes.append(RecoveryCode(clear, _digest(characters)))
    return codes


def digest_of(typed: str) -> bytes | None:
    """What to look for among the stored digests; None for what cannot be a code.

    The caller uses it up with ``update … set used_at = now() where digest = :digest and used_at is null returning``:
    of two who send the same code at a time, one gets a row.
    """
    characters = "".join(c for c in typed[:100].upper() if c not in "-\u2010\u2011\u2012\u2013 \t\r\n")
    characters = characters.translate(_MISREAD)
    if len(characters) != _GROUPS * _GROUP or set(characters) - set(_ALPHABET):
        return None
    return _digest(characters)


def _digest(characters: str) -> bytes:
    return hashlib.sha256(characters.encode()).digest()
