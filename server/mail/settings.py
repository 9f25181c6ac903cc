"""Settings of outgoing mail."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class MailSettings(BaseSettings):
    """Read from the environment."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    mail_url: SecretStr | None = Field(
        default=None,
        description="smtps://user:password@host:465, smtp://… (STARTTLS), or file:FOLDER; without one mails are files in the data folder.",
    )
    mail_from: str = Field(default="AI Secretary <secretary@localhost.localdomain>")
