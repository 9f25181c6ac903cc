"""Settings of signing in."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class AuthSettings(BaseSettings):
    """Read from the environment."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    token_minutes: int = Field(default=10, ge=1, le=60, description="Life of an access token.")
    refresh_days: int = Field(
        default=30, ge=1, le=30, description="Life of a program's session, whatever it does (ASVS 10.4.8)."
    )
    session_hours: int = Field(
        default=12, ge=1, le=24, description="Life of a browser's session, whatever it does."
    )
    sign_up: bool = Field(default=True, description="Whether strangers may open a business here.")
    secret_key_previous: SecretStr | None = Field(
        default=None,
        description="Secrets before SECRET_KEY, separated by blanks: what they signed is still accepted.",
    )

    @property
    def previous_secrets(self) -> tuple[str, ...]:
        return tuple(self.secret_key_previous.get_secret_value().split()) if self.secret_key_previous else ()
