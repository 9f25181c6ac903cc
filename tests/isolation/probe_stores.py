"""Probes of what is no table and no route: the index, Redis, files, sealed values, data keys, checkpoints, tools."""

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from chromadb.api.models.AsyncCollection import AsyncCollection
from redis.asyncio import Redis

from agents.supervisor.pii import Masker
from agents.toolbox import VaultPrivacy
from graphs.checkpoints import TenantSaver, make_checkpoint_pool
from graphs.runner import AGENT_SCOPES
from server.channels.widget.send import room
from server.deps import Parts
from storage.crypto.cipher import Subject
from storage.errors import AppError
from storage.journal import TurnJournal
from storage.models.all import Base
from storage.placeholders import Vault
from storage.registry import sealed_columns
from storage.repositories import claims
from storage.tenancy import TenantContext
from tests.isolation.full import TENANT_TABLES, FullTenant
from tests.isolation.tally import Tally
from tests.isolation.walk import told
from tests.support.world import make_visitor
from tools.knowledge import service
from tools.sdk.runner import Conversation, ToolRunner


async def probe_vectors(parts: Parts, tally: Tally, a: FullTenant, b: FullTenant) -> None:
    """Questions of B about A's document: with the index as it is, and with its filter gone."""
    theirs = {str(one) for one in a.ids["chunks"]}
    database, embedder, vectors = parts.resources.database, parts.resources.embedder, parts.resources.vectors
    words = (a.canary, "price", "costs 480 euros", "ready on Monday", a.email, "offer", "Montag", "the")
    query: Callable[..., Any] = AsyncCollection.query

    async def unfiltered(collection: AsyncCollection, **given: Any) -> Any:
        return await query(collection, **{**given, "where": None})

    for filtered in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AsyncCollection, "query", query if filtered else unfiltered)
            for word in words:
                for limit in (1, 5, 100):
                    asked = await embedder.embed_query(f"What about {word}?")
                    hits = {str(hit.chunk_id) for hit in await vectors.query(b.tenant.context, asked, limit)}
                    tally.judge(not hits & theirs, "vectors", word, limit, filtered)
                found = await service.search(
                    b.tenant.context,
                    lambda: database.tenant_session(b.tenant.context),
                    embedder,
                    vectors,
                    f"What about {word}?",
                    50,
                )
                shown = {str(passage.chunk_id) for passage, _ in found}
                tally.judge(not shown & theirs, "vectors: search", word, filtered)


async def probe_redis(parts: Parts, tally: Tally, a: FullTenant, b: FullTenant) -> None:
    """No name in Redis that B's code can build is one of A's, whatever B puts into it; and nothing that is kept there is content."""
    mine, theirs = b.tenant.context, a.tenant.context
    for ident in sorted(a.every_id):
        for parts_of in (
            (ident,),
            ("thread", ident),
            ("rl", "login", "user", ident),
            (f"..:{theirs.tenant_id}:thread", ident),
        ):
            tally.judge(
                mine.redis_key(*parts_of) != theirs.redis_key(*parts_of), "redis: names", str(parts_of)
            )
        tally.judge(room(mine, ident) != room(theirs, ident), "redis: room", str(ident))
        tally.judge(
            mine.checkpoint_thread(ident) != theirs.checkpoint_thread(ident), "redis: checkpoint", str(ident)
        )
    heard: list[dict[str, Any]] = []

    async def listen(event: dict[str, Any]) -> None:
        heard.append(event)

    await parts.bus.subscribe(room(mine, a.visitor.thread_id), listen)
    try:
        for number in range(20):
            await parts.bus.publish(
                room(theirs, a.visitor.thread_id), {"t": "draft", "text": f"{a.canary} {number}"}
            )
        await asyncio.sleep(0.2)
        for number in range(20):
            tally.judge(not heard, "redis: heard", number)
    finally:
        await parts.bus.unsubscribe(room(mine, a.visitor.thread_id), listen)
    async with Redis.from_url(parts.storage.redis_url or "") as redis:
        async for key in redis.scan_iter(count=500):
            value = b""
            with suppress(Exception):
                value = await redis.dump(key) or b""
            tally.judge(
                a.canary.encode() not in value and a.canary.encode() not in key, "redis: content", key
            )


async def probe_sealed(
    parts: Parts, admin: psycopg.Connection[Any], tally: Tally, a: FullTenant, b: FullTenant
) -> None:
    """Each sealed value of A's, as it lies in its table, with B's cipher: under its own name and under others."""
    for table, column in sealed_columns():
        if table not in TENANT_TABLES:
            continue
        key = "id" if "id" in Base.metadata.tables[table].columns else "turn_id"
        rows = admin.execute(
            f"select {key}, {column} from {table} where tenant_id = %s and {column} is not null limit 50".encode(),
            (a.tenant.info.id,),
        ).fetchall()
        for ident, blob in rows:
            for name in (f"{table}.{column}", "contacts.name", "inbox_messages.text"):
                tally.judge(
                    await _closed(parts, b, name, ident, blob), "sealed", table, column, str(ident), name
                )
    keys = admin.execute("select id from data_keys where tenant_id = %s", (a.tenant.info.id,)).fetchall()
    for (key_id,) in keys:
        async with parts.database.tenant_session(b.tenant.context) as session:
            try:
                held = await session.cipher.local_of(key_id) is None
            except AppError:
                held = True
        tally.judge(held, "data keys", str(key_id))


