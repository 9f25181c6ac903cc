"""All loaded domains: ours (a folder with plugin.py is enough) and third parties' by the entry point group
``secretary.tools``.
"""

import importlib
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

from tools.sdk.errors import PluginError
from tools.sdk.plugin import Tool, ToolPlugin

ENTRY_POINT_GROUP = "secretary.tools"


class Registry:
    """Tools by name, checked at the door.

    Raises:
        PluginError: something is not a ToolPlugin, a domain is taken twice, or a required domain is missing.
    """

    def __init__(self, plugins: Iterable[ToolPlugin]) -> None:
        self.plugins: dict[str, ToolPlugin] = {}
        self.tools: dict[str, Tool] = {}
        for plugin in plugins:
            if not isinstance(plugin, ToolPlugin):
                raise PluginError(f"{plugin!r} is not a ToolPlugin")
            domain = plugin.manifest.domain
            if domain in self.plugins:
                raise PluginError(
                    f"{plugin.folder}: the domain {domain!r} is taken by {self.plugins[domain].folder}"
                )
            self.plugins[domain] = plugin
            self.tools.update({tool.name: tool for tool in plugin.tools})
        for domain, plugin in self.plugins.items():
            if missing := set(plugin.manifest.requires) - set(self.plugins):
                raise PluginError(
                    f"{plugin.folder}: the domain {domain!r} requires {sorted(missing)}, not loaded"
                )

    @property
    def controllers(self) -> list[type]:
        """The Litestar controllers of all domains."""
        return [controller for plugin in self.plugins.values() for controller in plugin.controllers]


def load_registry(enabled: frozenset[str] | None = None) -> Registry:
    """Find and load plug-ins.

    Args:
        enabled: names of third-party entry points that may be loaded (``TOOLS_ENABLED``); None loads none.
            They run in our process with all its rights, so an installed package alone does not get in.

    Raises:
        PluginError: see Registry; also an enabled name that is not installed.
    """
    root = Path(__file__).resolve().parent.parent
    ours = sorted(path.parent.name for path in root.glob("*/plugin.py") if path.parent.name != "sdk")
    plugins = [importlib.import_module(f"tools.{domain}.plugin").plugin for domain in ours]
    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    for name in sorted(enabled or ()):
        if name not in found:
            raise PluginError(
                f"TOOLS_ENABLED names {name!r}, but no installed package offers it; offered: {sorted(found)}"
            )
        plugins.append(found[name].load())
    return Registry(plugins)
