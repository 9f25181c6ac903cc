"""The inbox for staff: threads, messages, what happened inside a turn, and what was given up."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Controller, Request, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, Parameter

from storage.queue import Queue
from storage.repositories import audit, inbox, outbox, threads, turns
from storage.sql import Session
from storage.tenancy import Database, TenantContext

Limit = Annotated[int, Parameter(ge=1, le=200)]


class Thread(msgspec.Struct):
    """``handler`` says who answers; ``needs_human_at`` since when a person is wanted."""

    id: UUID
    channel_id: UUID
    contact_id: UUID | None
    handler: str
    needs_human_at: datetime | None
    language: str | None
    agent: str | None
    last_seq: int
    created_at: datetime
    updated_at: datetime


class Message(msgspec.Struct):
    """``text`` is null where the person was erased."""

    id: UUID
    thread_id: UUID
    direction: str
    seq: int
    text: str | None
    state: str
    agent: str | None
    language: str | None
    citations: list[dict[str, Any]]
    reduced: bool
    in_reply_to: UUID | None
    created_at: datetime


class Handler(msgspec.Struct, forbid_unknown_fields=True):
    handler: Literal["agent", "human"]


class Step(msgspec.Struct):
    """A journalled step as the model saw it: with placeholders."""

    ordinal: int
    kind: str
    name: str
    request: dict[str, Any]
    response: dict[str, Any]
    model: str | None
    tokens_in: int
    tokens_out: int
    started_at: datetime
    ended_at: datetime


class Trace(msgspec.Struct):
    message_id: UUID
    turn_id: UUID | None
    state: str
    steps: list[Step]


class DeadLetter(msgspec.Struct):
    id: UUID
    thread_id: UUID
    kind: str
    last_error: str | None
    created_at: datetime
    tries: int


class ThreadController(Controller):
    path = "/api/v1/inbox/threads"
    tags = ("Inbox",)

    @get(opt={"scopes": ["inbox:read"]})
    async def list_threads(
        self,
        session: NamedDependency[Session],
        needs_human: FromQuery[bool | None] = None,
        before: FromQuery[datetime | None] = None,
        limit: FromQuery[Limit] = 50,
    ) -> list[Thread]:
        """Threads, newest activity first. ``before`` is the ``updated_at`` of the last one of the page
        before.
        """
        return msgspec.convert(
            await threads.list_threads(session, needs_human=needs_human, before=before, limit=limit),
            list[Thread],
        )

    @get("/{thread_id:uuid}", opt={"scopes": ["inbox:read"]})
    async def get_thread(self, thread_id: FromPath[UUID], session: NamedDependency[Session]) -> Thread:
        """One thread."""
        return msgspec.convert(await threads.get_thread(session, thread_id), Thread)

    @get("/{thread_id:uuid}/messages", opt={"scopes": ["inbox:read"]})
    async def list_messages(
        self,
        thread_id: FromPath[UUID],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
        after: FromQuery[Annotated[int, Parameter(ge=0)]] = 0,
        limit: FromQuery[Limit] = 100,
    ) -> list[Message]:
        """Messages of a thread in order, from a sequence number on."""
        await threads.get_thread(session, thread_id)
        await audit.record(session, context, "thread.read", "thread", thread_id)
        found = await threads.messages_after(session, thread_id, after, limit)
        return msgspec.convert([vars(message) for message in found], list[Message])

    @post("/{thread_id:uuid}/handler", opt={"scopes": ["inbox:write"]}, status_code=200)
    async def set_handler(
        self,
        thread_id: FromPath[UUID],
        data: JSONBody[Handler],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> Thread:
        """Take a thread over (``human``) or give it back (``agent``). The secretary does not talk into a
        person's conversation.
        """
        await threads.set_handler(session, thread_id, data.handler)
        await audit.record(session, context, f"thread.handler.{data.handler}", "thread", thread_id)
        return msgspec.convert(await threads.get_thread(session, thread_id), Thread)


class MessageController(Controller):
    path = "/api/v1/inbox/messages"
    tags = ("Inbox",)

    @get("/{message_id:uuid}", opt={"scopes": ["inbox:read"]})
    async def get_message(
        self,
        message_id: FromPath[UUID],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> Message:
        """One message."""
        found = await threads.message(session, message_id)
        await audit.record(session, context, "message.read", "message", message_id)
        return msgspec.convert(vars(found), Message)

    @get("/{message_id:uuid}/trace", opt={"scopes": ["inbox:read"]})
    async def get_trace(
        self,
        message_id: FromPath[UUID],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> Trace:
        """What happened inside the turn that answered this message, or of which it is the answer: every step,
        as the model saw it.
        """
        message = await threads.message(session, message_id)
        steps = await turns.load_steps(session, message.turn_id) if message.turn_id else []
        await audit.record(session, context, "message.trace_read", "message", message_id)
        return Trace(
            message.id,
            message.turn_id,
            message.state,
            msgspec.convert([vars(step) for step in steps], list[Step]),
        )


class DeadLetterController(Controller):
    path = "/api/v1/inbox/dead-letters"
    tags = ("Inbox",)

    @get(opt={"scopes": ["inbox:read"]})
    async def list_dead_letters(
        self, session: NamedDependency[Session], limit: FromQuery[Limit] = 100
    ) -> list[DeadLetter]:
        """What was given up: messages without an answer (``inbox``) and answers that could not be sent
        (``outbox``).
        """
        unanswered = [
            DeadLetter(
                row["id"], row["thread_id"], "inbox", row["last_error"], row["created_at"], row["attempts"]
            )
            for row in await inbox.dead_letters(session, limit)
        ]
        unsent = [
            DeadLetter(
                row["id"], row["thread_id"], "outbox", row["last_error"], row["created_at"], row["tries"]
            )
            for row in await outbox.dead_letters(session, limit)
        ]
        return sorted([*unanswered, *unsent], key=lambda letter: letter.created_at, reverse=True)[:limit]

    @post("/{kind:str}/{letter_id:uuid}/replay", opt={"scopes": ["inbox:write"]}, status_code=202)
    async def replay(
        self,
        kind: FromPath[Literal["inbox", "outbox"]],
        letter_id: FromPath[UUID],
        request: Request[None, None, State],
        context: NamedDependency[TenantContext],
        queue: NamedDependency[Queue],
    ) -> None:
        """Try again. What the turn had done already is not done twice."""
        database: Database = request.app.state.database
        async with database.tenant_session(context) as session:
            thread_id = await (inbox if kind == "inbox" else outbox).replay(session, letter_id)
            await audit.record(session, context, f"dead_letter.replayed.{kind}", "message", letter_id)
        await (queue.wake_inbox if kind == "inbox" else queue.wake_outbox)(context.tenant_id, thread_id)