async def _closed(parts: Parts, b: FullTenant, name: str, ident: UUID, blob: Any) -> bool:
    try:
        async with parts.database.tenant_session(b.tenant.context) as session:
            return await session.cipher.open_bytes(name, ident, bytes(blob)) is None
    except AppError:
        return True


async def probe_files(parts: Parts, tally: Tally, a: FullTenant, b: FullTenant) -> None:
    """By each id of A's a file is looked for in B's name; and A's own file, put into B's folder, does not open."""
    for ident in sorted({*a.every_id, a.file_id}):
        tally.judge(not await _readable(parts, b, ident), "files: read", str(ident))
        tally.judge(not await parts.files.delete(b.tenant.context, ident), "files: delete", str(ident))
    folder = parts.storage.data_dir / "files"
    for stored in (folder / str(a.tenant.info.id)).glob("*/*"):
        copy = folder / str(b.tenant.info.id) / stored.parent.name / stored.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(stored.read_bytes())
        tally.judge(not await _readable(parts, b, UUID(stored.name)), "files: moved", stored.name)
        copy.unlink()


async def _readable(parts: Parts, b: FullTenant, ident: UUID) -> bool:
    try:
        async with parts.database.tenant_session(b.tenant.context) as session:
            content = await parts.files.read(b.tenant.context, session.cipher, ident)
            return content is not None and bool([piece async for piece in content])
    except AppError:
        return False


async def probe_checkpoints(parts: Parts, tally: Tally, a: FullTenant, b: FullTenant) -> None:
    """The saver of B's conversation, asked for A's."""
    pool = make_checkpoint_pool(parts.storage.role_urls().app, size=1)
    await pool.open()
    try:
        async with parts.database.tenant_session(b.tenant.context) as session:
            sealer = await session.cipher.local(Subject.thread(b.visitor.thread_id))
        saver = TenantSaver(pool, b.tenant.info.id, b.visitor.thread_id, sealer)
        for ident in sorted(a.every_id):
            for name in (f"{a.tenant.info.id}:{ident}", f"{b.tenant.info.id}:{ident}", str(ident)):
                config: Any = {"configurable": {"thread_id": name, "checkpoint_ns": ""}}
                try:
                    held = await saver.aget_tuple(config) is None
                except (AppError, psycopg.Error):
                    held = True
                tally.judge(held, "checkpoints", name)
    finally:
        await pool.close()


async def probe_tools(parts: Parts, tally: Tally, a: FullTenant, b: FullTenant) -> None:
    """What B's visitor could make a model ask for: each tool, with A's address, words and ids in each text field."""
    needles = [a.email, a.canary, f"What does the {a.canary} cost?", *map(str, sorted(a.every_id))]
    for name, tool in parts.registry.tools.items():
        fields = list(tool.args.model_fields)
        for field in fields:
            for needle in needles if name.startswith("crm_find") else needles[:40]:
                args: dict[str, Any] = {
                    "subject": "call me",
                    "text": "call me",
                    "query": "price",
                    field: needle,
                }
                given = {key: value for key, value in args.items() if key in fields}
                async with conversation(parts, b) as runner:
                    try:
                        result = await runner.call(name, given, allowed=frozenset(parts.registry.tools))
                    except (AppError, ValueError):
                        result = {}
                shown = set(told(a.every_id, a.canary, str(result).encode())) - {
                    needle,
                    a.canary if a.canary in needle else "",
                }
                tally.judge(not shown, "tools", name, field, needle)


@asynccontextmanager
async def conversation(parts: Parts, full: FullTenant) -> Any:
    """The tool runner of a turn in work in a new conversation of this tenant."""
    visitor = await make_visitor(parts, full.tenant)
    await visitor.write("hello")
    tenant = TenantContext(full.tenant.info.id, actor="agent:secretary", scopes=AGENT_SCOPES)
    fence = uuid4()
    async with parts.database.tenant_session(tenant) as session:
        claim = await claims.claim(session, visitor.thread_id, fence=fence, lease_seconds=60)
    assert claim is not None
    journal = TurnJournal(
        parts.database, tenant, turn_id=claim.turn_id, thread_id=claim.thread_id, fence=fence
    )
    where = Conversation(tenant, claim.thread_id, claim.turn_id, datetime.now(UTC), "en")
    yield ToolRunner(parts.registry, journal, parts.resources, VaultPrivacy(Vault(), Masker()), where)
