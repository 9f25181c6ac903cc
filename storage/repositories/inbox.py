"""Step 2 of a message's path: the row that is the truth. And how it ends: answered, failed, given up, tried again.

``seq`` is given under the thread row's lock, so it has no gaps and its order is the order of commits. Whoever ends a turn shows the fence
of their claim (claims.py) in the same transaction.
"""

import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from storage.crypto.cipher import Subject
from storage.errors import Conflict, Forbidden, LeaseLost, NotFound
from storage.ids import new_id
from storage.repositories.claims import TEXT, Claim, extend_lease, release
from storage.sql import Session, text


@dataclass(frozen=True)
class Received:
    """What became of an inbound message. ``created`` is False where it had been delivered before; ``seq`` is
    then the old one.
    """

    message_id: UUID
    thread_id: UUID
    seq: int
    created: bool


@dataclass(frozen=True)
class Reply:
    """What a turn ends with; clear text, as the customer reads it."""

    text: str
    agent: str
    language: str
    reduced: bool = False
    needs_human: bool = False
    citations: list[dict[str, Any]] = field(default_factory=list)
    model: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True)
class Answered:
    """The rows that a turn's last transaction wrote.

    Attributes:
        outbox_token: the lease of the outbox row, held by whoever wrote the answer; None where an older row
            of the thread must go first.
    """

    message_id: UUID
    seq: int
    outbox_id: UUID
    outbox_token: UUID | None
    dedupe_key: str


async def receive(
    session: Session,
    *,
    channel_id: UUID,
    thread_id: UUID,
    external_id: str,
    body: str,
) -> Received:
    """Store an inbound message once, whatever the number of deliveries.

    Args:
        external_id: the channel's own id of the message; unique in the channel.
        body: the customer's text, already validated.

    Raises:
        NotFound: the thread is not there (or another tenant's).
    """
    # The lock comes first and alone: the statement after it sees what a concurrent delivery has committed.
    locked = (
        await session.execute(
            text(
                "select handler, erased_at, (select state from tenants) as tenant_state from threads where id = :thread for update"
            ),
            {"thread": thread_id},
        )
    ).one_or_none()
    if locked is None or locked.erased_at is not None:
        raise NotFound("No such thread.")
    if locked.tenant_state != "active":
        raise Forbidden("This business cannot be reached here at the moment.")
    message_id = new_id()
    row = (
        await session.execute(
            text("""
            with bumped as (
              update threads set last_seq = last_seq + 1, updated_at = clock_timestamp() where id = :thread
                and not exists (select from inbox_messages where channel_id = :channel and external_id = :external)
              returning last_seq),
            added as (
              insert into inbox_messages (id, thread_id, channel_id, external_id, direction, seq, text, state)
              select :id, :thread, :channel, :external, 'in', last_seq, :body, :state from bumped returning id, thread_id, seq)
            select id, thread_id, seq, true as created from added
            union all
            select id, thread_id, seq, false from inbox_messages where channel_id = :channel and external_id = :external
            """),
            {
                "id": message_id,
                "thread": thread_id,
                "channel": channel_id,
                "external": external_id,
                "body": await session.cipher.seal(TEXT, message_id, Subject.thread(thread_id), body),
                "state": "human" if locked.handler == "human" else "pending",
            },
        )
    ).one()
    if row.thread_id != thread_id:
        raise Conflict("This message id was used in another conversation.")
    return Received(row.id, row.thread_id, row.seq, row.created)


async def answer(
    session: Session, claim: Claim, reply: Reply, *, message_id: UUID, outbox_lease_seconds: float
) -> Answered | None:
    """Step 7: reply, outbox row, usage event and the answered messages, all or nothing; gives the lease back.

    Returns None where a person took the thread over meanwhile: their conversation is not talked into, the
    messages wait for them. The outbox row comes leased to the caller, who sends it at once; if it dies, the
    sweep finds the row when the lease has ended.

    Args:
        message_id: of the reply; drawn from the journal.

    Raises:
        LeaseLost: somebody else works this thread now; nothing was written.
    """
    thread = (
        await session.execute(
            text("select handler, last_seq from threads where id = :thread and fence = :fence for update"),
            {"thread": claim.thread_id, "fence": claim.fence},
        )
    ).one_or_none()
    if thread is None:
        raise LeaseLost
    if thread.handler == "human":
        await _settle(session, claim, "human")
        await release(session, claim.thread_id, claim.fence)
        return None
    seq, outbox_id, token, dedupe_key = thread.last_seq + 1, new_id(), new_id(), f"reply:{claim.turn_id}"
    leased = await session.execute(
        text("""
        with reply as (
          insert into inbox_messages (id, thread_id, channel_id, external_id, direction, seq, text, state, turn_id, in_reply_to, agent,
                                      language, citations, reduced)
          values (:message, :thread, :channel, :external, 'out', :seq, :body, 'reply', :turn, :turn, :agent, :language,
                  cast(:citations as jsonb), :reduced) returning tenant_id, id),
        usage as (
          insert into usage_events (id, turn_id, kind, quantity, model, tokens_in, tokens_out)
          values (:usage, :turn, 'reply', 1, :model, :tokens_in, :tokens_out)),
        thread as (
          update threads set last_seq = :seq, agent = :agent, language = :language, lease_until = null, fence = null,
                 updated_at = clock_timestamp(),
                 needs_human_at = case when :needs_human then coalesce(needs_human_at, clock_timestamp()) else needs_human_at end
           where id = :thread),
        done as (
          update inbox_messages set state = 'answered', answered_at = clock_timestamp(), last_error = null
           where turn_id = :turn and direction = 'in' and state = 'pending')
        insert into outbox (id, thread_id, channel_id, message_id, in_reply_to, seq, dedupe_key, lease_token, lease_until, tries)
        select :outbox, :thread, :channel, id, :turn, :seq, :external, case when free then cast(:token as uuid) end,
               case when free then clock_timestamp() + make_interval(secs => :outbox_lease) end, case when free then 1 else 0 end
          from reply, (select not exists (select from outbox where thread_id = :thread and state = 'pending') as free) as queue
        returning lease_token
        """),
        {
            "message": message_id,
            "thread": claim.thread_id,
            "channel": claim.channel_id,
            "external": dedupe_key,
            "seq": seq,
            "body": await session.cipher.seal(TEXT, message_id, Subject.thread(claim.thread_id), reply.text),
            "turn": claim.turn_id,
            "agent": reply.agent,
            "language": reply.language,
            "citations": json.dumps(reply.citations, ensure_ascii=False),
            "reduced": reply.reduced,
            "needs_human": reply.needs_human,
            "usage": new_id(),
            "model": reply.model,
            "tokens_in": reply.tokens_in,
            "tokens_out": reply.tokens_out,
            "outbox": outbox_id,
            "token": token,
            "outbox_lease": outbox_lease_seconds,
        },
    )
    return Answered(message_id, seq, outbox_id, leased.scalar_one(), dedupe_key)


