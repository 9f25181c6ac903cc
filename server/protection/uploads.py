"""Files from strangers: their names, their contents, and how they are handed out again (ASVS 5.0 V5)."""

import re
import unicodedata
import zipfile
from collections.abc import Collection
from io import BytesIO
from urllib.parse import quote

from server.protection.file_kinds import KINDS, FileKind
from storage.errors import AppError

MAX_NAME_BYTES = 255  # what file systems take
MAX_ENTRIES = 10_000
MAX_RATIO = 100
MAX_UNPACKED = 200_000_000

# RFC 6266 leaves names to the receiver; these are the ones that Windows takes for devices, with any extension.
_RESERVED = re.compile(
    r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(?:\..*)?", re.IGNORECASE
)
_FORBIDDEN = re.compile(r'[/\\:*?"<>|]')
# RFC 8187: attr-char besides letters and digits.
_ATTR_CHARS = "!#$&+-.^_`|~"


class UploadRefused(AppError):
    """The file is not taken. ``details["reason"]`` says why in a word."""

    code = "VALIDATION_ERROR"
    status = 422

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message, reason=reason)
        self.reason = reason


class UploadTooLarge(UploadRefused):
    """More bytes than are taken."""

    code = "TOO_LARGE"
    status = 413


def safe_file_name(name: str) -> str:
    """The name, in Unicode's composed form (NFC).

    Raises:
        UploadRefused: it is empty or too long, holds a path, a control or a direction mark, or belongs to a device.
    """
    name = unicodedata.normalize("NFC", name)
    if not name.strip(" .") or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        raise UploadRefused("name", f"A file's name has 1 to {MAX_NAME_BYTES} bytes.")
    if _FORBIDDEN.search(name) or name.startswith((".", "~", "-")) or name != name.strip() or name[-1] == ".":
        raise UploadRefused("name", "The file's name holds characters that names of files cannot have.")
    # Cc, Cf (marks that turn the direction of writing and hide "exe" in "txt.exe"), Cs, Co, Cn, Zl, Zp
    if any(
        unicodedata.category(sign)[0] == "C" or unicodedata.category(sign) in {"Zl", "Zp"} for sign in name
    ):
        raise UploadRefused("name", "The file's name holds characters that cannot be seen.")
    if _RESERVED.fullmatch(name):
        raise UploadRefused("name", "This name belongs to a device. Rename the file.")
    return name


def check_upload(
    name: str,
    media_type: str | None,
    data: bytes,
    *,
    max_bytes: int,
    kinds: Collection[str] = frozenset(KINDS),
) -> FileKind:
    """What kind of file it is, by its name and its bytes alike.

    Args:
        name: as the sender calls it.
        media_type: as the sender says; None or ``application/octet-stream`` says nothing.
        data: the whole file.
        max_bytes: most bytes that are taken.
        kinds: extensions that are taken.

    Raises:
        UploadTooLarge: too many bytes, packed or unpacked.
        UploadRefused: the name is unsafe, the kind is not taken, or name, type and bytes contradict each other.
    """
    if len(data) > max_bytes:
        raise UploadTooLarge("size", f"The file is larger than {max_bytes} bytes.")
    if not data:
        raise UploadRefused("empty", "The file is empty.")
    extension = safe_file_name(name).rpartition(".")[2].lower() if "." in name else ""
    kind = KINDS.get(extension)
    if kind is None or extension not in kinds:
        raise UploadRefused("kind", f"These files are taken: {', '.join(sorted(kinds))}.")
    said = (media_type or "").partition(";")[0].strip().lower()
    if said not in {"", "application/octet-stream", kind.media_type} | kind.said_as:
        raise UploadRefused("kind", "The file's name and its type contradict each other.")
    if not kind.matches(data):
        raise UploadRefused("content", f"The file's content is not that of a .{extension} file.")
    if kind.office_part is not None:
        _check_office(data, kind.office_part)
    return kind


def check_zip(data: bytes) -> zipfile.ZipFile:
    """A ZIP that may be unpacked: the directory at its end is read, and no entry is.

    Raises:
        UploadTooLarge: it would unpack to too much: entries, bytes, or bytes for each packed one.
        UploadRefused: it is damaged or encrypted, or an entry's name leads out of the folder that it is unpacked to.
    """
    try:
        archive = zipfile.ZipFile(BytesIO(data))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, OverflowError) as error:
        raise UploadRefused("content", "The file is damaged.") from error
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise UploadTooLarge("bomb", f"The file holds more than {MAX_ENTRIES} files.")
    unpacked = packed = 0
    for entry in entries:
        if entry.flag_bits & 0x1:
            raise UploadRefused("encrypted", "The file is encrypted. Send it without a password.")
        _check_entry_name(entry.filename)
        unpacked += entry.file_size
        packed += entry.compress_size
        # One entry may pack well; a small entry's ratio says nothing.
        if entry.file_size > 1_000_000 and entry.file_size > MAX_RATIO * max(1, entry.compress_size):
            raise UploadTooLarge("bomb", "The file unpacks to far more than it is.")
    # Entries that share their packed bytes (overlapping files) are counted once by the file's own length.
    if unpacked > MAX_UNPACKED or packed > len(data) or unpacked > max(1_000_000, MAX_RATIO * len(data)):
        raise UploadTooLarge("bomb", "The file unpacks to far more than it is.")
    return archive


def _check_entry_name(name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name:
        raise UploadRefused("path", "A file inside leads out of its folder.")


def _check_office(data: bytes, part: str) -> None:
    names = check_zip(data).namelist()
    if "[Content_Types].xml" not in names or not any(name.startswith(part) for name in names):
        raise UploadRefused("content", "The file's content is not what its name says.")
    if any(name.lower().endswith("vbaproject.bin") for name in names):
        raise UploadRefused("macros", "The file holds macros. Save it without them.")


def content_disposition(name: str) -> str:
    """Content-Disposition of a download (RFC 6266): an ASCII name for old readers, the real one by RFC 8187."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r'[^\x20-\x7e]|["\\%;]', "_", plain).strip() or "download"
    if plain.startswith("."):
        plain = f"download{plain}"
    encoded = quote(name.encode("utf-8", "replace"), safe=_ATTR_CHARS)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"


def download_headers(name: str) -> dict[str, str]:
    """Headers with which a stranger's file is handed out: saved and never shown, so that no page of ours runs it."""
    return {
        "content-disposition": content_disposition(name),
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "cache-control": "private, no-store",
    }
