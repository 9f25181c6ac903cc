"""Checks what is edited as files, without starting anything."""

import sys

from agents.catalog import Catalog
from agents.offline_examples import ExampleLibrary
from agents.settings import ModelSettings
from prompts.loader import PromptError, PromptLibrary
from server.settings import PROMPTS, ServerSettings
from tools.sdk.errors import PluginError
from tools.sdk.registry import load_registry


def check() -> int:
    """Exit 1 with file, line and reason where something is wrong."""
    try:
        registry = load_registry(ServerSettings().enabled_plugins)
        snapshot = Catalog(PromptLibrary(PROMPTS), frozenset(registry.tools)).snapshot()
        ExampleLibrary.load(PROMPTS)
        ModelSettings()
    except (PromptError, PluginError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{len(snapshot.agents)} specialists ({', '.join(snapshot.agents)}), {len(registry.tools)} tools ({', '.join(registry.tools)})"
    )
    return 0
