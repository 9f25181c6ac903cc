"""Master keys: they wrap the keys of tenants and are never in the database.

``masters_from`` builds the one that the settings name. ``verify_masters`` stands between a lost master key and a
process that would go on without it.
"""

import base64
import binascii
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage.crypto.envelope import KEY_BYTES, NONCE_BYTES, VERSION, Tampered
from storage.crypto.settings import CryptoSettings
from storage.errors import AppError, ConfigurationError
from storage.repositories import keys
from storage.sql import Session

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class MasterKeyMissing(AppError):
    """A key is wrapped by a master key that this process does not have."""

    code = "MASTER_KEY_MISSING"
    status = 503

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"The master key {key_id!r} is not among those configured, or may not be used. Add it again; it is "
            "wanted until `python -m server keys rotate-master` has replaced it everywhere."
        )
        self.key_id = key_id


@dataclass(frozen=True)
class KeyContext:
    """To whom a wrapped key belongs; it unwraps with the same context only."""

    tenant_id: UUID
    kind: str
    subject_id: UUID
    key_id: UUID

    def pairs(self) -> dict[str, str]:
        """As AWS KMS wants its encryption context."""
        return {
            "tenant": str(self.tenant_id),
            "kind": self.kind,
            "subject": str(self.subject_id),
            "key": str(self.key_id),
        }

    def aad(self, master_id: str) -> bytes:
        return f"{self.tenant_id}|{self.kind}|{self.subject_id}|{self.key_id}|{master_id}".encode()


class MasterKeys(Protocol):
    """What a source of master keys can do."""

    async def current_id(self) -> str:
        """The id that ``wrap`` uses now."""
        ...

    async def wrap(self, plain: bytes, context: KeyContext) -> tuple[str, bytes]:
        """Encrypt 32 bytes under the current master key; gives its id and the blob."""
        ...

    async def unwrap(self, key_id: str, blob: bytes, context: KeyContext) -> bytes:
        """Decrypt.

        Raises:
            MasterKeyMissing: the key of this id is not there, or may not be used.
            Tampered: the blob was changed, belongs to another context, or the key of this id is another one.
            UpstreamUnavailable: the key service does not answer.
        """
        ...


def wrap_locally(master_id: str, secret: bytes, plain: bytes, context: KeyContext) -> bytes:
    """``0x01 | nonce (12) | ciphertext and tag``, bound to context and master key."""
    nonce = os.urandom(NONCE_BYTES)
    return VERSION + nonce + AESGCM(secret).encrypt(nonce, plain, context.aad(master_id))


def unwrap_locally(master_id: str, secret: bytes, blob: bytes, context: KeyContext) -> bytes:
    """The opposite of ``wrap_locally``.

    Raises:
        Tampered: as the protocol says.
    """
    nonce, sealed = blob[1 : 1 + NONCE_BYTES], blob[1 + NONCE_BYTES :]
    if blob[:1] != VERSION or len(nonce) != NONCE_BYTES:
        raise Tampered("a wrapped key")
    try:
        return AESGCM(secret).decrypt(nonce, sealed, context.aad(master_id))
    except InvalidTag:
        raise Tampered("a wrapped key") from None


class StaticMasters:
    """Master keys that were read once, from the environment or a file. The first is current. With none at all nothing
    can be sealed or opened; a migration of an empty database needs no more.
    """

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        self._secrets = dict(secrets)

    async def current_id(self) -> str:
        if not self._secrets:
            raise ConfigurationError("No master key is given. Make one: python -m server keys generate")
        return next(iter(self._secrets))

    async def wrap(self, plain: bytes, context: KeyContext) -> tuple[str, bytes]:
        current = await self.current_id()
        return current, wrap_locally(current, self._secrets[current], plain, context)

    async def unwrap(self, key_id: str, blob: bytes, context: KeyContext) -> bytes:
        if key_id not in self._secrets:
            raise MasterKeyMissing(key_id)
        return unwrap_locally(key_id, self._secrets[key_id], blob, context)


