"""Search: dense and BM25 side by side, fused, then joined in SQL. What the join does not know does not exist."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from uuid import UUID

import numpy as np
import structlog

from storage.errors import UpstreamUnavailable, ValidationFailed
from storage.repositories import knowledge
from storage.repositories.knowledge import Passage
from storage.sql import Session
from storage.tenancy import TenantContext
from storage.vectors.embedder import Embedder
from storage.vectors.index import VectorIndex
from tools.knowledge.fusion import fuse

log = structlog.get_logger(__name__)

CANDIDATES = 100
SessionSource = Callable[[], AbstractAsyncContextManager[Session]]


async def search(
    context: TenantContext,
    session: SessionSource,
    embedder: Embedder,
    vectors: VectorIndex,
    query: str,
    limit: int = 5,
) -> list[tuple[Passage, float]]:
    """The passages that answer a question best: (passage, score 0 to 1), best first.

    Raises:
        ValidationFailed: the question is empty or the limit is out of range.
    """
    if not query.strip():
        raise ValidationFailed("The query is empty.", field="query")
    if not 1 <= limit <= 50:
        raise ValidationFailed("The limit goes from 1 to 50.", field="limit")
    # No transaction is open while the question is embedded: that takes milliseconds of a model.
    dense, lexical = await asyncio.gather(
        _dense(context, session, embedder, vectors, query), _lexical(session, query)
    )
    ranked = fuse(dense, lexical)
    async with session() as opened:
        known = await knowledge.passages(opened, [chunk for chunk, _ in ranked[: limit * 4]])
    if len(known) < len(ranked[: limit * 4]):
        log.info(
            "index_hits_dropped", dropped=len(ranked[: limit * 4]) - len(known)
        )  # deleted since, or not ready yet
    return [(known[chunk], score) for chunk, score in ranked if chunk in known][:limit]


async def _lexical(session: SessionSource, query: str) -> list[tuple[UUID, float]]:
    async with session() as opened:
        return await knowledge.bm25(opened, query, CANDIDATES)


async def _dense(
    context: TenantContext, session: SessionSource, embedder: Embedder, vectors: VectorIndex, query: str
) -> list[tuple[UUID, float]]:
    vector = await embedder.embed_query(query)
    try:
        return [(hit.chunk_id, hit.score) for hit in await vectors.query(context, vector, CANDIDATES)]
    except UpstreamUnavailable:
        log.warning("vector_index_down_exact_scan")
        async with session() as opened:
            ids, matrix = await knowledge.all_vectors(opened, embedder.model_id)
        if not ids:
            return []
        scores = matrix @ vector
        best = np.argsort(-scores)[:CANDIDATES]
        return [(ids[i], float(scores[i])) for i in best]
