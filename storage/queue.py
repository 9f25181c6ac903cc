"""Waking workers. The rows in PostgreSQL are the queue of record; Redis only says that there is something to look at.

A wake-up is an arq job. arq polls (0.02 s), so a message would wait 10 ms in the middle for nothing; therefore the wake-up for a message is
also pushed to a list on which workers block, and the arq job that comes later finds the work begun (ARCHITECTURE.md, D-007).

Jobs carry ids, as JSON (arq's default is pickle: whoever can write to Redis could run code). Each wake-up has a job id of its own: arq
refuses an id that is still known, and a refused wake-up would cost a second until the sweep comes by.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import structlog
from arq.connections import ArqRedis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from storage.redis import make_pool

log = structlog.get_logger(__name__)

QUEUE_NAME = "secretary:wake"
NOW_LIST = "secretary:now"
NOW_LENGTH = 10_000  # while no worker lives the list must not grow for ever; the sweep finds what was cut off


def serialize_job(job: dict[str, Any]) -> bytes:
    return json.dumps(job).encode()


def deserialize_job(data: bytes) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(data)
    return loaded


def make_arq(url: str) -> ArqRedis:
    """Arq's connection with our queue, pool and serialiser; the same for those who wake and those who are woken."""
    return ArqRedis(
        pool_or_conn=make_pool(url),
        job_serializer=serialize_job,
        job_deserializer=deserialize_job,
        default_queue_name=QUEUE_NAME,
    )


class Queue:
    """Wakes workers for threads and documents. Best effort: what is not woken is found by the sweep."""

    def __init__(self, url: str) -> None:
        self._redis = make_arq(url)

    async def wake_inbox(self, tenant_id: UUID, thread_id: UUID) -> None:
        """A thread has a message to answer."""
        with suppress(RedisError, OSError, TimeoutError):  # the arq job below logs what is wrong
            async with asyncio.timeout(0.5), self._redis.pipeline(transaction=False) as pipe:
                pipe.lpush(NOW_LIST, f"{tenant_id} {thread_id}")
                pipe.ltrim(NOW_LIST, 0, NOW_LENGTH - 1)
                await pipe.execute()
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


async def take_now(url: str, take: Callable[[UUID, UUID], None]) -> None:
    """Block on the list of fresh messages and hand on (tenant, thread), until cancelled; reconnects when Redis went away."""
    while True:
        # No read timeout: blocking is the point. Keepalive finds a dead peer.
        redis = Redis.from_url(url, socket_connect_timeout=2, socket_keepalive=True)
        try:
            while True:
                popped = await redis.brpop([NOW_LIST], timeout=5)
                if popped is not None:
                    tenant_id, _, thread_id = popped[1].decode().partition(" ")
                    take(UUID(tenant_id), UUID(thread_id))
        except (RedisError, OSError) as error:
            log.warning("now_list_interrupted", error=type(error).__name__)
        finally:
            with suppress(RedisError, OSError):
                await redis.aclose()
        await asyncio.sleep(0.5)
