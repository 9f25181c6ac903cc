"""An answer out of retrieved passages without a model: the best sentence, quoted character for character."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agents.similarity import NgramIndex, TextIndex
from storage.vectors.embedder import Embedder

QUOTE_LIMIT = 300
# Nearness below which a sentence is no answer, and the share of the best one's that a second one needs.
NEAR_ENOUGH = 0.2
SECOND_SHARE = 0.93
# How much the retrieval's own score (0 to 1) adds to a sentence: it settles ties, it does not decide.
RETRIEVAL_WEIGHT = 0.05

BREAK = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"“”»)]))\s+(?=[\"„«(]?[A-ZÄÖÜ0-9])|\n\s*\n|\n(?=\s*[-•*–])")
ABBREVIATED = re.compile(
    r"(?:\b[^\W\d_]{1,2}|\b\d{1,2}|\b(?:etc|ca|inkl|exkl|bzw|Nr|Str|Tel|approx|incl|No|Dr|Mr|Mrs|Mag))\.$"
)
WRAPPED_LINE = 60


@dataclass(frozen=True)
class Passage:
    """One hit of the knowledge search, as its tool sends it."""

    id: str
    text: str
    score: float


@dataclass(frozen=True)
class Quote:
    """A span of a passage: `text` stands in the passage exactly so."""

    passage: Passage
    start: int
    end: int
    nearness: float

    @property
    def text(self) -> str:
        return self.passage.text[self.start : self.end]

    @property
    def spoken(self) -> str:
        """The text with the line breaks of its source smoothed."""
        return " ".join(self.text.split())

    @property
    def citation(self) -> str:
        """The marker, in the form that is verified against the source."""
        return f'[{self.passage.id}: "{self.text}"]'


def read_passages(result: Any) -> list[Passage] | None:
    """Read a tool's parsed result; None where it is not one of the knowledge search."""
    if not isinstance(result, dict) or not isinstance(result.get("passages"), list):
        return None
    return [
        Passage(str(entry["id"]), str(entry["text"]), float(entry.get("score") or 0.0))
        for entry in result["passages"]
        if isinstance(entry, dict) and entry.get("id") and entry.get("text")
    ]


def parse(content: Any) -> Any:
    """A tool message's content as JSON; None where it is none."""
    try:
        return json.loads(content) if isinstance(content, str) else None
    except ValueError:
        return None


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Spans of the sentences, without blanks at their ends.

    Short lines end a sentence, as in tables and headings, unless the next one goes on in lower case; the ends
    of long lines are wraps of a PDF.
    """
    start = 0
    breaks = [match for match in BREAK.finditer(text) if not ABBREVIATED.search(text[: match.start()])]
    cuts = [(match.start(), match.end()) for match in breaks]
    line_start = 0
    for match in re.finditer(r"\n", text):
        goes_on = text[match.end() : match.end() + 1].islower()
        if match.start() - line_start < WRAPPED_LINE and not goes_on:
            cuts.append((match.start(), match.end()))
        line_start = match.end()
    for at, resume in [*sorted(cuts), (len(text), len(text))]:
        yield from _trimmed(text, start, at)
        start = max(start, resume)


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    if not any(char.isalnum() for char in piece):
        return
    start += len(piece) - len(piece.lstrip())
    end = start + len(piece.strip())
    if end - start > QUOTE_LIMIT:
        # never inside a word: back to the last blank before the limit
        blank = max(text.rfind(" ", start, start + QUOTE_LIMIT), text.rfind("\n", start, start + QUOTE_LIMIT))
        end = blank if blank > start else end
    yield start, end


async def best_quotes(
    question: str, passages: Sequence[Passage], language: str, embedder: Embedder
) -> list[Quote]:
    """The best sentence, and one more where it is nearly as good; none where nothing is near enough.

    Two that touch become one quote, as long as it is not above the limit.
    """
    spans = [(passage, *span) for passage in passages for span in sentence_spans(passage.text)]
    if not spans:
        return []
    texts = [passage.text[start:end] for passage, start, end in spans]
    scores = await TextIndex(texts, embedder).scores(question, language)
    quotes = [
        Quote(passage, start, end, float(score) + RETRIEVAL_WEIGHT * passage.score)
        for (passage, start, end), score in zip(spans, scores, strict=True)
    ]
    ranked = sorted(quotes, key=lambda quote: -quote.nearness)
    best = ranked[0]
    if best.nearness < NEAR_ENOUGH:
        return []
    for second in ranked[1:]:
        if second.nearness < SECOND_SHARE * best.nearness:
            break
        if _same(second.spoken, best.spoken):
            continue
        joined = _joined(best, second)
        return [joined] if joined else [best, second]
    return [best]


def _same(one: str, other: str) -> bool:
    return float(NgramIndex([one]).scores(other)[0]) > 0.9


def _joined(one: Quote, other: Quote) -> Quote | None:
    """Both as one span where only blanks stand between them."""
    if one.passage is not other.passage:
        return None
    first, last = sorted((one, other), key=lambda quote: quote.start)
    between = one.passage.text[first.end : last.start]
    if between.strip() or last.end - first.start > QUOTE_LIMIT:
        return None
    return Quote(one.passage, first.start, last.end, max(one.nearness, other.nearness))
