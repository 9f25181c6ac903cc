"""Every table: tenant B reads, changes and adds nothing of tenant A, whatever the statement."""

import json
from typing import Any

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import ForeignKeyConstraint, text
from sqlalchemy.exc import DBAPIError

from storage.migrate import CHECKPOINT_TABLES
from storage.models.all import Base
from storage.roles import libpq_url
from tests.isolation.catalogue import APPEND_ONLY
from tests.isolation.conftest import TwoTenants
from tests.isolation.full import IDENTITY_TABLES, TENANT_TABLES, FullTenant, rows_of, snapshot

ALL_TABLES = [*TENANT_TABLES, *CHECKPOINT_TABLES]
BY_FUNCTION = ("audit_log", "audit_head")  # written by audit_append alone
NEVER_DELETED = ("data_keys",)  # destroyed, but what was destroyed stays written down
COMPOSITE_KEYS = [
    pytest.param(
        table.name,
        constraint.column_keys[1],
        constraint.referred_table.name,
        id=f"{table.name}.{constraint.column_keys[1]}",
    )
    for table in Base.metadata.sorted_tables
    for constraint in sorted(table.constraints, key=lambda one: str(one.name))
    if isinstance(constraint, ForeignKeyConstraint) and len(constraint.column_keys) > 1
]


def whose(table: str) -> str:
    """The tenant of a row, in SQL."""
    return "split_part(thread_id, ':', 1)" if table in CHECKPOINT_TABLES else "tenant_id::text"


def moved(table: str, tenant: FullTenant) -> str:
    """What would make a row this tenant's, in SQL."""
    tenant_id = tenant.tenant.info.id
    return f"thread_id = '{tenant_id}:x'" if table in CHECKPOINT_TABLES else f"tenant_id = '{tenant_id}'"


async def refused(world: TwoTenants, statement: str, values: dict[str, Any] | None = None) -> Exception:
    """What the driver says to a statement in B's session that must fail."""
    with pytest.raises(DBAPIError) as caught:
        async with world.parts.database.tenant_session(world.b.tenant.context) as session:
            await session.execute(text(statement), values or {})
    assert isinstance(caught.value.orig, Exception)
    return caught.value.orig


def test_there_is_a_row_in_every_table(world: TwoTenants) -> None:
    for full in (world.a, world.b):
        for table in ALL_TABLES:
            assert rows_of(world.admin, table, full.tenant.info.id), f"{table}: nothing there to be stolen"


@pytest.mark.parametrize("table", ALL_TABLES)
async def test_only_its_own_rows_are_seen(world: TwoTenants, table: str) -> None:
    own = len(rows_of(world.admin, table, world.b.tenant.info.id))
    async with world.parts.database.tenant_session(world.b.tenant.context) as session:
        seen = (await session.execute(text(f"select {whose(table)}, count(*) from {table} group by 1"))).all()
    assert [tuple(row) for row in seen] == [(str(world.b.tenant.info.id), own)]


async def test_only_its_own_name_is_seen(world: TwoTenants) -> None:
    async with world.parts.database.tenant_session(world.b.tenant.context) as session:
        assert list(await session.scalars(text("select slug from tenants"))) == ["globex"]
    denied = await refused(world, "update tenants set name = 'x'")
    assert isinstance(denied, errors.InsufficientPrivilege)


@pytest.mark.parametrize("table", [*ALL_TABLES, "tenants"])
def test_without_a_tenant_there_are_no_rows(world: TwoTenants, table: str) -> None:
    with psycopg.connect(libpq_url(world.storage.role_urls().app), autocommit=True) as connection:
        for setting in (None, ""):  # never set; left empty by an earlier transaction of a pooled connection
            if setting is not None:
                connection.execute("select set_config('app.tenant_id', %s, false)", (setting,))
            assert connection.execute(f"select count(*) from {table}".encode()).fetchone() == (0,)


@pytest.mark.parametrize("table", ALL_TABLES)
def test_without_a_tenant_nothing_is_added(world: TwoTenants, table: str) -> None:
    row = rows_of(world.admin, table, world.a.tenant.info.id)[0]
    before = snapshot(world.admin, world.a.tenant.info.id)
    statement = f"insert into {table} select * from jsonb_populate_record(null::{table}, %s::jsonb)"
    wall = "permission denied" if table in BY_FUNCTION else "row-level security"
    with (
        psycopg.connect(libpq_url(world.storage.role_urls().app), autocommit=True) as connection,
        pytest.raises(errors.InsufficientPrivilege, match=wall),
    ):
        connection.execute(statement.encode(), (json.dumps(row),))
    assert snapshot(world.admin, world.a.tenant.info.id) == before