async def fail(session: Session, claim: Claim, error: str, *, retry_in: timedelta | None) -> None:
    """Note an attempt that ended in an exception: try again later, or (``retry_in`` None) give the turn up
    and call a person.

    Raises:
        LeaseLost: somebody else works this thread now; nothing was written.
    """
    if not await extend_lease(session, claim.thread_id, claim.fence, 0):
        raise LeaseLost
    if retry_in is None:
        await _settle(session, claim, "dead", error)
        await session.execute(
            text(
                "update threads set needs_human_at = coalesce(needs_human_at, clock_timestamp()) where id = :thread"
            ),
            {"thread": claim.thread_id},
        )
    else:
        await session.execute(
            text("""
            update inbox_messages set failures = failures + 1, last_error = :error, available_at = clock_timestamp() + :delay
             where turn_id = :turn and direction = 'in' and state = 'pending'
            """),
            {"turn": claim.turn_id, "error": error, "delay": retry_in},
        )
    await release(session, claim.thread_id, claim.fence)


async def _settle(session: Session, claim: Claim, state: str, error: str | None = None) -> None:
    await session.execute(
        text("""
        update inbox_messages set state = :state, last_error = coalesce(:error, last_error)
         where turn_id = :turn and direction = 'in' and state = 'pending'
        """),
        {"turn": claim.turn_id, "state": state, "error": error},
    )


async def dead_letters(session: Session, limit: int = 100) -> list[dict[str, Any]]:
    """Turns that were given up, newest first."""
    rows = await session.execute(
        text("""
        select id, thread_id, turn_id, seq, text, attempts, failures, last_error, created_at from inbox_messages
         where direction = 'in' and state = 'dead' order by created_at desc limit :limit
        """),
        {"limit": limit},
    )
    return [dict(row._mapping) for row in rows]


async def replay(session: Session, message_id: UUID) -> UUID:
    """Put a dead turn back into the queue, with all its attempts ahead of it; returns the thread to wake.

    Raises:
        NotFound: no such message.
        Conflict: it is not a dead letter.
    """
    row = (
        await session.execute(
            text(
                "select thread_id, turn_id, state from inbox_messages where id = :id and direction = 'in' for update"
            ),
            {"id": message_id},
        )
    ).one_or_none()
    if row is None:
        raise NotFound("No such message.")
    if row.state != "dead":
        raise Conflict(f"Only a dead letter can be replayed; this message is {row.state}.")
    await session.execute(
        text("""
        update inbox_messages set state = 'pending', attempts = 0, failures = 0, available_at = clock_timestamp()
         where turn_id = :turn and direction = 'in' and state = 'dead'
        """),
        {"turn": row.turn_id},
    )
    return UUID(str(row.thread_id))


async def due_threads(session: Session, *, older_than: float, limit: int) -> list[tuple[UUID, UUID]]:
    """For the sweep (platform role): (tenant, thread) with a message that should be in work and is not."""
    rows = await session.execute(
        text("""
        select m.tenant_id, m.thread_id from inbox_messages m
          join threads t on t.tenant_id = m.tenant_id and t.id = m.thread_id
          join tenants n on n.id = m.tenant_id and n.state = 'active'
         where m.state = 'pending' and m.available_at <= clock_timestamp() - make_interval(secs => :older)
           and (t.lease_until is null or t.lease_until < clock_timestamp()) and t.handler = 'agent'
         group by m.tenant_id, m.thread_id order by min(m.created_at) limit :limit
        """),
        {"older": older_than, "limit": limit},
    )
    return [(row.tenant_id, row.thread_id) for row in rows]


async def has_due(session: Session, thread_id: UUID) -> bool:
    """True where a message of the thread could be claimed right now."""
    return bool(
        await session.scalar(
            text("""
            select available_at <= clock_timestamp() from inbox_messages where thread_id = :thread and state = 'pending'
             order by seq limit 1
            """),
            {"thread": thread_id},
        )
    )
