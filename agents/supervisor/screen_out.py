"""Step 5 of a message's path (d): what goes out. A quote leaves only if it stands in the page, character for
character.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from storage.quotes import locate

# What prompts/shared/rules.md asks for: [K1: "a quote"]
CITATION = re.compile(r"""\s*\[\s*(K\d+)\s*:\s*["“„«](.*?)["”“»]\s*\]""", re.DOTALL)
_BARE = re.compile(r"\s*\[\s*K\d+[^\]]*\]?")


@dataclass(frozen=True)
class Page:
    """A page as stored, and whose it is."""

    document_id: UUID
    document: str
    number: int
    text: str


@dataclass(frozen=True)
class Checked:
    """A reply after the check.

    Attributes:
        text: with [1], [2] where a checked citation stood; still with placeholders.
        citations: ``{n, document, document_id, page, start, end, quote}``; ``quote`` is ``page[start:end]``.
        dropped: citations that stand nowhere in what was found.
    """

    text: str
    citations: list[dict[str, Any]] = field(default_factory=list)
    dropped: int = 0

    @property
    def unsupported(self) -> bool:
        """True where the reply claimed sources and none of them holds."""
        return self.dropped > 0 and not self.citations


PageSource = Callable[[str], Awaitable[Page | None]]


async def check_citations(
    text: str, passages: Mapping[str, dict[str, Any]], page_of: PageSource, restore: Callable[[str], str]
) -> Checked:
    """Locate each quote in the page that it names, else in another that was found in this turn, else drop it.

    Args:
        text: the model's answer, with placeholders.
        passages: what the search showed, by id; ``ref`` names the chunk.
        page_of: the page on which a chunk stands, under the tenant's policy.
        restore: puts values in the place of placeholders.
    """
    numbers: dict[tuple[UUID, int, int], int] = {}
    citations: list[dict[str, Any]] = []
    pieces: list[str] = []
    end = dropped = 0
    for match in CITATION.finditer(text):
        pieces.append(text[end : match.start()])
        end = match.end()
        found = await _find(restore(match[2]).strip(), _order(passages, match[1]), page_of)
        if found is None:
            dropped += 1
            continue
        page, start, stop = found
        key = (page.document_id, page.number, start)
        if key not in numbers:
            numbers[key] = len(numbers) + 1
            citations.append(
                {
                    "n": numbers[key],
                    "document": page.document,
                    "document_id": str(page.document_id),
                    "page": page.number,
                    "start": start,
                    "end": stop,
                    "quote": page.text[start:stop],
                }
            )
        pieces.append(f" [{numbers[key]}]")
    pieces.append(text[end:])
    return Checked(_BARE.sub("", "".join(pieces)).strip(), citations, dropped)


def without_markers(text: str) -> str:
    """A text that is still being written, without citation markers and without one that has only begun: what
    a draft may show.
    """
    shown = CITATION.sub("", text)
    opened = shown.rfind("[")
    return shown[:opened].rstrip() if opened >= 0 and "]" not in shown[opened:] else shown


def _order(passages: Mapping[str, dict[str, Any]], named: str) -> Sequence[str]:
    """Chunks to look in: the named one first. A model that mixes up two passages has still quoted a real one."""
    refs = [passages[named]["ref"]] if named in passages else []
    return refs + [passage["ref"] for name, passage in passages.items() if name != named]


async def _find(quote: str, refs: Sequence[str], page_of: PageSource) -> tuple[Page, int, int] | None:
    for ref in refs:
        page = await page_of(ref)
        if page is not None and (span := locate(quote, page.text)) is not None:
            return page, *span
    return None
