# ruff: noqa: S608  # the texts are put together from constants and the column registry
"""Consents, legal holds, and what people asked to be done with their data. Tenant sessions, but for ``due_requests``.

A request is worked under a lease; ``attempts`` rises with each claim and is the fence: whoever shows an older number writes nothing.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from storage.crypto.cipher import Subject
from storage.errors import Conflict, LeaseLost, NotFound
from storage.ids import new_id
from storage.sql import Session, text
from storage.tenancy import rowcount

EVIDENCE = "consents.evidence"
_COLUMNS = (
    "id, kind, contact_id, requested_by, reason, state, step, attempts, last_error, result, file_id, expires_at, created_at,"
    " finished_at"
)


@dataclass(frozen=True)
class Claim:
    """A request in work. ``step`` is the last one that is finished; ``result`` what the finished ones have noted."""

    id: UUID
    kind: str
    contact_id: UUID
    step: str | None
    attempts: int
    file_id: UUID | None
    result: dict[str, Any]


# --- contacts -------------------------------------------------------------------------------------------------------


async def require_contact(session: Session, contact_id: UUID) -> str | None:
    """Hold a contact for this transaction, so that it is not erased under it; the reason of its legal hold, or None.

    Raises:
        NotFound: missing, another tenant's, or erased: there is nobody any more whom a record could be about.
    """
    row = (
        await session.execute(
            text("select legal_hold, erased_at from contacts where id = :id for update"), {"id": contact_id}
        )
    ).one_or_none()
    if row is None or row.erased_at is not None:
        raise NotFound("No such contact.")
    hold: str | None = row.legal_hold
    return hold


async def set_legal_hold(session: Session, contact_id: UUID, reason: str | None) -> bool:
    """Put a contact on hold (its data is kept, whatever is asked), or lift the hold (None); False where nothing changed.

    Raises:
        NotFound: no such contact.
    """
    if await require_contact(session, contact_id) == reason:
        return False
    await session.execute(
        text("update contacts set legal_hold = :reason where id = :id"), {"id": contact_id, "reason": reason}
    )
    return True


async def add_consent(
    session: Session,
    contact_id: UUID,
    *,
    purpose: str,
    basis: str,
    state: str,
    source: str,
    evidence: str | None,
) -> UUID:
    """Add what a contact said; nothing is ever changed.

    Raises:
        NotFound: no such contact.
    """
    await require_contact(session, contact_id)
    consent_id = new_id()
    sealed = None
    if evidence is not None:
        sealed = await session.cipher.seal(EVIDENCE, consent_id, Subject.contact(contact_id), evidence)
    await session.execute(
        text("""
        insert into consents (id, contact_id, purpose, basis, state, source, evidence)
        values (:id, :contact, :purpose, :basis, :state, :source, :evidence)
        """),
        {
            "id": consent_id,
            "contact": contact_id,
            "purpose": purpose,
            "basis": basis,
            "state": state,
            "source": source,
            "evidence": sealed,
        },
    )
    return consent_id


async def consents(
    session: Session, contact_id: UUID, *, before: UUID | None = None, limit: int = 200
) -> list[dict[str, Any]]:
    """What a contact agreed to and took back, newest first; ``current`` marks the row that counts for its purpose.

    Raises:
        NotFound: no such contact.
    """
    if not await session.scalar(
        text("select exists (select from contacts where id = :id)"), {"id": contact_id}
    ):
        raise NotFound("No such contact.")
    rows = (
        await session.execute(
            text("""
            select * from (
              select id, contact_id, purpose, basis, state, source, evidence, created_at,
                     row_number() over (partition by purpose order by created_at desc, id desc) = 1 as current
                from consents where contact_id = :contact) as found
             where cast(:before as uuid) is null or id < :before order by id desc limit :limit
            """),
            {"contact": contact_id, "before": before, "limit": limit},
        )
    ).all()
    evidence = await session.cipher.open_many(EVIDENCE, [(row.id, row.evidence) for row in rows])
    return [{**row._mapping, "evidence": clear} for row, clear in zip(rows, evidence, strict=True)]


# --- requests -------------------------------------------------------------------------------------------------------


async def add_request(session: Session, kind: str, contact_id: UUID, actor: str, reason: str) -> UUID:
    """A new request.

    Raises:
        NotFound: no such contact, or erased.
        Conflict: one of the kind is in work, or the contact is under legal hold and was to be erased.
    """
    hold = await require_contact(session, contact_id)
    if kind == "erasure" and hold is not None:
        raise Conflict(
            "This contact is under legal hold. Lift the hold first, or keep the data.", legal_hold=True
        )
    open_one = await session.scalar(
        text("select id from privacy_requests where contact_id = :id and kind = :kind and state = 'pending'"),
        {"id": contact_id, "kind": kind},
    )
    if open_one is not None:
        raise Conflict("There is such a request already, and it is in work.", request_id=str(open_one))
    request_id = new_id()
    await session.execute(
        text("""
        insert into privacy_requests (id, kind, contact_id, requested_by, reason) values (:id, :kind, :contact, :actor, :reason)
        """),
        {"id": request_id, "kind": kind, "contact": contact_id, "actor": actor, "reason": reason},
    )
    return request_id


async def request(session: Session, request_id: UUID) -> dict[str, Any]:
    """One request.

    Raises:
        NotFound: missing, or another tenant's.
    """
    row = (
        await session.execute(
            text(f"select {_COLUMNS} from privacy_requests where id = :id"), {"id": request_id}
        )
    ).one_or_none()
    if row is None:
        raise NotFound("No such request.")
    return dict(row._mapping)


async def requests(
    session: Session, *, contact_id: UUID | None, before: UUID | None, limit: int
) -> list[dict[str, Any]]:
    """Requests, newest first. ``before`` is the id of the last one of the page before."""
    rows = await session.execute(
        text(f"""
        select {_COLUMNS} from privacy_requests
         where (cast(:contact as uuid) is null or contact_id = :contact) and (cast(:before as uuid) is null or id < :before)
         order by id desc limit :limit
        """),
        {"contact": contact_id, "before": before, "limit": limit},
    )
    return [dict(row._mapping) for row in rows]


async def due_requests(session: Session, *, limit: int) -> list[tuple[UUID, UUID]]:
    """For the sweep (platform role): (tenant, request) that nobody is working on, oldest first."""
    rows = await session.execute(
        text("""
        select tenant_id, id from privacy_requests
         where state = 'pending' and (lease_until is null or lease_until < clock_timestamp()) order by created_at limit :limit
        """),
        {"limit": limit},
    )
    return [(row.tenant_id, row.id) for row in rows]


async def claim(session: Session, request_id: UUID, *, lease_seconds: float) -> Claim | None:
    """Take a request; None where it is done or somebody else is at it."""
    row = (
        await session.execute(
            text("""
            update privacy_requests set attempts = attempts + 1, lease_until = clock_timestamp() + make_interval(secs => :lease)
             where id = :id and state = 'pending' and (lease_until is null or lease_until < clock_timestamp())
            returning id, kind, contact_id, step, attempts, file_id, result
            """),
            {"id": request_id, "lease": lease_seconds},
        )
    ).one_or_none()
    return None if row is None else Claim(**row._mapping)


async def extend(session: Session, held: Claim, *, lease_seconds: float) -> bool:
    """Keep the lease; False where it is no longer ours."""
    result = await session.execute(
        text("""
        update privacy_requests set lease_until = clock_timestamp() + make_interval(secs => :lease)
         where id = :id and attempts = :attempts and state = 'pending'
        """),
        {"id": held.id, "attempts": held.attempts, "lease": lease_seconds},
    )
    return rowcount(result) == 1


async def advance(
    session: Session,
    held: Claim,
    step: str,
    noted: dict[str, Any] | None = None,
    file_id: UUID | None = None,
) -> None:
    """A step is finished; in the transaction of the step itself where it has one.

    Args:
        noted: added to the result, key by key.

    Raises:
        LeaseLost: somebody else works this request now; nothing may be written.
    """
    result = await session.execute(
        text("""
        update privacy_requests set step = :step, result = result || cast(:noted as jsonb), last_error = null,
               file_id = coalesce(:file, file_id)
         where id = :id and attempts = :attempts and state = 'pending'
        """),
        {
            "id": held.id,
            "attempts": held.attempts,
            "step": step,
            "noted": json.dumps(noted or {}, default=str),
            "file": file_id,
        },
    )
    if rowcount(result) != 1:
        raise LeaseLost


async def finish(
    session: Session,
    held: Claim,
    state: str,
    *,
    noted: dict[str, Any] | None = None,
    error: str | None = None,
    life: timedelta | None = None,
) -> None:
    """The end of a request: ``done`` or ``failed``.

    Args:
        life: how long its file is kept.

    Raises:
        LeaseLost: somebody else works this request now; nothing may be written.
    """
    result = await session.execute(
        text("""
        update privacy_requests set state = :state, result = result || cast(:noted as jsonb), last_error = :error, lease_until = null,
               finished_at = clock_timestamp(), expires_at = clock_timestamp() + cast(:life as interval)
         where id = :id and attempts = :attempts and state = 'pending'
        """),
        {
            "id": held.id,
            "attempts": held.attempts,
            "state": state,
            "noted": json.dumps(noted or {}, default=str),
            "error": error,
            "life": life,
        },
    )
    if rowcount(result) != 1:
        raise LeaseLost


async def put_off(session: Session, held: Claim, error: str, delay: timedelta, step: str | None) -> None:
    """An attempt failed: again later, behind ``step``."""
    await session.execute(
        text("""
        update privacy_requests set last_error = :error, step = :step, lease_until = clock_timestamp() + :delay
         where id = :id and attempts = :attempts and state = 'pending'
        """),
        {"id": held.id, "attempts": held.attempts, "error": error, "delay": delay, "step": step},
    )


async def files_of(session: Session, contact_id: UUID) -> list[UUID]:
    """Export files of a person."""
    return list(
        await session.scalars(
            text("select file_id from privacy_requests where contact_id = :id and file_id is not null"),
            {"id": contact_id},
        )
    )


async def expired_files(session: Session, now: datetime, limit: int) -> list[tuple[UUID, UUID]]:
    """(request, file) whose time is over, or whose request came to nothing."""
    rows = await session.execute(
        text("""
        select id, file_id from privacy_requests
         where file_id is not null and (expires_at < :now or state = 'failed') order by id limit :limit
        """),
        {"now": now, "limit": limit},
    )
    return [(row.id, row.file_id) for row in rows]


async def forget_file(session: Session, request_id: UUID) -> None:
    """The file of a request is gone."""
    await session.execute(
        text("update privacy_requests set file_id = null where id = :id"), {"id": request_id}
    )


async def forget_files_of(session: Session, contact_id: UUID) -> None:
    """The export files of a person are gone."""
    await session.execute(
        text("update privacy_requests set file_id = null where contact_id = :id and file_id is not null"),
        {"id": contact_id},
    )
