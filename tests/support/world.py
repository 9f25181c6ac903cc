"""A small world for a test: tenants with a channel, visitors who write, and a worker that answers, all on
real parts.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from server.auth.passwords import hash_password
from server.channels.inbound import receive
from server.deps import Parts
from server.mind import build_mind
from server.worker import opened_inbox
from storage.ids import new_id
from storage.repositories import accounts, directory, threads, turns
from storage.repositories.directory import ChannelRef, TenantInfo
from storage.repositories.inbox import Received
from storage.repositories.threads import Message
from storage.repositories.turns import Step
from storage.sql import Session
from storage.tenancy import TenantContext

ALL_SCOPES = ("inbox:read", "inbox:write", "crm:read", "crm:write", "knowledge:read", "knowledge:write")
STAFF_PASSWORD = "a long password for tests"
_HASH = hash_password(STAFF_PASSWORD)


@dataclass(frozen=True)
class TestTenant:
    """A tenant with a member of staff and a widget."""

    __test__ = False

    info: TenantInfo
    context: TenantContext
    channel: ChannelRef
    staff_email: str
    staff_id: UUID


@dataclass(frozen=True)
class Visitor:
    """Somebody who writes in a thread."""

    tenant: TestTenant
    thread_id: UUID
    parts: Parts

    async def write(self, body: str, external_id: str | None = None) -> Received:
        """What the widget's socket does with a message."""
        return await receive(
            self.parts.database,
            self.parts.queue,
            self.tenant.context,
            channel_id=self.tenant.channel.id,
            thread_id=self.thread_id,
            external_id=external_id or str(uuid4()),
            text=body,
        )

    async def messages(self) -> list[Message]:
        async with self.parts.database.tenant_session(self.tenant.context) as session:
            return await threads.messages_after(session, self.thread_id, 0, 10_000)

    async def replies(self) -> list[Message]:
        return [message for message in await self.messages() if message.direction == "out"]


async def make_tenant(
    parts: Parts, slug: str, *, languages: Sequence[str] = ("en", "de"), origins: Sequence[str] = ("*",)
) -> TestTenant:
    """A tenant as the seed makes one, without documents."""
    email = f"staff@{slug}.example"
    async with parts.database.identity_session() as session:
        tenant_id = await accounts.add_tenant(
            session,
            slug=slug,
            name=slug.title(),
            languages=languages,
            time_zone="Europe/Vienna",
            state="active",
        )
        assert tenant_id is not None
        staff_id = await accounts.add(
            session, email=email, name="Staff", password_hash=_HASH, language="en", verified=True
        )
        account = await accounts.by_email(session, email)
        assert account is not None
        assert staff_id is not None
        await accounts.join(session, tenant_id, account, await accounts.role_id(session, tenant_id, "staff"))
    info = TenantInfo(tenant_id, slug, slug.title(), tuple(languages), "Europe/Vienna")
    context = TenantContext(info.id, actor="user:test", scopes=frozenset(ALL_SCOPES))
    key = f"pk_{uuid4().hex}"
    async with parts.database.tenant_session(context) as session:
        await session.execute(
            text("""
            insert into channels (id, kind, name, public_key, allowed_origins) values (:id, 'widget', 'Web site', :key, :origins)
            """),
            {"id": new_id(), "key": key, "origins": list(origins)},
        )
    async with parts.database.platform_session("test") as session:
        channel = await directory.channel_by_key(session, key, "widget")
    assert channel is not None
    return TestTenant(info, context, channel, email, staff_id)


async def make_visitor(parts: Parts, tenant: TestTenant) -> Visitor:
    """A new visitor with an open thread."""
    async with parts.database.tenant_session(tenant.context) as session:
        thread_id, _, _ = await threads.open_thread(session, tenant.channel.id, f"visitor:{uuid4().hex}")
    return Visitor(tenant, thread_id, parts)


@asynccontextmanager
async def answering(parts: Parts, **settings: Any) -> AsyncIterator[Any]:
    """The worker's job that answers threads, in this process; call ``drain(tenant_id, thread_id)`` on it. No
    quarantine.
    """
    changed = replace(parts, settings=parts.settings.model_copy(update=settings)) if settings else parts
    async with opened_inbox(changed, build_mind(changed), None) as (inbox, _outbox):
        yield inbox


async def journal_of(session: Session) -> list[Step]:
    """Every journalled step of the session's tenant, opened."""
    turns_ = list(
        await session.scalars(
            text("select turn_id from turn_steps group by turn_id order by min(started_at)")
        )
    )
    return [step for turn_id in turns_ for step in await turns.load_steps(session, turn_id)]


async def count(parts: Parts, tenant: TestTenant, table: str) -> int:
    """Rows of the tenant in a table, as the app role sees them."""
    async with parts.database.tenant_session(tenant.context) as session:
        return int(await session.scalar(text(f"select count(*) from {table}")) or 0)
