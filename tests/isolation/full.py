"""A tenant with a row in every table, made by the product's own code wherever it has some."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import text

from graphs.checkpoints import TenantSaver, make_checkpoint_pool
from server.channels.widget.frames import new_session_id, visitor_id
from server.deps import Parts
from storage.base import TenantTable
from storage.crypto.cipher import Subject
from storage.ids import new_id
from storage.migrate import CHECKPOINT_TABLES
from storage.models.all import Base
from storage.repositories import claims, idempotency, inbox, members, outbox, threads
from storage.sql import Session
from tests.sandbox.openai import OpenAISandbox, Reply, ToolCall
from tests.support.world import TestTenant, Visitor, answering, make_tenant, make_visitor
from tools.crm import service as crm

ROUTED = json.dumps({"agent": "sales", "confidence": 0.9, "language": "en"})
TENANT_TABLES = sorted(
    str(mapper.local_table.name)  # type: ignore[attr-defined]  # a mapped table has a name
    for mapper in Base.registry.mappers
    if issubclass(mapper.class_, TenantTable)
)
# Of no tenant: only the role that signs people in reaches them.
IDENTITY_TABLES = sorted(name for name in Base.metadata.tables if name not in (*TENANT_TABLES, "tenants"))
Row = dict[str, Any]


@dataclass(frozen=True)
class FullTenant:
    """A tenant whose texts all hold ``canary``, a word that stands nowhere else.

    Attributes:
        visitor_session: the id that the visitor's widget keeps; whoever has it is that visitor.
        file_id: an export of the contact, in the store for files.
        ids: every id of every row, by table; of the tables of people those of the tenant's staff.
    """

    tenant: TestTenant
    canary: str
    email: str
    visitor: Visitor
    visitor_session: str
    document_id: UUID
    file_id: UUID
    ids: dict[str, list[UUID]]

    @property
    def every_id(self) -> set[UUID]:
        return {one for ids in self.ids.values() for one in ids}


async def fill(parts: Parts, sandbox: OpenAISandbox, admin: psycopg.Connection[Any], slug: str) -> FullTenant:
    """Make a tenant, have a turn of its answered, give up another, send one answer in vain, take a document in."""
    canary = f"{slug}quartz"
    email = f"anna@{canary}.example"
    tenant = await make_tenant(parts, slug)
    visitor_session = new_session_id()
    visitor = await _remembered(parts, tenant, visitor_session)
    second, third = [await make_visitor(parts, tenant) for _ in range(2)]
    call = ToolCall("crm_create_lead", {"subject": f"offer {canary}", "email": "⟦EMAIL_1⟧"})
    sandbox.script(ROUTED, Reply(tool_calls=(call,)), f"We will send you the {canary}.")
    sandbox.script(ROUTED, f"Yes, {canary} is here.")
    await visitor.write(f"Please offer me a {canary}, my address is {email}")
    await third.write(f"Is the {canary} there?")
    async with answering(parts) as job:
        await job.drain(tenant.info.id, visitor.thread_id)
        await job.drain(tenant.info.id, third.thread_id)
    sandbox.verify()
    message = await second.write(f"Nobody answers this {canary}")
    async with parts.database.tenant_session(tenant.context) as session:
        claim = await claims.claim(session, second.thread_id, fence=uuid4(), lease_seconds=5)
        assert claim is not None
        await inbox.fail(session, claim, f"given up {canary}", retry_in=None)
        # The widget sends at once and cannot fail for good; another channel could.
        await session.execute(
            text(
                "update outbox set state = 'pending', lease_until = null, sent_at = null where thread_id = :thread"
            ),
            {"thread": third.thread_id},
        )
        delivery = await outbox.claim(session, third.thread_id, lease_seconds=5)
        assert delivery is not None
        await outbox.mark_failed(session, delivery, f"refused {canary}", retry_in=None)
        (contact_id,) = await session.scalars(text("select id from contacts"))
        await crm.add_note(session, contact_id, tenant.context.actor, f"likes {canary}")
        # No channel takes files in yet: this table has no code of its own.
        attachment, subject = new_id(), Subject.thread(second.thread_id)
        await session.execute(
            text("""
            insert into attachments (id, message_id, filename, content_type, size, sha256)
            values (:id, :message, :name, 'text/plain', 1, 'x')
            """),
            {
                "id": attachment,
                "message": message.message_id,
                "name": await session.cipher.seal(
                    "attachments.filename", attachment, subject, f"{canary}.txt"
                ),
            },
        )
        await _fill_identity(session, contact_id)
        file_id = new_id()
        await parts.files.put(
            tenant.context, session.cipher, file_id, f"all of {canary}".encode(), Subject.contact(contact_id)
        )
        await session.execute(
            text("""
            update privacy_requests set file_id = :file, finished_at = now(), expires_at = now() + interval '7 days' where kind = 'export'
            """),
            {"file": file_id},
        )
        await idempotency.begin(session, tenant.context.actor, canary, "00")
    await _fill_people(parts, tenant, canary)
    await _leave_a_pending_write(parts, tenant, visitor.thread_id)
    body = f"# The {canary}\n\nThe {canary} costs 480 euros and is ready on Monday.\n"
    document_id = await parts.intake.accept(tenant.context, body.encode(), f"{canary}.md")
    assert await parts.intake.process(tenant.context, document_id) == "ready"
    ids = {table: ids_in(rows_of(admin, table, tenant.info.id)) for table in [*TENANT_TABLES, "tenants"]}
    ids |= {table: ids_in(rows) for table, rows in rows_of_people(admin, tenant.info.id).items()}
    return FullTenant(tenant, canary, email, visitor, visitor_session, document_id, file_id, ids)


async def _remembered(parts: Parts, tenant: TestTenant, session_id: str) -> Visitor:
    """A visitor whose session id is known here, as their browser knows it."""
    async with parts.database.tenant_session(tenant.context) as session:
        thread_id, _, _ = await threads.open_thread(session, tenant.channel.id, visitor_id(session_id))
    return Visitor(tenant, thread_id, parts)


async def _fill_identity(session: Session, contact_id: UUID) -> None:
    """A row in each table of keys, consents and requests, as plain as they can be: the tests are about whose they are."""
    service = await members.add_service_account(session, "Shop", ["crm:read"])
    await members.add_key(
        session,
        service,
        name="first",
        prefix=uuid4().hex[:8],
        key_hash=b"x",
        scopes=["crm:read"],
        allowed_networks=[],
        expires_at=None,
    )
    for table, columns, values in (
        ("consents", "purpose, basis, state, source", "'news', 'consent', 'granted', 'test'"),
        (
            "privacy_requests",
            "kind, requested_by, reason, state",
            "'export', 'user:test', 'asked for', 'done'",
        ),
    ):
        await session.execute(
            text(f"insert into {table} (id, contact_id, {columns}) values (:id, :contact, {values})"),
            {"id": new_id(), "contact": contact_id},
        )
    connection = new_id()
    await session.execute(
        text(
            "insert into sso_connections (id, issuer, client_id, client_secret) values (:id, 'https://idp.example', 'c', :secret)"
        ),
        {
            "id": connection,
            "secret": await session.cipher.seal(
                "sso_connections.client_secret", connection, Subject.tenant(), "s"
            ),
        },
    )


async def _fill_people(parts: Parts, tenant: TestTenant, canary: str) -> None:
    """What belongs to the tenant's staff, in the tables of people; a wait for an invitation's answer, an operator's request."""
    values: dict[str, Any] = {
        "tenant": tenant.info.id,
        "account": tenant.staff_id,
        "hash": lambda: uuid4().bytes + uuid4().bytes,
    }
    statements = (
        """insert into sessions (id, account_id, tenant_id, kind, token_hash, security_version, amr, expires_at, device, place)
           values (:id, :account, :tenant, 'browser', :hash, 1, '{pwd}', now() + interval '12 hours', :canary, 'unknown')""",
        """insert into refresh_tokens (id, session_id, generation, token_hash)
           select :id, id, 1, :hash from sessions where account_id = :account""",
        "insert into recovery_codes (id, account_id, code_hash) values (:id, :account, :hash)",
        """insert into passkeys (id, account_id, credential_id, public_key, sign_count, name)
           values (:id, :account, :hash, 'k', 1, :canary)""",
        """insert into one_time_tokens (id, tenant_id, purpose, token_hash, payload, expires_at)
           select :id, :tenant, 'invitation', :hash, jsonb_build_object('email', :canary || '@new.example', 'role_id', r.id, 'by', 'x'),
                  now() + interval '7 days' from roles r where r.tenant_id = :tenant and r.key = 'staff'""",
        """insert into sso_identities (id, account_id, connection_id, subject)
           select :id, :account, c.id, :canary from sso_connections c where c.tenant_id = :tenant""",
        """insert into impersonations (id, tenant_id, requested_by, reason, permissions, minutes)
           values (:id, :tenant, :account, :canary, '{inbox:read}', 30)""",
        """insert into mails (id, account_id, template, language, dedupe_key) values (:id, :account, 'verify_email', 'en', :canary)""",
    )
    async with parts.database.identity_session() as session:
        for statement in statements:
            given = {**values, "id": new_id(), "hash": values["hash"](), "canary": canary}
            named = {name: value for name, value in given.items() if f":{name}" in statement}
            await session.execute(text(statement), named)


