"""People and programs that sign in. An account is a person, once for the whole installation; a member is that person in
a business. Accounts, sessions and tokens belong to no tenant: only the role ``secretary_identity`` reaches them.
"""

from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy import text as sql_text
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import Base, TenantRow, within_tenant
from storage.ids import new_id
from storage.registry import SubjectLink, personal, plain

_account = partial(personal, purpose="staff_access", retention="account", sealed=False, on_erasure="row")
_session = partial(personal, purpose="staff_access", retention="session", sealed=False, on_erasure="row")
_member = partial(
    personal,
    purpose="staff_access",
    retention="account",
    readers=("members:read",),
    sealed=False,
    on_erasure="row",
)
_secret = partial(
    personal, "CREDENTIAL", purpose="staff_access", retention="account", sealed=False, on_erasure="row"
)


class _Identity(Base):
    """A row of no tenant."""

    __abstract__ = True

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Account(_Identity):
    """A person who signs in. ``security_version`` rises when all their proofs must end (password, lost device)."""

    __tablename__ = "accounts"
    __subject__ = SubjectLink("account", "id")
    __table_args__ = (CheckConstraint("state in ('active', 'disabled')", name="state"),)

    email: Mapped[str] = mapped_column(Text, unique=True, info=_account("EMAIL"))
    name: Mapped[str] = mapped_column(Text, info=_account("NAME"))
    language: Mapped[str] = mapped_column(Text, server_default="en", info=plain())
    state: Mapped[str] = mapped_column(Text, server_default="active", info=plain())
    email_verified_at: Mapped[datetime | None]
    password_hash: Mapped[str | None] = mapped_column(Text, info=_secret())
    password_changed_at: Mapped[datetime | None]
    security_version: Mapped[int] = mapped_column(server_default="1")
    # Sealed under the platform's key: whoever reads the table cannot make codes.
    totp_secret: Mapped[bytes | None] = mapped_column(LargeBinary, info=_secret(sealed=True))
    totp_confirmed_at: Mapped[datetime | None]
    totp_last_step: Mapped[int | None]
    last_sign_in_at: Mapped[datetime | None]


