"""PDF by pypdf: text page by page, in the order of the content stream."""

from __future__ import annotations

import io
from collections.abc import Callable

import pypdf
from pypdf.errors import (
    DependencyError,
    FileNotDecryptedError,
    LimitReachedError,
    PyPdfError,
    WrongPasswordError,
)

from ingest.parsers.extract import Extracted
from ingest.parsers.model import IngestError, ParseLimits
from ingest.parsers.normalise import clean_page, without_running_lines

_ENCRYPTED = IngestError(
    "encrypted", "The PDF is protected by a password. Save a copy without a password and upload that."
)
_BROKEN = IngestError(
    "parse_failed",
    "The PDF is damaged. Open it in a viewer, export it as a new PDF, and upload that.",
)
_BOMB = IngestError(
    "too_large",
    "The PDF unpacks to far more data than a document needs. Export it as a new PDF.",
)


def extract(data: bytes, limits: ParseLimits, on_page_count: Callable[[int], None]) -> Extracted:
    """The pages' text, one entry a page.

    A page that pypdf cannot read gives an empty text: the pages keep their numbers, and the readiness check
    (text on 90 % of the pages) sees it.

    Args:
        data: The file.
        limits: Pages and characters.
        on_page_count: Called once with the number of pages, before any page is read.

    Raises:
        IngestError: encrypted, empty, needs_ocr, too_large, parse_failed.
    """
    reader = _open(data)
    try:
        count = len(reader.pages)
    except LimitReachedError as error:
        raise _BOMB from error
    except Exception as error:  # pypdf's parser raises plain Python errors for broken page trees
        raise _BROKEN from error
    if count == 0:
        raise IngestError("empty", "The PDF has no pages. Check the original and upload it again.")
    if count > limits.max_pages:
        raise IngestError(
            "too_large",
            f"The PDF has {count} pages, allowed are {limits.max_pages}. Split it and upload the parts.",
        )
    on_page_count(count)
    texts, failed = _read_pages(reader, limits.max_chars)
    if failed == count:
        raise _BROKEN
    if not any(any(character.isalnum() for character in text) for text in texts):
        raise IngestError(
            "needs_ocr",
            "The PDF holds pictures, no text. Run text recognition (OCR) on it, or export it from the "
            "program it was written in, and upload that.",
        )
    return Extracted(without_running_lines(texts), _title(reader), f"pypdf {pypdf.__version__}")


def _open(data: bytes) -> pypdf.PdfReader:
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        # A PDF that only forbids printing or copying opens with the empty password; a viewer does the same.
        if reader.is_encrypted and not reader.decrypt(""):
            raise _ENCRYPTED
    except (FileNotDecryptedError, WrongPasswordError, DependencyError) as error:
        raise _ENCRYPTED from error
    except LimitReachedError as error:
        raise _BOMB from error
    except (IngestError, MemoryError):
        raise
    except Exception as error:  # as above: not every broken file is a PyPdfError
        raise _BROKEN from error
    return reader


def _read_pages(reader: pypdf.PdfReader, max_chars: int) -> tuple[list[str], int]:
    """The normalised texts and how many pages could not be read."""
    texts: list[str] = []
    failed = total = 0
    for page in reader.pages:
        try:
            text = clean_page(page.extract_text())
        except LimitReachedError as error:
            raise _BOMB from error
        except MemoryError:
            raise
        except Exception:  # one broken content stream must not lose the other pages
            text = ""
            failed += 1
        total += len(text)
        if total > max_chars:
            raise IngestError(
                "too_large", f"The PDF has more than {max_chars} characters. Split it and upload the parts."
            )
        texts.append(text)
    return texts, failed


def _title(reader: pypdf.PdfReader) -> str | None:
    try:
        metadata = reader.metadata
        return metadata.title if metadata is not None else None
    except (PyPdfError, ValueError, TypeError, AttributeError, KeyError):
        # A broken information dictionary says nothing about the pages.
        return None