async def _leave_a_pending_write(parts: Parts, tenant: TestTenant, thread_id: UUID) -> None:
    """A turn that ends well leaves none behind; one that waits for an approval does."""
    pool = make_checkpoint_pool(parts.storage.role_urls().app, size=2)
    await pool.open()
    try:
        async with parts.database.tenant_session(tenant.context) as session:
            sealer = await session.cipher.local(Subject.thread(thread_id))
        saver = TenantSaver(pool, tenant.info.id, thread_id, sealer)
        found = await saver.aget_tuple(
            {"configurable": {"thread_id": tenant.context.checkpoint_thread(thread_id)}}
        )
        assert found is not None
        await saver.aput_writes(found.config, [("approval", "wanted")], task_id=str(new_id()))
    finally:
        await pool.close()


def rows_of(admin: psycopg.Connection[Any], table: str, tenant_id: UUID) -> list[Row]:
    """A tenant's rows of a table, read past every policy, each as PostgreSQL's own JSON."""
    column = "id" if table == "tenants" else "tenant_id"
    owner = "split_part(thread_id, ':', 1)" if table in CHECKPOINT_TABLES else f"{column}::text"
    query = f"select to_jsonb(t) as row from {table} t where {owner} = %s order by to_jsonb(t)::text"
    with admin.cursor(row_factory=dict_row) as cursor:
        return [found["row"] for found in cursor.execute(query.encode(), (str(tenant_id),))]


