"""Channels, contacts, threads, messages and what is still to be sent: the queue of record."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, Index, Text, UniqueConstraint, func
from sqlalchemy import text as sql_text
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import TenantRow, within_tenant


class Channel(TenantRow):
    """A door through which customers write."""

    __tablename__ = "channels"

    kind: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    public_key: Mapped[str] = mapped_column(Text, unique=True)
    allowed_origins: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=sql_text("'{}'"))
    settings: Mapped[dict[str, Any]] = mapped_column(server_default=sql_text("'{}'"))


class Contact(TenantRow):
    """A customer, or somebody who may become one."""

    __tablename__ = "contacts"

    name: Mapped[str | None] = mapped_column(Text)
    email: Mapped[str | None] = mapped_column(Text)
    phone: Mapped[str | None] = mapped_column(Text)
    company: Mapped[str | None] = mapped_column(Text)
    language: Mapped[str | None] = mapped_column(Text)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (UniqueConstraint("tenant_id", "email"), UniqueConstraint("tenant_id", "phone"))


class Thread(TenantRow):
    """One conversation with one visitor, and the lease under which one worker at a time answers it."""

    __tablename__ = "threads"

    channel_id: Mapped[UUID]
    contact_id: Mapped[UUID | None]
    external_id: Mapped[str] = mapped_column(Text)
    epoch: Mapped[str] = mapped_column(Text)
    handler: Mapped[str] = mapped_column(Text, server_default="agent")
    needs_human_at: Mapped[datetime | None]
    language: Mapped[str | None] = mapped_column(Text)
    agent: Mapped[str | None] = mapped_column(Text)
    last_seq: Mapped[int] = mapped_column(server_default="0")
    fence: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (
            within_tenant("channel_id", "channels"),
            within_tenant("contact_id", "contacts", ondelete="NO ACTION"),
            UniqueConstraint("tenant_id", "channel_id", "external_id"),
            CheckConstraint("handler in ('agent', 'human')", name="handler"),
            Index(None, "tenant_id", "updated_at"),
        )


class InboxMessage(TenantRow):
    """A message of a thread, in either direction; ``seq`` counts both without gaps.

    An inbound row is the work order of a turn: ``pending`` until its reply commits (``answered``), it is
    given up (``dead``) or it waits for a person (``human``). ``turn_id`` is the id of the first message of
    those that are answered together.
    """

    __tablename__ = "inbox_messages"

    thread_id: Mapped[UUID]
    channel_id: Mapped[UUID]
    external_id: Mapped[str] = mapped_column(Text)
    direction: Mapped[str] = mapped_column(Text)
    seq: Mapped[int]
    text: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    turn_id: Mapped[UUID | None]
    in_reply_to: Mapped[UUID | None]
    agent: Mapped[str | None] = mapped_column(Text)
    language: Mapped[str | None] = mapped_column(Text)
    citations: Mapped[list[Any]] = mapped_column(server_default=sql_text("'[]'"))
    reduced: Mapped[bool] = mapped_column(server_default=sql_text("false"))
    attempts: Mapped[int] = mapped_column(server_default="0")
    failures: Mapped[int] = mapped_column(server_default="0")
    available_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    last_error: Mapped[str | None] = mapped_column(Text)
    answered_at: Mapped[datetime | None]

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (
            within_tenant("thread_id", "threads"),
            within_tenant("channel_id", "channels"),
            UniqueConstraint("tenant_id", "channel_id", "external_id"),
            UniqueConstraint("tenant_id", "thread_id", "seq"),
            UniqueConstraint("tenant_id", "in_reply_to"),
            CheckConstraint(
                "(direction = 'in' and state in ('pending', 'answered', 'dead', 'human') and in_reply_to is null)"
                " or (direction = 'out' and state = 'reply' and in_reply_to is not null)",
                name="state",
            ),
            # What the sweep looks for, kept small by the condition.
            Index(
                "ix_inbox_messages_pending",
                "tenant_id",
                "thread_id",
                "seq",
                postgresql_where=sql_text("state = 'pending'"),
            ),
        )


class Attachment(TenantRow):
    """A file that came with a message; the bytes lie in the file store."""

    __tablename__ = "attachments"

    message_id: Mapped[UUID]
    filename: Mapped[str] = mapped_column(Text)
    content_type: Mapped[str] = mapped_column(Text)
    size: Mapped[int]
    sha256: Mapped[str] = mapped_column(Text)
    path: Mapped[str] = mapped_column(Text)

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (within_tenant("message_id", "inbox_messages"),)


class OutboxRow(TenantRow):
    """Something to be sent. ``ordering_key`` is the thread: an older unsent row holds the younger ones back."""

    __tablename__ = "outbox"

    thread_id: Mapped[UUID]
    channel_id: Mapped[UUID]
    message_id: Mapped[UUID]
    in_reply_to: Mapped[UUID]
    seq: Mapped[int]
    dedupe_key: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text, server_default="pending")
    tries: Mapped[int] = mapped_column(server_default="0")
    next_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    lease_token: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]
    provider_id: Mapped[str | None] = mapped_column(Text)
    last_error: Mapped[str | None] = mapped_column(Text)
    sent_at: Mapped[datetime | None]

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (
            within_tenant("thread_id", "threads"),
            within_tenant("channel_id", "channels"),
            within_tenant("message_id", "inbox_messages"),
            UniqueConstraint("tenant_id", "in_reply_to"),
            UniqueConstraint("tenant_id", "channel_id", "dedupe_key"),
            CheckConstraint("state in ('pending', 'sent', 'dead')", name="state"),
            Index(
                "ix_outbox_pending",
                "tenant_id",
                "thread_id",
                "seq",
                postgresql_where=sql_text("state = 'pending'"),
            ),
        )
