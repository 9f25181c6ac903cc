"""Finds a quoted passage in a page again, or says that it is not there.

A citation is shown only when the server located it. Models change blanks, hyphens, quotation marks and case
when they quote, and PDF text has hyphens and line breaks of its own; letters and digits survive. So both
are reduced to those, and two guards keep out what the reduction would confuse: "1.5 %" with "15 %", and "5 %"
with the end of "15 %". What is not seen is a minus sign: "-5" and "5" are alike.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

# Squashed characters that a quote needs: shorter ones are found by chance.
MIN_LENGTH = 20
# Enough when the match is a whole sentence or line of the page: "Montag geschlossen." says something.
MIN_SENTENCE_LENGTH = 12

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# Two letters side by side, or digits of one number: a match must not begin or end between them.
_GLUED = re.compile(r"[^\W\d_]{2}|\d[.,]?\d")
_OPENING = re.compile(r"(?:\A|\n|[.!?:…][\"'“”«»)\]]*\s)[\s\-–*•|#>\"'„“«»(\[]*\Z")
# The blanks are those before the bar that ends a table's row.
_CLOSING = re.compile(r"[ \t\"'“”«»)\]*|]*\s*(?:[.!?;]|\n|\Z)")
# How far back a sentence's opening is looked for: signs and blanks, never words.
_REACH = 40


def _characters(text: str) -> Iterator[tuple[str, int]]:
    """Each character composed (NFC) with the marks that follow it, and where it starts."""
    if unicodedata.is_normalized("NFC", text):
        yield from ((character, index) for index, character in enumerate(text))
        return
    start = 0
    while start < len(text):
        end = _past_marks(text, start + 1)
        yield unicodedata.normalize("NFC", text[start:end]), start
        start = end


def _past_marks(text: str, end: int) -> int:
    """The end moved over combining marks: an umlaut may be two characters."""
    while end < len(text) and unicodedata.combining(text[end]):
        end += 1
    return end


def squash(text: str) -> tuple[str, list[int]]:
    """The letters and digits of a text, case folded, compatibility forms (ligatures, wide digits) resolved.

    Returns:
        The squashed text, and for each of its characters the index in `text` that it comes from.
    """
    kept = [
        (part, index)
        for character, index in _characters(text)
        for part in unicodedata.normalize("NFKC", character).casefold()
        if part.isalnum()
    ]
    return "".join(part for part, _ in kept), [index for _, index in kept]


def _cuts_a_word_or_number(page: str, start: int, end: int) -> bool:
    edges = ((start - 1, start + 1), (start - 2, start + 1), (end - 1, end + 1), (end - 1, end + 2))
    return any(_GLUED.fullmatch(page[max(0, left) : right]) for left, right in edges)


def _is_whole_sentence(page: str, start: int, end: int) -> bool:
    return bool(
        _OPENING.search(page[max(0, start - _REACH) : start]) and _CLOSING.match(page[end : end + _REACH])
    )


def locate(quote: str, page: str) -> tuple[int, int] | None:
    """Where a quote stands in a page.

    Args:
        quote: What somebody says the page contains.
        page: The stored text of one page.

    Returns:
        The first (start, end) whose text has the letters, digits and numbers of the quote, without
        the punctuation at its edges. None when it is not there, begins or ends inside a word or number, or is
        too short to mean this place: under 20 letters and digits, under 12 for a whole sentence.
    """
    wanted, _ = squash(quote)
    if len(wanted) < MIN_SENTENCE_LENGTH:
        return None
    text, origin = squash(page)
    numbers = _NUMBER.findall(quote)
    found = text.find(wanted)
    while found >= 0:
        start = origin[found]
        end = _past_marks(page, origin[found + len(wanted) - 1] + 1)
        if (
            not _cuts_a_word_or_number(page, start, end)
            and _NUMBER.findall(page[start:end]) == numbers
            and (len(wanted) >= MIN_LENGTH or _is_whole_sentence(page, start, end))
        ):
            return start, end
        found = text.find(wanted, found + 1)
    return None
