"""Consent, and what people asked to be done with their data."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, LargeBinary, Text
from sqlalchemy import text as sql_text
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import TenantRow, within_tenant
from storage.registry import SubjectLink, personal, plain


class Consent(TenantRow):
    """What a contact agreed to or took back; the newest row of a purpose counts, the older ones are the proof."""

    __tablename__ = "consents"
    __subject__ = SubjectLink("contact", "contact_id")

    contact_id: Mapped[UUID]
    purpose: Mapped[str] = mapped_column(Text, info=plain())
    basis: Mapped[str] = mapped_column(Text, info=plain())
    state: Mapped[str] = mapped_column(Text, info=plain())
    source: Mapped[str] = mapped_column(Text, info=plain())
    evidence: Mapped[bytes | None] = mapped_column(
        LargeBinary,
        info=personal(
            "CONSENT",
            purpose="accountability",
            retention="relationship",
            readers=("crm:read",),
            on_erasure="row",
        ),
    )

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (
            within_tenant("contact_id", "contacts"),
            CheckConstraint("state in ('granted', 'withdrawn')", name="state"),
            CheckConstraint(
                "basis in ('consent', 'contract', 'legal_obligation', 'vital_interests', 'public_task', 'legitimate_interests')",
                name="basis",
            ),
            Index(None, "tenant_id", "contact_id", "purpose", "created_at"),
        )


class PrivacyRequest(TenantRow):
    """An export or erasure of one person, from the request to the certificate: counts per store, never content."""

    __tablename__ = "privacy_requests"

    kind: Mapped[str] = mapped_column(Text, info=plain())
    contact_id: Mapped[UUID]
    requested_by: Mapped[str] = mapped_column(Text, info=plain())
    reason: Mapped[str] = mapped_column(Text, info=plain())
    state: Mapped[str] = mapped_column(Text, server_default="pending", info=plain())
    step: Mapped[str | None] = mapped_column(Text, info=plain())
    attempts: Mapped[int] = mapped_column(server_default="0")
    lease_until: Mapped[datetime | None]
    last_error: Mapped[str | None] = mapped_column(Text, info=plain())
    result: Mapped[dict[str, Any]] = mapped_column(server_default=sql_text("'{}'"), info=plain())
    file_id: Mapped[UUID | None]
    expires_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (
            CheckConstraint("kind in ('export', 'erasure')", name="kind"),
            CheckConstraint("state in ('pending', 'done', 'failed')", name="state"),
            Index(None, "tenant_id", "contact_id"),
            Index(
                "ix_privacy_requests_pending",
                "tenant_id",
                "created_at",
                postgresql_where=sql_text("state = 'pending'"),
            ),
        )
