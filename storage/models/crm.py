"""Leads in their pipelines, and notes. Contacts are in conversation.py: a channel makes them too."""

from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Index, LargeBinary, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import TenantRow, within_tenant
from storage.registry import SubjectLink, personal, plain

_contact = partial(personal, purpose="relationship", retention="relationship", readers=("crm:read",))


class Pipeline(TenantRow):
    __tablename__ = "pipelines"

    name: Mapped[str] = mapped_column(Text, info=plain())

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (UniqueConstraint("tenant_id", "name"),)


class Stage(TenantRow):
    __tablename__ = "stages"

    pipeline_id: Mapped[UUID]
    name: Mapped[str] = mapped_column(Text, info=plain())
    position: Mapped[int]

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (
            within_tenant("pipeline_id", "pipelines"),
            UniqueConstraint("tenant_id", "pipeline_id", "position"),
        )


class Lead(TenantRow):
    """Somebody who may buy. ``thread_id`` says in which conversation it came up."""

    __tablename__ = "leads"
    __subject__ = SubjectLink("contact", "contact_id")

    contact_id: Mapped[UUID]
    stage_id: Mapped[UUID]
    thread_id: Mapped[UUID | None]
    title: Mapped[bytes | None] = mapped_column(LargeBinary, info=_contact("TEXT"))
    summary: Mapped[bytes | None] = mapped_column(LargeBinary, info=_contact("TEXT"))
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (
            within_tenant("contact_id", "contacts"),
            within_tenant("stage_id", "stages", ondelete="NO ACTION"),
            within_tenant("thread_id", "threads", ondelete="NO ACTION"),
            Index(None, "tenant_id", "created_at"),
        )


class Note(TenantRow):
    """A remark on a contact, by a person or an agent."""

    __tablename__ = "notes"
    __subject__ = SubjectLink("contact", "contact_id")

    contact_id: Mapped[UUID]
    author: Mapped[str] = mapped_column(Text, info=plain())
    text: Mapped[bytes] = mapped_column(LargeBinary, info=_contact("TEXT", on_erasure="row"))

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (within_tenant("contact_id", "contacts"), Index(None, "tenant_id", "contact_id", "created_at"))
