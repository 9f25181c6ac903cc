"""The record of who did what: whoever edits it, moves something in it or takes something out of it is found out."""

import asyncio
import json
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from litestar import Litestar
from sqlalchemy.exc import DBAPIError

from server.deps import Parts
from server.jobs.anchors import FILE_NAME, anchor_all, read_anchors
from storage.repositories import audit, members
from storage.roles import libpq_url
from storage.sql import text
from storage.tenancy import TenantContext
from tests.sandbox.openai import OpenAISandbox, Reply, ToolCall
from tests.support.edge import signed_in
from tests.support.servers import Addresses
from tests.support.world import TestTenant, Visitor, answering

ENTRIES = 60
EDITS = 200
Row = dict[str, Any]


async def fill(parts: Parts, context: TenantContext, count: int = ENTRIES) -> None:
    for number in range(count):
        async with parts.database.tenant_session(context) as session:
            await audit.record(
                session, context, f"contact.act{number % 7}", "contact", uuid4(), reason="asked", n=number
            )


async def verdict(parts: Parts, context: TenantContext, anchors: Any = ()) -> audit.Verdict:
    async with parts.database.tenant_session(context) as session:
        return await audit.verify(session, anchors)


async def test_a_chain_that_nobody_touched_is_whole(
    parts: Parts, tenant: TestTenant, other_tenant: TestTenant
) -> None:
    await asyncio.gather(fill(parts, tenant.context, 20), fill(parts, other_tenant.context, 5))
    mine, theirs = await verdict(parts, tenant.context), await verdict(parts, other_tenant.context)
    assert (mine.entries, mine.seq, mine.findings) == (20, 20, ())
    assert (theirs.entries, theirs.seq, theirs.findings) == (5, 5, ())


async def test_entries_of_many_writers_stand_in_one_order(parts: Parts, tenant: TestTenant) -> None:
    await asyncio.gather(*(fill(parts, tenant.context, 10) for _ in range(6)))
    found = await verdict(parts, tenant.context)
    assert (found.entries, found.seq, found.findings) == (60, 60, ())


