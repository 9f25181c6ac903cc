"""A passage cut into what can be quoted: sentences, list items and the rows of tables, each below its heading.

Text out of a PDF has lost its marks: a row of a price list, a heading and the wrapped line of a paragraph are
told apart by their length, their figures and their full stops.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

QUOTE_LIMIT = 300
# A line is the wrapped part of a paragraph only if it is long, and the next word had not fitted in it.
WRAPPED_LINE, FULL_LINE = 60, 0.85
HEADING_LIMIT = 80

BREAK = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"“”»)]))\s+(?=[\"„«(]?[A-ZÄÖÜ0-9])|\n\s*\n|\n(?=\s*[-•*–#|])")
# A full stop that ends no sentence: after a short form, or after a number that is a date or counts a list.
ABBREVIATED = re.compile(
    r"(?:\b[^\W\d_]|\b(?:etc|ca|inkl|exkl|bzw|Nr|Str|St|Tel|approx|incl|No|Dr|Mr|Mrs|Mag)"
    r"|(?:^|\n|\b(?:am|vom|zum|bis|im|der|die|den|dem|des|ab|und)\s)\s*\d{1,2})\.$",
    re.IGNORECASE,
)
MARKED_HEADING = re.compile(r"#{1,6}\s+")
BULLET = re.compile(r"[-•*–]\s+")
RULE = re.compile(r"\|?[ ]*:?-{3,}[-:| ]*$", re.MULTILINE)
AMOUNT_LAST = re.compile(r"\d\s*(?:[€$£%]|[^\W\d_]{2,5}\.?)$")


@dataclass(frozen=True)
class Sentence:
    """A part of a passage that can be quoted: `text[start:end]` of the passage.

    Attributes:
        spoken: the text as it is shown: without the marks of Markdown and the line ends of its source.
        heading: what to say before a row: the heading, and a table's head that could not be put to its cells.
        under: all words that it stands under.
        row: True for a line of a table or list, which says little without its heading.
        block: counts the paragraphs, so that neighbours can be told from strangers.
    """

    start: int
    end: int
    spoken: str
    heading: str
    under: str
    row: bool
    block: int


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Spans of sentences and lines, headings included, without blanks at their ends.

    A line's end ends a sentence, as in tables and headings, unless the next line goes on in lower case or the
    line is full, as the wrapped lines of a PDF are.
    """
    start = 0
    breaks = [match for match in BREAK.finditer(text) if not ABBREVIATED.search(text[: match.start()])]
    cuts = [(match.start(), match.end()) for match in breaks]
    longest = max((len(line) for line in text.split("\n")), default=0)
    line_start = 0
    for match in re.finditer(r"\n", text):
        following = text[match.end() :].split("\n", 1)[0]
        if not _goes_on(text[line_start : match.start()], following, longest):
            cuts.append((match.start(), match.end()))
        line_start = match.end()
    for at, resume in [*sorted(cuts), (len(text), len(text))]:
        yield from _trimmed(text, start, at)
        start = max(start, resume)


def _goes_on(line: str, following: str, longest: int) -> bool:
    if following[:1].islower():
        return True
    if len(line) < WRAPPED_LINE or line.lstrip().startswith(("#", "|")) or AMOUNT_LAST.search(line):
        return False
    next_word = following.split(" ", 1)[0]
    return len(line) + 1 + len(next_word) >= FULL_LINE * longest


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


def sentences(text: str) -> list[Sentence]:
    """What can be quoted of a passage, in its order. A heading is no answer; it stands with what is under it."""
    spans = list(sentence_spans(text))
    found: list[Sentence] = []
    heading, head, block, last_was_row = "", "", 0, False
    before = 0
    for number, (start, end) in enumerate(spans):
        piece = text[start:end]
        block += "\n" in text[before:start]
        before = end
        following = text[slice(*spans[number + 1])] if number + 1 < len(spans) else ""
        alone = text[:start].rstrip(" ")[-1:] in ("", "\n") and text[end:].lstrip(" ")[:1] == "\n"
        kind = _kind(piece, following, alone, last_was_row, text[end:].lstrip())
        last_was_row = kind == "row"
        if kind == "heading":
            heading, head = MARKED_HEADING.sub("", piece).strip(), ""
        elif kind == "head":
            head = piece
        elif not piece.endswith("?"):
            head = head if kind == "row" else ""
            under = " ".join(part for part in (heading, *_cells(head)) if part)
            shown = heading
            if head and not head.startswith("|"):
                shown = f"{heading} ({head})" if heading else head
            found.append(Sentence(start, end, _spoken(piece, head), shown, under, kind == "row", block))
    return found


def _kind(piece: str, following: str, alone: bool, after_row: bool, rest: str) -> str:
    """What a piece is: "heading", "head" (of a table), "row" or "prose"."""
    if MARKED_HEADING.match(piece):
        return "heading"
    if piece.startswith("|"):
        return "head" if RULE.match(rest) else "row"
    if BULLET.match(piece):
        return "row"
    if _is_prose(piece) and not (alone and piece.endswith("?") and following):
        return "prose"
    if not following or any(char.isdigit() for char in piece) or len(piece) > HEADING_LIMIT:
        return "row"
    if _is_prose(following):
        return "heading"
    # between rows, a line without a figure is one of them ("Sunday closed"); before the first it names the columns
    return "row" if after_row else "head" if any(char.isdigit() for char in following) else "heading"


def _is_prose(piece: str) -> bool:
    return piece.rstrip('"“”»)').endswith((".", "!", "?", ":", ";", "…")) or len(piece) >= QUOTE_LIMIT - 20


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")] if row else []


def _spoken(piece: str, head: str) -> str:
    if not piece.startswith("|"):
        return " ".join(BULLET.sub("", piece, count=1).split())
    first, *others = _cells(piece)
    names: Sequence[str] = _cells(head)[1:]
    # with one column besides the first, its name adds nothing that the heading does not say
    if len(others) > 1 and len(names) == len(others):
        others = [f"{name}: {cell}" for name, cell in zip(names, others, strict=True)]
    return f"{first}: {'; '.join(others)}" if others else first
