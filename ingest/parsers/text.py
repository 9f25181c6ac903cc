"""Plain text files."""

from __future__ import annotations

import codecs

from ingest.parsers.extract import Extracted
from ingest.parsers.normalise import clean

# UTF-32 first: its little-endian mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode(data: bytes) -> str:
    """By byte order mark, else strict UTF-8, else Windows-1252.

    No detector: they take German cp1252 for Mac encodings. Windows-1252 leaves five bytes undefined, which
    become the replacement character.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def extract(data: bytes) -> Extracted:
    """One page with the whole text."""
    return Extracted([clean(decode(data))], None, "text 1")
