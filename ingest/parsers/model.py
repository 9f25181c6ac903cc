"""What goes into and comes out of parsing: limits, pages, and the named ways in which it can fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

ErrorCode = Literal[
    "encrypted", "empty", "needs_ocr", "unsupported", "too_large", "parse_failed", "parse_crashed"
]
ERROR_CODES: frozenset[str] = frozenset(get_args(ErrorCode))

Kind = Literal["pdf", "html", "markdown", "text"]

CONTENT_TYPES: dict[Kind, str] = {
    "pdf": "application/pdf",
    "html": "text/html",
    "markdown": "text/markdown",
    "text": "text/plain",
}


class IngestError(Exception):
    """A document that cannot become knowledge.

    Attributes:
        code: The document's end state.
        message: What the uploader can do about it, in one or two sentences.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code: ErrorCode = code
        self.message = message


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """How much one document may cost. The defaults are those of the largest plan.

    Attributes:
        max_bytes: Size of the file.
        max_pages: Pages of a PDF.
        max_chars: Characters of text in all.
        memory_bytes: Address space of the child process; Python with its parsers takes 0.3 GB of it.
        cpu_seconds: CPU time before the number of pages is known.
        cpu_seconds_per_page: More CPU time for each page.
        cpu_seconds_max: CPU time that no document exceeds.
        wall_seconds: Time until the child is killed, whatever it does.
    """

    max_bytes: int = 50 << 20
    max_pages: int = 2_000
    max_chars: int = 5_000_000
    memory_bytes: int = 1 << 30
    cpu_seconds: int = 20
    cpu_seconds_per_page: float = 0.2
    cpu_seconds_max: int = 300
    wall_seconds: float = 360.0


DEFAULT_LIMITS = ParseLimits()


@dataclass(frozen=True, slots=True)
class Page:
    """One page, numbered from 1; formats without pages have one. Citations point into its text."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """A document as text.

    Attributes:
        pages: In order and without gaps; a page without text (a picture) is there with an empty one.
        title: From the document, else its file name without the ending.
        language: en, de, fr, es or it; None when the text does not tell.
        content_type: The MIME type that was found, not the one that was claimed.
        parser: Name and version of the engine, e.g. "pypdf 7.1.0".
    """

    pages: list[Page]
    title: str
    language: str | None
    content_type: str
    parser: str
