"""Channels, contacts, threads, messages and what is still to be sent: the queue of record."""

from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, Index, LargeBinary, Text, UniqueConstraint, func
from sqlalchemy import text as sql_text
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import TenantRow, within_tenant
from storage.registry import SubjectLink, personal, plain

_message = partial(personal, purpose="conversation", retention="conversation", readers=("inbox:read",))
_contact = partial(personal, purpose="relationship", retention="relationship", readers=("crm:read",))


class Channel(TenantRow):
    """A door through which customers write. ``secrets`` is a sealed JSON object: tokens of the channel's provider."""

    __tablename__ = "channels"
    __subject__ = SubjectLink("tenant", "tenant_id")

    kind: Mapped[str] = mapped_column(Text, info=plain())
    name: Mapped[str] = mapped_column(Text, info=plain())
    public_key: Mapped[str] = mapped_column(Text, unique=True, info=plain())
    allowed_origins: Mapped[list[str]] = mapped_column(
        ARRAY(Text), server_default=sql_text("'{}'"), info=plain()
    )
    settings: Mapped[dict[str, Any]] = mapped_column(server_default=sql_text("'{}'"), info=plain())
    secrets: Mapped[bytes | None] = mapped_column(
        LargeBinary,
        info=personal("CREDENTIAL", purpose="operation", retention="operation", on_erasure="keep"),
    )


class Contact(TenantRow):
    """A customer, or somebody who may become one. Found by the blind indexes (``*_bi``): keyed hashes of the
    normalised e-mail and phone number, which cannot be turned back.
    """

    __tablename__ = "contacts"
    __subject__ = SubjectLink("contact", "id")

    name: Mapped[bytes | None] = mapped_column(LargeBinary, info=_contact("NAME"))
    email: Mapped[bytes | None] = mapped_column(LargeBinary, info=_contact("EMAIL"))
    phone: Mapped[bytes | None] = mapped_column(LargeBinary, info=_contact("PHONE"))
    company: Mapped[bytes | None] = mapped_column(LargeBinary, info=_contact("COMPANY"))
    email_bi: Mapped[bytes | None] = mapped_column(LargeBinary, info=_contact("EMAIL", sealed=False))
    phone_bi: Mapped[bytes | None] = mapped_column(LargeBinary, info=_contact("PHONE", sealed=False))
    language: Mapped[str | None] = mapped_column(Text, info=plain())
    legal_hold: Mapped[str | None] = mapped_column(Text, info=plain())
    erased_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (UniqueConstraint("tenant_id", "email_bi"), UniqueConstraint("tenant_id", "phone_bi"))


class Thread(TenantRow):
    """One conversation with one visitor, and the lease under which one worker at a time answers it."""

    __tablename__ = "threads"
    __subject__ = SubjectLink("thread", "id")

    channel_id: Mapped[UUID]
    contact_id: Mapped[UUID | None]
    external_id: Mapped[str] = mapped_column(
        Text, info=_message("IDENTIFIER", sealed=False, on_erasure="token")
    )
    epoch: Mapped[str] = mapped_column(Text, info=plain())
    handler: Mapped[str] = mapped_column(Text, server_default="agent", info=plain())
    needs_human_at: Mapped[datetime | None]
    language: Mapped[str | None] = mapped_column(Text, info=plain())
    agent: Mapped[str | None] = mapped_column(Text, info=plain())
    last_seq: Mapped[int] = mapped_column(server_default="0")
    erased_at: Mapped[datetime | None]
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
    __subject__ = SubjectLink("thread", "thread_id")

    thread_id: Mapped[UUID]
    channel_id: Mapped[UUID]
    external_id: Mapped[str] = mapped_column(Text, info=plain())
    direction: Mapped[str] = mapped_column(Text, info=plain())
    seq: Mapped[int]
    text: Mapped[bytes | None] = mapped_column(LargeBinary, info=_message("TEXT"))
    state: Mapped[str] = mapped_column(Text, info=plain())
    turn_id: Mapped[UUID | None]
    in_reply_to: Mapped[UUID | None]
    agent: Mapped[str | None] = mapped_column(Text, info=plain())
    language: Mapped[str | None] = mapped_column(Text, info=plain())
    citations: Mapped[list[Any]] = mapped_column(server_default=sql_text("'[]'"), info=plain())
    reduced: Mapped[bool] = mapped_column(server_default=sql_text("false"))
    attempts: Mapped[int] = mapped_column(server_default="0")
    failures: Mapped[int] = mapped_column(server_default="0")
    available_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    last_error: Mapped[str | None] = mapped_column(Text, info=plain())
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
    """A file that came with a message; its id is also its name in the file store (storage/files.py)."""

    __tablename__ = "attachments"
    __subject__ = SubjectLink("thread", "message_id", via="inbox_messages")

    message_id: Mapped[UUID]
    filename: Mapped[bytes | None] = mapped_column(LargeBinary, info=_message("FILE", on_erasure="row"))
    content_type: Mapped[str] = mapped_column(Text, info=plain())
    size: Mapped[int]
    sha256: Mapped[str] = mapped_column(Text, info=plain())

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
    dedupe_key: Mapped[str] = mapped_column(Text, info=plain())
    state: Mapped[str] = mapped_column(Text, server_default="pending", info=plain())
    tries: Mapped[int] = mapped_column(server_default="0")
    next_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    lease_token: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]
    provider_id: Mapped[str | None] = mapped_column(Text, info=plain())
    last_error: Mapped[str | None] = mapped_column(Text, info=plain())
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
