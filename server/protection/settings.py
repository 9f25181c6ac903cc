"""Settings of the edge's protection, read from the environment."""

from functools import cached_property

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from server.protection.address import Network, parse_networks


class ProtectionSettings(BaseSettings):
    """Whom to believe, and how much is let in."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    public_url: str | None = Field(
        default=None, description="What browsers reach the API by; https here switches HSTS on."
    )
    trusted_proxies: str = Field(
        default="",
        description="Networks (CIDR, comma-separated) whose X-Forwarded-For and X-Forwarded-Proto are believed.",
    )
    rate_limits: dict[str, dict[str, str]] = Field(
        default_factory=dict,
        description='Limits that differ, as JSON: {"login": {"ip": "30/300:10", "user": "off"}} '
        "(requests/seconds:burst).",
    )
    max_body: int = Field(default=1_000_000, ge=1, description="Bytes of a body where a route says nothing.")
    body_seconds: float = Field(default=30.0, gt=0, description="Time in which a body has to arrive.")
    handler_seconds: float = Field(
        default=60.0, gt=0, description="Time to the answer's begin where a route says nothing."
    )

    @cached_property
    def networks(self) -> tuple[Network, ...]:
        return parse_networks(self.trusted_proxies)
