"""A file's bytes into pages of text: `parse` is the only way in.

Every file ends in a named state: pages with text, or an `IngestError` that tells the uploader what to do.
"""

from __future__ import annotations

from ingest.parsers.model import DEFAULT_LIMITS, ErrorCode, IngestError, Page, Parsed, ParseLimits
from ingest.parsers.process import run_child
from ingest.parsers.sniff import sniff

__all__ = ["DEFAULT_LIMITS", "ErrorCode", "IngestError", "Page", "ParseLimits", "Parsed", "parse"]


async def parse(data: bytes, filename: str, *, limits: ParseLimits = DEFAULT_LIMITS) -> Parsed:
    """Reads a PDF, web page, Markdown or text file in a confined child process.

    A call costs about a second and up to `limits.memory_bytes`: callers bound how many run at once.

    Args:
        data: The whole file. Callers that receive it from a network count bytes while streaming.
        filename: Its name; the ending has to agree with the bytes, the rest may become the title.
        limits: What the document may cost.

    Raises:
        IngestError: With the code encrypted, empty, needs_ocr, unsupported, too_large, parse_failed or
            parse_crashed.
    """
    if len(data) > limits.max_bytes:
        raise IngestError(
            "too_large",
            f"The file is larger than {limits.max_bytes >> 20} MB. Split it and upload the parts.",
        )
    answer = await run_child(sniff(data, filename), data, filename, limits)
    return Parsed(
        pages=[Page(number, text) for number, text in enumerate(answer["pages"], start=1)],
        title=answer["title"],
        language=answer["language"],
        content_type=answer["content_type"],
        parser=answer["parser"],
    )
