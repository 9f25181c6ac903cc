"""Settings of the processes themselves. Where the state lives is in storage.settings, what thinks in
agents.settings.
"""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = ROOT / "prompts"


class ServerSettings(BaseSettings):
    """Read from the environment."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    env: str = "development"
    log_level: str = "INFO"
    public_url: str | None = Field(
        default=None, description="What customers' browsers reach the API by; else the address asked for."
    )
    tools_enabled: str = Field(
        default="", description="Third-party tool plug-ins to load, separated by commas."
    )
    max_turns: int = Field(default=8, ge=1, description="Turns that one worker has in work at a time.")
    lease_seconds: float = Field(
        default=6.0, gt=0.5, description="How long a dead worker's thread waits for another."
    )
    turn_timeout: float = Field(
        default=150.0, gt=0, description="Seconds after which a turn counts as failed."
    )
    sweep_seconds: float = Field(default=1.0, gt=0)
    ready_file: Path | None = Field(
        default=None, description="Touched by the worker when it takes work; the parent waits for it."
    )
    terminal_origin: bool = Field(
        default=True,
        description="Whether a program without a browser (no Origin header) may use the widget's socket.",
    )

    @property
    def enabled_plugins(self) -> frozenset[str]:
        return frozenset(name.strip() for name in self.tools_enabled.split(",") if name.strip())
