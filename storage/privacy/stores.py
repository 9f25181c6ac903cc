# ruff: noqa: S608  # tables and columns come from the column registry
"""What holds data of customers outside the registry's tables, each with the same three questions: remove it, is anything left, and
what of it goes into an export (export.py asks for that).

Vectors are none of them: the index holds the business's own documents, which no contact is linked to. A document store that ever
links contacts needs an entry here.
"""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol
from uuid import UUID

import ormsgpack
from redis.asyncio import Redis

from storage.files import FileStore
from storage.privacy.subjects import Scope, tables
from storage.repositories import privacy
from storage.sql import Session, text
from storage.tenancy import Database, TenantContext, rowcount

VECTORS = "The vector index holds the business's own documents only; no contact is linked to one."
_BLOB = "checkpoint_blobs.blob"


class Store(Protocol):
    """A place where somebody's data lies. Each call may be repeated after a crash."""

    name: str

    async def erase(self, context: TenantContext, scope: Scope, keys: Sequence[UUID]) -> int:
        """Remove what is there; how much that was.

        Args:
            keys: data keys that were destroyed: whatever else lies under them goes too.
        """

    async def left(self, context: TenantContext, scope: Scope) -> int:
        """How much is still there."""


class Checkpoints:
    """LangGraph's tables; their threads are named ``<tenant>:<thread>``."""

    name = "checkpoints"

    def __init__(self, database: Database) -> None:
        self._database = database

    async def erase(self, context: TenantContext, scope: Scope, keys: Sequence[UUID]) -> int:
        async with self._database.tenant_session(context) as session:
            return await delete_checkpoints(session, context, scope.threads)

    async def left(self, context: TenantContext, scope: Scope) -> int:
        async with self._database.tenant_session(context) as session:
            return await count_checkpoints(session, context, scope.threads)


class Files:
    """Attachments, and exports of the person that were made before."""

    name = "files"

    def __init__(self, database: Database, files: FileStore) -> None:
        self._database = database
        self._files = files

    async def erase(self, context: TenantContext, scope: Scope, keys: Sequence[UUID]) -> int:
        known = await self._known(context, scope)
        orphans = {file_id for key_id in keys for file_id in await self._files.sealed_under(context, key_id)}
        for file_id in known | orphans:
            await self._files.delete(context, file_id)
        if scope.contact_id is not None:
            async with self._database.tenant_session(context) as session:
                await privacy.forget_files_of(session, scope.contact_id)
        return len(known | orphans)

    async def left(self, context: TenantContext, scope: Scope) -> int:
        """Of those whose rows are still there; after the rows are gone this cannot be more than zero."""
        return len(await self._known(context, scope))

    async def _known(self, context: TenantContext, scope: Scope) -> set[UUID]:
        async with self._database.tenant_session(context) as session:
            found = set(await file_ids(session, scope))
            if scope.contact_id is not None:
                found |= set(await privacy.files_of(session, scope.contact_id))
        return found


class RedisKeys:
    """Whatever a thread has in Redis under its tenant's prefix; hints, which would end by themselves."""

    name = "redis"

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def erase(self, context: TenantContext, scope: Scope, keys: Sequence[UUID]) -> int:
        removed = 0
        async for name in self._names(context, scope):
            removed += await self._redis.delete(name)
        return removed

    async def left(self, context: TenantContext, scope: Scope) -> int:
        return sum([1 async for _ in self._names(context, scope)])

    async def _names(self, context: TenantContext, scope: Scope) -> AsyncIterator[bytes]:
        ids = [str(ident).encode() for ident in (*scope.threads, scope.contact_id) if ident is not None]
        if not ids:
            return
        async for name in self._redis.scan_iter(match=f"{context.redis_key('')}*", count=1000):
            if any(ident in name for ident in ids):
                yield name


class StoredAnswers:
    """Answers kept for requests that a client may repeat (Idempotency-Key). They lie under the tenant's key, and nobody can tell
    whom they name: all that were given until now are forgotten. The requests themselves stay known, so none is done twice.
    """

    name = "stored_answers"

    def __init__(self, database: Database) -> None:
        self._database = database

    async def erase(self, context: TenantContext, scope: Scope, keys: Sequence[UUID]) -> int:
        async with self._database.tenant_session(context) as session:
            result = await session.execute(
                text("""
                update idempotency_keys set state = 'committed', body = null, headers = '{}', status = null
                 where state = 'done' and body is not null
                """)
            )
        return rowcount(result)

    async def left(self, context: TenantContext, scope: Scope) -> int:
        """Nothing that could be told apart: answers of requests that came after the erasure do not know the person."""
        return 0


async def file_ids(session: Session, scope: Scope) -> list[UUID]:
    """Files that rows of the scope name, by every table whose registered columns say that it has files."""
    found: list[UUID] = []
    for table in tables():
        if table.holds_files:
            found += await session.scalars(
                text(f"select id from {table.name} where {table.where} order by id"),
                scope.parameters,
            )
    return found


def _checkpoint_tables() -> tuple[str, ...]:
    # Here and not above: the module brings Alembic and LangGraph along, which the API does not need.
    from storage.migrate import CHECKPOINT_TABLES

    return CHECKPOINT_TABLES


async def delete_checkpoints(session: Session, context: TenantContext, threads: Sequence[UUID]) -> int:
    """Remove what LangGraph remembers of threads; rows."""
    names, removed = [context.checkpoint_thread(thread) for thread in threads], 0
    for table in _checkpoint_tables():
        removed += rowcount(
            await session.execute(
                text(f"delete from {table} where thread_id = any(:names)"),
                {"names": names},
            )
        )
    return removed


async def count_checkpoints(session: Session, context: TenantContext, threads: Sequence[UUID]) -> int:
    """Rows that ``delete_checkpoints`` would remove."""
    names = [context.checkpoint_thread(thread) for thread in threads]
    counts = [
        await session.scalar(
            text(f"select count(*) from {table} where thread_id = any(:names)"),
            {"names": names},
        )
        for table in _checkpoint_tables()
    ]
    return sum(counts)


async def checkpoint_content(
    session: Session, context: TenantContext, thread_id: UUID
) -> list[dict[str, Any]]:
    """The latest memory of a conversation, in plain values."""
    rows = await session.execute(
        text("""
        select channel, version, type, blob from checkpoint_blobs where thread_id = :name and blob is not null
         order by channel, version
        """),
        {"name": context.checkpoint_thread(thread_id)},
    )
    found: list[dict[str, Any]] = []
    for row in rows.all():
        plain = await session.cipher.open_bytes(_BLOB, thread_id, bytes(row.blob))
        if plain is not None:
            kind = row.type.partition("+")[0]  # "msgpack+v1": what it was before it was sealed
            found.append(
                {
                    "thread_id": thread_id,
                    "channel": row.channel,
                    "version": row.version,
                    "value": _value(kind, plain),
                }
            )
    return found


def _value(kind: str, plain: bytes) -> Any:
    match kind:
        case "msgpack":
            return _unpacked(plain)
        case "json":
            return json.loads(plain)
        case "null":
            return None
    return plain.decode(errors="replace")


def _unpacked(plain: bytes) -> Any:
    # LangGraph packs objects as extensions that are packed themselves: (module, class, fields, …). Nothing is imported for
    # them: the fields are what the person is to see.
    return ormsgpack.unpackb(
        plain,
        ext_hook=lambda _code, inner: _unpacked(bytes(inner)),
        option=ormsgpack.OPT_NON_STR_KEYS,
    )
