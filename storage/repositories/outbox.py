"""What is still to be sent: claimed one at a time for each thread, in order."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from storage.errors import Conflict, NotFound
from storage.ids import new_id
from storage.sql import Session, text
from storage.tenancy import rowcount


@dataclass(frozen=True)
class Delivery:
    """A leased outbox row. ``tries`` counts this one too."""

    id: UUID
    token: UUID
    thread_id: UUID
    channel_id: UUID
    channel_kind: str
    message_id: UUID
    dedupe_key: str
    tries: int


async def claim(session: Session, thread_id: UUID, *, lease_seconds: float) -> Delivery | None:
    """The thread's oldest unsent row, if it is due and nobody is sending it."""
    row = (
        await session.execute(
            text("""
            update outbox o set lease_token = :token, tries = tries + 1,
                   lease_until = clock_timestamp() + make_interval(secs => :lease)
              from channels c
             where o.id = (select id from outbox where thread_id = :thread and state = 'pending' order by seq limit 1 for update)
               and o.next_at <= clock_timestamp() and (o.lease_until is null or o.lease_until < clock_timestamp())
               and c.id = o.channel_id
            returning o.id, o.channel_id, c.kind, o.message_id, o.dedupe_key, o.tries
            """),
            {"token": (token := new_id()), "lease": lease_seconds, "thread": thread_id},
        )
    ).one_or_none()
    if row is None:
        return None
    return Delivery(
        row.id, token, thread_id, row.channel_id, row.kind, row.message_id, row.dedupe_key, row.tries
    )


async def mark_sent(session: Session, outbox_id: UUID, token: UUID, provider_id: str | None = None) -> bool:
    """False where another sender has taken the row over."""
    result = await session.execute(
        text("""
        update outbox set state = 'sent', sent_at = clock_timestamp(), provider_id = :provider, lease_until = null, last_error = null
         where id = :id and lease_token = :token and state = 'pending'
        """),
        {"id": outbox_id, "token": token, "provider": provider_id},
    )
    return rowcount(result) == 1


async def mark_failed(
    session: Session, delivery: Delivery, error: str, *, retry_in: timedelta | None
) -> None:
    """Back off, or (``retry_in`` None) give up: the row becomes a dead letter and the thread calls for a
    person.
    """
    await session.execute(
        text("""
        update outbox set state = case when :dead then 'dead' else state end, last_error = :error, lease_until = null,
               next_at = clock_timestamp() + :delay
         where id = :id and lease_token = :token and state = 'pending'
        """),
        {
            "id": delivery.id,
            "token": delivery.token,
            "error": error,
            "dead": retry_in is None,
            "delay": retry_in or timedelta(0),
        },
    )
    if retry_in is None:
        await session.execute(
            text(
                "update threads set needs_human_at = coalesce(needs_human_at, clock_timestamp()) where id = :thread"
            ),
            {"thread": delivery.thread_id},
        )


async def due_threads(session: Session, *, limit: int) -> list[tuple[UUID, UUID]]:
    """For the sweep (platform role): (tenant, thread) with a row that should have been sent."""
    rows = await session.execute(
        text("""
        select distinct tenant_id, thread_id from outbox where state = 'pending' and next_at <= clock_timestamp()
           and (lease_until is null or lease_until < clock_timestamp()) limit :limit
        """),
        {"limit": limit},
    )
    return [(row.tenant_id, row.thread_id) for row in rows]


async def dead_letters(session: Session, limit: int = 100) -> list[dict[str, Any]]:
    rows = await session.execute(
        text("""
        select id, thread_id, message_id, tries, last_error, created_at from outbox where state = 'dead'
         order by created_at desc limit :limit
        """),
        {"limit": limit},
    )
    return [dict(row._mapping) for row in rows]


async def replay(session: Session, outbox_id: UUID) -> UUID:
    """Try a dead row again; returns its thread.

    Raises:
        NotFound: no such row.
        Conflict: it is not dead.
    """
    row = (
        await session.execute(
            text("select thread_id, state from outbox where id = :id for update"), {"id": outbox_id}
        )
    ).one_or_none()
    if row is None:
        raise NotFound("No such outbox row.")
    if row.state != "dead":
        raise Conflict(f"Only a dead letter can be replayed; this row is {row.state}.")
    await session.execute(
        text(
            "update outbox set state = 'pending', tries = 0, next_at = clock_timestamp(), lease_until = null where id = :id"
        ),
        {"id": outbox_id},
    )
    return UUID(str(row.thread_id))
