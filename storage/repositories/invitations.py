"""Invitations that wait to be accepted: one-time tokens of that purpose, with the tenant's id. For identity sessions, which see all
tenants': each statement names its own.
"""

from typing import Any
from uuid import UUID

from storage.sql import Session, text


async def pending(
    session: Session, tenant_id: UUID, *, after: UUID | None, limit: int
) -> list[dict[str, Any]]:
    """Invitations with address, role and inviter, in the order of their ids."""
    rows = await session.execute(
        text("""
        select i.id, i.payload ->> 'email' as email, r.key as role, i.payload ->> 'by' as invited_by, i.created_at, i.expires_at
          from one_time_tokens i left join roles r on r.tenant_id = i.tenant_id and r.id = cast(i.payload ->> 'role_id' as uuid)
         where i.tenant_id = :tenant and i.purpose = 'invitation' and i.used_at is null and i.expires_at > clock_timestamp()
           and (cast(:after as uuid) is null or i.id > :after)
         order by i.id limit :limit
        """),
        {"tenant": tenant_id, "after": after, "limit": limit},
    )
    return [dict(row._mapping) for row in rows]


async def count(session: Session, tenant_id: UUID) -> int:
    """How many wait."""
    return int(
        await session.scalar(
            text("""
            select count(*) from one_time_tokens
             where tenant_id = :tenant and purpose = 'invitation' and used_at is null and expires_at > clock_timestamp()
            """),
            {"tenant": tenant_id},
        )
    )


async def sent_lately(session: Session, tenant_id: UUID, email: str, seconds: int) -> bool:
    """Whether this (folded) address got one of this tenant's within so many seconds, whatever became of it."""
    return bool(
        await session.scalar(
            text("""
            select exists (select from one_time_tokens where tenant_id = :tenant and purpose = 'invitation'
                             and payload ->> 'email' = :email and created_at > clock_timestamp() - make_interval(secs => :seconds))
            """),
            {"tenant": tenant_id, "email": email, "seconds": seconds},
        )
    )


async def waits_for_role(session: Session, tenant_id: UUID, role_id: UUID) -> bool:
    """Whether somebody was invited to have this role."""
    return bool(
        await session.scalar(
            text("""
            select exists (select from one_time_tokens where tenant_id = :tenant and purpose = 'invitation' and used_at is null
                             and expires_at > clock_timestamp() and payload ->> 'role_id' = :role)
            """),
            {"tenant": tenant_id, "role": str(role_id)},
        )
    )


async def end(session: Session, tenant_id: UUID, invitation_id: UUID) -> UUID | None:
    """Take one back: the id of the role that it was for; None where it is none of this tenant's, or is not open."""
    role: str | None = await session.scalar(
        text("""
        update one_time_tokens set used_at = clock_timestamp()
         where id = :id and tenant_id = :tenant and purpose = 'invitation' and used_at is null and expires_at > clock_timestamp()
        returning payload ->> 'role_id'
        """),
        {"tenant": tenant_id, "id": invitation_id},
    )
    return None if role is None else UUID(role)


async def end_for(session: Session, tenant_id: UUID, email: str) -> None:
    """Take back all that were sent to a (folded) address: the newest link is the only one that works."""
    await session.execute(
        text("""
        update one_time_tokens set used_at = clock_timestamp()
         where tenant_id = :tenant and purpose = 'invitation' and used_at is null and payload ->> 'email' = :email
        """),
        {"tenant": tenant_id, "email": email},
    )
