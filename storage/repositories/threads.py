"""Threads and their messages as people read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from storage.errors import NotFound
from storage.ids import new_id
from storage.repositories.claims import TEXT
from storage.sql import Session, text


@dataclass(frozen=True)
class Message:
    """A message as shown: ``direction`` in or out, ``seq`` its place in the thread. ``text`` is None where the person was
    erased.
    """

    id: UUID
    thread_id: UUID
    external_id: str
    direction: str
    seq: int
    text: str | None
    state: str
    agent: str | None
    language: str | None
    citations: list[dict[str, Any]]
    reduced: bool
    in_reply_to: UUID | None
    turn_id: UUID | None
    created_at: datetime


_COLUMNS = "id, thread_id, external_id, direction, seq, text, state, agent, language, citations, reduced, in_reply_to, turn_id, created_at"


async def open_thread(session: Session, channel_id: UUID, external_id: str) -> tuple[UUID, str, int]:
    """The visitor's thread in a channel, made at the first call: (id, epoch, last seq).

    ``epoch`` changes when a thread is begun anew under the same visitor, which tells a client to forget what
    it has stored.
    """
    await session.execute(
        text("""
        insert into threads (id, channel_id, external_id, epoch) values (:id, :channel, :external, :epoch)
        on conflict (tenant_id, channel_id, external_id) do nothing
        """),
        {
            "id": (thread_id := new_id()),
            "channel": channel_id,
            "external": external_id,
            "epoch": thread_id.hex[-8:],
        },
    )
    row = (
        await session.execute(
            text(
                "select id, epoch, last_seq from threads where channel_id = :channel and external_id = :external"
            ),
            {"channel": channel_id, "external": external_id},
        )
    ).one()
    return row.id, row.epoch, row.last_seq


async def messages_after(session: Session, thread_id: UUID, cursor: int, limit: int = 200) -> list[Message]:
    """Messages with ``seq`` above the cursor, in order."""
    rows = await session.execute(
        text(
            f"select {_COLUMNS} from inbox_messages where thread_id = :thread and seq > :cursor order by seq limit :limit"
        ),
        {"thread": thread_id, "cursor": cursor, "limit": limit},
    )
    return await _opened(session, rows.all())


async def message(session: Session, message_id: UUID) -> Message:
    """One message.

    Raises:
        NotFound: missing, or another tenant's.
    """
    row = (
        await session.execute(
            text(f"select {_COLUMNS} from inbox_messages where id = :id"), {"id": message_id}
        )
    ).one_or_none()
    if row is None:
        raise NotFound("No such message.")
    return (await _opened(session, [row]))[0]


async def _opened(session: Session, rows: Sequence[Any]) -> list[Message]:
    texts = await session.cipher.open_many(TEXT, [(row.id, row.text) for row in rows])
    return [Message(**{**row._mapping, "text": body}) for row, body in zip(rows, texts, strict=True)]


async def list_threads(
    session: Session, *, needs_human: bool | None, before: datetime | None, limit: int
) -> list[dict[str, Any]]:
    """Threads, newest activity first. ``before`` pages on by ``updated_at``."""
    rows = await session.execute(
        text("""
        select id, channel_id, contact_id, handler, needs_human_at, language, agent, last_seq, created_at, updated_at from threads
         where (cast(:before as timestamptz) is null or updated_at < :before)
           and (cast(:needs as boolean) is null or (needs_human_at is not null) = :needs)
         order by updated_at desc limit :limit
        """),
        {"before": before, "needs": needs_human, "limit": limit},
    )
    return [dict(row._mapping) for row in rows]


async def get_thread(session: Session, thread_id: UUID) -> dict[str, Any]:
    """One thread.

    Raises:
        NotFound: missing, or another tenant's.
    """
    row = (
        await session.execute(
            text("""
            select id, channel_id, contact_id, handler, needs_human_at, language, agent, last_seq, created_at, updated_at
              from threads where id = :id
            """),
            {"id": thread_id},
        )
    ).one_or_none()
    if row is None:
        raise NotFound("No such thread.")
    return dict(row._mapping)


async def set_handler(session: Session, thread_id: UUID, handler: str) -> None:
    """Who answers from now on: ``agent`` or ``human``. Open messages follow; a turn in work is stopped at its
    last transaction.

    Raises:
        NotFound: missing, or another tenant's.
    """
    row = (
        await session.execute(
            text("""
            update threads set handler = :handler, updated_at = clock_timestamp(),
                   needs_human_at = case when :handler = 'agent' then null else needs_human_at end
             where id = :id returning lease_until is not null and lease_until > clock_timestamp() as busy
            """),
            {"id": thread_id, "handler": handler},
        )
    ).one_or_none()
    if row is None:
        raise NotFound("No such thread.")
    if handler == "human" and not row.busy:
        await session.execute(
            text(
                "update inbox_messages set state = 'human' where thread_id = :id and direction = 'in' and state = 'pending'"
            ),
            {"id": thread_id},
        )


async def set_contact(session: Session, thread_id: UUID, contact_id: UUID) -> None:
    """The thread turned out to be this contact's."""
    await session.execute(
        text("update threads set contact_id = :contact where id = :thread"),
        {"contact": contact_id, "thread": thread_id},
    )