async def test_an_act_that_is_rolled_back_leaves_no_entry(parts: Parts, tenant: TestTenant) -> None:
    async def broken() -> None:
        async with parts.database.tenant_session(tenant.context) as session:
            await audit.record(session, tenant.context, "contact.saved", "contact", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await broken()
    await fill(parts, tenant.context, 2)
    found = await verdict(parts, tenant.context)
    assert (found.entries, found.seq, found.findings) == (2, 2, ())


# What a superuser could do to the rows, past every right: each takes the rows in order and returns what to execute.
def _changed(column: str, value: Callable[[random.Random, Row], Any]) -> Callable[..., list[Any]]:
    def edit(chance: random.Random, rows: list[Row]) -> list[Any]:
        row = chance.choice(rows)
        cast = "::jsonb" if column == "detail" else ""
        return [(f"update audit_log set {column} = %s{cast} where id = %s", (value(chance, row), row["id"]))]

    return edit


def _removed(chance: random.Random, rows: list[Row]) -> list[Any]:
    first = chance.randrange(len(rows))
    gone = rows[first : first + chance.choice([1, 1, 3, len(rows)])]
    return [("delete from audit_log where id = any(%s)", ([row["id"] for row in gone],))]


def _swapped(chance: random.Random, rows: list[Row]) -> list[Any]:
    one, other = chance.sample(rows, 2)
    return [
        ("update audit_log set seq = -1 where id = %s", (one["id"],)),
        ("update audit_log set seq = %s where id = %s", (one["seq"], other["id"])),
        ("update audit_log set seq = %s where id = %s", (other["seq"], one["id"])),
    ]


_COPY = """
insert into audit_log select (jsonb_populate_record(a, jsonb_build_object('id', %s::text, 'seq', %s::int))).*
  from audit_log a where id = %s
"""


def _invented(chance: random.Random, rows: list[Row]) -> list[Any]:
    """A copy of an entry under another name: at the end, at a place that is taken, or before the first."""
    row = chance.choice(rows)
    place = chance.choice([len(rows) + 1, row["seq"], 0, -5])
    return [(_COPY, (str(uuid4()), place, row["id"]))]


def _rehashed(chance: random.Random, rows: list[Row]) -> list[Any]:
    """The clever one: changes an entry and computes its hash anew, but not those behind it."""
    row = chance.choice(rows[:-1])
    return [
        ("update audit_log set actor = 'user:nobody' where id = %s", (row["id"],)),
        ("update audit_log a set hash = audit_hash(a) where id = %s", (row["id"],)),
    ]


def _head(chance: random.Random, rows: list[Row]) -> list[Any]:
    return [("update audit_head set seq = seq - %s", (chance.randint(1, 5),))]


EDITS_POSSIBLE = (
    _changed("actor", lambda chance, _row: f"user:{chance.random()}"),
    _changed("action", lambda _chance, row: row["action"] + "x"),
    _changed("object_id", lambda _chance, _row: str(uuid4())),
    _changed("object_type", lambda _chance, _row: "lead"),
    _changed("reason", lambda chance, _row: chance.choice([None, "another"])),
    _changed("detail", lambda chance, row: json.dumps({**row["detail"], "n": chance.randint(1000, 9999)})),
    _changed("request_id", lambda _chance, _row: "req_forged"),
    _changed("created_at", lambda chance, _row: f"2020-01-01T00:00:0{chance.randint(0, 9)}Z"),
    _changed("hash", lambda chance, _row: chance.randbytes(32)),
    _changed("prev", lambda chance, _row: chance.randbytes(32)),
    _changed("id", lambda _chance, _row: uuid4()),
    _removed,
    _swapped,
    _invented,
    _rehashed,
    _head,
)


async def test_each_of_200_random_edits_is_found(
    parts: Parts, tenant: TestTenant, addresses: Addresses, database_name: str
) -> None:
    await fill(parts, tenant.context)
    chance = random.Random(7)
    url = addresses.database_url(database_name)
    found, missed = 0, []
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("alter table audit_log drop constraint uq_audit_log_tenant_id_seq")
        rows: list[Row] = [
            {"id": row[0], "seq": row[1], "action": row[2], "detail": row[3]}
            for row in admin.execute("select id, seq, action, detail from audit_log order by seq")
        ]
        admin.execute("create table kept as select * from audit_log")
        admin.execute("create table kept_head as select * from audit_head")
        for number in range(EDITS):
            edit = EDITS_POSSIBLE[number % len(EDITS_POSSIBLE)]
            for statement, values in edit(chance, rows):
                admin.execute(statement.encode(), values)
            if (await verdict(parts, tenant.context)).findings:
                found += 1
            else:
                missed.append((number, edit.__name__))
            for name in ("audit_log", "audit_head"):
                admin.execute(f"delete from {name}".encode())
            admin.execute("insert into audit_log select * from kept")
            admin.execute("insert into audit_head select * from kept_head")
            if number % 50 == 0:
                assert (await verdict(parts, tenant.context)).findings == ()
    assert (found, missed) == (EDITS, [])


# What a superuser does who computes all hashes anew, from the first entry to the end.
REWRITTEN = """
do $$ declare r record; h bytea := '\\x00'; begin
  for r in select id from audit_log order by seq loop
    update audit_log set prev = h where id = r.id;
    update audit_log a set hash = audit_hash(a) where id = r.id returning hash into h;
  end loop;
  update audit_head set hash = h;
end $$
"""


async def test_a_chain_rewritten_from_end_to_end_shows_against_its_anchors(
    parts: Parts, tenant: TestTenant, addresses: Addresses, database_name: str, tmp_path: Path
) -> None:
    await fill(parts, tenant.context, 12)
    assert await anchor_all(parts.database, tmp_path) == 1
    assert await anchor_all(parts.database, tmp_path) == 0  # nothing has moved
    await fill(parts, tenant.context, 3)
    anchors = read_anchors(tmp_path)[tenant.info.id]
    assert [seq for seq, _ in anchors] == [12]
    assert (await verdict(parts, tenant.context, anchors)).findings == ()
    with psycopg.connect(addresses.database_url(database_name), autocommit=True) as admin:
        admin.execute("update audit_log set actor = 'user:nobody' where seq = 4")
        admin.execute(REWRITTEN)
    assert (await verdict(parts, tenant.context)).findings == ()  # the chain alone cannot tell
    (finding,) = (await verdict(parts, tenant.context, anchors)).findings
    assert (finding.seq, "anchor" in finding.what) == (12, True)
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write('{"tenant": "cut o')
    assert read_anchors(tmp_path)[tenant.info.id] == anchors


async def test_an_end_that_was_cut_off_shows_against_its_anchors(
    parts: Parts, tenant: TestTenant, addresses: Addresses, database_name: str, tmp_path: Path
) -> None:
    await fill(parts, tenant.context, 5)
    await anchor_all(parts.database, tmp_path)
    with psycopg.connect(addresses.database_url(database_name), autocommit=True) as admin:
        admin.execute("delete from audit_log where seq > 3")
        admin.execute("update audit_head h set seq = 3, hash = (select hash from audit_log where seq = 3)")
    (finding,) = (await verdict(parts, tenant.context, read_anchors(tmp_path)[tenant.info.id])).findings
    assert finding.seq == 5


async def test_old_entries_are_removed_from_the_beginning_only(
    parts: Parts, tenant: TestTenant, addresses: Addresses, database_name: str
) -> None:
    await fill(parts, tenant.context, 10)
    with psycopg.connect(addresses.database_url(database_name), autocommit=True) as admin:
        # Ten entries, the first four a year old: their times are part of their hashes, so the chain is made anew.
        admin.execute("update audit_log set created_at = created_at - interval '400 days' where seq <= 4")
        admin.execute(REWRITTEN)
        now = admin.execute("select now()").fetchone()
    assert now is not None

    async def pruned(before: datetime) -> int:
        async with parts.database.platform_session("test") as session:
            return await audit.prune(session, tenant.info.id, before)

    with pytest.raises(DBAPIError, match="last 30 days stay"):
        await pruned(now[0])
    assert await pruned(now[0] - timedelta(days=365)) == 4
    found = await verdict(parts, tenant.context)
    assert (found.entries, found.seq, found.findings) == (6, 10, ())
    await fill(parts, tenant.context, 1)
    assert (await verdict(parts, tenant.context)).findings == ()


def test_the_apps_role_can_add_and_change_nothing(
    parts: Parts, tenant: TestTenant, storage_settings: Any
) -> None:
    with psycopg.connect(libpq_url(storage_settings.role_urls().app), autocommit=True) as connection:
        connection.execute("select set_config('app.tenant_id', %s, false)", (str(tenant.info.id),))
        for statement in (
            "update audit_log set actor = 'x'",
            "delete from audit_log",
            "truncate audit_log",
            "insert into audit_log select * from audit_log",
            "update audit_head set seq = 0",
            "delete from audit_head",
            "select audit_prune('00000000-0000-0000-0000-000000000000', now() - interval '1 year')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


async def test_a_read_by_staff_by_a_key_and_by_an_agents_tool_leaves_its_row(
    scripted: OpenAISandbox,
    app: Litestar,
    client: httpx.AsyncClient,
    parts: Parts,
    tenant: TestTenant,
    visitor: Visitor,
) -> None:
    staff = signed_in(app, tenant, ("crm:read", "crm:write", "keys:write"))
    made = await client.post(
        "/api/v1/crm/contacts", json={"email": "anna@b.example", "name": "Anna"}, headers=staff
    )
    contact = made.json()["id"]
    keys = app.state.identity.keys.new()
    async with parts.database.tenant_session(tenant.context) as session:
        service = await members.add_service_account(session, "Shop", ["crm:read"])
        await members.add_key(
            session,
            service,
            name="k",
            prefix=keys.prefix,
            key_hash=keys.digest,
            scopes=["crm:read"],
            allowed_networks=[],
            expires_at=None,
        )
    for headers in (staff, {"authorization": f"Bearer {keys.clear}"}):
        assert (await client.get(f"/api/v1/crm/contacts/{contact}", headers=headers)).status_code == 200
    routed = json.dumps({"agent": "sales", "confidence": 0.9, "language": "en"})
    scripted.script(
        routed, Reply(tool_calls=(ToolCall("crm_find_contact", {"email": "⟦EMAIL_1⟧"}),)), "You are known."
    )
    await visitor.write("Am I known? anna@b.example")
    async with answering(parts) as job:
        await job.drain(tenant.info.id, visitor.thread_id)
    scripted.verify()
    async with parts.database.tenant_session(tenant.context) as session:
        rows = (
            await session.execute(
                text(
                    "select actor, action, object_id, request_id, detail from audit_log where action like '%read%' order by seq"
                )
            )
        ).all()
    person = (await client.get("/api/v1/auth/me", headers=staff)).json()["actor"]
    assert [(row.actor, row.action, row.object_id) for row in rows] == [
        (person, "contact.read", contact),
        (f"key:{service}", "contact.read", contact),
        ("agent:secretary", "crm_find_contact.read", str(visitor.thread_id)),
    ]
    assert all(row.request_id for row in rows)
    assert rows[2].detail["fields"] == ["name", "email"]
    assert "anna" not in json.dumps([dict(row._mapping) for row in rows], default=str)
    assert (await verdict(parts, tenant.context)).findings == ()
