"""What a file is: its first bytes and its name have to agree."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from ingest.parsers.model import IngestError, Kind

_EXTENSIONS: dict[str, Kind] = {
    ".pdf": "pdf",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".text": "text",
}
_WORD_PROCESSING = frozenset(
    {".doc", ".docx", ".odt", ".rtf", ".pages", ".ppt", ".pptx", ".xls", ".xlsx", ".ods"}
)
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".webp", ".heic", ".bmp"})

# Signatures of what is often renamed by mistake: https://www.garykessler.net/library/file_sigs.html
_FOREIGN = (
    (b"PK\x03\x04", "a ZIP or Office file"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file"),
    (b"{\\rtf", "an RTF file"),
    (b"\x89PNG\r\n\x1a\n", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"II*\x00", "a picture"),
    (b"MM\x00*", "a picture"),
    (b"\x1f\x8b", "a compressed file"),
    (b"7z\xbc\xaf\x27\x1c", "a compressed file"),
    (b"Rar!", "a compressed file"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
)
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
# PDF 32000-1, annex H: readers accept the header within the first 1024 bytes.
_PDF_HEADER_REACH = 1024
_TAG = re.compile(rb"<(?:!doctype|!--|\?xml|[a-z])", re.IGNORECASE)
# Blanks of a text, and the escape that terminal logs hold.
_TEXT_CONTROLS = frozenset(b"\t\n\r\x0b\x0c\x1b\x00")
_CONTROL_SHARE = 0.05
_HEAD = 8192


def sniff(data: bytes, filename: str) -> Kind:
    """The kind of a document.

    Raises:
        IngestError: `empty`, or `unsupported`: the format is not read, or name and bytes disagree.
    """
    if not data.strip(b" \t\r\n\x00"):
        raise IngestError("empty", "The file has no content. Check the original and upload it again.")
    extension = PurePosixPath(filename.replace("\\", "/")).suffix.lower()
    kind = _EXTENSIONS.get(extension)
    if kind is None:
        raise IngestError("unsupported", _advice(extension))
    actual = _foreign_kind(data)
    if kind != "pdf" and actual is None and b"%PDF-" in data[:16]:
        actual = "a PDF"
    if kind == "pdf" and b"%PDF-" not in data[:_PDF_HEADER_REACH]:
        actual = actual or "not a PDF"
    elif kind == "html" and actual is None and not _looks_like_html(data):
        actual = "not a web page"
    elif kind in ("markdown", "text") and actual is None and _is_binary(data):
        actual = "not a text"
    if actual is not None:
        raise IngestError(
            "unsupported",
            f"The file is named {extension} but its content is {actual}. Save it again in the format its "
            "name says, or give it the right ending.",
        )
    return kind


def _advice(extension: str) -> str:
    if extension in _WORD_PROCESSING:
        return f"Files of type {extension} are not read. Export the document as PDF and upload that."
    if extension in _PICTURES:
        return "Pictures are not read. Upload a PDF with selectable text, or the text itself."
    return "This type of file is not read. Upload a PDF, a web page (.html), Markdown (.md) or text (.txt)."


def _foreign_kind(data: bytes) -> str | None:
    return next((name for signature, name in _FOREIGN if data.startswith(signature)), None)


def _looks_like_html(data: bytes) -> bool:
    head = data[:_HEAD]
    if head.startswith(_UTF16):
        head = head.replace(b"\x00", b"")
    return _TAG.search(head) is not None


def _is_binary(data: bytes) -> bool:
    head = data[:_HEAD]
    if head.startswith(_UTF16):
        return False
    controls = sum(1 for byte in head if byte < 0x20 and byte not in _TEXT_CONTROLS)
    return controls > len(head) * _CONTROL_SHARE
