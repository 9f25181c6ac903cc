"""Probes of PostgreSQL: every table, by the app's role in tenant B's place, with A's ids in every column that holds ids."""

import json
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import psycopg
from psycopg import errors

from storage.migrate import CHECKPOINT_TABLES
from storage.models.all import Base
from tests.isolation.full import IDENTITY_TABLES, TENANT_TABLES, FullTenant, Row, rows_of
from tests.isolation.tally import Tally

Connection = psycopg.Connection[Any]
WITH_B, EMPTY, UNSET = "B's setting", "an empty setting", "no setting"
_BATCH = 500
# A statement changes the setting in its own middle; what a policy compares with was read before. A condition without any column
# (``where … and set_config('app.tenant_id', A, true) = A``) is not here: PostgreSQL may evaluate it before the policy (it does so for the
# tables of checkpoints), so against whoever writes SQL themselves this setting is no wall. Nobody does: all SQL is our own text
# (tests/security/semgrep, sql-from-text).
TRICKS = {
    "order": "select {owner} from {table} where {owner} = '{a}' order by set_config('app.tenant_id', '{a}', true)",
    "returned": "select set_config('app.tenant_id', '{a}', true), {owner} from {table} where {owner} = '{a}'",
    "case": "select 1 from {table} where case when set_config('app.tenant_id', '{a}', true) is not null then {owner} = '{a}' end",
    "both": "select 1 from {table} where {owner} = '{a}' or {owner} = set_config('app.tenant_id', '{a}', true)",
    "function": "select 1 from {table} where {owner} = '{a}' and query_to_xml('select 1', true, true, '') is not null",
    "guc": "select 1 from {table} where {owner} = '{a}' and set_config('row_security', 'off', true) = 'off'",
}


def id_columns(table: str) -> list[str]:
    """Columns in which an id stands."""
    if table in CHECKPOINT_TABLES:
        return ["thread_id"]
    return [column.name for column in Base.metadata.tables[table].columns if column.type.python_type is UUID]


def owner_of(table: str) -> str:
    """The tenant of a row as text, in SQL."""
    if table in CHECKPOINT_TABLES:
        return "split_part(thread_id, ':', 1)"
    return "id::text" if table == "tenants" else "tenant_id::text"


def statements(table: str, column: str, ident: object) -> Iterator[tuple[str, str, tuple[object, ...]]]:
    """(operation, statement, values) that touch rows by an id."""
    yield "select", f"select 1 from {table} where {column} = %s limit 1", (ident,)
    yield "exists", f"select 1 where exists (select from {table} where {column} = %s)", (ident,)
    yield "lock", f"select 1 from {table} where {column} = %s for update", (ident,)
    yield "update", f"update {table} set {column} = {column} where {column} = %s", (ident,)
    yield "delete", f"delete from {table} where {column} = %s", (ident,)


def pin(connection: Connection, setting: str, b: FullTenant) -> None:
    """Begin as B, or as nobody."""
    connection.execute("reset app.tenant_id")
    if setting != UNSET:
        value = str(b.tenant.info.id) if setting == WITH_B else ""
        connection.execute("select set_config('app.tenant_id', %s, false)", (value,))


def probe_ids(
    connection: Connection,
    tally: Tally,
    a: FullTenant,
    b: FullTenant,
    tables: Sequence[str],
    settings: Sequence[str],
) -> None:
    """By each id of A's, in each column, each operation, under each setting."""
    ids = sorted(a.every_id)
    for setting in settings:
        for table in tables:
            rights = _rights(connection, table)
            for column in id_columns(table):
                # B's own rows may name A's tenant nowhere; an id in another column is another case.
                values = [f"{a.tenant.info.id}:{one}" for one in ids] if table in CHECKPOINT_TABLES else ids
                cases = [
                    (operation, statement, given)
                    for one in values
                    for operation, statement, given in statements(table, column, one)
                    if rights[operation]
                ]
                for operation, held in rights.items():
                    if not held:
                        refused = _denied(connection, setting, b, table, column, operation)
                        tally.judge(refused, "sql: no right", table, column, operation, setting)
                for start in range(0, len(cases), _BATCH):
                    _run(connection, tally, setting, b, table, column, cases[start : start + _BATCH])


def _rights(connection: Connection, table: str) -> dict[str, bool]:
    found = connection.execute(
        "select "
        + ", ".join(f"has_table_privilege('{table}', '{name}')" for name in ("select", "update", "delete"))
    ).fetchone()
    assert found is not None
    select, update, delete = found
    return {"select": select, "exists": select, "lock": select and update, "update": update, "delete": delete}


def _denied(
    connection: Connection, setting: str, b: FullTenant, table: str, column: str, operation: str
) -> bool:
    """Without a right the statement itself is refused, whatever the id."""
    statement = next(sql for name, sql, _ in statements(table, column, None) if name == operation)
    pin(connection, setting, b)
    try:
        connection.execute(statement.encode(), (None,))
    except errors.InsufficientPrivilege:
        return True
    return False


