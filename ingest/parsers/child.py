"""The child process that parses one document: a hostile file may take it down, and nothing else.

The parent writes one JSON line (kind, filename, limits) and then the file to standard input; the child
answers with one JSON object on standard output. It has no environment, no network and limits on everything,
set before a parser is imported.
"""

from __future__ import annotations

import dataclasses
import json
import math
import resource
import sys
from pathlib import PurePosixPath
from typing import Any

from ingest.parsers.extract import Extracted
from ingest.parsers.model import CONTENT_TYPES, IngestError, Kind, ParseLimits

# The language model unpacks itself into a temporary file of 68 MB.
_MAX_FILE_BYTES = 128 << 20
_MAX_OPEN_FILES = 64
_MAX_TITLE = 200

# Audit events (https://docs.python.org/3/library/audit_events.html) that no parser has a reason for.
_FORBIDDEN = frozenset(
    {
        "socket.connect",
        "socket.bind",
        "socket.getaddrinfo",
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.fork",
    }
)


def confine(limits: ParseLimits) -> None:
    """Limits this process for good: memory, CPU, files, and what Python code may reach."""
    for what, amount in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, _MAX_FILE_BYTES),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (amount, amount))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds_max))
    sys.addaudithook(_refuse)


def _refuse(event: str, _: tuple[Any, ...]) -> None:
    if event in _FORBIDDEN:
        raise PermissionError(f"{event} is not allowed while a document is parsed")


def _allow_cpu(pages: int, limits: ParseLimits) -> None:
    wanted = math.ceil(limits.cpu_seconds + pages * limits.cpu_seconds_per_page)
    soft = min(wanted, limits.cpu_seconds_max)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, limits.cpu_seconds_max))


def _extract(kind: Kind, data: bytes, limits: ParseLimits) -> Extracted:
    # Each import stands in its branch: a text file needs neither pypdf nor lxml.
    if kind == "pdf":
        from ingest.parsers import pdf

        return pdf.extract(data, limits, lambda pages: _allow_cpu(pages, limits))
    if kind == "html":
        from ingest.parsers import html

        return html.extract(data)
    if kind == "markdown":
        from ingest.parsers import markdown

        return markdown.extract(data)
    from ingest.parsers import text

    return text.extract(data)


def _title(extracted: Extracted, filename: str) -> str:
    from ingest.parsers.normalise import clean

    stem = PurePosixPath(filename.replace("\\", "/")).stem
    own = " ".join(clean(extracted.title or "").split())
    # Word processors leave their file name, or the word for "no name", in the title field.
    if not own or own.lower() in {"untitled", "unbenannt"} or own.lower().endswith((".doc", ".docx", ".odt")):
        own = " ".join(clean(stem).replace("_", " ").split())
    return own[:_MAX_TITLE]


def parse_document(kind: Kind, data: bytes, filename: str, limits: ParseLimits) -> dict[str, Any]:
    """The answer for one document, in this process.

    Raises:
        IngestError: The document has one of the named faults.
    """
    extracted = _extract(kind, data, limits)
    if sum(len(page) for page in extracted.pages) > limits.max_chars:
        raise IngestError(
            "too_large",
            f"The document has more than {limits.max_chars} characters. Split it and upload the parts.",
        )
    if not any(character.isalnum() for page in extracted.pages for character in page):
        raise IngestError(
            "empty", "No text was found in the document. Check the original and upload it again."
        )
    from ingest.parsers.language import identify

    return {
        "pages": extracted.pages,
        "title": _title(extracted, filename),
        "language": identify("\n".join(extracted.pages)),
        "content_type": CONTENT_TYPES[kind],
        "parser": extracted.parser,
    }


def main() -> None:
    """Answers the request on standard input; the exit code is 0 unless the process broke."""
    request = json.loads(sys.stdin.buffer.readline())
    limits = ParseLimits(**request["limits"])
    confine(limits)
    data = sys.stdin.buffer.read()
    try:
        answer = parse_document(request["kind"], data, request["filename"], limits)
    except IngestError as error:
        answer = {"error": error.code, "message": error.message}
    except MemoryError:
        answer = {"error": "parse_crashed"}
    except Exception as error:  # a parser's bug is this document's fault state, named for the log by its type
        answer = {"error": "parse_failed", "cause": type(error).__name__}
    # Lone surrogates, which broken fonts produce, cannot be stored as UTF-8.
    raw = json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace")
    sys.stdout.buffer.write(raw)
    sys.stdout.buffer.flush()


def request_line(kind: Kind, filename: str, limits: ParseLimits) -> bytes:
    """The line that `main` reads first."""
    return (
        json.dumps({"kind": kind, "filename": filename, "limits": dataclasses.asdict(limits)}).encode()
        + b"\n"
    )
