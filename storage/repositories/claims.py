"""Step 3 of a message's path: a worker claims a thread's next turn, keeps it while it works, and gives it back.

- A thread is worked under a lease: a random fence on the thread row, by the database's clock. Whoever wants to write a result shows the
    fence in the same transaction; a worker that lost it writes nothing.
- The messages of a turn are stamped at the first claim and stay together, so that a re-run answers the same question.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from storage.errors import LeaseLost
from storage.sql import Session, text
from storage.tenancy import rowcount

TEXT = "inbox_messages.text"
MAX_TURN_MESSAGES = 10
MAX_TURN_CHARACTERS = 8_000


@dataclass(frozen=True)
class InboundMessage:
    """A message of a claimed turn."""

    id: UUID
    seq: int
    text: str


@dataclass(frozen=True)
class Claim:
    """A turn that this worker now owns.

    Attributes:
        fence: proof of ownership, checked in each transaction that writes.
        begun: it was claimed before, so its journal may hold steps. The number of attempts does not tell: a
            returned or replayed turn begins to count anew.
        crashes: how often a worker died on this turn: attempts that neither succeeded nor failed by an
            exception.
    """

    thread_id: UUID
    channel_id: UUID
    channel_kind: str
    contact_id: UUID | None
    fence: UUID
    turn_id: UUID
    messages: tuple[InboundMessage, ...]
    language: str | None
    agent: str | None
    begun: bool
    attempts: int
    failures: int

    @property
    def crashes(self) -> int:
        return self.attempts - 1 - self.failures


async def claim(session: Session, thread_id: UUID, *, fence: UUID, lease_seconds: float) -> Claim | None:
    """Take the thread's lease and its next turn; None when there is nothing to do now or somebody else is at
    it.

    A message that backs off holds the younger ones back: order within a thread goes before speed.
    """
    thread = (
        await session.execute(
            text("""
            update threads set fence = :fence, lease_until = clock_timestamp() + make_interval(secs => :lease)
             where id = :thread and (lease_until is null or lease_until < clock_timestamp()) and handler = 'agent'
               and erased_at is null and (select state from tenants) = 'active'
               and exists (select from inbox_messages m where m.thread_id = :thread and m.state = 'pending')
            returning channel_id, contact_id, language, agent, (select kind from channels where id = channel_id) as channel_kind
            """),
            {"thread": thread_id, "fence": fence, "lease": lease_seconds},
        )
    ).one_or_none()
    if thread is None:
        return None
    pending = await _pending(session, thread_id)
    if not pending or not pending[0].due:
        await release(session, thread_id, fence)
        return None
    members = _members(pending)
    turn_id = pending[0].turn_id or pending[0].id
    await session.execute(
        text("update inbox_messages set turn_id = :turn, attempts = attempts + 1 where id = any(:ids)"),
        {"turn": turn_id, "ids": [row.id for row in members]},
    )
    return await _claim(session, thread_id, thread, fence, turn_id, members, attempts=pending[0].attempts + 1)


async def claimed(session: Session, thread_id: UUID, fence: UUID) -> Claim:
    """The turn that is being worked under this fence.

    Raises:
        LeaseLost: the fence is not the thread's any more.
    """
    thread = (
        await session.execute(
            text("""
            select channel_id, contact_id, language, agent, (select kind from channels where id = channel_id) as channel_kind
              from threads where id = :thread and fence = :fence
            """),
            {"thread": thread_id, "fence": fence},
        )
    ).one_or_none()
    pending = await _pending(session, thread_id)
    if thread is None or not pending or pending[0].turn_id is None:
        raise LeaseLost
    return await _claim(
        session, thread_id, thread, fence, pending[0].turn_id, _members(pending), attempts=pending[0].attempts
    )


async def _pending(session: Session, thread_id: UUID) -> Any:
    return (
        await session.execute(
            text("""
            select id, seq, text, octet_length(text) as size, turn_id, attempts, failures, available_at <= clock_timestamp() as due
              from inbox_messages
             where thread_id = :thread and state = 'pending' order by seq limit :limit
            """),
            {"thread": thread_id, "limit": MAX_TURN_MESSAGES},
        )
    ).all()


async def _claim(
    session: Session,
    thread_id: UUID,
    thread: Any,
    fence: UUID,
    turn_id: UUID,
    members: list[Any],
    *,
    attempts: int,
) -> Claim:
    texts = await session.cipher.open_many(TEXT, [(row.id, row.text) for row in members])
    return Claim(
        thread_id=thread_id,
        channel_id=thread.channel_id,
        channel_kind=thread.channel_kind,
        contact_id=thread.contact_id,
        fence=fence,
        turn_id=turn_id,
        messages=tuple(
            InboundMessage(row.id, row.seq, body or "") for row, body in zip(members, texts, strict=True)
        ),
        language=thread.language,
        agent=thread.agent,
        begun=members[0].turn_id is not None,
        attempts=attempts,
        failures=members[0].failures,
    )


def _members(pending: Any) -> list[Any]:
    """Those that are answered together: a turn that was begun keeps its members, a new one takes what has
    come in.
    """
    first = pending[0]
    if first.turn_id is not None:
        return [row for row in pending if row.turn_id == first.turn_id]
    members: list[Any] = []
    characters = 0
    for row in pending:
        characters += row.size  # bytes of the sealed text: a little more than its characters
        if row.turn_id is not None or (members and characters > MAX_TURN_CHARACTERS):
            break
        members.append(row)
    return members


async def extend_lease(session: Session, thread_id: UUID, fence: UUID, lease_seconds: float) -> bool:
    """True while the lease is still ours; it then lasts ``lease_seconds`` from now."""
    result = await session.execute(
        text("""
        update threads set lease_until = clock_timestamp() + make_interval(secs => :lease) where id = :thread and fence = :fence
        """),
        {"thread": thread_id, "fence": fence, "lease": lease_seconds},
    )
    return rowcount(result) == 1


async def release(session: Session, thread_id: UUID, fence: UUID) -> None:
    """Give the lease back; does nothing where it is no longer ours."""
    await session.execute(
        text("update threads set lease_until = null, fence = null where id = :thread and fence = :fence"),
        {"thread": thread_id, "fence": fence},
    )


async def return_turn(session: Session, claim: Claim) -> None:
    """Put a turn back as if it had not been claimed: the process is being shut down, which is nobody's
    failure.
    """
    if await extend_lease(session, claim.thread_id, claim.fence, 0):
        await session.execute(
            text(
                "update inbox_messages set attempts = greatest(attempts - 1, 0) where turn_id = :turn and state = 'pending'"
            ),
            {"turn": claim.turn_id},
        )
        await release(session, claim.thread_id, claim.fence)