@pytest.mark.parametrize("table", ALL_TABLES)
async def test_foreign_rows_cannot_be_changed_or_removed(world: TwoTenants, table: str) -> None:
    before = snapshot(world.admin, world.a.tenant.info.id)
    column = "thread_id" if table in CHECKPOINT_TABLES else "tenant_id"
    of_a = f"{whose(table)} = '{world.a.tenant.info.id}'"
    for statement in (
        f"update {table} set {column} = {column} where {of_a}",
        f"delete from {table} where {of_a}",
    ):
        if table in APPEND_ONLY or (table in NEVER_DELETED and statement.startswith("delete")):
            assert isinstance(await refused(world, statement), errors.InsufficientPrivilege)
            continue
        async with world.parts.database.tenant_session(world.b.tenant.context) as session:
            result: Any = await session.execute(text(statement))
            assert result.rowcount == 0
    assert snapshot(world.admin, world.a.tenant.info.id) == before


@pytest.mark.parametrize("table", ALL_TABLES)
async def test_own_rows_cannot_be_handed_to_another(world: TwoTenants, table: str) -> None:
    before = snapshot(world.admin, world.a.tenant.info.id), snapshot(world.admin, world.b.tenant.info.id)
    denied = await refused(world, f"update {table} set {moved(table, world.a)}")
    assert isinstance(denied, errors.InsufficientPrivilege)
    assert ("permission denied" if table in APPEND_ONLY else "row-level security") in str(denied)
    assert (
        snapshot(world.admin, world.a.tenant.info.id),
        snapshot(world.admin, world.b.tenant.info.id),
    ) == before


@pytest.mark.parametrize("table", ALL_TABLES)
async def test_nothing_can_be_added_to_another(world: TwoTenants, table: str) -> None:
    before = snapshot(world.admin, world.a.tenant.info.id)
    row = rows_of(world.admin, table, world.a.tenant.info.id)[0]
    denied = await refused(
        world,
        f"insert into {table} select * from jsonb_populate_record(null::{table}, cast(:row as jsonb))",
        {"row": json.dumps(row)},
    )
    assert isinstance(denied, errors.InsufficientPrivilege)
    assert ("permission denied" if table in BY_FUNCTION else "row-level security") in str(denied)
    assert snapshot(world.admin, world.a.tenant.info.id) == before


@pytest.mark.parametrize("table", [*ALL_TABLES, "tenants"])
async def test_the_table_itself_cannot_be_emptied_or_changed(world: TwoTenants, table: str) -> None:
    before = snapshot(world.admin, world.a.tenant.info.id)
    for statement in (f"truncate {table} cascade", f"alter table {table} disable row level security"):
        assert isinstance(await refused(world, statement), errors.InsufficientPrivilege)
    assert snapshot(world.admin, world.a.tenant.info.id) == before


@pytest.mark.parametrize("table", IDENTITY_TABLES)
async def test_people_are_out_of_reach(world: TwoTenants, table: str) -> None:
    """Accounts, sessions and tokens are of no tenant: the app's role can neither read nor write them."""
    for statement in (f"select count(*) from {table}", f"delete from {table}"):
        denied = await refused(world, statement)
        assert isinstance(denied, errors.InsufficientPrivilege)
        assert f"permission denied for table {table}" in str(denied)


@pytest.mark.parametrize("table", APPEND_ONLY)
async def test_history_cannot_be_rewritten_even_by_its_own_tenant(world: TwoTenants, table: str) -> None:
    before = snapshot(world.admin, world.b.tenant.info.id)
    for statement in (f"update {table} set tenant_id = tenant_id", f"delete from {table}"):
        denied = await refused(world, statement)
        assert isinstance(denied, errors.InsufficientPrivilege)
        assert f"permission denied for table {table}" in str(denied)
    assert snapshot(world.admin, world.b.tenant.info.id) == before


@pytest.mark.parametrize(("table", "column", "target"), COMPOSITE_KEYS)
def test_a_reference_cannot_leave_the_tenant(world: TwoTenants, table: str, column: str, target: str) -> None:
    """Even past all policies: the key itself holds the tenant, so a foreign id is an id that does not exist."""
    foreign = rows_of(world.admin, target, world.a.tenant.info.id)[0]["id"]
    before = snapshot(world.admin, world.b.tenant.info.id)
    with pytest.raises(errors.ForeignKeyViolation):
        world.admin.execute(
            f"update {table} set {column} = %s where tenant_id = %s".encode()
            + b" and ctid = (select min(ctid) from "
            + table.encode()
            + b" where tenant_id = %s)",
            (foreign, world.b.tenant.info.id, world.b.tenant.info.id),
        )
    assert snapshot(world.admin, world.b.tenant.info.id) == before
