"""Data keys of tenants, threads and contacts, each wrapped by the one above it (storage/crypto)."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, LargeBinary, Text
from sqlalchemy import text as sql_text
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import TenantRow
from storage.registry import plain


class DataKey(TenantRow):
    """A wrapped key. ``destroyed_at``: the person was erased, and nothing sealed under it can be read again."""

    __tablename__ = "data_keys"

    subject_kind: Mapped[str] = mapped_column(Text, info=plain())
    subject_id: Mapped[UUID]
    wrapped: Mapped[bytes | None] = mapped_column(LargeBinary, info=plain())
    wrapped_by: Mapped[str | None] = mapped_column(Text, info=plain())
    retired_at: Mapped[datetime | None]
    destroyed_at: Mapped[datetime | None]

    @classmethod
    def __constraints__(cls) -> tuple[object, ...]:
        return (
            CheckConstraint("subject_kind in ('tenant', 'index', 'thread', 'contact')", name="subject_kind"),
            CheckConstraint("destroyed_at is null or wrapped is null", name="destroyed"),
            Index(
                "uq_data_keys_subject",
                "tenant_id",
                "subject_kind",
                "subject_id",
                unique=True,
                postgresql_where=sql_text("retired_at is null and destroyed_at is null"),
            ),
            Index(None, "tenant_id", "wrapped_by"),
        )