class RecoveryCode(_Identity):
    """A code that stands in for a lost second factor, once."""

    __tablename__ = "recovery_codes"
    __subject__ = SubjectLink("account", "account_id")
    __table_args__ = (Index(None, "account_id"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    code_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True, info=_secret())
    used_at: Mapped[datetime | None]


class Passkey(_Identity):
    """A WebAuthn credential: its public key and the last signature counter seen."""

    __tablename__ = "passkeys"
    __subject__ = SubjectLink("account", "account_id")
    __table_args__ = (Index(None, "account_id"),)

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    credential_id: Mapped[bytes] = mapped_column(LargeBinary, unique=True, info=_secret())
    public_key: Mapped[bytes] = mapped_column(LargeBinary, info=_secret())
    sign_count: Mapped[int]
    name: Mapped[str] = mapped_column(Text, info=_account("DEVICE"))
    last_used_at: Mapped[datetime | None]


class SignInSession(_Identity):
    """A signed-in browser or program. ``token_hash`` is of the cookie (browser) or unused (program: refresh tokens).

    After the cookie was renewed the old one works for some seconds more (``previous_hash``): two requests of one page may
    have been on their way.
    """

    __tablename__ = "sessions"
    __subject__ = SubjectLink("account", "account_id")
    __table_args__ = (
        CheckConstraint("kind in ('browser', 'program')", name="kind"),
        Index(None, "account_id"),
        Index(None, "expires_at"),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(Text, info=plain())
    token_hash: Mapped[bytes | None] = mapped_column(LargeBinary, unique=True, info=_secret())
    previous_hash: Mapped[bytes | None] = mapped_column(LargeBinary, unique=True, info=_secret())
    renewed_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    rights_version: Mapped[int] = mapped_column(server_default="1")
    security_version: Mapped[int]
    amr: Mapped[list[str]] = mapped_column(ARRAY(Text), info=plain())
    authenticated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    expires_at: Mapped[datetime]
    device: Mapped[str] = mapped_column(Text, info=_session("DEVICE"))
    place: Mapped[str] = mapped_column(Text, info=_session("DEVICE"))
    impersonation_id: Mapped[UUID | None]
    revoked_at: Mapped[datetime | None]
    revoked_reason: Mapped[str | None] = mapped_column(Text, info=plain())


class RefreshToken(_Identity):
    """One token of a family (the session). Shown twice, the family ends."""

    __tablename__ = "refresh_tokens"
    __subject__ = SubjectLink("account", "session_id", via="sessions")
    __table_args__ = (UniqueConstraint("session_id", "generation"),)

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    generation: Mapped[int]
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True, info=_secret())
    used_at: Mapped[datetime | None]


class OneTimeToken(_Identity):
    """What a link in a mail or the step between two factors carries; good once, and not for long."""

    __tablename__ = "one_time_tokens"
    __subject__ = SubjectLink("account", "account_id")
    __table_args__ = (
        CheckConstraint(
            "purpose in ('verify_email', 'reset_password', 'invitation', 'second_factor', 'passkey', 'oidc', 'step_up')",
            name="purpose",
        ),
        Index(None, "account_id"),
        Index(None, "expires_at"),
    )

    account_id: Mapped[UUID | None] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    purpose: Mapped[str] = mapped_column(Text, info=plain())
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True, info=_secret())
    payload: Mapped[dict[str, Any]] = mapped_column(
        server_default=sql_text("'{}'"), info=_session("IDENTIFIER")
    )
    tries: Mapped[int] = mapped_column(server_default="0")
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class OutgoingMail(_Identity):
    """A mail to be sent: the outbox of mails that belong to no conversation. ``payload`` is sealed under the platform's key
    (recipient and values: a reset link is as good as a password) and emptied when it was sent.
    """

    __tablename__ = "mails"
    __subject__ = SubjectLink("account", "account_id")
    __table_args__ = (
        CheckConstraint("state in ('pending', 'sent', 'dead')", name="state"),
        Index("ix_mails_pending", "next_at", postgresql_where=sql_text("state = 'pending'")),
    )

    account_id: Mapped[UUID | None] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    template: Mapped[str] = mapped_column(Text, info=plain())
    language: Mapped[str] = mapped_column(Text, info=plain())
    payload: Mapped[bytes | None] = mapped_column(LargeBinary, info=_session("EMAIL", sealed=True))
    dedupe_key: Mapped[str] = mapped_column(Text, unique=True, info=plain())
    state: Mapped[str] = mapped_column(Text, server_default="pending", info=plain())
    tries: Mapped[int] = mapped_column(server_default="0")
    next_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    lease_token: Mapped[UUID | None]
    lease_until: Mapped[datetime | None]
    last_error: Mapped[str | None] = mapped_column(Text, info=plain())
    sent_at: Mapped[datetime | None]


class Impersonation(_Identity):
    """A platform operator's request to act inside a tenant: a reason, a second operator's yes, an end."""

    __tablename__ = "impersonations"
    __table_args__ = (
        CheckConstraint("state in ('requested', 'approved', 'refused', 'ended')", name="state"),
        CheckConstraint("decided_by is null or decided_by <> requested_by", name="second_person"),
        Index(None, "tenant_id"),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"))
    requested_by: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    reason: Mapped[str] = mapped_column(Text, info=plain())
    permissions: Mapped[list[str]] = mapped_column(ARRAY(Text), info=plain())
    minutes: Mapped[int]
    state: Mapped[str] = mapped_column(Text, server_default="requested", info=plain())
    decided_by: Mapped[UUID | None] = mapped_column(ForeignKey("accounts.id", ondelete="SET NULL"))
    decided_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]


class SsoIdentity(_Identity):
    """A person as an identity provider names them: issuer and subject, never the e-mail."""

    __tablename__ = "sso_identities"
    __subject__ = SubjectLink("account", "account_id")
    __table_args__ = (UniqueConstraint("connection_id", "subject"), Index(None, "account_id"))

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    connection_id: Mapped[UUID]
    subject: Mapped[str] = mapped_column(Text, info=_account("IDENTIFIER"))


