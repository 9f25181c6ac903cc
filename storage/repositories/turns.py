"""Rows of the turn journal and of the vault behind a thread's placeholders."""

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from storage.crypto.cipher import LocalSealer, Subject
from storage.errors import NotFound
from storage.ids import new_id
from storage.placeholders import VaultEntry, normalise
from storage.repositories.directory import TenantInfo
from storage.sql import Session, text
from storage.tenancy import rowcount

_REQUEST, _RESPONSE, _VALUE = "turn_steps.request", "turn_steps.response", "pii_vault.value"


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


def step_id(turn_id: UUID, ordinal: int) -> UUID:
    """What a step's sealed values are bound to: its table's key is (turn, ordinal)."""
    return uuid5(turn_id, str(ordinal))


async def load_steps(session: Session, turn_id: UUID) -> list[Step]:
    """The steps of a turn in order; none of a person who was erased."""
    result = await session.execute(
        text("""
        select ordinal, kind, name, request_hash, request, response, started_at, model, tokens_in, tokens_out, ended_at
          from turn_steps where turn_id = :turn order by ordinal
        """),
        {"turn": turn_id},
    )
    rows = result.all()
    ids = [step_id(turn_id, row.ordinal) for row in rows]
    requests = await session.cipher.open_many(
        _REQUEST, [(ident, row.request) for ident, row in zip(ids, rows, strict=True)]
    )
    responses = await session.cipher.open_many(
        _RESPONSE, [(ident, row.response) for ident, row in zip(ids, rows, strict=True)]
    )
    return [
        Step(**{**row._mapping, "request": json.loads(request), "response": json.loads(response)})
        for row, request, response in zip(rows, requests, responses, strict=True)
        if request is not None and response is not None
    ]


async def append_steps(
    session: Session, *, turn_id: UUID, thread_id: UUID, fence: UUID, steps: Sequence[Step]
) -> bool:
    """Write steps if the thread's lease is still ours and the step before them is there; False (and nothing
    written) where not.

    A step that was committed without waiting for the disk is gone when the database crashed in between, and
    the lease may have survived: a worker that went on would leave a journal without its beginning.
    """
    sealer = await session.cipher.local(Subject.thread(thread_id))
    result = await session.execute(
        text("""
        insert into turn_steps (turn_id, ordinal, thread_id, kind, name, request_hash, request, response, model, tokens_in, tokens_out,
                                started_at)
        select :turn, s.ordinal, :thread, s.kind, s.name, s.request_hash, decode(s.request, 'base64'), decode(s.response, 'base64'),
               s.model, s.tokens_in, s.tokens_out, s.started_at
          from jsonb_to_recordset(cast(:steps as jsonb)) as s(ordinal int, kind text, name text, request_hash text, request text,
               response text, model text, tokens_in int, tokens_out int, started_at timestamptz)
         where exists (select from threads where id = :thread and fence = :fence for share)
           and :first = (select coalesce(max(ordinal), -1) + 1 from turn_steps where turn_id = :turn)
        """),
        {
            "turn": turn_id,
            "thread": thread_id,
            "fence": fence,
            "first": steps[0].ordinal,
            "steps": json.dumps([_row(turn_id, step, sealer) for step in steps]),
        },
    )
    return rowcount(result) == len(steps)


def _row(turn_id: UUID, step: Step, sealer: LocalSealer) -> dict[str, Any]:
    ident = step_id(turn_id, step.ordinal)

    def sealed(column: str, value: dict[str, Any]) -> str:
        return b64encode(sealer.seal(column, ident, json.dumps(value, ensure_ascii=False))).decode()

    return {
        "ordinal": step.ordinal,
        "kind": step.kind,
        "name": step.name,
        "request_hash": step.request_hash,
        "request": sealed(_REQUEST, step.request),
        "response": sealed(_RESPONSE, step.response),
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
              select coalesce(jsonb_agg(jsonb_build_array(v.id, placeholder, kind, encode(value, 'base64')) order by v.id), '[]')
                from pii_vault v where v.thread_id = :thread) as vault
              from tenants t
            """),
            {"thread": thread_id},
        )
    ).one_or_none()
    if row is None:
        raise NotFound("The tenant does not exist any more.")
    info = TenantInfo(row.id, row.slug, row.name, tuple(row.languages), row.time_zone, row.settings)
    values = await session.cipher.open_many(
        _VALUE, [(UUID(ident), b64decode(blob)) for ident, _, _, blob in row.vault]
    )
    return info, [
        VaultEntry(placeholder, kind, value, normalise(kind, value))
        for (_, placeholder, kind, _), value in zip(row.vault, values, strict=True)
        if value is not None
    ]


async def add_vault(session: Session, thread_id: UUID, entries: Sequence[VaultEntry]) -> None:
    """Store new placeholders. A second worker that numbered the same value differently fails on the unique
    key.
    """
    await session.execute(
        text("""
        insert into pii_vault (id, thread_id, placeholder, kind, value, norm_bi)
        values (:id, :thread, :placeholder, :kind, :value, :norm)
        """),
        [
            {
                "id": (ident := new_id()),
                "thread": thread_id,
                "placeholder": e.placeholder,
                "kind": e.kind,
                "value": await session.cipher.seal(_VALUE, ident, Subject.thread(thread_id), e.value),
                "norm": await session.cipher.blind(e.kind, e.norm),
            }
            for e in entries
        ],
    )
