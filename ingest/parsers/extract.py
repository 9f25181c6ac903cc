"""What the extractor of each format hands back, inside the child process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Extracted:
    """Normalised pages, the document's own title if it has one, and the engine's name and version."""

    pages: list[str]
    title: str | None
    parser: str
