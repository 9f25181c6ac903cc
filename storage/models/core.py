"""Tenants, their users, and the record of who did what."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Index, Text, UniqueConstraint, func
from sqlalchemy import text as sql_text
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import Base, TenantRow
from storage.ids import new_id


class Tenant(Base):
    """A business. Its policy compares ``id`` instead of ``tenant_id``."""

    __tablename__ = "tenants"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    slug: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)
    languages: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=sql_text("'{en,de}'"))
    time_zone: Mapped[str] = mapped_column(Text, server_default="UTC")
    settings: Mapped[dict[str, Any]] = mapped_column(server_default=sql_text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class User(TenantRow):
    """A member of staff who signs in."""

    __tablename__ = "users"

    email: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    password_hash: Mapped[str] = mapped_column(Text)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=sql_text("'{}'"))

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (UniqueConstraint("tenant_id", "email"),)


class AuditEntry(TenantRow):
    """Who did what to which record. The app role may add and read, never change."""

    __tablename__ = "audit_log"

    actor: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    object_type: Mapped[str] = mapped_column(Text)
    object_id: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=sql_text("'{}'"))
    request_id: Mapped[str | None] = mapped_column(Text)

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (Index(None, "tenant_id", "object_type", "object_id", "created_at"),)
