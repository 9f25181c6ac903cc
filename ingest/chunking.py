"""Pages into chunks: whole sentences, packed as full as the embedder reads, each with its exact place.

Measured on English texts with marked evidence: sentences packed to 254 word pieces with an overlap of 32
return the whole evidence for .885 of the questions, plain windows for .827; 510 pieces are worse in German.
So an embedder that reads more does not get larger chunks.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from storage.vectors.embedder import Embedder

CHUNK_TOKENS = 254

# A sentence's end before a capital, digit or opening quote; an empty line; a line before a Markdown heading.
_BREAK = re.compile(r"(?<=[.!?])\s+(?=[A-ZÄÖÜ0-9\"„(])|\n{2,}|\n(?=#{1,6} )")
_LINE = re.compile(r"\S(?:.*\S)?")
_WORD = re.compile(r"\S+")
_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$", re.MULTILINE)
_FENCED = re.compile(r"^ {0,3}(```|~~~).*?(?:^ {0,3}\1|\Z)", re.MULTILINE | re.DOTALL)
# The open headings as (level, words), outermost first.
_Path = tuple[tuple[int, str], ...]

# The title may take a third of what the model reads, the text needs the rest.
_PREFIX_SHARE = 3
# WordPiece takes a word above 100 characters for one token: without this a page of base64 were one chunk.
_MAX_CHARS_PER_TOKEN = 12
_MAX_WORD = 64


class SourcePage(Protocol):
    """What is chunked: a page's number, from 1, and its stored text."""

    @property
    def number(self) -> int: ...

    @property
    def text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of one page.

    Attributes:
        ordinal: Position in the document, from 0.
        text: Exactly `page.text[char_start:char_end]`.
        page_from: The page's number.
        page_to: The same number: chunks do not cross pages, so that page and span stay exact.
        char_start: First character in the page's text.
        char_end: One past the last.
        tokens: Tokens of `embed_text`, special tokens not counted.
        heading_path: The headings above the chunk's beginning, outermost first.
        prefix: Title and headings, cut to a third of the budget, with the line feed that ends it; or empty.
    """

    ordinal: int
    text: str
    page_from: int
    page_to: int
    char_start: int
    char_end: int
    tokens: int
    heading_path: tuple[str, ...]
    prefix: str

    @property
    def embed_text(self) -> str:
        """What the embedder reads: never above its `max_tokens`."""
        return self.prefix + self.text


def chunk(
    pages: Sequence[SourcePage], embedder: Embedder, *, title: str = "", overlap: int = 32
) -> list[Chunk]:
    """Cuts pages into chunks of at most `CHUNK_TOKENS`, fewer if the embedder reads fewer.

    Takes about 0.1 s of CPU for ten pages: run it in a thread beside an event loop.

    Args:
        pages: In reading order; headings (Markdown) reach over page ends.
        embedder: Counts the tokens.
        title: The document's title, put before every chunk with the headings above it.
        overlap: Tokens of whole sentences that a chunk repeats from the one before, at most.

    Returns:
        Chunks that together hold every visible character of the pages.

    Raises:
        ValueError: The overlap is negative.
    """
    if overlap < 0:
        raise ValueError("overlap must not be negative")
    budget = min(embedder.max_tokens, CHUNK_TOKENS)
    chunks: list[Chunk] = []
    path: _Path = ()
    for page in pages:
        headings = _headings(page.text, path)
        packer = _Packer(page.text, embedder, budget, overlap, title, [(0, path), *headings])
        for start, end, heading_path, prefix, tokens in packer.spans():
            number = page.number
            chunks.append(
                Chunk(
                    len(chunks),
                    page.text[start:end],
                    number,
                    number,
                    start,
                    end,
                    tokens,
                    heading_path,
                    prefix,
                )
            )
        path = headings[-1][1] if headings else path
    return chunks


def _headings(text: str, above: _Path) -> list[tuple[int, _Path]]:
    """Where each Markdown heading starts, and the headings open from there on as (level, words)."""
    fences = [match.span() for match in _FENCED.finditer(text)]
    found: list[tuple[int, _Path]] = []
    for match in _HEADING.finditer(text):
        if any(start <= match.start() < end for start, end in fences):
            continue
        level = len(match[1])
        above = (*(part for part in above if part[0] < level), (level, match[2]))
        found.append((match.start(), above))
    return found


class _Packer:
    """Packs the units of one page."""

    def __init__(
        self,
        text: str,
        embedder: Embedder,
        budget: int,
        overlap: int,
        title: str,
        paths: list[tuple[int, _Path]],
    ) -> None:
        self.text = text
        self.embedder = embedder
        self.budget = budget
        self.overlap = overlap
        self.title = " ".join(title.split())
        self.paths = paths
        self.max_chars = budget * _MAX_CHARS_PER_TOKEN
        # Word pieces of the page, to estimate a span's tokens without tokenizing it again.
        self.starts = [start for start, _ in embedder.offsets(text)]

    def spans(self) -> Iterator[tuple[int, int, tuple[str, ...], str, int]]:
        """(start, end, headings, prefix, tokens) of each chunk."""
        units = [piece for unit in _sentences(self.text) for piece in self._pieces(unit)]
        first = done = 0
        while done < len(units):
            first = self._with_overlap(units, first, done)
            start = units[first][0]
            headings, prefix = self._context(start)
            last = self._last_that_fits(units, first, done, prefix)
            tokens = self._count(prefix + self.text[start : units[last][1]])
            yield start, units[last][1], headings, prefix, tokens
            first, done = first + 1, last + 1

    def _with_overlap(self, units: list[tuple[int, int]], lowest: int, done: int) -> int:
        """The unit to begin with: as far before `done` as the overlap allows and leaves room for one more."""
        if done == 0:
            return 0
        first = done
        while (
            first > lowest
            and self._estimate(units[first - 1][0], units[done - 1][1]) <= self.overlap
            and units[done - 1][1] - units[first - 1][0] <= self.overlap * _MAX_CHARS_PER_TOKEN
            and self._fits(units[first - 1][0], units[done][1])
        ):
            first -= 1
        return first

    def _last_that_fits(self, units: list[tuple[int, int]], first: int, done: int, prefix: str) -> int:
        """The last unit of the chunk, at least `done`."""
        start = units[first][0]
        room = self.budget - self._count(prefix)
        last = done
        while (
            last + 1 < len(units)
            and self._estimate(start, units[last + 1][1]) <= room
            and units[last + 1][1] - start <= self.max_chars
        ):
            last += 1
        # Pieces of a cut word may tokenize otherwise than the whole word did: only the exact count decides.
        while last > done and not self._fits(start, units[last][1]):
            last -= 1
        # A heading says what follows it: at the end of a chunk it would be cut off from that.
        while done < last < len(units) - 1 and _HEADING.match(self.text, *units[last]):
            last -= 1
        return last

    def _pieces(self, unit: tuple[int, int]) -> Iterator[tuple[int, int]]:
        """The unit; its lines when it does not fit in a chunk (tables have no full stops); their words."""
        if self._fits(*unit):
            yield unit
            return
        lines = [match.span() for match in _LINE.finditer(self.text, *unit)]
        if len(lines) > 1:
            for line in lines:
                yield from self._pieces(line)
            return
        for match in _WORD.finditer(self.text, *unit):
            for start in range(match.start(), match.end(), _MAX_WORD):
                yield from self._halves(start, min(start + _MAX_WORD, match.end()))

    def _halves(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """A part of a word, halved until it fits: needed only for an embedder that reads very little."""
        if end - start == 1 or self._fits(start, end):
            yield start, end
            return
        middle = (start + end) // 2
        yield from self._halves(start, middle)
        yield from self._halves(middle, end)

    def _fits(self, start: int, end: int) -> bool:
        if end - start > self.max_chars:
            return False
        return self._count(self._context(start)[1] + self.text[start:end]) <= self.budget

    def _estimate(self, start: int, end: int) -> int:
        return bisect_left(self.starts, end) - bisect_left(self.starts, start)

    def _count(self, text: str) -> int:
        return len(self.embedder.offsets(text))

    def _context(self, start: int) -> tuple[tuple[str, ...], str]:
        """The headings above a place, and the prefix made of title and headings."""
        index = bisect_left(self.paths, start + 1, key=lambda entry: entry[0]) - 1
        headings = tuple(words for _, words in self.paths[index][1])
        # A Markdown file's title is its first heading: once is enough.
        parts = headings if self.title in headings[:1] else (self.title, *headings)
        line = " > ".join(part for part in parts if part)
        spans = self.embedder.offsets(line)
        room = self.budget // _PREFIX_SHARE
        if len(spans) > room:
            line = line[: spans[room - 1][1]] if room else ""
        return headings, f"{line}\n" if line else ""


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    """The spans of the sentences, without the blanks around them."""
    start = 0
    for end, after in [*(match.span() for match in _BREAK.finditer(text)), (len(text), len(text))]:
        inner = text[start:end]
        left = start + len(inner) - len(inner.lstrip())
        right = start + len(inner.rstrip())
        if right > left:
            yield left, right
        start = after