PEOPLE_OF = {
    "accounts": "id in (select account_id from members where tenant_id = %(tenant)s)",
    "refresh_tokens": "session_id in (select id from sessions where tenant_id = %(tenant)s)",
    **dict.fromkeys(("sessions", "impersonations"), "tenant_id = %(tenant)s"),
    "one_time_tokens": "tenant_id = %(tenant)s or account_id in (select account_id from members where tenant_id = %(tenant)s)",
    **dict.fromkeys(
        ("recovery_codes", "passkeys", "mails", "sso_identities"),
        "account_id in (select account_id from members where tenant_id = %(tenant)s)",
    ),
}
"""Which rows of a table of people are of a tenant's people, in SQL."""


def rows_of_people(admin: psycopg.Connection[Any], tenant_id: UUID) -> dict[str, list[Row]]:
    """The rows of a tenant's people in the tables of no tenant."""
    with admin.cursor(row_factory=dict_row) as cursor:
        return {
            table: [
                found["row"]
                for found in cursor.execute(
                    f"select to_jsonb(t) as row from {table} t where {condition} order by to_jsonb(t)::text".encode(),
                    {"tenant": tenant_id},
                )
            ]
            for table, condition in PEOPLE_OF.items()
        }


def snapshot(
    admin: psycopg.Connection[Any], tenant_id: UUID, without: Sequence[str] = ()
) -> dict[str, list[Row]]:
    """All that a tenant has, to be compared with later."""
    tables = [*TENANT_TABLES, "tenants", *CHECKPOINT_TABLES]
    return {table: rows_of(admin, table, tenant_id) for table in tables if table not in without}


def ids_in(rows: list[Row]) -> list[UUID]:
    """Every UUID that stands in a column of these rows."""
    found: dict[UUID, None] = {}
    for row in rows:
        for value in row.values():
            if isinstance(value, str) and len(value) == 36 and value.count("-") == 4:
                found[UUID(value)] = None
    return list(found)