class Role(TenantRow):
    """A named set of permissions. ``system`` roles are ours and the same in each tenant; others are the tenant's own."""

    __tablename__ = "roles"

    key: Mapped[str] = mapped_column(Text, info=plain())
    name: Mapped[str] = mapped_column(Text, info=plain())
    permissions: Mapped[list[str]] = mapped_column(ARRAY(Text), info=plain())
    system: Mapped[bool] = mapped_column(server_default=sql_text("false"))

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (UniqueConstraint("tenant_id", "key"),)


class Member(TenantRow):
    """A person in a business, with a role. E-mail and name are copies of the account's, so that the business's own
    list of people needs no look into the table of accounts.
    """

    __tablename__ = "members"
    __subject__ = SubjectLink("account", "account_id")

    account_id: Mapped[UUID]
    role_id: Mapped[UUID]
    email: Mapped[str] = mapped_column(Text, info=_member("EMAIL"))
    name: Mapped[str] = mapped_column(Text, info=_member("NAME"))
    state: Mapped[str] = mapped_column(Text, server_default="active", info=plain())
    rights_version: Mapped[int] = mapped_column(server_default="1")

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (
            within_tenant("role_id", "roles", ondelete="NO ACTION"),
            UniqueConstraint("tenant_id", "account_id"),
            CheckConstraint("state in ('active', 'disabled')", name="state"),
            Index(None, "account_id"),
        )


class ServiceAccount(TenantRow):
    """A program that acts for the business; it signs in with API keys."""

    __tablename__ = "service_accounts"

    name: Mapped[str] = mapped_column(Text, info=plain())
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text), info=plain())
    disabled_at: Mapped[datetime | None]

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (UniqueConstraint("tenant_id", "name"),)


class ApiKey(TenantRow):
    """A key of a service account: the visible prefix and a keyed hash of the whole."""

    __tablename__ = "api_keys"

    service_account_id: Mapped[UUID]
    name: Mapped[str] = mapped_column(Text, info=plain())
    prefix: Mapped[str] = mapped_column(Text, unique=True, info=plain())
    key_hash: Mapped[bytes] = mapped_column(LargeBinary, info=plain())
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text), info=plain())
    allowed_networks: Mapped[list[str]] = mapped_column(
        ARRAY(Text), server_default=sql_text("'{}'"), info=plain()
    )
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    replaces: Mapped[UUID | None]
    revoked_at: Mapped[datetime | None]

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (
            within_tenant("service_account_id", "service_accounts"),
            Index(None, "tenant_id", "service_account_id"),
        )


class SsoConnection(TenantRow):
    """A tenant's OIDC provider; the client secret is sealed under the tenant's key."""

    __tablename__ = "sso_connections"
    __subject__ = SubjectLink("tenant", "tenant_id")

    issuer: Mapped[str] = mapped_column(Text, info=plain())
    client_id: Mapped[str] = mapped_column(Text, info=plain())
    client_secret: Mapped[bytes] = mapped_column(
        LargeBinary,
        info=personal("CREDENTIAL", purpose="operation", retention="operation", on_erasure="keep"),
    )
    enabled: Mapped[bool] = mapped_column(server_default=sql_text("true"))

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (UniqueConstraint("tenant_id", "issuer"),)


class IdempotencyKey(TenantRow):
    """A request that a client may repeat. ``committed``: its effect is in the database, so it is never done again; ``done``:
    the answer is kept too. The body of the answer is sealed under the tenant's key.
    """

    __tablename__ = "idempotency_keys"
    __subject__ = SubjectLink("tenant", "tenant_id")

    actor: Mapped[str] = mapped_column(Text, info=plain())
    key_hash: Mapped[bytes] = mapped_column(LargeBinary, info=plain())
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary, info=plain())
    state: Mapped[str] = mapped_column(Text, server_default="begun", info=plain())
    locked_until: Mapped[datetime]
    status: Mapped[int | None]
    headers: Mapped[dict[str, Any]] = mapped_column(server_default=sql_text("'{}'"), info=plain())
    body: Mapped[bytes | None] = mapped_column(
        LargeBinary, info=personal("TEXT", purpose="operation", retention="session", on_erasure="row")
    )

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (
            UniqueConstraint("tenant_id", "actor", "key_hash"),
            CheckConstraint("state in ('begun', 'committed', 'done')", name="state"),
            Index(None, "tenant_id", "created_at"),
        )
