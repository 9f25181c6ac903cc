"""Waking workers. The rows in PostgreSQL are the queue of record; arq only says that there is something to
look at.

Jobs carry ids, as JSON (arq's default is pickle: whoever can write to Redis could run code). Each wake-up has
a job id of its own: arq refuses an id that is still known, and a refused wake-up would cost a second until
the sweep comes by.
"""

import asyncio
import json
from typing import Any
from uuid import UUID

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from storage.redis import make_pool

log = structlog.get_logger(__name__)

QUEUE_NAME = "secretary:wake"


def serialize_job(job: dict[str, Any]) -> bytes:
    return json.dumps(job).encode()


def deserialize_job(data: bytes) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(data)
    return loaded


class Queue:
    """Wakes workers for threads and documents. Best effort: what is not woken is found by the sweep."""

    def __init__(self, url: str) -> None:
        self._redis = ArqRedis(
            pool_or_conn=make_pool(url),
            job_serializer=serialize_job,
            job_deserializer=deserialize_job,
            default_queue_name=QUEUE_NAME,
        )

    async def wake_inbox(self, tenant_id: UUID, thread_id: UUID) -> None:
        """A thread has a message to answer."""
        await self._wake("drain_inbox", tenant_id, thread_id)

    async def wake_outbox(self, tenant_id: UUID, thread_id: UUID) -> None:
        """A thread has something to send."""
        await self._wake("drain_outbox", tenant_id, thread_id)

    async def wake_ingest(self, tenant_id: UUID, document_id: UUID) -> None:
        """A document waits for its embeddings or its place in the index."""
        await self._wake("ingest_document", tenant_id, document_id)

    async def _wake(self, job: str, tenant_id: UUID, row_id: UUID) -> None:
        try:
            async with asyncio.timeout(0.5):
                await self._redis.enqueue_job(job, str(tenant_id), str(row_id))
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("wake_failed", job=job, error=type(error).__name__)

    async def aclose(self) -> None:
        await self._redis.aclose(close_connection_pool=True)
