"""Where a command finds the running installation: the environment, or what `make run` has left in the data
folder.
"""

import json
import os
from typing import Any

from server.embedded import postgres_url
from server.run import STATE_FILE
from storage.errors import ConfigurationError
from storage.roles import derive_urls
from storage.settings import StorageSettings


def running_state() -> dict[str, Any] | None:
    """state.json of a parent that lives, else None."""
    path = StorageSettings().data_dir / STATE_FILE
    try:
        state: dict[str, Any] = json.loads(path.read_text())
        os.kill(state["pid"], 0)
    except (OSError, ValueError, KeyError):
        return None
    return state


def adopt_environment() -> None:
    """Take the addresses of the installation that runs in the data folder into our environment, unless they
    are given.

    Raises:
        ConfigurationError: nothing is given and nothing runs.
    """
    if os.environ.get("DATABASE_APP_URL") or os.environ.get("DATABASE_URL"):
        return
    folder = StorageSettings().data_dir
    if running_state() is None:
        raise ConfigurationError(
            f"Nothing runs in {folder}. Start it with `make run`, or set DATABASE_URL, REDIS_URL and CHROMA_URL."
        )
    memory = json.loads((folder / "secrets.json").read_text())
    urls = derive_urls(
        postgres_url(memory["postgres_port"], memory["postgres_password"]), memory["secret_key"]
    )
    if not any(os.environ.get(name) for name in ("MASTER_KEYS", "MASTER_KEY_FILE", "MASTER_KMS")):
        os.environ["MASTER_KEYS"] = memory.get("master_keys", "")
    for name, value in {
        "SECRET_KEY": memory["secret_key"],
        "MODEL_CACHE_DIR": str(folder / "models"),
        "DATABASE_APP_URL": urls.app,
        "DATABASE_PLATFORM_URL": urls.platform,
        "DATABASE_IDENTITY_URL": urls.identity,
        "REDIS_URL": f"redis://127.0.0.1:{memory.get('redis_port')}/0",
        "CHROMA_URL": f"http://127.0.0.1:{memory.get('chroma_port')}",
    }.items():
        os.environ.setdefault(name, value)
