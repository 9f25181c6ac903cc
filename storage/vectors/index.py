"""Chroma as an index that can be thrown away: it holds ids and vectors, PostgreSQL holds the truth.

Only this module opens Chroma. Its tenants are names, not walls, and it has no authentication, so: loopback or
a private network; the collection and the filter are built from a TenantContext; each hit is compared with the
tenant again, and counts only after a join in SQL.

Collections are shared by hash (a collection for each tenant would exhaust the server's file descriptors at a
few hundred tenants).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import chromadb
import httpx
import numpy as np
import structlog
from chromadb.api import AsyncClientAPI
from chromadb.api.models.AsyncCollection import AsyncCollection
from chromadb.config import Settings
from chromadb.errors import ChromaError, NotFoundError

from storage.errors import UpstreamUnavailable
from storage.tenancy import TenantContext

log = structlog.get_logger(__name__)

SHARDS = 64
BATCH = 250


@dataclass(frozen=True)
class Hit:
    """A chunk near the question; ``score`` is the cosine similarity, 1 is identical."""

    chunk_id: UUID
    score: float


class VectorIndex:
    """Vectors of all tenants' chunks under one embedding model.

    Args:
        url: ``http://host:port`` of ``chroma run``.
        model_id: of the embedder; part of the collection's name, so that vectors of two models never meet.
    """

    def __init__(self, url: str, model_id: str) -> None:
        self._url = httpx.URL(url)
        self._model_id = model_id
        self._client: AsyncClientAPI | None = None
        self._collections: dict[str, AsyncCollection] = {}

    def _name(self, tenant_id: UUID) -> str:
        # Not Python's hash(): it differs from process to process.
        shard = int.from_bytes(hashlib.sha256(tenant_id.bytes).digest()[:4], "big") % SHARDS
        return f"kb-{self._model_id}-{shard:02d}"

    async def upsert(
        self, context: TenantContext, document_id: UUID, chunk_ids: Sequence[UUID], vectors: np.ndarray
    ) -> None:
        """Put a document's chunks into the index; again is harmless.

        Raises:
            UpstreamUnavailable: Chroma does not answer.
        """
        metadata: dict[str, Any] = {"tenant": str(context.tenant_id), "document": str(document_id)}
        for start in range(0, len(chunk_ids), BATCH):
            part = chunk_ids[start : start + BATCH]
            await self._call(
                context,
                lambda collection, part=part, start=start: collection.upsert(
                    ids=[str(chunk_id) for chunk_id in part],
                    embeddings=vectors[start : start + BATCH],
                    metadatas=[metadata] * len(part),
                ),
            )

    async def query(self, context: TenantContext, vector: np.ndarray, limit: int) -> list[Hit]:
        """The tenant's nearest chunks, best first.

        Raises:
            UpstreamUnavailable: Chroma does not answer.
        """
        tenant = str(context.tenant_id)
        found = await self._call(
            context,
            lambda collection: collection.query(
                query_embeddings=[vector],
                n_results=limit,
                where={"tenant": tenant},
                include=["distances", "metadatas"],
            ),
        )
        hits = []
        for chunk_id, distance, metadata in zip(
            found["ids"][0], found["distances"][0], found["metadatas"][0], strict=True
        ):
            if metadata["tenant"] != tenant:
                log.error(
                    "foreign_vector_hit", chunk_id=chunk_id
                )  # the filter failed: dropped here, and would be dropped by SQL again
                continue
            hits.append(Hit(UUID(chunk_id), 1.0 - float(distance)))
        return hits

    async def delete_document(self, context: TenantContext, document_id: UUID) -> None:
        """Take a document's chunks out.

        Raises:
            UpstreamUnavailable: Chroma does not answer; the chunks cannot be cited any more all the same.
        """
        where: dict[str, Any] = {"$and": [{"tenant": str(context.tenant_id)}, {"document": str(document_id)}]}
        await self._call(context, lambda collection: collection.delete(where=where))

    async def clear(self, context: TenantContext) -> None:
        """Take all of the tenant's chunks out, before a rebuild."""
        await self._call(
            context, lambda collection: collection.delete(where={"tenant": str(context.tenant_id)})
        )

    async def ping(self) -> None:
        async with httpx.AsyncClient(timeout=2) as client:
            (await client.get(self._url.join("/api/v2/heartbeat"))).raise_for_status()

    async def _call(self, context: TenantContext, act: Any) -> Any:
        name = self._name(context.tenant_id)
        for attempt in (1, 2):
            try:
                return await act(await self._collection(name))
            except NotFoundError:
                # Somebody threw the index away (that is allowed): make the collection anew and go on.
                self._collections.pop(name, None)
                if attempt == 2:
                    raise
            except (httpx.HTTPError, ChromaError, ValueError, OSError) as error:
                self._client, self._collections = None, {}
                raise UpstreamUnavailable("The vector index does not answer.") from error
        raise AssertionError("unreachable")

    async def _collection(self, name: str) -> AsyncCollection:
        if self._client is None:
            settings = Settings(anonymized_telemetry=False)
            self._client = await chromadb.AsyncHttpClient(
                host=self._url.host, port=self._url.port or 8000, settings=settings
            )
        if name not in self._collections:
            # Without embedding_function=None Chroma would download a model.
            self._collections[name] = await self._client.get_or_create_collection(
                name, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
            )
        return self._collections[name]
