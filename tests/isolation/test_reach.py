"""What is no table and no route: tools, the vector index, checkpoints, Redis."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from chromadb.api.models.AsyncCollection import AsyncCollection
from psycopg import errors

from agents.supervisor.pii import Masker
from agents.toolbox import VaultPrivacy
from graphs.checkpoints import Pool, TenantSaver, make_checkpoint_pool
from graphs.runner import AGENT_SCOPES
from server.channels.widget.send import room
from storage.crypto.cipher import Subject
from storage.crypto.envelope import Tampered
from storage.errors import UpstreamUnavailable
from storage.journal import TurnJournal
from storage.placeholders import Vault
from storage.redis import EventBus
from storage.repositories import claims, knowledge
from storage.tenancy import TenantContext
from storage.vectors.index import Hit, VectorIndex
from tests.isolation.conftest import TwoTenants
from tests.isolation.full import FullTenant, rows_of, snapshot
from tests.support.world import make_visitor
from tools.knowledge import service
from tools.sdk.runner import Conversation, ToolRunner

# What a customer of B could make the model ask for, to get at A's; a new tool must be given its line here.
ATTACKS: dict[str, Callable[[FullTenant], dict[str, Any]]] = {
    "crm_find_contact": lambda a: {"email": a.email},
    "crm_create_lead": lambda a: {"subject": "call me", "email": a.email},
    "crm_add_note": lambda a: {"text": "changed"},
    "knowledge_search": lambda a: {"query": f"What does the {a.canary} cost?"},
}


@asynccontextmanager
async def conversation(world: TwoTenants, full: FullTenant) -> AsyncIterator[ToolRunner]:
    """The tool runner of a turn in work in a new conversation of this tenant."""
    visitor = await make_visitor(world.parts, full.tenant)
    await visitor.write("hello")
    tenant = TenantContext(full.tenant.info.id, actor="agent:secretary", scopes=AGENT_SCOPES)
    fence = uuid4()
    async with world.parts.database.tenant_session(tenant) as session:
        claim = await claims.claim(session, visitor.thread_id, fence=fence, lease_seconds=60)
    assert claim is not None
    journal = TurnJournal(
        world.parts.database, tenant, turn_id=claim.turn_id, thread_id=claim.thread_id, fence=fence
    )
    where = Conversation(tenant, claim.thread_id, claim.turn_id, datetime.now(UTC), "en")
    privacy = VaultPrivacy(Vault(), Masker())
    yield ToolRunner(world.parts.registry, journal, world.parts.resources, privacy, where)


def test_every_tool_is_tried(world: TwoTenants) -> None:
    assert set(ATTACKS) == set(world.parts.registry.tools)


@pytest.mark.parametrize("name", list(ATTACKS))  # in this order: a lead would make the contact known to B
async def test_a_tool_reaches_nothing_of_another_tenant(world: TwoTenants, name: str) -> None:
    before = snapshot(world.admin, world.a.tenant.info.id)
    async with conversation(world, world.b) as runner:
        result = await runner.call(name, ATTACKS[name](world.a), allowed=frozenset(ATTACKS))
    # What was asked comes back in no answer but as B's own: no id, name or passage of A's.
    told = json.dumps(result)
    assert [str(one) for one in world.a.every_id if str(one) in told] == []
    assert world.a.canary not in told
    assert snapshot(world.admin, world.a.tenant.info.id) == before
    if name == "crm_find_contact":
        assert result == {"found": False, "name": None, "email": None, "phone": None, "company": None}
    if name == "crm_create_lead":
        assert result["ok"] is True
        leads = {row["id"]: row for row in rows_of(world.admin, "leads", world.b.tenant.info.id)}
        assert UUID(leads[result["lead_id"]]["contact_id"]) not in world.a.every_id
    if name == "knowledge_search":
        assert {UUID(found["ref"]) for found in result["passages"]} <= set(world.b.ids["chunks"])


async def test_its_own_conversation_finds_what_the_other_does_not(world: TwoTenants) -> None:
    """The answers above mean something: asked by A, the same tools find A's."""
    async with conversation(world, world.a) as runner:
        found = await runner.call("crm_find_contact", {"email": world.a.email}, allowed=frozenset(ATTACKS))
        cited = await runner.call(
            "knowledge_search", {"query": f"What does the {world.a.canary} cost?"}, allowed=frozenset(ATTACKS)
        )
    assert (found["found"], found["email"]) == (True, "⟦EMAIL_1⟧")
    assert UUID(cited["passages"][0]["ref"]) in world.a.ids["chunks"]


