"""Which files are taken, and how their first bytes look.

Signatures: the formats' own specifications (PDF ISO 32000-1 7.5.2; ZIP APPNOTE 4.3.7; PNG ISO 15948 5.2; JPEG ISO 10918-1 B.1; GIF89a 17;
RIFF for WebP and WAV; Ogg RFC 3533 section 6; ID3v2 and MPEG-1 frame sync for MP3; ISO 14496-12 4.3 for MP4; EBML RFC 8794 for WebM).
Office files are ZIPs with a content-types part and one folder by kind (ECMA-376 part 2).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

# Magic of what is never text, whatever it is called.
_BINARY_BEGINNINGS = (
    b"%PDF-",
    b"PK\x03\x04",
    b"MZ",
    b"\x7fELF",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"RIFF",
    b"OggS",
    b"\x1a\x45",
)


@dataclass(frozen=True)
class FileKind:
    """One kind of file.

    Attributes:
        extension: in lower case, without the dot.
        media_type: what it is stored and served as, whatever the sender said.
        matches: whether bytes look like it.
        said_as: further media types that programs send for it.
        office_part: the folder inside, for Office's ZIPs.
    """

    extension: str
    media_type: str
    matches: Callable[[bytes], bool]
    said_as: frozenset[str] = frozenset()
    office_part: str | None = None


def _begins(*magic: bytes) -> Callable[[bytes], bool]:
    return lambda data: data.startswith(magic)


def _is_pdf(data: bytes) -> bool:
    # Readers, and so writers, allow for something in front of it: ISO 32000-1 annex H.3, implementation note 13.
    return b"%PDF-" in data[:1024]


def _is_riff(kind: bytes) -> Callable[[bytes], bool]:
    return lambda data: data[:4] == b"RIFF" and data[8:12] == kind


def _is_mp3(data: bytes) -> bool:
    if data.startswith(b"ID3"):
        return True
    # 11 bits of sync, a version that exists, layer III, a bit rate and a sample rate that exist.
    return (
        len(data) >= 4
        and data[0] == 0xFF
        and data[1] & 0xE6 == 0xE2
        and data[1] & 0x18 != 0x08
        and data[2] & 0xF0 != 0xF0
        and data[2] & 0x0C != 0x0C
    )


def _is_iso_media(data: bytes) -> bool:
    return data[4:8] == b"ftyp"


def is_text(data: bytes) -> bool:
    """UTF-8, or UTF-16 with its mark, without control characters; not the beginning of something else."""
    if data.startswith(_BINARY_BEGINNINGS) or _is_mp3(data) or _is_iso_media(data):
        return False
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return _is_latin(data)
    return not _CONTROL.search(text)


def _is_latin(data: bytes) -> bool:
    """Windows-1252, as spreadsheets still write CSV: bytes that are no UTF-8, but no control characters either."""
    return not re.search(rb"[\x00-\x08\x0e-\x1f\x7f]", data)


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")

_OFFICE = "application/vnd.openxmlformats-officedocument"
_KINDS = (
    FileKind("pdf", "application/pdf", _is_pdf),
    FileKind("docx", f"{_OFFICE}.wordprocessingml.document", _begins(b"PK\x03\x04"), office_part="word/"),
    FileKind("xlsx", f"{_OFFICE}.spreadsheetml.sheet", _begins(b"PK\x03\x04"), office_part="xl/"),
    FileKind("pptx", f"{_OFFICE}.presentationml.presentation", _begins(b"PK\x03\x04"), office_part="ppt/"),
    FileKind("txt", "text/plain", is_text),
    FileKind("md", "text/markdown", is_text, frozenset({"text/plain", "text/x-markdown"})),
    FileKind("html", "text/html", is_text, frozenset({"application/xhtml+xml"})),
    FileKind("htm", "text/html", is_text, frozenset({"application/xhtml+xml"})),
    FileKind("csv", "text/csv", is_text, frozenset({"text/plain", "application/vnd.ms-excel"})),
    FileKind("json", "application/json", is_text, frozenset({"text/plain", "text/json"})),
    FileKind("png", "image/png", _begins(b"\x89PNG\r\n\x1a\n")),
    FileKind("jpg", "image/jpeg", _begins(b"\xff\xd8\xff"), frozenset({"image/jpg"})),
    FileKind("jpeg", "image/jpeg", _begins(b"\xff\xd8\xff"), frozenset({"image/jpg"})),
    FileKind("webp", "image/webp", _is_riff(b"WEBP")),
    FileKind("gif", "image/gif", _begins(b"GIF87a", b"GIF89a")),
    FileKind("ogg", "audio/ogg", _begins(b"OggS"), frozenset({"application/ogg", "video/ogg"})),
    FileKind("oga", "audio/ogg", _begins(b"OggS"), frozenset({"application/ogg"})),
    FileKind("opus", "audio/ogg", _begins(b"OggS"), frozenset({"audio/opus"})),
    FileKind("mp3", "audio/mpeg", _is_mp3, frozenset({"audio/mp3"})),
    FileKind("wav", "audio/wav", _is_riff(b"WAVE"), frozenset({"audio/x-wav", "audio/wave"})),
    FileKind("m4a", "audio/mp4", _is_iso_media, frozenset({"audio/x-m4a", "audio/m4a"})),
    FileKind("mp4", "video/mp4", _is_iso_media, frozenset({"audio/mp4"})),
    FileKind("webm", "video/webm", _begins(b"\x1a\x45\xdf\xa3"), frozenset({"audio/webm"})),
)
KINDS = MappingProxyType({kind.extension: kind for kind in _KINDS})