def new_master_key() -> str:
    """A fresh entry for MASTER_KEYS or a key file: ``id:base64``."""
    return f"mk-{os.urandom(4).hex()}:{base64.b64encode(os.urandom(KEY_BYTES)).decode()}"


def parse_secret(encoded: str, name: str) -> bytes:
    """32 bytes of base64.

    Raises:
        ConfigurationError: it is something else.
    """
    try:
        secret = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != KEY_BYTES:
        raise ConfigurationError(
            f"The master key {name!r} is not 32 bytes in base64. Make one: python -m server keys generate"
        )
    return secret


def parse_entries(entries: list[str]) -> dict[str, bytes]:
    """``id:base64`` each; order is kept.

    Raises:
        ConfigurationError: an entry is malformed, or an id comes twice. The text itself is not repeated.
    """
    if not entries:
        raise ConfigurationError("No master key is given. Make one: python -m server keys generate")
    found: dict[str, bytes] = {}
    for number, entry in enumerate(entries, 1):
        name, colon, encoded = entry.strip().partition(":")
        if not colon or not _ID.fullmatch(name):
            raise ConfigurationError(
                f"Master key {number} is not written as id:base64. Make one: python -m server keys generate"
            )
        if name in found:
            raise ConfigurationError(f"The master key {name!r} is given twice.")
        found[name] = parse_secret(encoded, name)
    return found


def require_private(path: Path) -> None:
    """Refuse a secret that others than its owner may read.

    Raises:
        ConfigurationError: they may, or it is not there.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigurationError(f"The master key file {path} cannot be read: {error.strerror}.") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(f"Others may read {path}. Take their rights away: chmod go= {path}")


def _from_file(path: Path) -> StaticMasters:
    require_private(path)
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    return StaticMasters(parse_entries(lines))


def masters_from(settings: CryptoSettings) -> MasterKeys:
    """The master keys that the settings name. Asks no service yet.

    Raises:
        ConfigurationError: none or several are named, or what is named is not usable.
    """
    given = [settings.master_keys, settings.master_key_file, settings.master_kms]
    if sum(source is not None for source in given) != 1:
        raise ConfigurationError(
            "Exactly one of MASTER_KEYS, MASTER_KEY_FILE and MASTER_KMS says where the master key is. "
            "Make one: python -m server keys generate"
        )
    if settings.master_keys is not None:
        entries = settings.master_keys.get_secret_value().split(",")
        return StaticMasters(parse_entries([entry for entry in entries if entry.strip()]))
    if settings.master_key_file is not None:
        return _from_file(settings.master_key_file)
    from storage.crypto.kms import kms_from  # it needs the protocol's types from here

    return kms_from(settings)


async def verify_masters(session: Session, masters: MasterKeys) -> None:
    """Prove at start that what is stored can be read: for each master key in use, one key is unwrapped. Changes
    nothing. Under a platform session this covers all tenants; the platform's own key (nil tenant) is the least.

    Raises:
        ConfigurationError: a master key is missing or is not the one it was.
        UpstreamUnavailable: the key service does not answer.
    """
    for row in await keys.one_of_each_master(session):
        master_id = str(row.wrapped_by)
        assert row.wrapped is not None  # the query asks for such rows
        try:
            await masters.unwrap(master_id, row.wrapped, context_of(row))
        except MasterKeyMissing as error:
            raise ConfigurationError(
                f"The master key {master_id!r} is missing, and stored data can be read with it only. Put it back "
                "into MASTER_KEYS, MASTER_KEY_FILE or the key service. Nothing was changed.",
                key_id=master_id,
            ) from error
        except Tampered as error:
            raise ConfigurationError(
                f"The master key {master_id!r} is not the one that wrapped the stored keys, or these were changed. "
                "Put the right key back. Nothing was changed.",
                key_id=master_id,
            ) from error


def context_of(row: keys.KeyRow) -> KeyContext:
    """The context of a stored key."""
    return KeyContext(row.tenant_id, row.kind, row.subject_id, row.id)
