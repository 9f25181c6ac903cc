"""What happened inside a turn, what it cost, and the personal data that stands behind its placeholders."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, PrimaryKeyConstraint, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import TenantRow, TenantTable, to_tenant, within_tenant


class TurnStep(TenantTable):
    """One journalled step of a turn: a model's answer, a tool's result, a clock reading, a new id.

    ``request`` and ``response`` hold what the model saw: placeholders, never a customer's raw data.
    """

    __tablename__ = "turn_steps"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "turn_id", "ordinal"),
        to_tenant(),
        within_tenant("thread_id", "threads"),
        CheckConstraint("kind in ('model', 'tool', 'clock', 'id', 'note')", name="kind"),
        Index(None, "tenant_id", "thread_id"),
    )

    turn_id: Mapped[UUID]
    ordinal: Mapped[int]
    thread_id: Mapped[UUID]
    kind: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    request_hash: Mapped[str] = mapped_column(Text)
    request: Mapped[dict[str, Any]]
    response: Mapped[dict[str, Any]]
    model: Mapped[str | None] = mapped_column(Text)
    tokens_in: Mapped[int] = mapped_column(server_default="0")
    tokens_out: Mapped[int] = mapped_column(server_default="0")
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class UsageEvent(TenantRow):
    """What a turn is metered by; one row a turn and kind, written in the transaction that writes the reply."""

    __tablename__ = "usage_events"

    turn_id: Mapped[UUID]
    kind: Mapped[str] = mapped_column(Text)
    quantity: Mapped[int]
    model: Mapped[str | None] = mapped_column(Text)
    tokens_in: Mapped[int] = mapped_column(server_default="0")
    tokens_out: Mapped[int] = mapped_column(server_default="0")

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (UniqueConstraint("tenant_id", "turn_id", "kind"),)


class VaultRow(TenantRow):
    """A placeholder of a thread and the value behind it."""

    __tablename__ = "pii_vault"

    thread_id: Mapped[UUID]
    placeholder: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    value: Mapped[str] = mapped_column(Text)
    norm: Mapped[str] = mapped_column(Text)

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (
            within_tenant("thread_id", "threads"),
            UniqueConstraint("tenant_id", "thread_id", "placeholder"),
            UniqueConstraint("tenant_id", "thread_id", "kind", "norm"),
        )
