"""Which embedding model is used, and where it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PROVIDER_URL = "https://api.openai.com/v1"

# https://platform.openai.com/docs/guides/embeddings: the default dimensions of the provider's models.
KNOWN_DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}


class EmbeddingSettings(BaseSettings):
    """Read from the environment, each field by its upper-case name.

    Attributes:
        embedding_model: EMBEDDING_MODEL, e.g. "text-embedding-3-small"; unset or empty: the local MiniLM.
        embedding_dim: EMBEDDING_DIM, needed for a model that `KNOWN_DIMENSIONS` does not list.
        embedding_timeout: EMBEDDING_TIMEOUT, seconds for one call to the endpoint.
        openai_api_key: OPENAI_API_KEY; a compatible server without keys needs none.
        openai_base_url: OPENAI_BASE_URL, unset: the provider's own.
        model_cache_dir: MODEL_CACHE_DIR, where the local model's graph (91 MB) is built once.
        env: ENV; "production" refuses a foreign base URL.
        model_allow_custom_base_url: MODEL_ALLOW_CUSTOM_BASE_URL, set where models are self-hosted on purpose.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True, extra="ignore")

    embedding_model: str | None = None
    embedding_dim: int | None = Field(default=None, gt=0)
    embedding_timeout: float = Field(default=30.0, gt=0)
    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None
    model_cache_dir: Path = Path(".data/models")
    env: str = "development"
    model_allow_custom_base_url: bool = False

    @model_validator(mode="after")
    def _refuse_a_foreign_endpoint_in_production(self) -> Self:
        # Customers' documents leave through this URL: a forgotten test endpoint must stop the start.
        foreign = self.openai_base_url is not None and self.openai_base_url.rstrip("/") != PROVIDER_URL
        if (
            self.env == "production"
            and self.embedding_model is not None
            and foreign
            and not self.model_allow_custom_base_url
        ):
            raise ValueError(
                "OPENAI_BASE_URL is not the provider's address; for a self-hosted model set "
                "MODEL_ALLOW_CUSTOM_BASE_URL=true"
            )
        return self
