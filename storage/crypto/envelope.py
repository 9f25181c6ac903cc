"""Sealed values and wrapped keys: pure functions over AES-256-GCM (NIST SP 800-38D).

A sealed value is ``0x01 | key id (16) | nonce (12) | ciphertext and tag (16)``, 45 bytes longer than what is in it.
Its associated data are the first 17 bytes, and whose it is and where it stands: ``tenant|table.column|row``. Nonces
are random: NIST allows 2^32 values under one key, more than a tenant's or a person's key ever seals.
"""

import os
import re
from functools import lru_cache
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage.errors import AppError
from storage.ids import new_id

VERSION = b"\x01"
KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
HEADER_BYTES = 17
OVERHEAD = HEADER_BYTES + NONCE_BYTES + TAG_BYTES

_COLUMN = re.compile(r"[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*")


class Tampered(AppError):
    """A sealed value is damaged, or stands where it was not sealed: another row, column, tenant or file."""

    code = "SEALED_DATA_DAMAGED"

    def __init__(self, where: str = "a sealed value") -> None:
        super().__init__(
            f"The integrity check of {where} failed: it was changed or moved. Nothing was read from it. "
            "Restore it from a backup, and find out who writes to the storage."
        )


class DataKey:
    """A key in the clear, ready for use. Its ``repr`` shows the id only.

    Args:
        id: the row's in ``data_keys``.
        secret: 32 bytes.
    """

    __slots__ = ("_header", "aead", "id", "secret")

    def __init__(self, id: UUID, secret: bytes) -> None:  # noqa: A002  # the column's name
        if len(secret) != KEY_BYTES:
            raise ValueError("a data key has 32 bytes")
        self.id = id
        self.secret = secret
        self.aead = AESGCM(secret)
        self._header = VERSION + id.bytes

    @classmethod
    def generate(cls) -> "DataKey":
        return cls(new_id(), os.urandom(KEY_BYTES))

    @property
    def header(self) -> bytes:
        """What each value sealed under it begins with."""
        return self._header

    def __repr__(self) -> str:
        return f"DataKey({self.id})"


@lru_cache(maxsize=4096)
def _place(tenant_id: UUID, column: str) -> bytes:
    if not _COLUMN.fullmatch(column):
        raise ValueError(f"not a table.column: {column!r}")
    return f"{tenant_id}|{column}|".encode()


def aad_of(tenant_id: UUID, column: str, row_id: UUID) -> bytes:
    """Associated data of a value: ``tenant|table.column|row``.

    No two places have the same: ids have a fixed length, and a name has no bar in it.

    Raises:
        ValueError: ``column`` is not ``table.column``.
    """
    return _place(tenant_id, column) + str(row_id).encode()


def seal(key: DataKey, aad: bytes, plain: bytes) -> bytes:
    """Encrypt; each call gives another result."""
    nonce = os.urandom(NONCE_BYTES)
    header = key.header
    return header + nonce + key.aead.encrypt(nonce, plain, header + aad)


def open_(key: DataKey, aad: bytes, blob: bytes) -> bytes:
    """Decrypt.

    Raises:
        Tampered: any bit differs from what was sealed, the place or the key is another one.
    """
    header = key.header
    if len(blob) < OVERHEAD or blob[:HEADER_BYTES] != header:
        raise Tampered
    nonce = blob[HEADER_BYTES : HEADER_BYTES + NONCE_BYTES]
    try:
        return key.aead.decrypt(nonce, blob[HEADER_BYTES + NONCE_BYTES :], header + aad)
    except InvalidTag:
        raise Tampered from None


def key_id_of(blob: bytes) -> UUID:
    """Under which key a value was sealed.

    Raises:
        Tampered: it is no sealed value.
    """
    if len(blob) < OVERHEAD or blob[:1] != VERSION:
        raise Tampered
    return UUID(bytes=bytes(blob[1:HEADER_BYTES]))


def _wrapping_aad(tenant_id: UUID, kind: str, subject_id: UUID, key_id: UUID) -> bytes:
    # Five parts, where a value's aad has three: a wrapped key can never pass for a value.
    return f"{tenant_id}|data_keys.wrapped|{key_id}|{kind}|{subject_id}".encode()


def wrap(parent: DataKey, key: DataKey, tenant_id: UUID, kind: str, subject_id: UUID) -> bytes:
    """Seal a subject's key under the tenant's, bound to whose it is."""
    return seal(parent, _wrapping_aad(tenant_id, kind, subject_id, key.id), key.secret)


def unwrap(
    parent: DataKey, wrapped: bytes, tenant_id: UUID, kind: str, subject_id: UUID, key_id: UUID
) -> DataKey:
    """The key again.

    Raises:
        Tampered: it was changed, or belongs to another subject or tenant.
    """
    return DataKey(key_id, open_(parent, _wrapping_aad(tenant_id, kind, subject_id, key_id), wrapped))
