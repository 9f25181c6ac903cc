"""Bringing documents to ``ready``: embeddings and their place in the index."""

from uuid import UUID

from ingest.pipeline import IngestPipeline
from storage.errors import NotFound
from storage.tenancy import TenantContext


class IngestJob:
    def __init__(self, pipeline: IngestPipeline) -> None:
        self._pipeline = pipeline

    async def process(self, tenant_id: UUID, document_id: UUID) -> None:
        """Bring a document as far as it can get; one that was deleted meanwhile is done."""
        try:
            await self._pipeline.process(TenantContext(tenant_id, actor="job:ingest"), document_id)
        except NotFound:
            return
