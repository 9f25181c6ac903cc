"""What the model gateway is told from the environment."""

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PROVIDER_URL = "https://api.openai.com/v1"
PROVIDER_DOMAIN = "api.openai.com"


class ModelSettings(BaseSettings):
    """Which provider thinks, with which models, and for how long we wait.

    The names in the environment are the fields' names in capitals. Where neither OPENAI_API_KEY nor
    OPENAI_BASE_URL is set, only the offline model answers.

    Raises:
        pydantic.ValidationError: ENV is production and OPENAI_BASE_URL is not the provider's https address,
            unless MODEL_ALLOW_CUSTOM_BASE_URL says that a model of one's own is meant. It shows no values.
    """

    # the error of a failed validation would otherwise print the key
    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", hide_input_in_errors=True)

    env: str = "development"
    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None
    model_allow_custom_base_url: bool = False
    model_fast: str = "gpt-4o-mini"
    model_standard: str = "gpt-4.1-mini"
    model_first_token_timeout: float = Field(default=20.0, gt=0, description="seconds")
    model_total_timeout: float = Field(default=60.0, gt=0, description="seconds")

    @property
    def provider_configured(self) -> bool:
        """Whether a provider is asked at all."""
        return self.openai_api_key is not None or self.openai_base_url is not None

    @model_validator(mode="after")
    def _production_talks_to_the_provider(self) -> Self:
        if self.openai_base_url is None:
            return self
        url = urlsplit(self.openai_base_url)
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise ValueError("OPENAI_BASE_URL must be an http or https address")
        # regional addresses are subdomains, for example eu.api.openai.com
        official = url.scheme == "https" and f".{url.hostname}".endswith(f".{PROVIDER_DOMAIN}")
        if self.env == "production" and not official and not self.model_allow_custom_base_url:
            raise ValueError(
                "OPENAI_BASE_URL is not the provider's https address; for a model of your own set "
                "MODEL_ALLOW_CUSTOM_BASE_URL=true"
            )
        return self
