"""Key services: a folder of our own for one machine, and AWS KMS."""

import asyncio
import base64
import importlib
import os
from pathlib import Path
from typing import Any

from storage.crypto.envelope import KEY_BYTES, Tampered
from storage.crypto.masters import (
    KeyContext,
    MasterKeyMissing,
    MasterKeys,
    parse_secret,
    require_private,
    unwrap_locally,
    wrap_locally,
)
from storage.crypto.settings import CryptoSettings
from storage.errors import ConfigurationError, UpstreamUnavailable

_CURRENT = "current"


def kms_from(settings: CryptoSettings) -> MasterKeys:
    """The service that MASTER_KMS names.

    Raises:
        ConfigurationError: it names none that we know, or boto3 is not installed.
    """
    scheme, _, rest = (settings.master_kms or "").partition(":")
    if scheme == "local" and rest:
        return LocalKms(Path(rest))
    if scheme == "aws" and rest:
        return AwsKms(rest, settings.kms_timeout_seconds)
    raise ConfigurationError("MASTER_KMS is written as local:<folder> or aws:<key id, ARN or alias/name>.")


class LocalKms:
    """A folder: ``<id>.key`` holds 32 bytes in base64, ``current`` the id to wrap with. Keep it on another disk and in
    another backup than the database.

    Another process may rotate at any time: ``current`` is read each time, and an unknown id is looked for.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, bytes] = {}

    async def current_id(self) -> str:
        return self._current()

    async def wrap(self, plain: bytes, context: KeyContext) -> tuple[str, bytes]:
        current = self._current()
        return current, wrap_locally(current, self._secret(current), plain, context)

    async def unwrap(self, key_id: str, blob: bytes, context: KeyContext) -> bytes:
        return unwrap_locally(key_id, self._secret(key_id), blob, context)

    def generate(self) -> str:
        """Make a new key and let it be current; returns its id. Older keys stay, for unwrapping."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key_id = f"mk-{os.urandom(4).hex()}"
        _write(self._folder / f"{key_id}.key", base64.b64encode(os.urandom(KEY_BYTES)).decode())
        _write(self._folder / _CURRENT, key_id)  # last: what it names is on the disk already
        return key_id

    def _current(self) -> str:
        try:
            return (self._folder / _CURRENT).read_text().strip()
        except OSError as error:
            raise ConfigurationError(
                f"The folder {self._folder} has no current master key. Where it is new: python -m server keys generate. "
                "Where it held keys: put them back."
            ) from error

    def _secret(self, key_id: str) -> bytes:
        if key_id not in self._known:
            path = self._folder / f"{key_id}.key"
            # The id comes from the database; it must not lead out of the folder.
            if path.parent != self._folder or "/" in key_id or not path.exists():
                raise MasterKeyMissing(key_id)
            require_private(path)
            self._known[key_id] = parse_secret(path.read_text(), key_id)
        return self._known[key_id]


def _write(path: Path, content: str) -> None:
    """Whole or not at all, on the disk when it returns, and never open to others."""
    fresh = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(content + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class AwsKms:
    """AWS KMS by boto3, which takes region, credentials and AWS_ENDPOINT_URL_KMS from its usual places. Each call
    runs in a thread, because boto3 blocks. The encryption context names the tenant, so it stands in CloudTrail.

    Args:
        key: id, ARN or ``alias/name`` of a symmetric key.
        timeout: seconds for one answer; three attempts are made.

    Raises:
        ConfigurationError: boto3 is not installed, or no region is configured.
    """

    def __init__(self, key: str, timeout: float) -> None:
        try:
            boto3: Any = importlib.import_module("boto3")
            config: Any = importlib.import_module("botocore.config")
            self._errors: Any = importlib.import_module("botocore.exceptions")
        except ModuleNotFoundError as error:
            raise ConfigurationError("MASTER_KMS=aws:… needs boto3: install ai-secretary[aws].") from error
        self._key = key
        options = config.Config(
            connect_timeout=min(3.0, timeout),
            read_timeout=timeout,
            retries={"total_max_attempts": 3, "mode": "standard"},
        )
        try:
            self._client: Any = boto3.client("kms", config=options)
        except self._errors.BotoCoreError as error:
            raise ConfigurationError(f"AWS KMS cannot be used as configured: {error}") from error

    async def current_id(self) -> str:
        answer = await self._call("describe_key", self._key, KeyId=self._key)
        return str(answer["KeyMetadata"]["Arn"])

    async def wrap(self, plain: bytes, context: KeyContext) -> tuple[str, bytes]:
        answer = await self._call(
            "encrypt", self._key, KeyId=self._key, Plaintext=plain, EncryptionContext=context.pairs()
        )
        return str(answer["KeyId"]), bytes(answer["CiphertextBlob"])

    async def unwrap(self, key_id: str, blob: bytes, context: KeyContext) -> bytes:
        answer = await self._call(
            "decrypt", key_id, KeyId=key_id, CiphertextBlob=blob, EncryptionContext=context.pairs()
        )
        return bytes(answer["Plaintext"])

    async def _call(self, operation: str, key_id: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = await asyncio.to_thread(getattr(self._client, operation), **arguments)
        except self._errors.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in {"InvalidCiphertextException", "IncorrectKeyException"}:
                raise Tampered("a wrapped key") from error
            if code in _UNUSABLE:
                raise MasterKeyMissing(key_id) from error
            raise UpstreamUnavailable(f"AWS KMS refused {operation}: {code}.", reason=code) from error
        except self._errors.BotoCoreError as error:
            raise UpstreamUnavailable(
                f"AWS KMS does not answer ({type(error).__name__}). Try again in a moment."
            ) from error
        return answer


_UNUSABLE = frozenset(
    {
        "AccessDeniedException",
        "DisabledException",
        "InvalidKeyUsageException",
        "KMSInvalidStateException",
        "NotFoundException",
    }
)
