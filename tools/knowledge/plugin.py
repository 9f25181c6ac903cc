"""The knowledge domain."""

from pathlib import Path

from tools.knowledge import api, tools
from tools.sdk.plugin import ToolPlugin

plugin = ToolPlugin(
    folder=Path(__file__).parent,
    functions=(tools.search,),
    controllers=(api.DocumentController, api.SearchController),
)
