"""Businesses: their settings (identity session: the app's role cannot change them), and what the platform's operators see."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from storage.errors import Conflict, NotFound
from storage.ids import new_id
from storage.sql import Session, text
from storage.tenancy import PLATFORM_TENANT, rowcount


@dataclass(frozen=True)
class TenantRecord:
    """A business as its owners see it. ``version`` rises with each change."""

    id: UUID
    slug: str
    name: str
    state: str
    languages: tuple[str, ...]
    time_zone: str
    cors_origins: tuple[str, ...]
    settings: dict[str, Any]
    version: int
    created_at: datetime


_COLUMNS = "id, slug, name, state, languages, time_zone, cors_origins, settings, version, created_at"


async def get(session: Session, tenant_id: UUID) -> TenantRecord:
    """One business.

    Raises:
        NotFound: it does not exist.
    """
    row = (
        await session.execute(text(f"select {_COLUMNS} from tenants where id = :id"), {"id": tenant_id})
    ).one_or_none()
    if row is None:
        raise NotFound("No such business.")
    return TenantRecord(
        **{
            **row._mapping,
            "languages": tuple(row.languages),
            "cors_origins": tuple(row.cors_origins),
        }
    )


async def change(session: Session, record: TenantRecord) -> TenantRecord:
    """Store changed settings (identity session).

    Raises:
        Conflict: somebody else has changed them since ``record.version``.
    """
    result = await session.execute(
        text("""
        update tenants set name = :name, languages = :languages, time_zone = :zone, cors_origins = :origins,
               settings = cast(:settings as jsonb), version = version + 1 where id = :id and version = :version
        """),
        {
            "id": record.id,
            "version": record.version,
            "name": record.name,
            "languages": list(record.languages),
            "zone": record.time_zone,
            "origins": list(record.cors_origins),
            "settings": json.dumps(record.settings),
        },
    )
    if rowcount(result) != 1:
        raise Conflict("Somebody else has changed the settings meanwhile. Read them again.")
    return await get(session, record.id)


async def set_state(session: Session, tenant_id: UUID, state: str, reason: str | None) -> None:
    """Suspend or resume (identity session).

    Raises:
        NotFound: no such business; the platform itself is none.
    """
    result = await session.execute(
        text("update tenants set state = :state, state_reason = :reason where id = :id and id <> :platform"),
        {"id": tenant_id, "state": state, "reason": reason, "platform": PLATFORM_TENANT},
    )
    if rowcount(result) != 1:
        raise NotFound("No such business.")


async def origin_known(session: Session, origin: str) -> bool:
    """Whether any active business lists this origin for its API (identity session)."""
    return bool(
        await session.scalar(
            text(
                "select exists (select from tenants where state = 'active' and :origin = any(cors_origins))"
            ),
            {"origin": origin},
        )
    )


async def origin_allowed(session: Session, tenant_id: UUID, origin: str) -> bool:
    return bool(
        await session.scalar(
            text("select exists (select from tenants where id = :id and :origin = any(cors_origins))"),
            {"id": tenant_id, "origin": origin},
        )
    )


# --- for the platform's operators: numbers and states, never content (platform session) -----------------------------


async def overview(
    session: Session, *, limit: int, after: UUID | None, tenant_id: UUID | None = None
) -> list[dict[str, Any]]:
    """Businesses with the size of what they hold, in the order of their ids."""
    rows = await session.execute(
        text("""
        select t.id, t.slug, t.name, t.state, t.state_reason, t.created_at,
               (select count(*) from members m where m.tenant_id = t.id) as members,
               (select count(*) from threads h where h.tenant_id = t.id) as threads,
               (select count(*) from inbox_messages x where x.tenant_id = t.id and x.state = 'pending') as pending,
               (select count(*) from inbox_messages x where x.tenant_id = t.id and x.state = 'dead')
                 + (select count(*) from outbox o where o.tenant_id = t.id and o.state = 'dead') as dead_letters,
               (select max(u.created_at) from usage_events u where u.tenant_id = t.id) as last_reply_at
          from tenants t
         where t.id <> :platform and (cast(:after as uuid) is null or t.id > :after) and (cast(:id as uuid) is null or t.id = :id)
         order by t.id limit :limit
        """),
        {"limit": limit, "after": after, "platform": PLATFORM_TENANT, "id": tenant_id},
    )
    return [dict(row._mapping) for row in rows]


async def usage(session: Session, tenant_id: UUID, since: datetime, until: datetime) -> list[dict[str, Any]]:
    """Replies and tokens a day."""
    rows = await session.execute(
        text("""
        select (created_at at time zone 'utc')::date as day, kind, sum(quantity)::int as quantity, sum(tokens_in)::bigint as tokens_in,
               sum(tokens_out)::bigint as tokens_out
          from usage_events where tenant_id = :id and created_at >= :since and created_at < :until group by 1, 2 order by 1, 2
        """),
        {"id": tenant_id, "since": since, "until": until},
    )
    return [dict(row._mapping) for row in rows]


async def dead_letters(session: Session, limit: int) -> list[dict[str, Any]]:
    """What was given up, of all businesses: ids, counts and times."""
    rows = await session.execute(
        text("""
        (select tenant_id, id, thread_id, 'inbox' as kind, attempts as tries, created_at from inbox_messages where state = 'dead'
          order by created_at desc limit :limit)
        union all
        (select tenant_id, id, thread_id, 'outbox', tries, created_at from outbox where state = 'dead'
          order by created_at desc limit :limit)
        order by created_at desc limit :limit
        """),
        {"limit": limit},
    )
    return [dict(row._mapping) for row in rows]


# --- feature flags and impersonation (identity session) -------------------------------------------------------------


async def flags(session: Session) -> list[dict[str, Any]]:
    rows = await session.execute(
        text("select key, description, enabled, on_for, off_for, updated_at from feature_flags order by key")
    )
    return [dict(row._mapping) for row in rows]


async def set_flag(
    session: Session,
    key: str,
    description: str,
    *,
    enabled: bool,
    on_for: Sequence[UUID],
    off_for: Sequence[UUID],
) -> None:
    await session.execute(
        text("""
        insert into feature_flags (key, description, enabled, on_for, off_for) values (:key, :description, :enabled, :on, :off)
        on conflict (key) do update set description = :description, enabled = :enabled, on_for = :on, off_for = :off,
                                        updated_at = clock_timestamp()
        """),
        {
            "key": key,
            "description": description,
            "enabled": enabled,
            "on": list(on_for),
            "off": list(off_for),
        },
    )


async def flags_of(session: Session, tenant_id: UUID) -> dict[str, bool]:
    """Each flag as it stands for a tenant."""
    rows = await session.execute(
        text("""
        select key, case when :tenant = any(off_for) then false when :tenant = any(on_for) then true else enabled end as enabled
          from feature_flags order by key
        """),
        {"tenant": tenant_id},
    )
    return {row.key: row.enabled for row in rows}


async def request_impersonation(
    session: Session,
    *,
    tenant_id: UUID,
    requested_by: UUID,
    reason: str,
    permissions: Sequence[str],
    minutes: int,
) -> UUID:
    created: UUID = await session.scalar(
        text("""
        insert into impersonations (id, tenant_id, requested_by, reason, permissions, minutes)
        values (:id, :tenant, :by, :reason, :permissions, :minutes) returning id
        """),
        {
            "id": new_id(),
            "tenant": tenant_id,
            "by": requested_by,
            "reason": reason,
            "permissions": list(permissions),
            "minutes": minutes,
        },
    )
    return created


async def impersonation(session: Session, impersonation_id: UUID) -> dict[str, Any]:
    """One request.

    Raises:
        NotFound: no such request.
    """
    row = (
        await session.execute(
            text("""
            select id, tenant_id, requested_by, reason, permissions, minutes, state, decided_by, decided_at, expires_at, created_at
              from impersonations where id = :id
            """),
            {"id": impersonation_id},
        )
    ).one_or_none()
    if row is None:
        raise NotFound("No such request.")
    return dict(row._mapping)


async def impersonations(session: Session, limit: int) -> list[dict[str, Any]]:
    rows = await session.execute(
        text("""
        select id, tenant_id, requested_by, reason, permissions, minutes, state, decided_by, decided_at, expires_at, created_at
          from impersonations order by created_at desc limit :limit
        """),
        {"limit": limit},
    )
    return [dict(row._mapping) for row in rows]


async def decide_impersonation(
    session: Session, impersonation_id: UUID, state: str, decided_by: UUID
) -> None:
    """Approve or refuse a request that nobody has decided; the table itself refuses the requester.

    Raises:
        Conflict: it was decided.
    """
    result = await session.execute(
        text("""
        update impersonations set state = :state, decided_by = :by, decided_at = clock_timestamp(),
               expires_at = clock_timestamp() + make_interval(mins => minutes) where id = :id and state = 'requested'
        """),
        {"id": impersonation_id, "state": state, "by": decided_by},
    )
    if rowcount(result) != 1:
        raise Conflict("This request has been decided already.")


async def end_impersonation(session: Session, impersonation_id: UUID) -> None:
    await session.execute(
        text(
            "update impersonations set state = 'ended', expires_at = clock_timestamp() where id = :id and state = 'approved'"
        ),
        {"id": impersonation_id},
    )
    await session.execute(
        text("""
        update sessions set revoked_at = clock_timestamp(), revoked_reason = 'impersonation ended'
         where impersonation_id = :id and revoked_at is null
        """),
        {"id": impersonation_id},
    )
