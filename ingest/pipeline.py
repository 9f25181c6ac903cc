"""A file becomes something that can be cited: parsed and stored, cut and embedded, indexed, ready.

``accept`` parses at once, so that the uploader sees what is wrong with the file; nothing is stored of a file
that cannot be read. The rest is done by ``process``, which may run twice, be killed anywhere, and is found
again by the sweep: the document's state says what is missing.
"""

import asyncio
import hashlib
from collections.abc import Callable
from uuid import UUID

import numpy as np
import structlog

from ingest.chunking import Chunk, chunk
from ingest.parsers import IngestError, Page, parse
from storage.errors import UpstreamUnavailable, ValidationFailed
from storage.queue import Queue
from storage.repositories import audit, knowledge
from storage.repositories.knowledge import NewChunk
from storage.tenancy import Database, TenantContext
from storage.vectors.embedder import Embedder
from storage.vectors.index import VectorIndex

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 8
CONCURRENT_PARSERS = 2  # each may take up to 1 GB
EMBED_BATCH = 16
Progress = Callable[[int, int], None]


class IngestPipeline:
    """Takes documents in for any tenant.

    Args:
        queue: woken after a document was accepted; None where the caller processes it itself.
    """

    def __init__(
        self, database: Database, embedder: Embedder, vectors: VectorIndex, queue: Queue | None = None
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._vectors = vectors
        self._queue = queue
        self._parsers = asyncio.Semaphore(CONCURRENT_PARSERS)

    async def accept(
        self, context: TenantContext, data: bytes, filename: str, *, source: str = "upload", wake: bool = True
    ) -> UUID:
        """Parse and store a file; the same bytes again are the same document.

        Args:
            wake: have a worker process it; False where the caller does so itself.

        Raises:
            ValidationFailed: it cannot be read; ``details["reason"]`` is the code (encrypted, needs_ocr,
                parse_failed, …).
        """
        try:
            async with self._parsers:
                parsed = await parse(data, filename)
        except IngestError as error:
            raise ValidationFailed(error.message, reason=error.code, field="file") from error
        fields = {
            "filename": filename,
            "title": parsed.title,
            "content_type": parsed.content_type,
            "language": parsed.language,
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
            "parser": parsed.parser,
        }
        async with self._database.tenant_session(context) as session:
            document_id, created = await knowledge.add_document(
                session,
                source=source,
                fields=fields,
                pages=[(page.number, page.text) for page in parsed.pages],
            )
            if created:
                await audit.record(session, context, "document.added", "document", document_id)
        if wake and self._queue is not None:
            await self._queue.wake_ingest(context.tenant_id, document_id)
        return document_id

    async def process(
        self, context: TenantContext, document_id: UUID, progress: Progress = lambda _done, _total: None
    ) -> str:
        """Bring a document as far as it can get; returns its state.

        Args:
            progress: called with (chunks embedded, chunks in all).

        Raises:
            NotFound: it was deleted meanwhile.
        """
        async with self._database.tenant_session(context) as session:
            document = await knowledge.get_document(session, document_id)
            if document["state"] not in ("extracted", "embedded"):
                return str(document["state"])
            attempts = await knowledge.note_attempt(session, document_id)
        try:
            if document["state"] == "extracted":
                await self._embed(context, document_id, document, progress)
            await self._index(context, document_id)
        except UpstreamUnavailable as error:
            async with self._database.tenant_session(context) as session:
                if attempts >= MAX_ATTEMPTS:
                    await knowledge.set_state(
                        session,
                        document_id,
                        "index_failed",
                        f"{error.message} Run `python -m server reindex`.",
                    )
            log.warning("ingest_waits", document=str(document_id), attempts=attempts, reason=error.message)
            return "embedded"
        return "ready"

    async def _embed(
        self, context: TenantContext, document_id: UUID, document: dict[str, object], progress: Progress
    ) -> None:
        async with self._database.tenant_session(context) as session:
            pages = [Page(number, text) for number, text in await knowledge.pages(session, document_id)]
        # A file without any text was refused by the parser; a chunk there is.
        chunks = await asyncio.to_thread(chunk, pages, self._embedder, title=str(document["title"]))
        parts = []
        for start in range(0, len(chunks), EMBED_BATCH):
            parts.append(
                await self._embedder.embed_documents(
                    [item.embed_text for item in chunks[start : start + EMBED_BATCH]]
                )
            )
            progress(min(start + EMBED_BATCH, len(chunks)), len(chunks))
        language = document["language"]
        async with self._database.tenant_session(context) as session:
            if await knowledge.lock_state(session, document_id) != "extracted":
                return  # somebody else was at it too, and was faster
            await knowledge.store_chunks(
                session,
                document_id,
                [_row(item) for item in chunks],
                np.concatenate(parts),
                language=str(language) if language else None,
                model=self._embedder.model_id,
            )

    async def _index(self, context: TenantContext, document_id: UUID) -> None:
        async with self._database.tenant_session(context) as session:
            ids, vectors = await knowledge.vectors_of(session, document_id, self._embedder.model_id)
        await self._vectors.upsert(context, document_id, ids, vectors)
        async with self._database.tenant_session(context) as session:
            await knowledge.set_state(session, document_id, "ready")

    async def remove(self, context: TenantContext, document_id: UUID) -> None:
        """Delete a document. At the commit it cannot be cited any more; the index follows, or is rebuilt
        without it.

        Raises:
            NotFound: missing, or another tenant's.
        """
        async with self._database.tenant_session(context) as session:
            await knowledge.delete_document(session, document_id)
            await audit.record(session, context, "document.deleted", "document", document_id)
        try:
            await self._vectors.delete_document(context, document_id)
        except UpstreamUnavailable:
            log.warning(
                "index_keeps_ghosts", document=str(document_id)
            )  # dropped by the join in SQL until the next rebuild

    async def rebuild(self, context: TenantContext, progress: Progress = lambda _done, _total: None) -> int:
        """Make the tenant's part of the index anew from PostgreSQL; returns the number of documents.

        Raises:
            UpstreamUnavailable: Chroma does not answer.
        """
        async with self._database.tenant_session(context) as session:
            failed = await knowledge.document_ids(session, "index_failed")
            documents = [*await knowledge.document_ids(session, "ready"), *failed]
        await self._vectors.clear(context)
        for done, document_id in enumerate(documents, start=1):
            await self._index(context, document_id)
            progress(done, len(documents))
        return len(documents)


def _row(item: Chunk) -> NewChunk:
    return NewChunk(
        ordinal=item.ordinal,
        page=item.page_from,
        char_start=item.char_start,
        char_end=item.char_end,
        text=item.text,
        heading_path=" › ".join(item.heading_path),
        tokens=item.tokens,
    )
