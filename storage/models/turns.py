"""What happened inside a turn, what it cost, and the personal data that stands behind its placeholders."""

from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, LargeBinary, PrimaryKeyConstraint, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import TenantRow, TenantTable, to_tenant, within_tenant
from storage.registry import SubjectLink, personal, plain

_trace = partial(
    personal, purpose="conversation", retention="trace", readers=("inbox:read",), on_erasure="row"
)
_value = partial(personal, purpose="conversation", retention="conversation", on_erasure="row")


class TurnStep(TenantTable):
    """One journalled step of a turn: a model's answer, a tool's result, a clock reading, a new id.

    ``request`` and ``response`` hold what the model saw: JSON with placeholders instead of what the masker knows. Sealed all
    the same: what it does not know (a name in a sentence) is in there too.
    """

    __tablename__ = "turn_steps"
    __subject__ = SubjectLink("thread", "thread_id")
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
    kind: Mapped[str] = mapped_column(Text, info=plain())
    name: Mapped[str] = mapped_column(Text, info=plain())
    request_hash: Mapped[str] = mapped_column(Text, info=plain())
    request: Mapped[bytes] = mapped_column(LargeBinary, info=_trace("TEXT"))
    response: Mapped[bytes] = mapped_column(LargeBinary, info=_trace("TEXT"))
    model: Mapped[str | None] = mapped_column(Text, info=plain())
    tokens_in: Mapped[int] = mapped_column(server_default="0")
    tokens_out: Mapped[int] = mapped_column(server_default="0")
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class UsageEvent(TenantRow):
    """What a turn is metered by; one row a turn and kind, written in the transaction that writes the reply."""

    __tablename__ = "usage_events"

    turn_id: Mapped[UUID]
    kind: Mapped[str] = mapped_column(Text, info=plain())
    quantity: Mapped[int]
    model: Mapped[str | None] = mapped_column(Text, info=plain())
    tokens_in: Mapped[int] = mapped_column(server_default="0")
    tokens_out: Mapped[int] = mapped_column(server_default="0")

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (UniqueConstraint("tenant_id", "turn_id", "kind"),)


class VaultRow(TenantRow):
    """A placeholder of a thread and the value behind it."""

    __tablename__ = "pii_vault"
    __subject__ = SubjectLink("thread", "thread_id")

    thread_id: Mapped[UUID]
    placeholder: Mapped[str] = mapped_column(Text, info=plain())
    kind: Mapped[str] = mapped_column(Text, info=plain())
    value: Mapped[bytes] = mapped_column(LargeBinary, info=_value("TEXT"))
    norm_bi: Mapped[bytes] = mapped_column(LargeBinary, info=_value("TEXT", sealed=False))

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (
            within_tenant("thread_id", "threads"),
            UniqueConstraint("tenant_id", "thread_id", "placeholder"),
            UniqueConstraint("tenant_id", "thread_id", "kind", "norm_bi"),
        )
