"""The database's own catalogue: every table is walled in, and the lint that says so can see a gap."""

from collections.abc import Iterator

import psycopg
import pytest
from alembic import command
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from storage.migrate import CHECKPOINT_TABLES, alembic_config, drift, migrate
from storage.models.all import Base
from storage.settings import StorageSettings
from tests.isolation.catalogue import lint
from tests.support.servers import Addresses

Connection = psycopg.Connection[tuple[str, str]]


@pytest.fixture
def admin(addresses: Addresses, database_name: str) -> Iterator[Connection]:
    with psycopg.connect(addresses.database_url(database_name), autocommit=True) as connection:
        yield connection


def test_every_table_is_walled_in(admin: Connection) -> None:
    assert lint(admin) == []


def test_the_lint_looks_at_every_table_of_the_models(admin: Connection) -> None:
    rows = admin.execute(
        "select relname::text, 'x' from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
    )
    named = {name for name, _ in rows.fetchall()}
    assert named == {*Base.metadata.tables, *CHECKPOINT_TABLES, "alembic_version", "checkpoint_migrations"}


POLICY = "(tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid))"
# All that a table needs, but a key that names the tenant.
KEYED_BY_ID_ALONE = f"""
create table parents (tenant_id uuid not null, id uuid primary key);
create index on parents (tenant_id);
alter table parents enable row level security;
alter table parents force row level security;
create policy tenant on parents using {POLICY} with check {POLICY};
"""


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("drop policy tenant on leads", [("no tenant policy FOR ALL", "leads")]),
        ("alter table leads no force row level security", [("RLS off or not forced", "leads")]),
        ("alter table tenants disable row level security", [("RLS off or not forced", "tenants")]),
        ("alter table checkpoints disable row level security", [("RLS off or not forced", "checkpoints")]),
        (
            "create policy everybody on leads using (true)",
            [
                ("permissive policy not bound to tenant: everybody", "leads"),
                ("policy is no initplan: everybody", "leads"),
            ],
        ),
        (
            "alter table leads drop constraint pk_leads; alter table leads alter tenant_id drop not null",
            [("no tenant_id NOT NULL", "leads")],
        ),
        ("grant truncate on leads to secretary_app", [("app has TRUNCATE", "leads")]),
        ("grant update on audit_log to secretary_app", [("app may change history: UPDATE", "audit_log")]),
        (
            "grant insert on audit_log to secretary_app",
            [("app may write the audit log past its function", "audit_log")],
        ),
        (
            "grant delete on audit_log to secretary_platform",
            [("platform may change the audit log: DELETE", "audit_log")],
        ),
        ("grant select on accounts to secretary_app", [("app has SELECT on people", "accounts")]),
        ("grant select on contacts to secretary_identity", [("identity has SELECT", "contacts")]),
        ("grant delete on members to secretary_identity", [("identity has DELETE", "members")]),
        (
            "create policy identity on contacts to secretary_identity using (true)",
            [
                ("permissive policy not bound to tenant: identity", "contacts"),
                ("policy is no initplan: identity", "contacts"),
            ],
        ),
        (
            "create policy everybody on members using (true)",
            [
                ("permissive policy not bound to tenant: everybody", "members"),
                ("policy is no initplan: everybody", "members"),
            ],
        ),
        (
            "drop policy identity on members; create policy identity on members using (true)",
            [
                ("permissive policy not bound to tenant: identity", "members"),
                ("policy is no initplan: identity", "members"),
            ],
        ),
        (
            "grant execute on function audit_prune(uuid, timestamptz) to secretary_app",
            [("a function that changes history is open to secretary_app", "audit_prune")],
        ),
        (
            "grant execute on function forget_turns(uuid[]) to public",
            [("SECURITY DEFINER is open to everybody", "forget_turns")],
        ),
        ("grant delete on turn_steps to secretary_app", [("app may change history: DELETE", "turn_steps")]),
        ("grant insert on tenants to secretary_app", [("app may change a global table: INSERT", "tenants")]),
        (
            "grant select on leads to public",
            [("everybody has a right", "leads"), ("identity has SELECT", "leads")],
        ),
        (
            KEYED_BY_ID_ALONE
            + "alter table notes add constraint loose foreign key (contact_id) references parents (id)",
            [("FK leaves the tenant: loose", "notes")],
        ),
        ("create view all_leads as select * from leads", [("view without security_invoker", "all_leads")]),
        (
            "create materialized view copied as select * from leads; grant select on copied to secretary_app",
            [("app can read matview", "copied")],
        ),
        (
            "create function peek() returns bigint language sql security definer as 'select count(*) from leads'",
            [
                ("SECURITY DEFINER is open to everybody", "peek"),
                ("SECURITY DEFINER without search_path", "peek"),
            ],
        ),
        (
            "create table plain (id uuid primary key)",
            [
                ("RLS off or not forced", "plain"),
                ("no index leading with tenant_id", "plain"),
                ("no tenant policy FOR ALL", "plain"),
                ("no tenant_id NOT NULL", "plain"),
            ],
        ),
        (
            "alter table leads owner to secretary_app",
            [
                ("app has REFERENCES", "leads"),
                ("app has TRIGGER", "leads"),
                ("app has TRUNCATE", "leads"),
                ("app owns the table", "leads"),
            ],
        ),
        (
            """drop policy tenant on checkpoints; create policy tenant on checkpoints
            using (thread_id = (select current_setting('app.tenant_id', true)))
            with check (thread_id = (select current_setting('app.tenant_id', true)))""",
            [("checkpoint policy does not compare thread_id: tenant", "checkpoints")],
        ),
    ],
)
def test_the_lint_sees_the_gap(admin: Connection, damage: str, found: list[tuple[str, str]]) -> None:
    admin.execute(damage.encode())
    assert lint(admin) == found


def test_a_table_that_has_all_it_needs_is_no_violation(admin: Connection) -> None:
    admin.execute(KEYED_BY_ID_ALONE.encode())
    assert lint(admin) == []


def test_the_models_and_the_migrations_agree(
    addresses: Addresses, database_name: str, admin: Connection
) -> None:
    assert drift(addresses.database_url(database_name)) == []
    admin.execute("alter table leads drop column summary")
    (difference,) = drift(addresses.database_url(database_name))
    assert "summary" in difference


def test_sealing_cannot_be_undone_by_sql(addresses: Addresses, database_name: str, admin: Connection) -> None:
    engine = create_engine(
        make_url(addresses.database_url(database_name)).set(drivername="postgresql+psycopg")
    )
    try:
        with engine.connect() as connection, pytest.raises(RuntimeError, match="restore the backup"):
            command.downgrade(alembic_config(connection), "core_0001")
    finally:
        engine.dispose()
    assert lint(admin) == []


def test_migrating_twice_changes_nothing(storage_settings: StorageSettings, admin: Connection) -> None:
    migrate(storage_settings)
    assert lint(admin) == []
