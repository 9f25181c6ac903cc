"""Rows of ``data_keys``. What is wrapped stays wrapped here; storage/crypto opens it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from storage.sql import Session, text

_COLUMNS = "tenant_id, id, subject_kind, subject_id, wrapped, wrapped_by, retired_at, destroyed_at"


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A wrapped key.

    Attributes:
        kind: ``tenant`` and ``index`` are wrapped by a master key, ``thread`` and ``contact`` by the tenant's key.
        wrapped: None once it was destroyed, or retired and out of use.
        uncommitted: the reading transaction itself has written it.
    """

    tenant_id: UUID
    id: UUID
    kind: str
    subject_id: UUID
    wrapped: bytes | None
    wrapped_by: str | None
    retired_at: datetime | None
    destroyed_at: datetime | None
    uncommitted: bool = False


def row_of(row: Any) -> KeyRow:
    """From a row of the database with these columns."""
    wrapped = None if row.wrapped is None else bytes(row.wrapped)
    return KeyRow(
        row.tenant_id,
        row.id,
        row.subject_kind,
        row.subject_id,
        wrapped,
        row.wrapped_by,
        row.retired_at,
        row.destroyed_at,
        getattr(row, "uncommitted", False),
    )


_OWN = "coalesce(xmin = pg_current_xact_id_if_assigned()::xid, false) as uncommitted"
_BY_IDS = text(f"select {_COLUMNS}, {_OWN} from data_keys where tenant_id = :tenant and id = any(:ids)")  # noqa: S608  # constants
_ACTIVE = text(f"""
    select {_COLUMNS}, {_OWN} from data_keys
     where tenant_id = :tenant and subject_kind = :kind and subject_id = :subject and retired_at is null and destroyed_at is null
    """)  # noqa: S608  # constants


async def by_ids(session: Session, tenant_id: UUID, ids: Sequence[UUID]) -> list[KeyRow]:
    """Those of these keys that the tenant has, in any state."""
    rows = await session.execute(_BY_IDS, {"tenant": tenant_id, "ids": list(ids)})
    return [row_of(row) for row in rows]


async def active(session: Session, tenant_id: UUID, kind: str, subject_id: UUID) -> KeyRow | None:
    """The key under which new values of a subject are sealed."""
    found = await session.execute(_ACTIVE, {"tenant": tenant_id, "kind": kind, "subject": subject_id})
    row = found.one_or_none()
    return None if row is None else row_of(row)


async def add(session: Session, row: KeyRow) -> bool:
    """Store a subject's first key; False where another process was quicker (it waits for that one's commit)."""
    added = await session.scalar(
        text("""
        insert into data_keys (tenant_id, id, subject_kind, subject_id, wrapped, wrapped_by)
        values (:tenant, :id, :kind, :subject, :wrapped, :by)
        on conflict (tenant_id, subject_kind, subject_id) where retired_at is null and destroyed_at is null do nothing
        returning id
        """),
        {
            "tenant": row.tenant_id,
            "id": row.id,
            "kind": row.kind,
            "subject": row.subject_id,
            "wrapped": row.wrapped,
            "by": row.wrapped_by,
        },
    )
    return added is not None


async def destroy_subject(session: Session, tenant_id: UUID, kind: str, subject_id: UUID) -> list[UUID]:
    """Destroy all keys that a subject ever had; returns those that were alive."""
    return list(
        await session.scalars(
            text("""
            update data_keys set wrapped = null, destroyed_at = clock_timestamp()
             where tenant_id = :tenant and subject_kind = :kind and subject_id = :subject and destroyed_at is null
            returning id
            """),
            {"tenant": tenant_id, "kind": kind, "subject": subject_id},
        )
    )


async def destroy_ids(session: Session, tenant_id: UUID, ids: Sequence[UUID]) -> list[UUID]:
    """Destroy these keys where they are alive; returns those that were."""
    return list(
        await session.scalars(
            text("""
            update data_keys set wrapped = null, destroyed_at = clock_timestamp()
             where tenant_id = :tenant and id = any(:ids) and destroyed_at is null returning id
            """),
            {"tenant": tenant_id, "ids": list(ids)},
        )
    )


async def destroyed(session: Session) -> list[tuple[UUID, datetime, list[UUID]]]:
    """(tenant, when, keys) of all destructions, oldest first; platform role."""
    rows = await session.execute(
        text("""
        select tenant_id, destroyed_at, array_agg(id order by id) as ids from data_keys where destroyed_at is not null
         group by tenant_id, destroyed_at order by destroyed_at, tenant_id
        """)
    )
    return [(row.tenant_id, row.destroyed_at, list(row.ids)) for row in rows]


async def one_of_each_master(session: Session) -> list[KeyRow]:
    """For each master key that wraps something, one key that it wraps; the platform's own where there is one."""
    rows = await session.execute(
        text(f"""
        select distinct on (wrapped_by) {_COLUMNS} from data_keys
         where subject_kind in ('tenant', 'index') and wrapped is not null order by wrapped_by, tenant_id, id
        """)  # noqa: S608  # constants
    )
    return [row_of(row) for row in rows]


async def count_by_master(session: Session) -> dict[str, int]:
    """How many keys each master key wraps; platform role."""
    rows = await session.execute(
        text("""
        select wrapped_by, count(*) as keys from data_keys
         where subject_kind in ('tenant', 'index') and wrapped is not null group by wrapped_by order by wrapped_by
        """)
    )
    return {row.wrapped_by: row.keys for row in rows}


async def totals(session: Session) -> dict[str, int]:
    """Keys by state: ``active``, ``retiring`` (replaced, not yet given up), ``retired``, ``destroyed``; platform role."""
    row = (
        await session.execute(
            text("""
            select count(*) filter (where retired_at is null and destroyed_at is null) as active,
                   count(*) filter (where retired_at is not null and wrapped is not null) as retiring,
                   count(*) filter (where retired_at is not null and wrapped is null and destroyed_at is null) as retired,
                   count(*) filter (where destroyed_at is not null) as destroyed from data_keys
            """)
        )
    ).one()
    return dict(row._mapping)
