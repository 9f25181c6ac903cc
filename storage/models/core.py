"""Tenants, and the record of who did what."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
    Uuid,
    func,
)
from sqlalchemy import text as sql_text
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import Base, TenantRow, TenantTable, to_tenant
from storage.ids import new_id
from storage.registry import SubjectLink, personal, plain


class Tenant(Base):
    """A business. Its policy compares ``id`` instead of ``tenant_id``.

    ``settings`` is what the owners of the business decide (server/auth/tenants.py says its fields). The tenant with the nil id
    is the platform itself: its operators are its members, and what is sealed for no business is sealed under its key.
    """

    __tablename__ = "tenants"
    __table_args__ = (CheckConstraint("state in ('pending', 'active', 'suspended')", name="state"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    slug: Mapped[str] = mapped_column(Text, unique=True, info=plain())
    name: Mapped[str] = mapped_column(Text, info=plain())
    state: Mapped[str] = mapped_column(Text, server_default="active", info=plain())
    state_reason: Mapped[str | None] = mapped_column(Text, info=plain())
    languages: Mapped[list[str]] = mapped_column(
        ARRAY(Text), server_default=sql_text("'{en,de}'"), info=plain()
    )
    time_zone: Mapped[str] = mapped_column(Text, server_default="UTC", info=plain())
    settings: Mapped[dict[str, Any]] = mapped_column(server_default=sql_text("'{}'"), info=plain())
    cors_origins: Mapped[list[str]] = mapped_column(
        ARRAY(Text), server_default=sql_text("'{}'"), info=plain()
    )
    version: Mapped[int] = mapped_column(server_default="1")
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class AuditEntry(TenantRow):
    """Who did what to which record, and why: ids and names of fields, never content.

    Rows are written by the function ``audit_append`` alone; each carries the hash of the one before it (``prev``) and its own,
    so that an edit, a gap or a new order shows (storage/repositories/audit.py).
    """

    __tablename__ = "audit_log"
    __subject__ = SubjectLink("account", "actor")

    seq: Mapped[int]
    actor: Mapped[str] = mapped_column(
        Text,
        info=personal(
            "ACT",
            purpose="accountability",
            retention="audit",
            readers=("audit:read",),
            sealed=False,
            on_erasure="keep",
        ),
    )
    action: Mapped[str] = mapped_column(Text, info=plain())
    object_type: Mapped[str] = mapped_column(Text, info=plain())
    object_id: Mapped[str] = mapped_column(Text, info=plain())
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=sql_text("'{}'"), info=plain())
    reason: Mapped[str | None] = mapped_column(Text, info=plain())
    request_id: Mapped[str | None] = mapped_column(Text, info=plain())
    prev: Mapped[bytes] = mapped_column(LargeBinary, info=plain())
    hash: Mapped[bytes] = mapped_column(LargeBinary, info=plain())

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (
            UniqueConstraint("tenant_id", "seq"),
            Index(None, "tenant_id", "object_type", "object_id", "created_at"),
        )


class AuditHead(TenantTable):
    """Where a tenant's chain ends, and, when old entries were removed, where it begins."""

    __tablename__ = "audit_head"
    __table_args__ = (
        # One row a tenant; its lock puts the tenant's entries in order.
        PrimaryKeyConstraint("tenant_id"),
        to_tenant(),
    )

    seq: Mapped[int] = mapped_column(server_default="0")
    hash: Mapped[bytes] = mapped_column(LargeBinary, info=plain())
    base_seq: Mapped[int] = mapped_column(server_default="0")
    base_hash: Mapped[bytes] = mapped_column(LargeBinary, info=plain())


class FeatureFlag(Base):
    """A switch of the platform's operators: on for all, or for some tenants; ``off_for`` goes before."""

    __tablename__ = "feature_flags"

    key: Mapped[str] = mapped_column(Text, primary_key=True, info=plain())
    description: Mapped[str] = mapped_column(Text, info=plain())
    enabled: Mapped[bool] = mapped_column(server_default=sql_text("false"))
    on_for: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid), server_default=sql_text("'{}'"), info=plain())
    off_for: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid), server_default=sql_text("'{}'"), info=plain())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
