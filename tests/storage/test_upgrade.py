"""From a version that stored personal data in clear to one that seals it: nothing is lost, nothing is left in clear."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from alembic import command
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from server.deps import make_keyring
from storage.errors import ConfigurationError
from storage.migrate import alembic_config, drift, migrate
from storage.repositories import accounts, audit, threads, turns
from storage.roles import OWNER
from storage.settings import StorageSettings
from storage.tenancy import Database, TenantContext
from tests.support.servers import Addresses, settings_for
from tools.crm import repository as crm

CANARY = "kiwiquartz"


@pytest.fixture
def old(addresses: Addresses) -> Iterator[tuple[StorageSettings, psycopg.Connection[Any]]]:
    """A database as the first version left it."""
    name = f"old_{uuid4().hex[:12]}"
    with psycopg.connect(addresses.database_url("postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name}".encode())
        connection.execute(f"grant create, connect on database {name} to {OWNER}".encode())
    url = addresses.database_url(name)
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"grant usage, create on schema public to {OWNER}".encode())
        engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
        with engine.connect() as own:
            own.exec_driver_sql(f"set role {OWNER}")
            own.commit()
            command.upgrade(alembic_config(own), "core_0001")
        engine.dispose()
        yield settings_for(addresses, name), admin
    with psycopg.connect(addresses.database_url("postgres"), autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)".encode())


def fill(admin: psycopg.Connection[Any], slug: str) -> dict[str, UUID]:
    """A business with a conversation, as core_0001 stored it."""
    ids = {name: uuid4() for name in ("tenant", "channel", "contact", "thread", "message", "note", "lead")}
    tenant = ids["tenant"]
    admin.execute("select set_config('app.tenant_id', %s, false)", (str(tenant),))
    admin.execute("insert into tenants (id, slug, name) values (%s, %s, %s)", (tenant, slug, slug))
    admin.execute(
        "insert into users (id, email, name, password_hash) values (%s, 'boss@x.example', 'Boss', %s)",
        (uuid4(), f"hash of {slug}"),
    )
    admin.execute(
        "insert into channels (id, kind, name, public_key) values (%s, 'widget', 'w', %s)",
        (ids["channel"], slug),
    )
    admin.execute(
        "insert into contacts (id, name, email, phone) values (%s, %s, 'anna@kiwiquartz.example', '+43512123456')",
        (ids["contact"], f"Anna {CANARY}"),
    )
    admin.execute(
        "insert into threads (id, channel_id, contact_id, external_id, epoch) values (%s, %s, %s, 'v', 'e')",
        (ids["thread"], ids["channel"], ids["contact"]),
    )
    admin.execute(
        """
        insert into inbox_messages (id, thread_id, channel_id, external_id, direction, seq, text, state)
        values (%s, %s, %s, 'm', 'in', 1, %s, 'answered')
        """,
        (ids["message"], ids["thread"], ids["channel"], f"I am {CANARY} of {slug}"),
    )
    admin.execute(
        "insert into pii_vault (id, thread_id, placeholder, kind, value, norm) values (%s, %s, '⟦EMAIL_1⟧', 'EMAIL', %s, %s)",
        (uuid4(), ids["thread"], "Anna@kiwiquartz.example", "anna@kiwiquartz.example"),
    )
    admin.execute(
        """
        insert into turn_steps (turn_id, ordinal, thread_id, kind, name, request_hash, request, response, started_at)
        values (%s, 0, %s, 'note', 'n', 'h', %s, '{}', now())
        """,
        (ids["message"], ids["thread"], f'{{"said": "{CANARY}"}}'),
    )
    admin.execute(
        "insert into notes (id, contact_id, author, text) values (%s, %s, 'a', %s)",
        (ids["note"], ids["contact"], f"likes {CANARY}"),
    )
    for action in ("first", "second"):
        admin.execute(
            "insert into audit_log (id, actor, action, object_type, object_id) values (%s, 'a', %s, 't', 'o')",
            (uuid4(), action),
        )
    return ids


async def test_everything_is_sealed_and_still_there(
    old: tuple[StorageSettings, psycopg.Connection[Any]],
) -> None:
    settings, admin = old
    tenants = [fill(admin, slug) for slug in ("acme", "globex")]
    # migrate is a command with a loop of its own
    with pytest.raises(ConfigurationError, match="no master key"):
        await asyncio.to_thread(migrate, settings)
    keyring = make_keyring()
    await asyncio.to_thread(migrate, settings, keyring)
    await asyncio.to_thread(migrate, settings, keyring)  # again changes nothing
    assert drift(str(settings.database_url.get_secret_value() if settings.database_url else "")) == []
    for table in ("contacts", "inbox_messages", "pii_vault", "turn_steps", "notes"):
        dump = str(admin.execute(f"select {table}::text from {table}".encode()).fetchall())
        assert CANARY.encode().hex() not in dump, table
    database = Database(settings, keyring, "test")
    try:
        for slug, ids in zip(("acme", "globex"), tenants, strict=True):
            async with database.tenant_session(TenantContext(ids["tenant"], "test")) as session:
                contact = await crm.contact_by_id(session, ids["contact"])
                by_mail = await crm.contact_by_reach(session, "anna@kiwiquartz.example", None)
                (message,) = await threads.messages_after(session, ids["thread"], 0)
                (step,) = await turns.load_steps(session, ids["message"])
                _, (entry,) = await turns.load_surroundings(session, ids["thread"])
                (note,) = await crm.list_notes(session, ids["contact"])
                verdict = await audit.verify(session)
            assert contact is not None
            assert contact == by_mail
            assert (contact["name"], contact["phone"]) == (f"Anna {CANARY}", "+43512123456")
            assert message.text == f"I am {CANARY} of {slug}"
            assert step.request == {"said": CANARY}
            assert (entry.value, entry.norm) == ("Anna@kiwiquartz.example", "anna@kiwiquartz.example")
            assert note["text"] == f"likes {CANARY}"
            assert (verdict.entries, verdict.findings) == (2, ())
        async with database.identity_session() as session:
            boss = await accounts.by_email(session, "boss@x.example")
            assert boss is not None
            assert boss.password_hash == "hash of acme"
            assert [one.slug for one in await accounts.memberships(session, boss.id)] == ["acme", "globex"]
    finally:
        await database.aclose()