def _run(
    connection: Connection,
    tally: Tally,
    setting: str,
    b: FullTenant,
    table: str,
    column: str,
    cases: Sequence[tuple[str, str, tuple[object, ...]]],
) -> None:
    """A batch in one pipeline; where a statement of it fails, each by itself."""
    pin(connection, setting, b)
    try:
        with connection.pipeline(), connection.transaction():
            cursors = [connection.execute(sql.encode(), given) for _, sql, given in cases]
        touched = [cursor.rowcount for cursor in cursors]
    except psycopg.Error:
        touched = [_one(connection, sql, given) for _, sql, given in cases]
    for (operation, _, given), count in zip(cases, touched, strict=True):
        tally.judge(count <= 0, f"sql: {operation}", table, column, str(given[0]), setting)


def _one(connection: Connection, statement: str, given: tuple[object, ...]) -> int:
    try:
        with connection.transaction():
            return connection.execute(statement.encode(), given).rowcount
    except errors.InsufficientPrivilege:
        return 0
    except psycopg.Error:
        return 1  # it got far enough for a key or a check to stop it: a row was there


def probe_inserts(
    connection: Connection,
    admin: Connection,
    tally: Tally,
    a: FullTenant,
    b: FullTenant,
    tables: Sequence[str],
) -> None:
    """Every row of A's, again and under a new id, as B and as nobody: none may be added to A."""
    for table in tables:
        if table in IDENTITY_TABLES:
            continue
        for number, row in enumerate(rows_of(admin, table, a.tenant.info.id)[:20]):
            for setting in (WITH_B, EMPTY, UNSET):
                for how in ("again", "anew"):
                    pin(connection, setting, b)
                    held = _refused(connection, table, row, anew=how == "anew")
                    tally.judge(held, "sql: insert", table, number, setting, how)


def _refused(connection: Connection, table: str, row: Row, *, anew: bool) -> bool:
    chosen = json.dumps({**row, **({"id": _another(row["id"])} if anew and "id" in row else {})})
    statement = f"insert into {table} select * from jsonb_populate_record(null::{table}, %s::jsonb)"
    try:
        with connection.transaction():
            connection.execute(statement.encode(), (chosen,))
    except errors.InsufficientPrivilege:
        return True
    except psycopg.Error:
        return False  # a key that a hidden row has: that tells that it is there
    return False


def _another(ident: str) -> str:
    return ident[:-12] + "".join(reversed(ident[-12:]))


def probe_references(
    connection: Connection, admin: Connection, tally: Tally, a: FullTenant, b: FullTenant
) -> None:
    """B's rows cannot be made to point at A's, in any composite key; nor be handed over."""
    mine = str(b.tenant.info.id)
    for table in Base.metadata.sorted_tables:
        for constraint in table.foreign_key_constraints:
            if len(constraint.column_keys) < 2:
                continue
            column = next(name for name in constraint.column_keys if name != "tenant_id")
            for foreign in a.ids.get(constraint.referred_table.name, []):
                pin(connection, WITH_B, b)
                held = not _one(connection, f"update {table.name} set {column} = %s where tenant_id = %s", (foreign, mine))  # fmt: skip
                where = f"{table.name}.{column}"
                # A row that could not be changed for its key has not been changed; that it says so is no oracle: an id
                # that exists nowhere gives the same.
                same = held or _error(connection, table.name, column, foreign, mine) == _error(
                    connection, table.name, column, UUID(_another(str(foreign))), mine
                )
                tally.judge(same, "sql: reference", where, foreign)
    for name in TENANT_TABLES:
        pin(connection, WITH_B, b)
        try:
            with connection.transaction():
                changed = connection.execute(f"update {name} set tenant_id = %s".encode(), (str(a.tenant.info.id),)).rowcount  # fmt: skip
        except psycopg.Error:
            changed = 0
        tally.judge(changed == 0, "sql: handed over", name)


def _error(connection: Connection, table: str, column: str, ident: UUID, mine: str) -> str | None:
    try:
        with connection.transaction():
            connection.execute(
                f"update {table} set {column} = %s where tenant_id = %s".encode(), (ident, mine)
            )
    except psycopg.Error as error:
        return error.sqlstate
    return None


def probe_tricks(
    connection: Connection, tally: Tally, a: FullTenant, b: FullTenant, tables: Sequence[str]
) -> None:
    """Statements that change the setting while they run."""
    for table in tables:
        if table in IDENTITY_TABLES:
            continue
        for name, trick in TRICKS.items():
            for setting in (WITH_B, EMPTY):
                statement = trick.format(table=table, owner=owner_of(table), a=a.tenant.info.id)
                pin(connection, setting, b)
                try:
                    with connection.transaction(force_rollback=True):
                        seen = connection.execute(statement.encode()).fetchall()
                except psycopg.Error:
                    seen = []
                tally.judge(not seen, "sql: setting changed in a statement", table, name, setting)
    connection.execute("reset app.tenant_id")