async def question(world: TwoTenants) -> Any:
    return await world.parts.resources.embedder.embed_query(f"What does the {world.a.canary} cost?")


async def test_the_index_shows_own_chunks_only(world: TwoTenants) -> None:
    vectors, asked = world.parts.resources.vectors, await question(world)
    mine = await vectors.query(world.a.tenant.context, asked, 100)
    assert {hit.chunk_id for hit in mine} == set(chunk_ids(world.a, world))
    theirs = await vectors.query(world.b.tenant.context, asked, 100)
    assert {hit.chunk_id for hit in theirs} == set(chunk_ids(world.b, world))


def chunk_ids(full: FullTenant, world: TwoTenants) -> list[UUID]:
    return [UUID(row["id"]) for row in rows_of(world.admin, "chunks", full.tenant.info.id)]


async def test_a_broken_filter_is_noticed_and_shows_nothing(
    world: TwoTenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = await question(world)
    told: list[set[str]] = []
    query: Callable[..., Any] = AsyncCollection.query

    async def unfiltered(collection: AsyncCollection, **given: Any) -> Any:
        found = await query(collection, **{**given, "where": None})
        told.append({entry["tenant"] for entry in found["metadatas"][0]})
        return found

    monkeypatch.setattr(AsyncCollection, "query", unfiltered)
    hits = await world.parts.resources.vectors.query(world.b.tenant.context, asked, 100)
    (seen,) = told
    assert {str(world.a.tenant.info.id), str(world.b.tenant.info.id)} <= seen  # Chroma did tell
    assert {hit.chunk_id for hit in hits} == set(chunk_ids(world.b, world))


async def test_a_foreign_hit_does_not_survive_the_join(
    world: TwoTenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the index and its own check both wrong: PostgreSQL does not know these chunks."""
    foreign = chunk_ids(world.a, world)

    async def lying(index: VectorIndex, context: TenantContext, vector: Any, limit: int) -> list[Hit]:
        return [Hit(chunk, 0.99) for chunk in foreign]

    monkeypatch.setattr(VectorIndex, "query", lying)
    text = f"What does the {world.a.canary} cost?"
    own = await search(world, world.a, text)
    assert own
    assert own <= set(foreign)
    assert not await search(world, world.b, text) & set(foreign)
    async with world.parts.database.tenant_session(world.b.tenant.context) as session:
        assert await knowledge.passages(session, foreign) == {}


async def search(world: TwoTenants, full: FullTenant, text: str) -> set[UUID]:
    """The chunks that a search shows this tenant."""
    resources, database = world.parts.resources, world.parts.database
    found = await service.search(
        full.tenant.context,
        lambda: database.tenant_session(full.tenant.context),
        resources.embedder,
        resources.vectors,
        text,
        50,
    )
    return {passage.chunk_id for passage, _ in found}


async def test_without_the_index_the_scan_sees_own_chunks_only(
    world: TwoTenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(index: VectorIndex, context: TenantContext, vector: Any, limit: int) -> list[Hit]:
        raise UpstreamUnavailable("down")

    monkeypatch.setattr(VectorIndex, "query", down)
    text = f"What does the {world.a.canary} cost?"
    for full in (world.a, world.b):
        shown = await search(world, full, text)
        assert shown
        assert shown <= set(chunk_ids(full, world))


async def test_deleting_by_a_foreign_id_leaves_the_index_alone(world: TwoTenants) -> None:
    vectors, asked = world.parts.resources.vectors, await question(world)
    await vectors.delete_document(world.b.tenant.context, world.a.document_id)
    assert {hit.chunk_id for hit in await vectors.query(world.a.tenant.context, asked, 100)} == set(
        chunk_ids(world.a, world)
    )


@pytest.fixture
async def pool(world: TwoTenants) -> AsyncIterator[Pool]:
    opened = make_checkpoint_pool(world.storage.role_urls().app, size=1)  # all on the same connection
    await opened.open()
    yield opened
    await opened.close()


async def saver_of(world: TwoTenants, pool: Pool, full: FullTenant) -> TenantSaver:
    """The checkpoints of a tenant's visitor, with their own key."""
    async with world.parts.database.tenant_session(full.tenant.context) as session:
        sealer = await session.cipher.local(Subject.thread(full.visitor.thread_id))
    return TenantSaver(pool, full.tenant.info.id, full.visitor.thread_id, sealer)


async def test_a_checkpoint_is_read_and_written_by_its_tenant_only(world: TwoTenants, pool: Pool) -> None:
    mine = world.a.tenant.context.checkpoint_thread(world.a.visitor.thread_id)
    config: Any = {"configurable": {"thread_id": mine, "checkpoint_ns": ""}}
    owner, other = await saver_of(world, pool, world.a), await saver_of(world, pool, world.b)
    before = snapshot(world.admin, world.a.tenant.info.id)
    kept = await owner.aget_tuple(config)
    assert kept is not None
    assert kept.pending_writes
    assert await other.aget_tuple(config) is None
    assert await other.aget_tuple(kept.config) is None  # by the checkpoint's own id too
    assert [one async for one in other.alist(config)] == []
    own: Any = {
        "configurable": {"thread_id": world.b.tenant.context.checkpoint_thread(world.b.visitor.thread_id)}
    }
    assert await other.aget_tuple(own) is not None
    # Among all that B's session sees there is nothing of A; B's own other threads have keys of their own.
    with pytest.raises(Tampered):
        _ = [one async for one in other.alist(None)]
    with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
        await other.aput(config, {**kept.checkpoint, "id": str(uuid4())}, kept.metadata, {})
    with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
        await other.aput_writes(kept.config, [("approval", "given")], task_id=str(uuid4()))
    await other.adelete_thread(mine)
    assert snapshot(world.admin, world.a.tenant.info.id) == before
    assert (await owner.aget_tuple(config)) == kept


async def test_the_pool_keeps_no_tenant(world: TwoTenants, pool: Pool) -> None:
    saver = await saver_of(world, pool, world.a)
    await saver.aget_tuple({"configurable": {"thread_id": "x"}})
    async with pool.connection() as connection:
        row = await (await connection.execute("select count(*) as seen from checkpoints")).fetchone()
    assert row == {"seen": 0}


def test_two_tenants_names_in_redis_differ(world: TwoTenants) -> None:
    a, b, thread = world.a.tenant.context, world.b.tenant.context, uuid4()
    assert room(a, thread) == f"t:{a.tenant_id}:thread:{thread}"
    assert room(a, thread) != room(b, thread)
    assert a.checkpoint_thread(thread) != b.checkpoint_thread(thread)


async def test_a_room_is_heard_by_its_tenant_only(world: TwoTenants) -> None:
    thread = world.a.visitor.thread_id
    heard: dict[str, list[dict[str, Any]]] = {"a": [], "b": []}
    arrived = asyncio.Event()

    async def for_a(event: dict[str, Any]) -> None:
        heard["a"].append(event)
        if event["t"] == "last":
            arrived.set()

    async def for_b(event: dict[str, Any]) -> None:
        heard["b"].append(event)

    bus = EventBus(world.storage.redis_url or "")
    rooms = room(world.a.tenant.context, thread), room(world.b.tenant.context, thread)
    try:
        await bus.subscribe(rooms[1], for_b)
        await bus.subscribe(rooms[0], for_a)
        async with asyncio.timeout(10):
            while not arrived.is_set():  # a subscription is in force a moment after the call
                await bus.publish(rooms[0], {"t": "draft", "text": world.a.canary})
                await bus.publish(rooms[0], {"t": "last"})
                await asyncio.sleep(0.05)
    finally:
        await bus.aclose()
    assert {"t": "draft", "text": world.a.canary} in heard["a"]
    assert heard["b"] == []
