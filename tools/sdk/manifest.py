"""``manifest.toml`` of a domain: data that can be read without importing its code."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tools.sdk.errors import PluginError

Risk = Literal["read", "write", "external", "money"]


class ToolEntry(BaseModel):
    """What the operator decides about a tool, not its author's code.

    Attributes:
        risk: read changes nothing; write changes our database; external and money reach out and need a
            person's yes.
        scope: the right that the acting agent must hold, ``<domain>:<verb>``.
        timeout: seconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    risk: Risk
    scope: str = Field(pattern=r"^[a-z]+:[a-z]+$")
    approval: Literal["none", "customer", "staff"] = "none"
    timeout: float = Field(default=20.0, gt=0, le=120)


class Manifest(BaseModel):
    """A domain's manifest. ``tools`` is keyed by the function's name in tools.py."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    domain: str = Field(pattern=r"^[a-z][a-z0-9_]{1,30}$")
    version: str
    title: str
    requires: tuple[str, ...] = ()
    tools: dict[str, ToolEntry]


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        PluginError: it is missing, not TOML, or has wrong keys.
    """
    try:
        return Manifest.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise PluginError(f"{path}: a tool domain needs a manifest.toml") from error
    except tomllib.TOMLDecodeError as error:
        raise PluginError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise PluginError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
