# ruff: noqa: S608  # the texts are put together from constants and the column registry
"""What is over its time, counted and removed. Each pair of functions shares its condition: a dry run tells what a real one does."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from storage.ids import new_id
from storage.registry import PersonalColumn
from storage.repositories import audit
from storage.sql import Session, text
from storage.tenancy import rowcount

_SLICE = timedelta(days=7)  # of old rows that one statement removes: a first run may meet years
_NO_HOLD = "not exists (select from contacts c where c.id = t.contact_id and c.legal_hold is not null)"
_QUIET = (
    "t.created_at < :before and not exists (select from inbox_messages m where m.thread_id = t.id"
    " and (m.created_at >= :before or m.state = 'pending'))"
)
_DUE_THREAD = f"t.erased_at is null and {_QUIET} and {_NO_HOLD}"
# Marked by a run that was killed before it came to the end. What a request of erasure has marked is that one's business.
_UNFINISHED = """
    t.erased_at is not null and not starts_with(t.external_id, 'erased:') and not exists (
      select from privacy_requests r where r.contact_id = t.contact_id and r.kind = 'erasure' and r.state = 'pending')
"""


async def due_threads(session: Session, before: datetime, limit: int | None) -> list[UUID]:
    """Conversations whose content is over its time, and those that an earlier run has begun to erase."""
    rows = await session.scalars(
        text(
            f"select t.id from threads t where ({_DUE_THREAD}) or ({_UNFINISHED}) order by t.id limit :limit"
        ),
        {"before": before, "limit": limit},
    )
    return list(rows)


async def lock_threads(session: Session, threads: Sequence[UUID], before: datetime) -> list[UUID]:
    """Those that are still due now that nobody can write in them."""
    rows = await session.scalars(
        text(f"""
        select t.id from threads t where t.id = any(:threads) and (({_DUE_THREAD}) or ({_UNFINISHED})) order by t.id for update
        """),
        {"threads": list(threads), "before": before},
    )
    return list(rows)


# --- traces ---------------------------------------------------------------------------------------------------------

# The same as in the function prune_turns: whole turns, none that is open, none under a legal hold.
_OLD_STEP = """
    s.turn_id in (select d.turn_id from turn_steps d group by d.turn_id having max(d.ended_at) < :before)
    and not exists (select from inbox_messages m where m.turn_id = s.turn_id and m.state = 'pending')
    and not exists (select from threads t join contacts c on c.id = t.contact_id where t.id = s.thread_id and c.legal_hold is not null)
"""


async def count_steps(session: Session, before: datetime, but: Sequence[UUID]) -> int:
    """Steps of turns that ``prune_steps`` would remove, without those of some threads."""
    return int(
        await session.scalar(
            text(f"select count(*) from turn_steps s where {_OLD_STEP} and not s.thread_id = any(:but)"),
            {"before": before, "but": list(but)},
        )
    )


async def steps_slices(session: Session, before: datetime) -> list[datetime]:
    """Times up to which one statement after the other shall prune."""
    oldest = await session.scalar(text("select min(ended_at) from turn_steps"))
    return _slices(oldest, before)


async def prune_steps(session: Session, tenant_id: UUID, before: datetime) -> int:
    """Remove steps of old turns (platform session)."""
    return int(
        await session.scalar(
            text("select prune_turns(:tenant, :before)"), {"tenant": tenant_id, "before": before}
        )
    )


async def idle_threads(session: Session, before: datetime) -> list[UUID]:
    """Conversations in which nothing happened since then, and that are not erased."""
    rows = await session.scalars(
        text(
            f"select t.id from threads t where t.erased_at is null and {_QUIET} and {_NO_HOLD} order by t.id"
        ),
        {"before": before},
    )
    return list(rows)


# --- the audit log ----------------------------------------------------------------------------------------------------


async def count_audit(session: Session, before: datetime) -> int:
    """Entries that ``audit.prune`` would remove: the beginning of the chain, but never its last entry."""
    return int(
        await session.scalar(
            text("""
            select count(*) from audit_log where seq < coalesce(
              (select min(seq) from audit_log where created_at >= :before), (select seq from audit_head))
            """),
            {"before": before},
        )
    )


async def audit_slices(session: Session, before: datetime) -> list[datetime]:
    oldest = await session.scalar(text("select min(created_at) from audit_log"))
    return _slices(oldest, before)


async def prune_audit(session: Session, tenant_id: UUID, before: datetime) -> int:
    """As ``audit.prune`` (platform session)."""
    return await audit.prune(session, tenant_id, before)


# --- what has ended -----------------------------------------------------------------------------------------------------

_MINE = "coalesce(tenant_id, :platform) = :tenant"
# Table → condition, for identity sessions. Refresh tokens go with their session.
_ENDED = {
    "sessions": f"{_MINE} and least(expires_at, coalesce(revoked_at, expires_at)) < :before",
    "one_time_tokens": f"{_MINE} and least(expires_at, coalesce(used_at, expires_at)) < :before",
    "mails": "cast(:tenant as uuid) = cast(:platform as uuid) and state <> 'pending' and coalesce(sent_at, created_at) < :before",
}
_OLD_ANSWER = "created_at < :before and locked_until < clock_timestamp()"


async def ended(
    session: Session, tenant_id: UUID, platform: UUID, before: datetime, *, remove: bool
) -> dict[str, int]:
    """Sessions, links and mails that are over, by table (identity session). What belongs to no business is the platform's."""
    values = {"tenant": tenant_id, "platform": platform, "before": before}
    return {
        table: await _count_or_remove(session, table, condition, values, remove=remove)
        for table, condition in _ENDED.items()
    }


