"""Where the master keys come from."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class CryptoSettings(BaseSettings):
    """Read from the environment. Exactly one of the first three is given.

    Attributes:
        master_keys: ``id1:base64,id0:base64``: 32 bytes each, the first is current, the others still unwrap.
        master_key_file: a file with the same entries, one a line, readable by its owner only.
        master_kms: ``local:<folder>`` or ``aws:<key id, ARN or alias/…>``.
        key_cache_seconds: how long an unwrapped key is kept; after an erasure other processes can read on for
            no longer than this. At most half an hour: the rotation of a tenant's key counts on it (server/jobs/keys.py).
        key_cache_size: unwrapped keys that a process keeps.
        kms_timeout_seconds: for one answer of a key service.
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    master_keys: SecretStr | None = None
    master_key_file: Path | None = None
    master_kms: str | None = None
    key_cache_seconds: float = Field(default=300.0, gt=0, le=1800)
    key_cache_size: int = Field(default=20_000, ge=1)
    kms_timeout_seconds: float = Field(default=5.0, gt=0)
