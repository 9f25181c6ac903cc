"""The specialists at a moment. A turn takes one snapshot and keeps it, whatever is edited meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from agents.spec import AgentSpec, spec_of
from prompts.loader import PromptError, PromptFile, PromptLibrary

log = structlog.get_logger(__name__)

FALLBACK_AGENT = "support"


@dataclass(frozen=True)
class Snapshot:
    """Specialists by name, and the router's prompt."""

    agents: Mapping[str, AgentSpec]
    router: PromptFile


class Catalog:
    """Specialists out of ``prompts/specialists``, kept up to date with the files.

    Args:
        library: the loaded prompt files.
        known_tools: function names of all loaded domains.

    Raises:
        PromptError: a file is wrong at the start.
    """

    def __init__(self, library: PromptLibrary, known_tools: frozenset[str]) -> None:
        self._library = library
        self._known_tools = known_tools
        self._snapshot = self._read()

    def snapshot(self) -> Snapshot:
        """The specialists now. A file that was edited into something wrong leaves the last good version in
        use.
        """
        if self._library.refresh():
            for error in self._library.errors.values():
                log.error("prompt_rejected", error=str(error))
            try:
                self._snapshot = self._read()
            except PromptError as error:
                log.error("prompt_rejected", error=str(error))
        return self._snapshot

    def _read(self) -> Snapshot:
        agents = {
            spec.name: spec
            for prompt in self._library.below("specialists")
            if (spec := spec_of(prompt, self._known_tools))
        }
        if FALLBACK_AGENT not in agents:
            raise PromptError(
                self._library.root / "specialists",
                1,
                f"there must be a specialist {FALLBACK_AGENT!r}: who is not sure asks there",
            )
        return Snapshot(agents, self._library.get("router/router"))
