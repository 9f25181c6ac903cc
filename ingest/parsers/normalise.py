"""What is done to extracted text before it is stored: citations point into the result."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

# PDF producers write a line-end hyphen as any of these: hyphen, soft hyphen, a noncharacter, a control.
_LINE_HYPHEN = re.compile(
    r"(\w)[-\u00ad\u2010\ufffe\x02][^\S\n]*\n\s*(?!(?:und|oder|bzw|and|or|et|ou|y|o|e)\b)([a-zß-öø-ÿ])"
)
# Left in the middle of a line they are marks of the layout, not of the text.
_INVISIBLE = re.compile("[\u00ad\ufffe\ufeff\u200b-\u200d\u2060]")
_LIGATURES = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)}
# All of C0 and C1 that is no blank: PostgreSQL refuses NUL, and the others mean nothing in a page.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f]")
_BLANKS = re.compile("[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]+")
_EMPTY_LINES = re.compile(r"\n{3,}")

# Below this a repeated line may well be content: a price list of two pages repeats its table head.
_MIN_PAGES_FOR_RUNNING_LINES = 3
_RUNNING_SHARE = 0.6
_EDGE_LINES = 2


def clean(text: str) -> str:
    """For text whose layout is its own (Markdown, plain text): NFC, line feeds, no control characters."""
    text = re.sub("\r\n?|\x0b|\x0c|\x85|\u2028|\u2029", "\n", text)
    return unicodedata.normalize("NFC", _CONTROLS.sub("", text.removeprefix("\ufeff")))


def clean_page(text: str) -> str:
    """For text taken out of a layout (PDF): also joins hyphenated words, resolves ligatures, folds blanks.

    A hyphen at a line's end stays before a capital ("E-Bike") and before "und" ("Ein- und Ausbau").
    """
    text = re.sub("\r\n?|\x0c|\u2028|\u2029", "\n", text)
    text = _LINE_HYPHEN.sub(r"\1\2", text)
    text = clean(_INVISIBLE.sub("", text)).translate(_LIGATURES)
    lines = (_BLANKS.sub(" ", line).strip() for line in text.split("\n"))
    return unicodedata.normalize("NFC", _EMPTY_LINES.sub("\n\n", "\n".join(lines)).strip("\n"))


def without_running_lines(pages: list[str]) -> list[str]:
    """The pages without their running headers and footers.

    Those are lines among the first two or last two of a page that stand, digits masked ("Page 3 of 9"), on at
    least 60 % of the pages. Documents under three pages are left alone.
    """
    if len(pages) < _MIN_PAGES_FOR_RUNNING_LINES:
        return pages
    counts = Counter(mask for page in pages for mask in {_mask(line) for line in _edges(page.split("\n"))})
    running = {mask for mask, count in counts.items() if mask and count >= _RUNNING_SHARE * len(pages)}
    return [_strip_edges(page, running) for page in pages]


def _mask(line: str) -> str:
    return re.sub(r"\d+", "#", line.strip())


def _edges(lines: list[str]) -> list[str]:
    return [*lines[:_EDGE_LINES], *lines[_EDGE_LINES:][-_EDGE_LINES:]]


def _strip_edges(page: str, running: set[str]) -> str:
    lines = page.split("\n")
    last = max(_EDGE_LINES, len(lines) - _EDGE_LINES)
    kept = [
        line
        for number, line in enumerate(lines)
        if not ((number < _EDGE_LINES or number >= last) and _mask(line) in running)
    ]
    return "\n".join(kept).strip("\n")
