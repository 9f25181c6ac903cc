"""Rows of the turn journal and of the vault behind a thread's placeholders."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from storage.errors import NotFound
from storage.ids import new_id
from storage.placeholders import VaultEntry
from storage.repositories.directory import TenantInfo
from storage.sql import Session, text
from storage.tenancy import rowcount


@dataclass(frozen=True)
class Step:
    """One journalled step. ``request`` and ``response`` are JSON objects with placeholders instead of
    personal data.
    """

    ordinal: int
    kind: str
    name: str
    request_hash: str
    request: dict[str, Any]
    response: dict[str, Any]
    started_at: datetime
    model: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    ended_at: datetime | None = None


async def load_steps(session: Session, turn_id: UUID) -> list[Step]:
    rows = await session.execute(
        text("""
        select ordinal, kind, name, request_hash, request, response, started_at, model, tokens_in, tokens_out, ended_at
          from turn_steps where turn_id = :turn order by ordinal
        """),
        {"turn": turn_id},
    )
    return [Step(**row._mapping) for row in rows]


async def append_steps(
    session: Session, *, turn_id: UUID, thread_id: UUID, fence: UUID, steps: Sequence[Step]
) -> bool:
    """Write steps if the thread's lease is still ours and the step before them is there; False (and nothing
    written) where not.

    A step that was committed without waiting for the disk is gone when the database crashed in between, and
    the lease may have survived: a worker that went on would leave a journal without its beginning.
    """
    result = await session.execute(
        text("""
        insert into turn_steps (turn_id, ordinal, thread_id, kind, name, request_hash, request, response, model, tokens_in, tokens_out,
                                started_at)
        select :turn, s.ordinal, :thread, s.kind, s.name, s.request_hash, s.request, s.response, s.model, s.tokens_in, s.tokens_out,
               s.started_at
          from jsonb_to_recordset(cast(:steps as jsonb)) as s(ordinal int, kind text, name text, request_hash text, request jsonb,
               response jsonb, model text, tokens_in int, tokens_out int, started_at timestamptz)
         where exists (select from threads where id = :thread and fence = :fence for share)
           and :first = (select coalesce(max(ordinal), -1) + 1 from turn_steps where turn_id = :turn)
        """),
        {
            "turn": turn_id,
            "thread": thread_id,
            "fence": fence,
            "first": steps[0].ordinal,
            "steps": json.dumps([_row(step) for step in steps], ensure_ascii=False),
        },
    )
    return rowcount(result) == len(steps)


def _row(step: Step) -> dict[str, Any]:
    return {
        "ordinal": step.ordinal,
        "kind": step.kind,
        "name": step.name,
        "request_hash": step.request_hash,
        "request": step.request,
        "response": step.response,
        "model": step.model,
        "tokens_in": step.tokens_in,
        "tokens_out": step.tokens_out,
        "started_at": step.started_at.isoformat(),
    }


async def load_surroundings(session: Session, thread_id: UUID) -> tuple[TenantInfo, list[VaultEntry]]:
    """The tenant, and the placeholders of a thread in the order in which they were given; one round trip.

    Raises:
        NotFound: the tenant was deleted.
    """
    row = (
        await session.execute(
            text("""
            select t.id, t.slug, t.name, t.languages, t.time_zone, t.settings, (
              select coalesce(jsonb_agg(jsonb_build_array(placeholder, kind, value, norm) order by v.id), '[]')
                from pii_vault v where v.thread_id = :thread) as vault
              from tenants t
            """),
            {"thread": thread_id},
        )
    ).one_or_none()
    if row is None:
        raise NotFound("The tenant does not exist any more.")
    info = TenantInfo(row.id, row.slug, row.name, tuple(row.languages), row.time_zone, row.settings)
    return info, [VaultEntry(*entry) for entry in row.vault]


async def add_vault(session: Session, thread_id: UUID, entries: Sequence[VaultEntry]) -> None:
    """Store new placeholders. A second worker that numbered the same value differently fails on the unique
    key.
    """
    await session.execute(
        text("""
        insert into pii_vault (id, thread_id, placeholder, kind, value, norm) values (:id, :thread, :placeholder, :kind, :value, :norm)
        """),
        [
            {
                "id": new_id(),
                "thread": thread_id,
                "placeholder": e.placeholder,
                "kind": e.kind,
                "value": e.value,
                "norm": e.norm,
            }
            for e in entries
        ],
    )
