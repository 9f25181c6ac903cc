"""Requests that a client may repeat (Idempotency-Key): the row is there before the act, and the act's own transaction marks it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from storage.crypto.cipher import Subject
from storage.ids import new_id
from storage.sql import Session, text

BODY = "idempotency_keys.body"
LOCK_SECONDS = 120  # longer than any handler may take


@dataclass(frozen=True)
class Known:
    """A row that was there. ``locked``: the first request may still be in work."""

    state: str
    fingerprint: bytes
    locked: bool
    status: int | None
    headers: dict[str, Any]
    body: bytes | None


def key_hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


async def begin(session: Session, actor: str, key: str, fingerprint: str) -> Known | None:
    """Claim a key; None where it is ours now, else what there is."""
    values = {"actor": actor, "key": key_hash(key)}
    claimed = await session.scalar(
        text("""
        insert into idempotency_keys (id, actor, key_hash, fingerprint, locked_until)
        values (:id, :actor, :key, :fingerprint, clock_timestamp() + make_interval(secs => :lock)) on conflict do nothing returning id
        """),
        {**values, "id": new_id(), "fingerprint": bytes.fromhex(fingerprint), "lock": LOCK_SECONDS},
    )
    if claimed is not None:
        return None
    row = (
        await session.execute(
            text("""
            select id, state, fingerprint, locked_until > clock_timestamp() as locked, status, headers, body from idempotency_keys
             where actor = :actor and key_hash = :key
            """),
            values,
        )
    ).one_or_none()
    if row is None:  # the first one was abandoned between the two statements
        return Known("begun", bytes.fromhex(fingerprint), True, None, {}, None)
    body = await session.cipher.open_bytes(BODY, row.id, row.body)
    return Known(row.state, bytes(row.fingerprint), row.locked, row.status, row.headers, body)


async def mark_committed(session: Session, actor: str, key: str) -> None:
    """In the transaction of the act: from its commit on the act is never done again under this key."""
    await session.execute(
        text("update idempotency_keys set state = 'committed' where actor = :actor and key_hash = :key"),
        {"actor": actor, "key": key_hash(key)},
    )


async def finish(
    session: Session, actor: str, key: str, status: int, headers: Mapping[str, str], body: bytes
) -> None:
    """Keep the answer, sealed."""
    values: dict[str, Any] = {"actor": actor, "key": key_hash(key)}
    row_id: UUID | None = await session.scalar(
        text("select id from idempotency_keys where actor = :actor and key_hash = :key for update"), values
    )
    if row_id is not None:
        await session.execute(
            text("""
            update idempotency_keys set state = 'done', status = :status, headers = cast(:headers as jsonb), body = :body where id = :id
            """),
            {
                "id": row_id,
                "status": status,
                "headers": json.dumps(dict(headers)),
                "body": await session.cipher.seal(BODY, row_id, Subject.tenant(), body),
            },
        )


async def abandon(session: Session, actor: str, key: str) -> None:
    """Nothing was done: the key is free again."""
    await session.execute(
        text("delete from idempotency_keys where actor = :actor and key_hash = :key and state = 'begun'"),
        {"actor": actor, "key": key_hash(key)},
    )
