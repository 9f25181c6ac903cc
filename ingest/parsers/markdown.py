"""Markdown files: kept as they were written, because models read Markdown and citations should show it."""

from __future__ import annotations

import re

from ingest.parsers.extract import Extracted
from ingest.parsers.normalise import clean
from ingest.parsers.text import decode

_FENCE = re.compile(r"^ {0,3}(```|~~~)")
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$")
_UNDERLINE = re.compile(r"^ {0,3}(?:=+|-+)[ \t]*$")


def first_heading(text: str) -> str | None:
    """The first heading outside a code block, in either notation (CommonMark 4.2 and 4.3)."""
    fence: str | None = None
    previous = ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if mark and fence in (None, mark[1]):
            fence = None if fence else mark[1]
            previous = ""
            continue
        if fence:
            continue
        if heading := _HEADING.match(line):
            return heading[1]
        if previous.strip() and _UNDERLINE.match(line):
            return previous.strip()
        previous = line
    return None


def extract(data: bytes) -> Extracted:
    """One page with the whole text, markup included."""
    text = clean(decode(data))
    return Extracted([text], first_heading(text), "markdown 1")
