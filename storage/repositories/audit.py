"""The record of who did what; ids and field names only, never content.

Each entry carries the hash of the one before it in its tenant's chain. The app's role can add entries (by the function
``audit_append``) and read them; it can change none. ``verify`` computes the chain outside the database, so that not even a changed
function hides a changed row; a rewritten end of the chain shows against the anchors that the sweep writes elsewhere.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from storage.ids import new_id
from storage.sql import Session, text
from storage.tenancy import TenantContext

_BATCH = 1000


async def record(
    session: Session,
    context: TenantContext,
    action: str,
    object_type: str,
    object_id: object,
    *,
    reason: str | None = None,
    **detail: Any,
) -> None:
    """Add an entry in the transaction of the act itself: no act without its entry, no entry without its act.

    Call it last in a transaction: it holds the tenant's chain until the commit.

    Args:
        action: what was done, such as ``contact.read``.
        object_type: kind of the record, such as ``contact``.
        object_id: which one.
        reason: why, where somebody said so.
        detail: ids, counts and names of fields.
    """
    await session.execute(
        text(
            "select audit_append(:actor, :action, :type, :object, cast(:detail as jsonb), :reason, :request, :id)"
        ),
        {
            "id": new_id(),
            "actor": context.actor,
            "action": action,
            "type": object_type,
            "object": str(object_id),
            "detail": json.dumps(detail, default=str),
            "reason": reason or context.reason,
            "request": context.request_id,
        },
    )


@dataclass(frozen=True)
class Finding:
    """Something wrong in a chain: at which place, and what."""

    seq: int
    what: str


@dataclass(frozen=True)
class Verdict:
    """What a look at one tenant's chain found; ``head`` is the hash of its last entry."""

    entries: int
    seq: int
    head: bytes
    findings: tuple[Finding, ...]


_FIELDS = """
    tenant_id::text as tenant, seq, id::text as id,
    to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US') as at,
    actor, action, object_type, object_id, detail::text as detail, reason, request_id, prev, hash
"""


def entry_hash(prev: bytes, fields: Sequence[str | None]) -> bytes:
    """The hash of an entry: SHA-256 over the one before it and its fields as netstrings (NULL is ``-``).

    Args:
        prev: hash of the entry before.
        fields: tenant, seq, id, time (UTC, microseconds), actor, action, object type and id, detail (PostgreSQL's own text
            of the JSON), reason, request id.
    """
    canonical = ",".join("-" if field is None else f"{len(field.encode())}:{field}" for field in fields)
    return hashlib.sha256(prev + canonical.encode()).digest()


async def verify(session: Session, anchors: Sequence[tuple[int, bytes]] = ()) -> Verdict:
    """Compute the chain of a tenant session's tenant anew.

    Args:
        anchors: (place, hash) as they were written down outside the database at some time.
    """
    head = (
        await session.execute(text("select seq, hash, base_seq, base_hash from audit_head"))
    ).one_or_none()
    expected, before = (head.base_seq, bytes(head.base_hash)) if head else (0, b"\x00")
    wanted, findings, entries = dict(anchors), [], 0
    async for row in _entries(session):
        entries += 1
        expected += 1
        if row.seq != expected:
            findings.append(Finding(expected, f"missing: after {expected - 1} comes {row.seq}"))
            expected = row.seq
        if bytes(row.prev) != before:
            findings.append(Finding(row.seq, "does not follow the entry before it"))
        fields = (
            row.tenant, str(row.seq), row.id, row.at, row.actor, row.action, row.object_type, row.object_id,
            row.detail, row.reason, row.request_id,
        )  # fmt: skip
        if entry_hash(bytes(row.prev), fields) != bytes(row.hash):
            findings.append(Finding(row.seq, "was changed"))
        before = bytes(row.hash)
        if row.seq in wanted and wanted[row.seq] != before:
            findings.append(
                Finding(row.seq, "differs from the anchor that was kept outside: the chain was rewritten")
            )
    if head is None:
        if entries:
            findings.append(Finding(0, "the end of the chain is gone"))
    elif (head.seq, bytes(head.hash)) != (expected, before):
        findings.append(Finding(expected, f"the chain ends at {expected}, but {head.seq} were written"))
    findings += [
        Finding(place, "was anchored outside, and is gone") for place in sorted(wanted) if place > expected
    ]
    return Verdict(entries, expected, before, tuple(findings))


async def _entries(session: Session) -> AsyncIterator[Any]:
    """All rows in the order of their places, impossible places included: somebody may have removed the unique key."""
    place = -(2**31)
    seen: set[str] = set()
    while True:
        rows = (
            await session.execute(
                text(f"select {_FIELDS} from audit_log where seq >= :place order by seq, id limit :limit"),
                {"place": place, "limit": _BATCH},
            )
        ).all()
        fresh = [row for row in rows if row.id not in seen]
        for row in fresh:
            yield row
        if len(rows) < _BATCH or not fresh:
            return
        place = rows[-1].seq
        seen = {row.id for row in rows if row.seq == place}


async def head(session: Session) -> tuple[int, bytes]:
    """(place, hash) of the last entry; (0, one zero byte) where there is none."""
    row = (await session.execute(text("select seq, hash from audit_head"))).one_or_none()
    return (0, b"\x00") if row is None else (row.seq, bytes(row.hash))


async def search(
    session: Session,
    *,
    actor: str | None = None,
    action: str | None = None,
    object_type: str | None = None,
    object_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Entries, newest first.

    Args:
        action: a whole name, or its beginning with a dot at the end: ``contact.`` finds ``contact.read``.
        before: entries with a place below this one (for paging).
    """
    rows = await session.execute(
        text("""
        select seq, id, created_at, actor, action, object_type, object_id, detail, reason, request_id from audit_log
         where (cast(:actor as text) is null or actor = :actor)
           and (cast(:action as text) is null or action = :action or (right(:action, 1) = '.' and starts_with(action, :action)))
           and (cast(:type as text) is null or object_type = :type) and (cast(:object as text) is null or object_id = :object)
           and (cast(:since as timestamptz) is null or created_at >= :since)
           and (cast(:until as timestamptz) is null or created_at < :until)
           and (cast(:before as int) is null or seq < :before)
         order by seq desc limit :limit
        """),
        {
            "actor": actor,
            "action": action,
            "type": object_type,
            "object": object_id,
            "since": since,
            "until": until,
            "before": before,
            "limit": limit,
        },
    )
    return [dict(row._mapping) for row in rows]


async def prune(session: Session, tenant_id: UUID, before: datetime) -> int:
    """Remove the beginning of a tenant's chain (platform session); the rest still verifies. Number of entries removed."""
    return int(
        await session.scalar(
            text("select audit_prune(:tenant, :before)"), {"tenant": tenant_id, "before": before}
        )
    )
