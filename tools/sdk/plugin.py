"""A domain as one object: its manifest, what the model may call, its routes."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

from tools.sdk.context import ToolContext
from tools.sdk.errors import PluginError
from tools.sdk.fields import ToolArgs, ToolOut
from tools.sdk.manifest import Manifest, ToolEntry, read_manifest

ToolFunction = Callable[[ToolContext, Any], Awaitable[ToolOut]]


@dataclass(frozen=True)
class Tool:
    """Something the model may call. ``name`` is what it calls it by: ``<domain>_<function>``."""

    name: str
    domain: str
    description: str
    args: type[ToolArgs]
    run: ToolFunction
    entry: ToolEntry

    @cached_property
    def openai_spec(self) -> dict[str, Any]:
        """The tool in the shape of OpenAI's function calling; made once, a schema takes a millisecond."""
        schema = self.args.model_json_schema()
        schema.pop("title", None)
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": schema},
        }


@dataclass(frozen=True)
class ToolPlugin:
    """What a domain's plugin.py exports as ``plugin``.

    Args:
        functions: async functions ``(context, args) -> ToolOut``; their docstrings are what the model reads.
        controllers: Litestar controllers below /api/v1/<domain>.
        folder: where manifest.toml lies.
    """

    folder: Path
    functions: tuple[ToolFunction, ...]
    controllers: tuple[type, ...] = ()
    manifest: Manifest = field(init=False)
    tools: tuple[Tool, ...] = field(init=False)

    def __post_init__(self) -> None:
        manifest = read_manifest(self.folder / "manifest.toml")
        names = {function.__name__ for function in self.functions}
        if names != set(manifest.tools):
            raise PluginError(
                f"{self.folder / 'manifest.toml'}: lists the tools {sorted(manifest.tools)}, the code registers {sorted(names)}"
            )
        object.__setattr__(self, "manifest", manifest)
        object.__setattr__(self, "tools", tuple(_tool(manifest, function) for function in self.functions))


def _tool(manifest: Manifest, function: ToolFunction) -> Tool:
    where = f"{function.__module__}.{function.__name__}"
    hints = get_type_hints(function)
    parameters = list(inspect.signature(function).parameters)
    if len(parameters) != 2 or hints.get(parameters[0]) is not ToolContext:
        raise PluginError(f"{where}: a tool takes (context: ToolContext, args: <its ToolArgs>)")
    args = hints.get(parameters[1])
    if not (isinstance(args, type) and issubclass(args, ToolArgs)):
        raise PluginError(f"{where}: the second argument must be a ToolArgs class")
    if not (isinstance(hints.get("return"), type) and issubclass(hints["return"], ToolOut)):
        raise PluginError(f"{where}: a tool returns a ToolOut class, so that personal data in it is marked")
    description = inspect.getdoc(function)
    if not description:
        raise PluginError(f"{where}: the docstring is missing; it is what the model reads")
    name = f"{manifest.domain}_{function.__name__}"
    return Tool(name, manifest.domain, description, args, function, manifest.tools[function.__name__])
