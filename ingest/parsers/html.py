"""Web pages: the main text as Markdown, without navigation and imprint."""

from __future__ import annotations

import trafilatura

from ingest.parsers.extract import Extracted
from ingest.parsers.normalise import clean


def extract(data: bytes) -> Extracted:
    """One page with the main text; headings, lists and tables in Markdown.

    Recall mode: a lost opening hour costs more than a menu entry too many. Works on the bytes only:
    trafilatura's own fetching follows redirects to anywhere.
    """
    text = trafilatura.extract(
        data, favor_recall=True, include_comments=False, include_tables=True, output_format="markdown"
    )
    metadata = trafilatura.extract_metadata(data)
    title = metadata.title if metadata is not None else None
    return Extracted([clean(text or "").strip()], title, f"trafilatura {trafilatura.__version__}")