async def old_answers(session: Session, before: datetime, *, remove: bool) -> int:
    """Answers kept for requests that a client may repeat (tenant session)."""
    return await _count_or_remove(session, "idempotency_keys", _OLD_ANSWER, {"before": before}, remove=remove)


async def _count_or_remove(
    session: Session, table: str, condition: str, values: dict[str, Any], *, remove: bool
) -> int:
    if remove:
        return rowcount(await session.execute(text(f"delete from {table} where {condition}"), values))
    return int(await session.scalar(text(f"select count(*) from {table} where {condition}"), values))


# --- by age, and contacts -----------------------------------------------------------------------------------------------


async def aged_rows(
    session: Session, table: str, entries: Sequence[PersonalColumn], before: datetime, *, remove: bool
) -> int:
    """Columns of old rows, as each says what its end is; rows."""
    if any(entry.personal.on_erasure == "row" for entry in entries):
        return await _count_or_remove(
            session, table, "created_at < :before", {"before": before}, remove=remove
        )
    emptied = [entry.column for entry in entries if entry.personal.on_erasure == "null"]
    if not emptied:
        return 0
    condition = f"created_at < :before and ({' or '.join(f'{column} is not null' for column in emptied)})"
    if not remove:
        return await _count_or_remove(session, table, condition, {"before": before}, remove=False)
    assignments = ", ".join(f"{column} = null" for column in emptied)
    return rowcount(
        await session.execute(text(f"update {table} set {assignments} where {condition}"), {"before": before})
    )


_IDLE_CONTACT = """
    c.erased_at is null and c.legal_hold is null and c.updated_at < :before
    and not exists (select from threads t where t.contact_id = c.id and t.updated_at >= :before)
    and not exists (select from leads l where l.contact_id = c.id and l.updated_at >= :before)
    and not exists (select from notes n where n.contact_id = c.id and n.created_at >= :before)
    and not exists (select from privacy_requests r where r.contact_id = c.id and r.kind = 'erasure' and r.state = 'pending')
"""


async def count_idle_contacts(session: Session, before: datetime) -> int:
    return int(
        await session.scalar(
            text(f"select count(*) from contacts c where {_IDLE_CONTACT}"), {"before": before}
        )
    )


async def ask_to_erase_idle_contacts(session: Session, before: datetime, actor: str, reason: str) -> int:
    """A request of erasure for each contact with whom nothing happened since then; requests."""
    found = list(
        await session.scalars(
            text(f"select c.id from contacts c where {_IDLE_CONTACT} order by c.id for update"),
            {"before": before},
        )
    )
    for contact_id in found:
        await session.execute(
            text("""
            insert into privacy_requests (id, kind, contact_id, requested_by, reason)
            values (:id, 'erasure', :contact, :actor, :reason)
            """),
            {"id": new_id(), "contact": contact_id, "actor": actor, "reason": reason},
        )
    return len(found)


def _slices(oldest: datetime | None, before: datetime) -> list[datetime]:
    cuts = []
    while oldest is not None and oldest < before:
        oldest = min(oldest + _SLICE, before)
        cuts.append(oldest)
    return cuts
