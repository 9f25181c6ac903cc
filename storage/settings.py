"""Where the state lives. Each part is a URL; server/embedded.py fills in those that nobody gave."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from storage.errors import ConfigurationError
from storage.roles import RoleUrls, derive_urls


class StorageSettings(BaseSettings):
    """Read from the environment.

    ``DATABASE_URL`` belongs to an administrator and is wanted by ``migrate`` only; the API and the worker are
    given ``DATABASE_APP_URL``, ``DATABASE_PLATFORM_URL`` and ``DATABASE_IDENTITY_URL``, so that a hijacked process does not
    hold the owner's password. Where those are missing they are derived from ``DATABASE_URL`` and ``SECRET_KEY``.
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    database_url: SecretStr | None = None
    database_app_url: SecretStr | None = None
    database_platform_url: SecretStr | None = None
    database_identity_url: SecretStr | None = None
    secret_key: SecretStr | None = None
    redis_url: str | None = None
    chroma_url: str | None = None
    data_dir: Path = Field(default=Path(".data"), validation_alias="SECRETARY_DATA")
    database_pool_size: int = Field(default=10, ge=2)
    statement_timeout_ms: int = Field(default=15_000, ge=100)

    def role_urls(self) -> RoleUrls:
        """The database URL of each role.

        Raises:
            ConfigurationError: nothing in the environment says where the database is.
        """
        if self.database_app_url and self.database_platform_url and self.database_identity_url:
            return RoleUrls(
                admin=self.database_url.get_secret_value() if self.database_url else None,
                app=self.database_app_url.get_secret_value(),
                platform=self.database_platform_url.get_secret_value(),
                identity=self.database_identity_url.get_secret_value(),
            )
        if self.database_url is None:
            raise ConfigurationError(
                "No database is configured. Start everything with `make run`, or set DATABASE_URL and SECRET_KEY."
            )
        return derive_urls(self.database_url.get_secret_value(), self.require_secret_key())

    def require_secret_key(self) -> str:
        """The installation's secret, from which tokens and role passwords are derived.

        Raises:
            ConfigurationError: it is missing or too short to be one.
        """
        secret = self.secret_key.get_secret_value() if self.secret_key else ""
        if len(secret) < 32:
            raise ConfigurationError(
                "SECRET_KEY is missing or shorter than 32 characters. Make one: openssl rand -hex 32"
            )
        return secret
